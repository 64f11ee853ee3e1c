"""What a model accepts, and the check of a request against it.

The error texts are part of the wire contract: clients and tests of Triton compare them. Shapes
that passed once are remembered per input, so that the check of a repeated shape is one set look-up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tuili.errors import InvalidArgument
from tuili.server.protocol.datatypes import BYTE_SIZE
from tuili.server.protocol.messages import Array, InferRequest, InputTensor

Dims = tuple[int, ...]
WILDCARD: Final = -1
_REMEMBERED_SHAPES: Final = 256

_BATCH_NOTE: Final = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be "
    "prepended to each input shape. If you want to specify the full shape including the batch dim "
    "in your input dims config, try setting max_batch_size to zero. See the model configuration "
    "docs for more info on max_batch_size."
)


@dataclass(slots=True)
class TensorRule:
    """One input or output of a model: `dims` without the batch dim, -1 where any size goes.

    `reshape` is the shape the back end wants instead (`[1]` on the wire, `[]` in the model).
    """

    name: str
    datatype: str
    dims: Dims
    optional: bool = False
    ragged: bool = False
    reshape: Dims | None = None
    labels: tuple[str, ...] = ()
    accepted: set[Dims] = field(default_factory=set[Dims], repr=False)

    def fits(self, dims: Dims) -> bool:
        """Whether concrete dims (without batch) agree with the rule."""
        return len(dims) == len(self.dims) and all(
            want in (WILDCARD, got) for want, got in zip(self.dims, dims, strict=True)
        )

    def backend_dims(self, dims: Dims) -> Dims:
        """The dims (without batch) that the back end sees; wildcards carry their sizes over."""
        if self.reshape is None:
            return dims
        sizes = iter([got for want, got in zip(self.dims, dims, strict=True) if want == WILDCARD])
        return tuple(next(sizes) if dim == WILDCARD else dim for dim in self.reshape)


class Alone:
    """The lane of a request that joins no batch: nobody else's is the same."""


@dataclass(slots=True)
class Checked:
    """A request that the model can run: arrays by name, rows, and the lane it may be batched in."""

    arrays: dict[str, Array]
    rows: int
    lane: object


