"""An agent: the official Python client of MCP, over HTTP or over the pipes of a server that it starts itself.

Takes what to ask as JSON, `{"calls": [[TOOL, ARGUMENTS], …], "resources": [URI, …]}`, asks it in both eras of the protocol
and prints by protocol version what it was given. Fails where an answer's text is not its structured content, or where
arguments or an answer do not fit their schema. A schema that a tool gives for its answers is checked by the client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json

import httpx2
import jsonschema
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

# The first begins with `initialize`, the second with `server/discover`.
MODES = ("legacy", "auto")

# What every answer has around its data, and every refusal.
ANSWER = {
    "type": "object",
    "required": ["as_of", "returned", "truncated", "warnings", "notice"],
    "properties": {
        "as_of": {"type": "object"},
        "returned": {"type": "integer", "minimum": 0},
        "truncated": {"type": "boolean"},
        "next_cursor": {"type": "string"},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "notice": {"type": "string", "minLength": 1},
    },
}
REFUSAL = {
    "type": "object",
    "required": ["code", "message", "retryable"],
    "properties": {
        "code": {"type": "string", "pattern": "^[a-z_]+$"},
        "message": {"type": "string", "minLength": 1},
        "retryable": {"type": "boolean"},
    },
}


@contextlib.asynccontextmanager
async def server(options):
    """What the client connects to."""
    if options.command:
        program, *rest = options.command
        yield StdioServerParameters(command=program, args=rest)
    else:
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {options.token}"}) as http:
            yield streamable_http_client(options.url, http_client=http)


async def talk(client, questions):
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    for tool in tools.values():
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
    answers = []
    for name, arguments in questions["calls"]:
        jsonschema.validate(arguments, tools[name].input_schema)
        result = await client.call_tool(name, arguments)
        (content,) = result.content
        assert json.loads(content.text) == result.structured_content, f"{name}: {content.text}"
        jsonschema.validate(result.structured_content, REFUSAL if result.is_error else ANSWER)
        answers.append(result.structured_content)
    return {
        "server": client.server_info.name,
        "tools": list(tools),
        "answers": answers,
        "listed": [str(resource.uri) for resource in (await client.list_resources()).resources],
        "resources": [await read(client, uri) for uri in questions["resources"]],
    }


async def read(client, uri):
    """The text of a resource, or the error instead."""
    try:
        (content,) = (await client.read_resource(uri)).contents
    except MCPError as error:
        return {"code": error.error.code, "data": error.error.data}
    assert str(content.uri) == uri
    return {"type": content.mime_type, "text": content.text}


async def ask(options):
    seen = {}
    for mode in MODES:
        async with server(options) as target, Client(target, mode=mode) as client:
            seen[client.protocol_version] = await talk(client, options.questions)
    print(json.dumps(seen))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", type=json.loads)
    parser.add_argument("--url")
    parser.add_argument("--token")
    parser.add_argument("--command", nargs=argparse.REMAINDER, help="a server that speaks on its standard input and output")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(ask(arguments()))
