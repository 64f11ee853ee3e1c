"""One network to export: where it comes from, how small it is, what goes in, what is open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OPSETS = {"script": 17, "dynamo": 20}


@dataclass(frozen=True, slots=True)
class Case:
    """A network of a library with settings that make it small.

    `inputs` names a row of `inputs.KINDS`; `open_dims` are the dims that the exported file leaves
    open, by the names that the row gives them. `dtype` is the type of weights and pictures.
    """

    name: str
    library: str
    network: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    inputs: str = "picture"
    size: int = 64
    open_dims: tuple[str, ...] = ("batch",)
    exporter: str = "script"
    opset: int = 0
    dtype: str = "float32"
    call: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def version(self) -> int:
        """The operator set to export."""
        return self.opset or OPSETS[self.exporter]
