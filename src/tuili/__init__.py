"""tuili compiles trained models to native code and serves them.

The public names are loaded on first use, so that `import tuili.runtime` never loads the compiler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuili.artifact import Artifact
    from tuili.compiler import compile, load  # noqa: A004 - the public verb, as in re.compile
    from tuili.errors import TuiliError
    from tuili.limits import Limits
    from tuili.ops.c_kernel import CKernel
    from tuili.ops.op import REQUIRED
    from tuili.ops.plugin import operator
    from tuili.runtime import Model
    from tuili.tensors import DType, TensorSpec

__version__ = "0.1.0"

__all__ = [
    "REQUIRED",
    "Artifact",
    "CKernel",
    "DType",
    "Limits",
    "Model",
    "TensorSpec",
    "TuiliError",
    "__version__",
    "compile",
    "load",
    "operator",
]

_HOMES = {
    "REQUIRED": "tuili.ops.op",
    "Artifact": "tuili.artifact",
    "CKernel": "tuili.ops.c_kernel",
    "DType": "tuili.tensors",
    "Limits": "tuili.limits",
    "Model": "tuili.runtime",
    "TensorSpec": "tuili.tensors",
    "TuiliError": "tuili.errors",
    "compile": "tuili.compiler",
    "load": "tuili.compiler",
    "operator": "tuili.ops.plugin",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tuili' has no attribute {name!r}")
    found: object = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
