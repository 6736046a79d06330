"""A schema registry that names schemas by GUIDs too, as Confluent's does and the tests' does not: hands everything on to
that one, adds a GUID to its answers, and answers for it.

    guids.py UPSTREAM PORT
"""

from __future__ import annotations

import http.server
import json
import sys
import urllib.error
import urllib.request
import uuid


class Handler(http.server.BaseHTTPRequestHandler):
    """One request; `ids` are those of the GUIDs given away, for ever as in a registry."""

    protocol_version = "HTTP/1.1"
    ids: dict[str, int] = {}

    def do_GET(self):
        path = self.path
        if path.startswith("/schemas/guids/"):
            known = self.ids.get(path.split("?")[0].rsplit("/", 1)[1])
            if known is None:
                self._answer(404, json.dumps({"error_code": 40403, "message": "Schema not found"}).encode())
                return
            path = f"/schemas/ids/{known}"
        self._hand_on(path, None)

    def do_POST(self):
        self._hand_on(self.path, self.rfile.read(int(self.headers["Content-Length"])))

    def _hand_on(self, path, body):
        request = urllib.request.Request(sys.argv[1] + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        answer = json.loads(text) if text else {}
        if isinstance(answer, dict) and "id" in answer:
            guid = str(uuid.uuid5(uuid.NAMESPACE_URL, str(answer["id"])))
            self.ids[guid] = answer["id"]
            text = json.dumps({**answer, "guid": guid}).encode()
        self._answer(status, text)

    def _answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        """Nobody reads it."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
