"""Environments: a Python model's own packages, by Triton's parameter EXECUTION_ENV_PATH.

The path is of a folder, or of an archive of one (conda-pack, venv-pack, or tar of a venv); archives
are unpacked once, by content, and kept if the Python in them can be used.
`$$TRITON_MODEL_DIRECTORY` in the path is the folder of the model.
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Final

from tuili.errors import InvalidModel
from tuili.server.repository.compiling import locked
from tuili.server.repository.config import ModelConfig
from tuili.server.tied import tied

PARAMETER: Final = "EXECUTION_ENV_PATH"
_MODEL: Final = "$$TRITON_MODEL_DIRECTORY"
_BLOCK: Final = 1 << 20
_WHOLE: Final = ".tuili-whole"
_RUN_S: Final = 120.0
# What the readers of compressed archives raise beside OSError.
_DAMAGED: Final = (EOFError, zlib.error, lzma.LZMAError)
_OURS: Final = f"{sys.version_info.major}.{sys.version_info.minor}"


def environment_of(config: ModelConfig, folder: Path, cache: Path) -> Path | None:
    """The folder of the environment that a model asks for, ready to run; None without one."""
    text = config.parameters.get(PARAMETER, "")
    if not text:
        return None
    path = Path(text.replace(_MODEL, str(folder)))
    if not path.exists():
        raise InvalidModel(f"model '{config.name}': {PARAMETER} {str(path)!r} does not exist")
    if not path.is_dir():
        return _unpacked(config.name, path, cache / "environments").absolute()
    _require_python(config.name, path)
    return path.absolute()


def python_of(environment: Path) -> Path:
    """Its interpreter."""
    return environment / "bin" / "python"


def _unpacked(model: str, archive: Path, cache: Path) -> Path:
    target = cache / _digest(archive)
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{target.name}.lock"):
        if not (target / _WHOLE).exists():
            # In its place at once: conda-unpack writes the path where it runs into the scripts.
            _unpack(model, archive, target)
        root = _root(model, archive, target)
    _require_python(model, root)
    return root


def _unpack(model: str, archive: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)  # what a server that was killed has left
    try:
        with tarfile.open(archive) as packed:
            # Environments link to absolute paths, which the filter for data refuses.
            packed.extractall(target, filter="tar")
        root = _root(model, archive, target)
        unpack = root / "bin" / "conda-unpack"
        if unpack.exists():
            _run(model, [str(python_of(root)), str(unpack)])
        _require_python(model, root)
        (target / _WHOLE).touch()
    except (OSError, tarfile.TarError, *_DAMAGED) as error:
        raise InvalidModel(f"model '{model}': {PARAMETER} {str(archive)!r}: {error}") from error
    finally:
        if not (target / _WHOLE).exists():
            shutil.rmtree(target, ignore_errors=True)


def _root(model: str, archive: Path, folder: Path) -> Path:
    """Where `bin/python` is: at the top, or in the only folder there."""
    inside = [each for each in folder.iterdir() if each.is_dir()]
    for each in (folder, *(inside if len(inside) == 1 else ())):
        # The link of a virtual environment may well point nowhere here; that is told below.
        if (each / "bin" / "python").is_symlink() or (each / "bin" / "python").exists():
            return each
    raise InvalidModel(
        f"model '{model}': {PARAMETER} {str(archive)!r} has no bin/python; expected an archive "
        "made by conda-pack or venv-pack, or a tar of a virtual environment"
    )


def _digest(archive: Path) -> str:
    found = hashlib.sha256()
    with archive.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()[:32]


def _require_python(model: str, environment: Path) -> None:
    """Its Python must be ours: the host brings compiled modules along."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = _run(model, [str(python_of(environment)), "-c", ask]).strip()
    if version != _OURS:
        raise InvalidModel(
            f"model '{model}': its environment {str(environment)!r} has Python {version}, the "
            f"server {_OURS}; make the environment with Python {_OURS}"
        )


def _run(model: str, command: list[str]) -> str:
    try:
        done = subprocess.run(
            tied(command), capture_output=True, text=True, errors="replace", check=False,
            timeout=_RUN_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidModel(f"model '{model}': its environment does not run: {error}") from error
    if done.returncode:
        raise InvalidModel(
            f"model '{model}': its environment does not run: {' '.join(command)}: "
            f"{done.stderr.strip()[-500:]}"
        )
    return done.stdout
