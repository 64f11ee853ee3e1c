"""What can execute a model behind the server: one module per engine, one small protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

from tuili.errors import Unsupported, nearest
from tuili.tensors import Array, TensorSpec

Specs = Sequence[TensorSpec]


class Executable(Protocol):
    """A loaded model. `run` is called by one thread at a time; outputs are the caller's to keep.

    A model that may answer any number of times also has `stream(inputs)`, an iterator of answers.
    One whose runs may take several `threads`, and may be under way at once, has
    `run_on(inputs, threads)`, which takes so many at most, the caller's included.
    A back end that keeps resources beyond the object's life also has `close()`; one whose runs keep
    memory in this process, `held_bytes`; one that can tell, `why_not_ready() -> str`, or None: ""
    when it is ready.
    """

    @property
    def inputs(self) -> Specs: ...
    @property
    def outputs(self) -> Specs: ...
    def run(self, inputs: dict[str, Array], /) -> Mapping[str, Array]: ...


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What a back end may want to know beside the file.

    `declared_inputs` and `declared_outputs` are the tensors of the model's configuration with the
    batch dim, for back ends whose models do not describe themselves. `config_json` is all of the
    configuration with its defaults, as the model's own code may want to see it.
    """

    threads: int = 1
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    declared_inputs: tuple[TensorSpec, ...] = ()
    declared_outputs: tuple[TensorSpec, ...] = ()
    max_batch_size: int = 0
    decoupled: bool = False
    instance: int = 0
    config_json: str = ""


Load = Callable[[Path, BackendOptions], Executable]

BACKENDS: Final[dict[str, str]] = {
    "tuili": "tuili.backends.native:load",
    "mixed": "tuili.backends.mixed:load",
    "onnxruntime": "tuili.backends.onnxruntime:load",
    "python": "tuili.backends.python:load",
    "identity": "tuili.backends.identity:load",
    "function": "tuili.backends.function:load",
}


def stream(model: Executable, inputs: dict[str, Array]) -> Iterator[Mapping[str, Array]]:
    """The answers of a model that answers any number of times; others answer once."""
    several = getattr(model, "stream", None)
    if several is None:
        yield model.run(inputs)
    else:
        yield from several(inputs)


def load(backend: str, path: Path, options: BackendOptions) -> Executable:
    """The model at `path`, loaded by the back end called `backend`."""
    if backend not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise Unsupported(
            f"unknown backend {backend!r}.{nearest(backend, BACKENDS)} Known: {known}"
        )
    module, _, name = BACKENDS[backend].partition(":")
    try:
        loader = cast(Load, getattr(import_module(module), name))
    except ImportError as error:
        raise Unsupported(f"backend {backend!r} cannot be imported: {error}") from error
    return loader(path, options)
