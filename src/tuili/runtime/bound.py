"""BoundRun: a run whose inputs and outputs are fixed arrays, for models of a few microseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tuili.errors import InvalidArgument, Unsupported
from tuili.runtime.arrays import address_of
from tuili.runtime.context import Context
from tuili.runtime.plan import Plan
from tuili.tensors import Array, TensorSpec


class BoundRun:
    """Call it to run: it reads the arrays it was bound to, and fills and returns `outputs`.

    Nothing is looked up, checked or allocated. Write new inputs into the same arrays. Calls of one
    BoundRun must not overlap; make another one for each thread. It works on when its model is
    closed.
    """

    __slots__ = ("_address", "_context", "_inputs", "_native_run", "_where", "outputs")

    def __init__(
        self,
        native_run: Callable[[int], int],
        context: Context,
        inputs: Sequence[Array],
        outputs: dict[str, Array],
        where: str,
    ) -> None:
        for index, array in enumerate(inputs):
            context.inputs[index] = address_of(array)
        for index, array in enumerate(outputs.values()):
            context.outputs[index] = address_of(array)
        self._native_run = native_run
        self._context = context
        self._address = context.address
        self._inputs = inputs  # kept alive
        self._where = where
        self.outputs = outputs

    def __call__(self) -> dict[str, Array]:
        if self._native_run(self._address):
            raise InvalidArgument(f"{self._where}: the run failed: {self._context.message()}")
        return self.outputs


def check_bound(
    plan: Plan,
    inputs: Sequence[TensorSpec],
    arrays: Sequence[Array],
    feeds: Mapping[str, Array],
    where: str,
) -> None:
    """Refuse what would not be read in place, and outputs whose shapes no array can have yet."""
    if plan.depends_on_data:
        raise Unsupported(f"{where}: shapes depend on the data, so that arrays cannot be bound")
    for spec, array in zip(inputs, arrays, strict=True):
        if array is not feeds[spec.name]:
            raise InvalidArgument(
                f"{where}: input {spec.name!r} would be copied, and later changes not be seen; "
                "bind a C-contiguous, aligned NumPy array"
            )
