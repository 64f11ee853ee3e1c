"""Identity: answers each input as the output of the same place. For tests, demos and benchmarks.

Understands Triton's parameters `execute_delay_ms` and `creation_delay_sec`. Inputs and outputs come
from the configuration.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tuili.backends import BackendOptions, Executable
from tuili.errors import InvalidModel
from tuili.tensors import Array, TensorSpec


class Identity:
    """Outputs are the inputs."""

    def __init__(
        self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], delay_s: float
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._pairs = [(a.name, b.name) for a, b in zip(inputs, outputs, strict=True)]
        self._delay_s = delay_s

    def run(self, inputs: dict[str, Array], /) -> dict[str, Array]:
        """The inputs themselves under the names of the outputs: nobody writes to either."""
        if self._delay_s:
            time.sleep(self._delay_s)
        rows = next((each.shape[:1] for each in inputs.values()), (1,))
        return {
            to: inputs[name] if name in inputs else self._zeros(to, rows)
            for name, to in self._pairs
        }

    def _zeros(self, name: str, rows: tuple[int, ...]) -> Array:
        """The output of an input that was left out, as Triton's identity answers it."""
        spec = next(each for each in self.outputs if each.name == name)
        dims = [dim if isinstance(dim, int) else 1 for dim in spec.shape]
        if spec.shape and not isinstance(spec.shape[0], int):
            dims[:1] = rows
        if spec.dtype.numpy.hasobject:
            return np.full(dims, b"", dtype=object)
        return np.zeros(dims, spec.dtype.numpy)


def load(path: Path, options: BackendOptions) -> Executable:
    """An identity with the tensors that the configuration declares; there is no file.

    As in Triton there may be none at all: such a model loads, and nobody can ask it anything.
    """
    inputs, outputs = options.declared_inputs, options.declared_outputs
    if len(inputs) != len(outputs):
        raise InvalidModel(
            f"{path}: an identity model needs as many outputs as inputs in its configuration, "
            f"found {len(inputs)} inputs and {len(outputs)} outputs"
        )
    if not options.instance:  # a model's, not each instance's
        time.sleep(float(options.parameters.get("creation_delay_sec", "0")))
    delay_s = float(options.parameters.get("execute_delay_ms", "0")) / 1e3
    return Identity(inputs, outputs, delay_s)