class Signature:
    """Inputs and outputs of one model version; `max_batch_size` 0 means no batch dim."""

    def __init__(
        self,
        model: str,
        inputs: Sequence[TensorRule],
        outputs: Sequence[TensorRule],
        max_batch_size: int,
    ) -> None:
        self.model = model
        self.inputs = {rule.name: rule for rule in inputs}
        self.outputs = {rule.name: rule for rule in outputs}
        self.output_order = tuple(self.outputs)
        self.max_batch_size = max_batch_size
        self._required = frozenset(rule.name for rule in inputs if not rule.optional)
        # Only then may two requests differ in a way that keeps them out of one batch.
        self._varied = any(rule.optional or WILDCARD in rule.dims for rule in inputs)
        # What requests of one input were found to be, by all that decides it.
        self._seen: dict[tuple[str, str, Dims], tuple[int, object]] = {}

    def check(self, request: InferRequest) -> Checked:
        """The request's arrays, or InvalidArgument with Triton's text."""
        inputs = request.inputs
        if len(inputs) == 1 and request.outputs is None:
            # The everyday request: nothing in it is new but the data.
            tensor = inputs[0]
            seen = self._seen.get((tensor.name, tensor.datatype, tensor.shape))
            data = tensor.data
            if seen is not None and data is not None and data.shape == tensor.shape:
                return Checked({tensor.name: data}, seen[0], seen[1])
        if request.outputs is not None:
            self._check_outputs(request)
        if not len(self._required) <= len(inputs) <= len(self.inputs):
            raise InvalidArgument(prefix(request) + self._count_text(inputs))
        rows = self._rows(request)
        arrays: dict[str, Array] = {}
        for tensor in inputs:
            rule = self.inputs.get(tensor.name)
            if rule is None:
                raise InvalidArgument(
                    f"unexpected inference input '{tensor.name}' for model '{self.model}'"
                )
            arrays[tensor.name] = self._check_input(request, tensor, rule)
        if len(arrays) != len(inputs) or not self._required <= arrays.keys():
            raise InvalidArgument(prefix(request) + self._count_text(inputs))
        if not rows:
            # Beside others it could not be told from one that made its model lose a row.
            return Checked(arrays, 1, Alone())
        lane = _lane(inputs, self.max_batch_size > 0) if self._varied else None
        if len(inputs) == 1 and len(self._seen) < _REMEMBERED_SHAPES:
            only = inputs[0]
            if self.inputs[only.name].reshape is None:
                self._seen[only.name, only.datatype, only.shape] = rows, lane
        return Checked(arrays, rows, lane)

    def _check_outputs(self, request: InferRequest) -> None:
        names: set[str] = set()
        for output in request.outputs or ():
            if output.name not in self.outputs:
                raise InvalidArgument(
                    f"unexpected inference output '{output.name}' for model '{self.model}'"
                )
            if output.name in names:
                raise InvalidArgument(f"output '{output.name}' already exists in request")
            names.add(output.name)

    def _rows(self, request: InferRequest) -> int:
        if not self.max_batch_size:
            return 1
        rows = -1
        for tensor in request.inputs:
            if not tensor.shape:
                raise InvalidArgument(
                    f"{prefix(request)}input '{tensor.name}' has no shape but model requires batch "
                    f"dimension for '{self.model}'"
                )
            if rows not in (-1, tensor.shape[0]):
                raise InvalidArgument(
                    f"{prefix(request)}input '{tensor.name}' batch size does not match other "
                    f"inputs for '{self.model}'"
                )
            rows = tensor.shape[0]
        if rows > self.max_batch_size:
            raise InvalidArgument(
                f"{prefix(request)}inference request batch-size must be <= "
                f"{self.max_batch_size} for '{self.model}'"
            )
        return abs(rows)  # 1 without any input

    def _check_input(self, request: InferRequest, tensor: InputTensor, rule: TensorRule) -> Array:
        shape = tensor.shape
        if tensor.datatype != rule.datatype:
            raise InvalidArgument(
                f"{prefix(request)}inference input '{tensor.name}' data-type is "
                f"'{tensor.datatype}', but model '{self.model}' expects '{rule.datatype}'"
            )
        if shape not in rule.accepted:
            self._check_shape(request, tensor, rule)
        data = tensor.data
        if data is None:
            raise InvalidArgument(prefix(request) + self._no_data_text(tensor))
        if rule.reshape is not None:
            lead = shape[:1] if self.max_batch_size else ()
            shape = lead + rule.backend_dims(shape[len(lead) :])
        if data.shape == shape:
            return data
        try:
            return data.reshape(shape)
        except ValueError:
            size = BYTE_SIZE[rule.datatype]
            expected = size
            for dim in shape:
                expected *= dim
            raise InvalidArgument(
                f"{prefix(request)}input byte size mismatch for input '{tensor.name}' for model "
                f"'{self.model}'. Expected {expected}, got {data.size * size}"
            ) from None

    def _no_data_text(self, tensor: InputTensor) -> str:
        if tensor.misfit_bytes < 0:
            return f"input '{tensor.name}' has no data"
        expected = math.prod(tensor.shape) * BYTE_SIZE[tensor.datatype]
        return (
            f"input byte size mismatch for input '{tensor.name}' for model '{self.model}'. "
            f"Expected {expected}, got {tensor.misfit_bytes}"
        )

    def _check_shape(self, request: InferRequest, tensor: InputTensor, rule: TensorRule) -> None:
        batched = self.max_batch_size > 0
        dims = tensor.shape[1:] if batched else tensor.shape
        if any(dim < 0 for dim in tensor.shape):
            raise InvalidArgument(
                f"{prefix(request)}All input dimensions should be specified for input "
                f"'{tensor.name}' for model '{self.model}', got {dims_text(tensor.shape)}"
            )
        if not rule.fits(dims):
            expected = (WILDCARD, *rule.dims) if batched else rule.dims
            raise InvalidArgument(
                f"{prefix(request)}unexpected shape for input '{tensor.name}' for model "
                f"'{self.model}'. Expected {dims_text(expected)}, got {dims_text(tensor.shape)}. "
                + (_BATCH_NOTE if batched else "")
            )
        if len(rule.accepted) < _REMEMBERED_SHAPES:
            rule.accepted.add(tensor.shape)

    def _count_text(self, inputs: Sequence[InputTensor]) -> str:
        got = {tensor.name for tensor in inputs}
        missing = [name for name in self.inputs if name in self._required and name not in got]
        most, least = len(self.inputs), len(self._required)
        expected = (
            f"{most} inputs" if most == least else f"number of inputs between {least} and {most}"
        )
        return (
            f"expected {expected} but got {len(inputs)} inputs for model '{self.model}'. "
            f"Got input(s) {_names(sorted(got))}, but missing required input(s) {_names(missing)}. "
            "Please provide all required input(s)."
        )


def prefix(request: InferRequest) -> str:
    """`[request id: 7] `, as Triton starts the errors of a request."""
    return f"[request id: {request.id or '<id_unknown>'}] "


def dims_text(dims: Iterable[int]) -> str:
    """`[-1,16]`."""
    return "[" + ",".join(map(str, dims)) + "]"


def _names(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"


def _lane(inputs: Sequence[InputTensor], batched: bool) -> object:
    """Requests of one lane may be joined: the same inputs with the same dims after the first."""
    if not batched:
        return None
    if len(inputs) == 1:
        return inputs[0].name, inputs[0].shape[1:]
    return tuple(sorted([(tensor.name, tensor.shape[1:]) for tensor in inputs]))
