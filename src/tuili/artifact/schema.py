"""The JSON Schema of the manifest, for other tools. `python -m tuili.artifact.schema` prints it."""

from __future__ import annotations

import json
import sys

import msgspec

from tuili.artifact.manifest import Manifest


def manifest_schema() -> str:
    """The schema as indented JSON."""
    schema = msgspec.json.schema(Manifest)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(manifest_schema())
