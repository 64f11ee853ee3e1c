"""The options of `tuili bench`, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer


def _engine(text: str, *names: str, **rules: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Engines side by side", **rules)


def _load(text: str, *names: str, **rules: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Load on a server", **rules)


Models: TypeAlias = Annotated[
    list[str], typer.Argument(help="ONNX files; with --server, one model's name.")
]
JsonFile: TypeAlias = Annotated[
    Path | None, typer.Option("--json", help="Write everything measured to this file.")
]
CsvFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="Write a line for each engine, or each level of load.")
]
PlotFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Draw the times of engines, or latency over rate; .png or .svg."),
]
Threads: TypeAlias = Annotated[int, _engine("Threads of every engine.", min=1)]
Rounds: TypeAlias = Annotated[int, _engine("Interleaved rounds.", min=1)]
Engines: TypeAlias = Annotated[
    list[str] | None, _engine("An engine; all installed ones by default.")
]
Dynamic: TypeAlias = Annotated[
    bool, _engine("Compile with open dims, as in the file.", "--dynamic")
]
Scenarios: TypeAlias = Annotated[
    Literal["single-stream", "offline"],
    _engine(
        "MLPerf's: one call after the other on all threads, or as many at once as there are "
        "threads, each on one."
    ),
]
WithCosts: TypeAlias = Annotated[
    bool,
    _engine("Also each engine alone in a process: first run, CPU time, memory.", "--costs"),
]

Server: TypeAlias = Annotated[str, _load("http://HOST:PORT, grpc://HOST:PORT, https: or grpcs:.")]
Concurrency: TypeAlias = Annotated[str, _load("Closed loop: requests under way, as 8 or 1,8,32.")]
Rate: TypeAlias = Annotated[str, _load("Open loop instead: requests due per second, 500,1000.")]
Distribution: TypeAlias = Annotated[Literal["poisson", "constant"], _load("Gaps of the open loop.")]
SloMs: TypeAlias = Annotated[
    float | None, _load("Find the largest rate whose --percentile stays below.")
]
Percentile: TypeAlias = Annotated[float, _load("50, 90, 95, 99 or 99.9.")]
SharedMemory: TypeAlias = Annotated[
    bool,
    _load("Tensors in system shared memory (server: --allow-client-shm).", "--shared-memory"),
]
JsonTensors: TypeAlias = Annotated[bool, _load("HTTP: tensors as JSON text.", "--json-tensors")]
Ids: TypeAlias = Annotated[bool, _load("Each request has an id of its own.", "--ids")]
Connections: TypeAlias = Annotated[
    int, _load("gRPC: connections that share the concurrency; 0: one each.", min=0)
]
ModelVersion: TypeAlias = Annotated[str, _load("Of the model; the newest by default.")]
Inputs: TypeAlias = Annotated[Path | None, _load("Inputs by name, an .npz file.")]
Expect: TypeAlias = Annotated[
    Path | None, _load("Outputs that answers must have, .npz; by default the first answer's.")
]
Variety: TypeAlias = Annotated[int, _load("Different random inputs.", min=1)]
WindowS: TypeAlias = Annotated[float, _load("Seconds of a window.", min=0.05)]
Windows: TypeAlias = Annotated[int, _load("At most; fewer once three agree by 10 %.", min=1)]
WarmUp: TypeAlias = Annotated[float, _load("Seconds before the first window.", min=0)]
Seed: TypeAlias = Annotated[int, _load("Of inputs and arrivals.")]
ServerPid: TypeAlias = Annotated[int, _load("The server's process, to tell its CPU time.")]
