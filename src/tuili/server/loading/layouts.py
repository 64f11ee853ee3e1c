"""The batch layout of a model, from its configuration: ragged inputs, and padding to buckets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tuili.errors import InvalidModel
from tuili.server.protocol.datatypes import DTYPE, NUMPY
from tuili.server.repository.config import DATATYPES, ModelConfig
from tuili.server.scheduling.layout import BatchInput, Layout, Padding
from tuili.tensors import Sym, TensorSpec, symbols_of

Json = dict[str, Any]
# Entries of `parameters` in a configuration.
ROW_BUCKETS: Final = "batch_buckets"
DIM_BUCKETS: Final = "length_buckets"
PAD_VALUE: Final = "pad_value."


def layout_of(
    config: ModelConfig, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Layout | None:
    """The layout that a configuration asks for; None when requests of one shape are joined."""
    ragged = frozenset(tensor.name for tensor in config.inputs if tensor.ragged)
    layout = Layout(
        ragged=ragged,
        batch_inputs=_batch_inputs(config),
        scattered=_scattered(config, ragged, inputs, outputs),
        padding=_padding(config, inputs, outputs),
        row_buckets=_sizes(config, ROW_BUCKETS),
    )
    for source in (*layout.scattered.values(), *(each.source for each in layout.batch_inputs)):
        _require_source(config, source)
    if ragged and layout.row_buckets:
        raise InvalidModel(
            f"model '{config.name}': parameter {ROW_BUCKETS!r} does not go with allow_ragged_batch "
            f"of input {min(ragged)!r}: there are no elements to fill up with"
        )
    return None if layout == Layout() else layout


def _require_source(config: ModelConfig, source: str) -> None:
    """Every request must have the input that others are made from."""
    optional = {tensor.name: tensor.optional for tensor in config.inputs}
    problem = "is none of its inputs"
    if source in optional:
        if not optional[source]:
            return
        problem = "is optional, and nothing can be made of an input that a request leaves out"
    raise InvalidModel(
        f"model '{config.name}': source_input {source!r} of batch_input or batch_output {problem}"
    )


def _scattered(
    config: ModelConfig,
    ragged: frozenset[str],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> dict[str, str]:
    found = {
        target: next(iter(entry.get("source_input", ())), "")
        for entry in config.raw.get("batch_output", ())
        for target in entry.get("target_name", ())
    }
    if config.backend == "identity":
        # Its outputs are its inputs, ragged as they are.
        pairs = zip(inputs, outputs, strict=True)
        found |= {two.name: one.name for one, two in pairs if one.name in ragged}
    return found


def apart(config: ModelConfig) -> tuple[str, ...]:
    """The inputs that are as long as their requests make them.

    What tells of a ragged input is not as long as it, though files may name their dims alike, which
    other engines do not mind.
    """
    entries = config.raw.get("batch_input", ())
    made = [name for entry in entries for name in entry.get("target_name", ())]
    return (*(tensor.name for tensor in config.inputs if tensor.ragged), *made)


def batch_input_specs(config: ModelConfig) -> tuple[TensorSpec, ...]:
    """The inputs that the server makes, for models that do not describe themselves."""
    return tuple(
        TensorSpec(name, DTYPE[DATATYPES[entry.get("data_type", "TYPE_FP32")]], (Sym("requests"),))
        for entry in config.raw.get("batch_input", ())
        for name in entry.get("target_name", ())
    )


def _batch_inputs(config: ModelConfig) -> tuple[BatchInput, ...]:
    found: list[BatchInput] = []
    for entry in config.raw.get("batch_input", ()):
        sources = entry.get("source_input", ())
        if len(sources) != 1:
            raise InvalidModel(
                f"model '{config.name}': a batch_input needs exactly one source_input, got "
                f"{list(sources)}"
            )
        kind = entry.get("kind", "BATCH_ELEMENT_COUNT")
        dtype = NUMPY[DATATYPES[entry.get("data_type", "TYPE_FP32")]]
        found += [
            BatchInput(name, kind, sources[0], dtype) for name in entry.get("target_name", ())
        ]
    return tuple(found)


def _padding(
    config: ModelConfig, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Padding | None:
    buckets = _sizes(config, DIM_BUCKETS)
    if not buckets:
        return None
    symbols = {name for spec in inputs for dim in spec.shape[1:] for name in symbols_of(dim)}
    if len(symbols) != 1:
        raise InvalidModel(
            f"model '{config.name}': parameter {DIM_BUCKETS!r} needs exactly one open dim beside "
            f"the batch, but its inputs have {sorted(symbols) or 'none'}"
        )
    (symbol,) = symbols
    return Padding(
        buckets,
        _axes(inputs, symbol),
        _axes(outputs, symbol),
        {
            key.removeprefix(PAD_VALUE): float(config.parameters[key])
            for key in config.parameters
            if key.startswith(PAD_VALUE)
        },
    )


def _axes(specs: Sequence[TensorSpec], symbol: str) -> dict[str, int]:
    return {
        spec.name: at
        for spec in specs
        for at, dim in enumerate(spec.shape)
        if at and dim == Sym(symbol)
    }


def _sizes(config: ModelConfig, key: str) -> tuple[int, ...]:
    text = config.parameters.get(key, "")
    return tuple(sorted(int(part) for part in text.split(",") if part.strip()))
