"""What a table's metadata reaches, by PyIceberg: a JSON list of paths, without scheme.

The metadata file and its log, the manifest list of each retained snapshot, their manifests, and the live files of those.
Takes the verifier's arguments.
"""

from __future__ import annotations

import json

import lake
import verify


def reach(table):
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    seen = set()
    for snapshot in table.metadata.snapshots:
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in seen:
                seen.add(manifest.manifest_path)
                yield manifest.manifest_path
                for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                    yield entry.data_file.file_path


def main():
    options = verify.arguments()
    tables = lake.Lake(options.catalog, options.s3)
    table = tables._pyiceberg(tables.find(options.table))
    print(json.dumps(sorted({lake._path(path) for path in reach(table)})))


if __name__ == "__main__":
    main()
