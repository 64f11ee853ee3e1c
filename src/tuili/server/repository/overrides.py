"""Overrides of a load request: a configuration as JSON, files in place of the model's."""

from __future__ import annotations

import base64
import binascii
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from tuili.errors import InvalidArgument, NotPolled

_PREFIX: Final = "file:"


@dataclass(slots=True)
class Overrides:
    """What a load request brought along; `folder` replaces the model's own when files came."""

    config: str | None = None
    folder: Path | None = None
    scratch: Path | None = None

    def discard(self) -> None:
        """Remove the files that were written."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)


def parse(model: str, parameters: Mapping[str, object]) -> Overrides:
    """The overrides among the parameters of a load request; files are base64 text or bytes."""
    config = parameters.get("config")
    if config is not None and not isinstance(config, str):
        raise InvalidArgument(f"parameter 'config' must be JSON text, got {config!r}")
    files = {key: value for key, value in parameters.items() if key.startswith(_PREFIX)}
    unknown = [key for key in parameters if key != "config" and key not in files]
    if unknown:
        raise InvalidArgument(f"unrecognized load parameter {unknown[0]!r}")
    if files and config is None:
        raise NotPolled(
            f"failed to load '{model}', failed to poll from model repository: override model "
            "directory without providing a 'config' parameter is not allowed"
        )
    found = Overrides(config)
    if files:
        try:
            found.scratch = Path(tempfile.mkdtemp(prefix="tuili-override-"))
            found.folder = found.scratch / model
            found.folder.mkdir()
            for key, value in files.items():
                _write(found.folder, key.removeprefix(_PREFIX), value)
        except (OSError, InvalidArgument) as error:
            found.discard()
            raise NotPolled(
                f"failed to load '{model}', failed to poll from model repository: {error}"
            ) from error
        except Exception:
            found.discard()
            raise
    return found


def _write(folder: Path, name: str, value: object) -> None:
    relative = PurePosixPath(name.lstrip("/"))  # as in Triton "/1/model.py" is in the folder too
    if ".." in relative.parts or not relative.parts or "\0" in name:
        raise InvalidArgument(f"file override {name!r} must stay inside the model's folder")
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidArgument(f"file override {name!r} is not base64") from None
    if not isinstance(value, bytes):
        raise InvalidArgument(f"file override {name!r} must be bytes, got {type(value).__name__}")
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value)
