"""Completes a configuration from the model itself: its signature and batch policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuili.errors import InvalidModel, nearest
from tuili.server.loading.full_form import Json, full_form
from tuili.server.protocol.signature import Signature, TensorRule, dims_text
from tuili.server.repository.config import ModelConfig, TensorConfig, server_tensors
from tuili.server.scheduling.policy import BatchPolicy, LevelPolicy
from tuili.tensors import Dim, DType, Sym, TensorSpec, symbols_of

# The batch limit of a model whose configuration says nothing: large enough to merge what waits,
# small enough that one batch does not keep the next one waiting long.
AUTO_MAX_BATCH: Final = 128


@dataclass(frozen=True, slots=True)
class Completed:
    """Everything the server derives from configuration and model together."""

    signature: Signature
    policy: BatchPolicy
    json: Json


def complete(
    config: ModelConfig,
    backend: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    folder: Path,
) -> Completed:
    """The model's signature and policy; InvalidModel where configuration and model disagree."""
    if config.max_batch_size is None:
        limit = AUTO_MAX_BATCH if batchable(inputs, outputs) else 0
    else:
        limit = config.max_batch_size
    # Control inputs, states and batch inputs are the server's affair, not the client's.
    hidden = server_tensors(config)
    _refuse_objects(config, inputs, outputs)
    signature = Signature(
        config.name,
        _rules("input", config, config.inputs, _visible(inputs, hidden), limit, folder),
        _rules("output", config, config.outputs, _visible(outputs, hidden), limit, folder),
        limit,
    )
    policy = config.policy or BatchPolicy(
        max_rows=limit,
        merge=limit > 0,
        pack=True,
        end_to_end=True,
        level=LevelPolicy(allow_timeout_override=True),
    )
    return Completed(signature, policy, full_form(config, backend, signature, policy))


