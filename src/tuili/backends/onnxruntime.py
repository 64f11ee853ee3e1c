"""ONNX Runtime: runs an ONNX file as it is, for models that tuili cannot compile yet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]

from tuili.backends import BackendOptions, Executable
from tuili.errors import InternalError, InvalidArgument, InvalidModel, Unsupported
from tuili.tensors import Array, Dim, DType, Sym, TensorSpec

_DTYPES: Final = {
    "float": DType.F32,
    "double": DType.F64,
    "float16": DType.F16,
    "bfloat16": DType.BF16,
    "int8": DType.I8,
    "int16": DType.I16,
    "int32": DType.I32,
    "int64": DType.I64,
    "uint8": DType.U8,
    "uint16": DType.U16,
    "uint32": DType.U32,
    "uint64": DType.U64,
    "bool": DType.BOOL,
    "string": DType.STR,
}
_NAME: Final = re.compile(r"[A-Za-z_]\w*")


class _Node(Protocol):
    name: str
    type: str
    shape: Sequence[int | str | None]


class OrtModel:
    """One inference session."""

    def __init__(self, path: Path, session: Any) -> None:
        self._path = path
        self._session = session
        self._names: list[str] = [node.name for node in session.get_outputs()]
        self.inputs = [_spec(path, node) for node in session.get_inputs()]
        self.outputs = [_spec(path, node) for node in session.get_outputs()]
        self._text = {spec.name for spec in self.inputs if spec.dtype is DType.STR}

    def run(self, inputs: dict[str, Array], /) -> dict[str, Array]:
        """All outputs for these inputs."""
        if self._text:
            inputs = {n: _text(a) if n in self._text else a for n, a in inputs.items()}
        try:
            found: list[Array] = self._session.run(self._names, inputs)
        except Exception as error:
            # ONNX Runtime's exceptions share no base class but this one.
            kind = InvalidArgument if type(error).__name__ == "InvalidArgument" else InternalError
            raise kind(f"{self._path.name}: ONNX Runtime: {error}") from error
        return dict(zip(self._names, found, strict=True))


def load(path: Path, options: BackendOptions) -> Executable:
    """A session on `path` with `options.threads` intra-op threads."""
    wanted = onnxruntime.SessionOptions()
    wanted.intra_op_num_threads = options.threads
    wanted.inter_op_num_threads = 1
    wanted.log_severity_level = 3
    # A server's cores are for requests: never burn them waiting.
    wanted.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=wanted, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise InvalidModel(f"{path}: ONNX Runtime cannot load it: {error}") from error
    return OrtModel(path, session)


def _spec(path: Path, node: Any) -> TensorSpec:
    found = cast(_Node, node)
    kind = found.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise Unsupported(f"{path}: tensor {found.name!r} has the type {found.type}")
    dims: list[Dim] = []
    for index, dim in enumerate(found.shape or ()):
        if isinstance(dim, int):
            dims.append(dim)
        else:
            known = isinstance(dim, str) and _NAME.fullmatch(dim)
            dims.append(Sym(str(dim) if known else f"{_plain(found.name)}_{index}"))
    return TensorSpec(found.name, _DTYPES[kind], tuple(dims))


def _plain(name: str) -> str:
    return "unnamed_" + re.sub(r"\W", "_", name)


def _text(array: Array) -> Array:
    """BYTES elements as the text that ONNX's string tensors hold."""
    found = np.empty(array.shape, dtype=object)
    flat = found.reshape(-1)
    for index, item in enumerate(array.reshape(-1).tolist()):
        flat[index] = item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else item
    return found
