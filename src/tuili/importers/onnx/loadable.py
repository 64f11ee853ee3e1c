"""What can be loaded: a file, the bytes of a model, a ModelProto, an artifact; and its digest."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from tuili.artifact import Artifact, is_artifact
from tuili.errors import InvalidArgument, NotFound
from tuili.importers.onnx.external import external_files

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # Path makes one slash of two


def loadable(model: object) -> Path | bytes:
    """A path that exists, or the bytes of a model; raises NotFound and InvalidArgument."""
    if isinstance(model, Artifact):
        return model.path
    if isinstance(model, bytes | bytearray | memoryview):
        return bytes(model)
    if isinstance(model, str | os.PathLike):
        return _existing(os.fspath(model))
    if hasattr(model, "SerializeToString"):
        return _serialised(model)
    raise InvalidArgument(
        f"the model is a {type(model).__name__}, expected the path of a file, the bytes of an ONNX "
        "model, an onnx.ModelProto or an artifact"
    )


def _existing(name: Any) -> Path:
    path = Path(name)
    if path.exists():
        if path.suffix != ".onnx" and path.is_file() and _is_part(path):
            raise InvalidArgument(
                f"{name!r} is a part of the artifact {str(path.parent)!r}: name that"
            )
        return path
    why = "; it is a URL: fetch the file first" if _URL.match(name) else ""
    if name.startswith("~"):
        why = "; a `~` is only a home folder to a shell: use Path(...).expanduser()"
    raise NotFound(f"no model file {name!r}{why}")


def _is_part(path: Path) -> bool:
    return is_artifact(path.parent) and not is_artifact(path)


def _serialised(model: Any) -> bytes:
    try:
        return model.SerializeToString()
    except Exception as error:  # protobuf has errors of its own, as for more than 2 GiB
        raise InvalidArgument(
            f"the {type(model).__name__} cannot be serialised: {error}; "
            "save it with its weights in a file of their own, and load that"
        ) from error


def model_digest(model: Path | bytes) -> str:
    """A hash of a model, and of when its external data was written."""
    if isinstance(model, bytes):
        return hashlib.sha256(model).hexdigest()
    data = model.read_bytes()
    digest = hashlib.sha256(data)
    for file in external_files(data, model.parent):
        if file.exists():
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()