def _refuse_objects(
    config: ModelConfig, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> None:
    for role, specs in (("input", inputs), ("output", outputs)):
        for spec in specs:
            if spec.type:
                raise InvalidModel(
                    f"model '{config.name}': {role} {spec.name!r} is a {spec.type}, and requests "
                    "carry tensors only; let the model take and give tensors "
                    "(SplitToSequence, ConcatFromSequence)"
                )


def _visible(specs: Sequence[TensorSpec], hidden: frozenset[str]) -> list[TensorSpec]:
    return [spec for spec in specs if spec.name not in hidden]


def complete_ensemble(config: ModelConfig) -> Completed:
    """The signature of an ensemble: what its configuration declares."""
    limit = config.max_batch_size or 0
    rules = [
        [
            TensorRule(t.name, _told(config, t), t.dims, t.optional, reshape=t.reshape)
            for t in tensors
        ]
        for tensors in (config.inputs, config.outputs)
    ]
    signature = Signature(config.name, rules[0], rules[1], limit)
    policy = BatchPolicy(max_rows=limit)
    return Completed(signature, policy, full_form(config, "ensemble", signature, policy))


def batchable(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """Whether all tensors lead with one and the same symbol, and it rules no other dim.

    Then, and as far as shapes can tell, rows are independent of each other.
    """
    leads = {spec.shape[0] if spec.shape else 0 for spec in (*inputs, *outputs)}
    lead = next(iter(leads), 0)
    if len(leads) != 1 or isinstance(lead, int) or lead.symbol is None:
        return False
    others = {
        name for spec in (*inputs, *outputs) for dim in spec.shape[1:] for name in symbols_of(dim)
    }
    return lead.symbol not in others


def _rules(
    role: str,
    config: ModelConfig,
    declared: Sequence[TensorConfig],
    specs: Sequence[TensorSpec],
    limit: int,
    folder: Path,
) -> list[TensorRule]:
    if not declared:
        return [_derived(config, spec, limit) for spec in specs]
    known = {spec.name: spec for spec in specs}
    entries: list[Json] = config.raw.get("batch_output", [])
    scattered = {name for entry in entries for name in entry.get("target_name", ())}
    rules: list[TensorRule] = []
    for tensor in declared:
        spec = _spec_of(role, config, tensor, known)
        if not tensor.ragged and tensor.name not in scattered:
            # What the model sees of a ragged input is all requests' elements in one dim; so is an
            # output that is divided as an input was.
            _check_against(role, config, tensor, spec, limit)
        rules.append(_declared(config, tensor, spec, limit, folder))
    missing = [name for name in known if name not in {tensor.name for tensor in declared}]
    if role == "input" and missing:
        raise InvalidModel(
            f"model '{config.name}': the configuration does not declare the model's input "
            f"{missing[0]!r}"
        )
    return rules


def _spec_of(
    role: str, config: ModelConfig, tensor: TensorConfig, known: Mapping[str, TensorSpec]
) -> TensorSpec:
    """What the model says of a tensor that its configuration declares."""
    spec = known.get(tensor.name)
    if spec is not None:
        return spec
    _told(config, tensor)
    names = ", ".join(repr(name) for name in known)
    raise InvalidModel(
        f"model '{config.name}': the configuration declares {role} {tensor.name!r}, which "
        f"the model does not have.{nearest(tensor.name, known)} It has {names}"
    )


def _declared(
    config: ModelConfig, tensor: TensorConfig, spec: TensorSpec, limit: int, folder: Path
) -> TensorRule:
    """The rule of a tensor that a configuration declares; what it leaves out is the model's."""
    written = tensor.ragged or tensor.dims or tensor.reshape is not None
    return TensorRule(
        tensor.name,
        tensor.datatype or _datatype(spec),
        tensor.dims if written else _dims(config, spec, limit),
        tensor.optional,
        tensor.ragged,
        tensor.reshape,
        _labels(folder, tensor.label_filename),
    )


def _told(config: ModelConfig, tensor: TensorConfig) -> str:
    """The datatype of a tensor of which the configuration alone can tell it."""
    if not tensor.datatype:
        raise InvalidModel(
            f"model '{config.name}': tensor {tensor.name!r} needs a data_type in the "
            "configuration, as the model does not tell its own"
        )
    return tensor.datatype


def _derived(config: ModelConfig, spec: TensorSpec, limit: int) -> TensorRule:
    """The rule of a tensor that no configuration declares.

    As in Triton, one number a row is `[1]` on the wire: `dims` are never empty beside a batch dim.
    """
    dims = _dims(config, spec, limit)
    if limit and not dims:
        return TensorRule(spec.name, _datatype(spec), (1,), reshape=())
    return TensorRule(spec.name, _datatype(spec), dims)


def _check_against(
    role: str, config: ModelConfig, tensor: TensorConfig, spec: TensorSpec, limit: int
) -> None:
    if tensor.datatype and tensor.datatype != _datatype(spec):
        raise InvalidModel(
            f"model '{config.name}': {role} {tensor.name!r} is declared {tensor.datatype}, but the "
            f"model has {_datatype(spec)}"
        )
    if not tensor.dims and tensor.reshape is None:
        return  # They are the model's own, as in Triton.
    dims = tensor.dims if tensor.reshape is None else tensor.reshape
    found = _dims(config, spec, limit)
    fits = len(dims) == len(found) and all(
        a == b or -1 in (a, b) for a, b in zip(dims, found, strict=True)
    )
    if not fits:
        raise InvalidModel(
            f"model '{config.name}': {role} {tensor.name!r} is declared {dims_text(dims)}, but the "
            f"model has {dims_text(found)}" + (" after the batch dim" if limit else "")
        )


def _dims(config: ModelConfig, spec: TensorSpec, limit: int) -> tuple[int, ...]:
    """The dims of a model's tensor as a configuration writes them."""
    dims = tuple(dim if isinstance(dim, int) else -1 for dim in spec.shape)
    if not limit:
        return dims
    if not dims or dims[0] != -1:
        raise InvalidModel(
            f"model '{config.name}': max_batch_size is {limit}, but the first dim of {spec.name!r} "
            f"{dims_text(dims)} is fixed; set max_batch_size to 0 or export with a symbolic batch"
        )
    return dims[1:]


def _datatype(spec: TensorSpec) -> str:
    if not spec.dtype.kserve:
        raise InvalidModel(
            f"tensor {spec.name!r} has type {spec.dtype.value}, which the wire lacks"
        )
    return spec.dtype.kserve


def _labels(folder: Path, filename: str) -> tuple[str, ...]:
    if not filename:
        return ()
    try:
        return tuple((folder / filename).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModel(f"label file {folder / filename} cannot be read: {error}") from error


def declared_specs(tensors: Sequence[TensorConfig], limit: int | None) -> tuple[TensorSpec, ...]:
    """The tensors of a configuration as specs, for models that do not describe themselves.

    One without a datatype is left out: the model has to tell of it.
    """
    kinds = {kind.kserve: kind for kind in DType if kind.kserve}
    found: list[TensorSpec] = []
    for tensor in tensors:
        if not tensor.datatype:
            continue
        dims = tensor.dims if tensor.reshape is None else tensor.reshape
        shape: list[Dim] = [
            Sym(f"{_symbol(tensor.name)}_{at}") if dim < 0 else dim for at, dim in enumerate(dims)
        ]
        if limit:
            shape.insert(0, Sym("batch"))
        found.append(TensorSpec(tensor.name, kinds[tensor.datatype], tuple(shape)))
    return tuple(found)


def _symbol(name: str) -> str:
    return "dim_" + "".join(char if char.isalnum() else "_" for char in name)
