"""Turns an ONNX file into an artifact in a child process, once per content.

The server never imports the compiler: compiling is `python -m tuili compile`, so a crash or a leak
of the compiler costs one model. Results are kept by content hash; a file lock makes two servers
that want the same model compile it once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tuili.artifact.producer import producer_digest
from tuili.errors import InvalidModel, ToolchainError, in_words
from tuili.precision import EXACT
from tuili.server.tied import tied

_CHUNK: Final = 1 << 20
_SHOWN: Final = 2000
_SCRATCH: Final = "compiling-"
_ELSEWHERE: Final = "name a folder that can be written with --cache or TUILI_CACHE"
# A request carries tensors only: classifiers that end in a dictionary per row give a tensor.
_COMPILE: Final = ("-m", "tuili", "compile", "-q")


def cache_folder(wanted: Path | None = None) -> Path:
    """Where compiled models are kept: `wanted`, $TUILI_CACHE, or the user's cache folder."""
    if wanted is not None:
        return wanted
    named = os.environ.get("TUILI_CACHE")
    if named:
        return Path(named) / "served"
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "tuili" / "served"
    except RuntimeError:  # a user without an entry among those of the system
        raise ToolchainError(
            f"no place for compiled models: user {os.getuid()} has no home folder; {_ELSEWHERE}"
        ) from None


def compiled(source: Path, cache: Path, apart: Sequence[str] = (), precision: str = EXACT) -> Path:
    """The artifact of `source`, from the cache or freshly compiled.

    The open dims of the inputs `apart` differ from others, whatever the file calls them.
    """
    options = [f"--shape={name}=*" for name in sorted(apart)]
    if precision != EXACT:
        options.append(f"--precision={precision}")
    folder = cache / content_key(source, options)
    artifact = folder / "model.tuili"
    try:
        if artifact.exists():
            return artifact
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            # What a server left that ended while it compiled; nobody else is at it.
            for left in folder.glob(f"{_SCRATCH}*"):
                shutil.rmtree(left, ignore_errors=True)
            if not artifact.exists():
                _compile(source, artifact, options)
    except OSError as error:
        raise ToolchainError(
            f"compiled models cannot be kept in {cache}: {in_words(error)}; {_ELSEWHERE}"
        ) from error
    return artifact


def content_key(source: Path, options: Sequence[str] = ()) -> str:
    """A hash of the model, the files beside it (external weights), the options and tuili itself."""
    digest = hashlib.sha256(producer_digest().encode())
    digest.update(repr(options).encode() if options else b"")
    files = sorted(each for each in source.parent.rglob("*") if each.is_file())
    for path in files:
        digest.update(f"{path.relative_to(source.parent)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()[:32]


def _compile(source: Path, artifact: Path, options: Sequence[str]) -> None:
    scratch = Path(tempfile.mkdtemp(dir=artifact.parent, prefix=_SCRATCH))
    try:
        made = scratch / artifact.name
        command = [sys.executable, *_COMPILE, str(source), "-o", str(made), "--plain-maps"]
        done = subprocess.run(
            tied([*command, *options]),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise _failure(source, done)
        if not made.exists():
            raise ToolchainError(f"compiling {source} reported success but wrote no {made.name}")
        made.replace(artifact)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _failure(source: Path, done: subprocess.CompletedProcess[str]) -> InvalidModel:
    text = done.stderr.strip() or done.stdout.strip()
    if done.returncode < 0:
        text = f"the compiler died of signal {-done.returncode}. {text}"
    return InvalidModel(f"{source} does not compile: {text[-_SHOWN:]}")


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold an exclusive file lock; it goes with the process, whatever happens to it."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
