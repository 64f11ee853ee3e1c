"""`tuili inspect`: what an artifact holds and what it needs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuili.artifact import Artifact, is_artifact, open_artifact
from tuili.codegen.decisions import DECISIONS_FILE, read_decisions
from tuili.errors import NotFound

SOURCE_FILE = "model.c"
MAX_SOURCE_BYTES = 256 << 20
_KERNEL = re.compile(r"^\w+ void (\w+)\(int64_t begin, ", re.MULTILINE)
_CALL = re.compile(r"\b(\w+)\(span\.begin, ")


def inspect(
    model: Annotated[Path, typer.Argument(help="An artifact, or an ONNX file.")],
    kernels: Annotated[bool, typer.Option(help="List the kernels.")] = True,
) -> None:
    """Print the signature, sizes, memory, host steps and kernels of a compiled model."""
    artifact = _artifact(model)
    console = Console(soft_wrap=True, highlight=False)
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")  # whole: a path is there to be copied
    for name, value in _facts(artifact):
        grid.add_row(name, Text(value))  # as it is: [n, 3] is no markup
    console.print(grid)
    steps = artifact.manifest.host_steps
    console.print(f"\nhost steps: {len(steps) or 'none, all nodes are native'}")
    for step in steps:
        console.print(f"  {step}", markup=False)
    _print_decisions(console, artifact)
    if kernels:
        _print_kernels(console, artifact)


def _artifact(path: Path) -> Artifact:
    if not path.exists():
        raise NotFound(f"no model file {str(path)!r}")
    if is_artifact(path):
        return open_artifact(path)
    from tuili.compiler import Options, compile_cached

    return compile_cached(path, Options())


def _facts(artifact: Artifact) -> list[tuple[str, str]]:
    manifest = artifact.manifest
    facts = [("model", artifact.name), ("by", manifest.producer), ("path", str(artifact.path))]
    facts += [("input", str(spec)) for spec in artifact.inputs]
    facts += [("output", str(spec)) for spec in artifact.outputs]
    for entry in manifest.code:
        needs = ", ".join(entry.requires) or "nothing special"
        size = artifact.member(entry.file).size
        facts.append(("code", f"{entry.target}: {_size(size)}, needs {needs}"))
    facts.append(("weights", _size(manifest.weights.bytes)))
    facts.append(("arena", _arena(manifest.arena.bytes, manifest.arena.lower_bound)))
    facts += [(name, value) for name, value in sorted(manifest.options.items())]
    return facts


def _arena(size: int | None, lower_bound: int | None) -> str:
    if size is None:
        return "planned at run time: it depends on open dims"
    if not lower_bound:
        return _size(size)
    return f"{_size(size)}; lower bound {_size(lower_bound)} ({size / lower_bound:.2f}x)"


def _size(num_bytes: int) -> str:
    if num_bytes < 1 << 10:
        return f"{num_bytes} bytes"
    if num_bytes < 1 << 20:
        return f"{num_bytes / (1 << 10):.1f} KiB"
    return f"{num_bytes / (1 << 20):.1f} MiB"


def _print_decisions(console: Console, artifact: Artifact) -> None:
    """What was decided by measured times, and against what."""
    file = artifact.storage.find(DECISIONS_FILE)
    if file is None:
        return
    console.print("\nmeasured choices:")
    for told in read_decisions(file.read(MAX_SOURCE_BYTES)):
        console.print(f"  {told}", markup=False)


def _print_kernels(console: Console, artifact: Artifact) -> None:
    source = artifact.storage.find(SOURCE_FILE)
    if source is None:
        console.print(f"kernels: not listed, the artifact has no {SOURCE_FILE}")
        return
    text = source.read(MAX_SOURCE_BYTES).decode()
    calls = Counter(_CALL.findall(text))
    names = list(dict.fromkeys(_KERNEL.findall(text)))
    console.print(f"\nkernels: {len(names)}")
    for name in names:
        times = f" x{calls[name]}" if calls[name] > 1 else ""
        console.print(f"  {name}{times}", markup=False)
