"""From a file or bytes to a ModelProto, with clear refusals."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tuili.artifact import is_artifact
from tuili.errors import InvalidModel, NotFound
from tuili.importers.onnx.order import graphs_of
from tuili.importers.onnx.strangers import kind_by_name, kind_of_file, kind_of_folder

_NAMES_OPSETS = 3  # the IR version from which on models name their operator sets


def read(source: str | Path | bytes | onnx.ModelProto) -> tuple[onnx.ModelProto, Path | None]:
    """The model, and the folder that its external data may live in."""
    if isinstance(source, onnx.ModelProto):
        return _checked(source), None
    if isinstance(source, bytes):
        return _checked(_decoded(source)), None
    path = Path(source)
    if is_artifact(path):
        raise InvalidModel(
            "this is an artifact, which is compiled already; run it, or name the .onnx file that "
            "it was made of"
        )
    if not path.is_file():
        raise NotFound(f"model file {str(path)!r} {_other_than_file(path)}")
    return _checked(_decoded(path.read_bytes(), path.name), path.name), path.parent


def _other_than_file(path: Path) -> str:
    if not path.exists():
        return "does not exist; expected an .onnx file"
    if path.is_dir():
        return kind_of_folder(path)
    return "is a device, pipe or socket; expected an .onnx file"


def _decoded(data: bytes, name: str = "") -> onnx.ModelProto:
    if not data:
        raise InvalidModel("the file is empty; expected an ONNX model")
    if (what := kind_of_file(data)) is not None:
        raise InvalidModel(f"this is not an ONNX model but {what}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise _refusal(name, f" ({len(data)} bytes read): {error}") from error
    return model


def _refusal(name: str, why: str) -> InvalidModel:
    if (what := kind_by_name(name)) is not None:
        return InvalidModel(f"this is not an ONNX model; by its name it is {what}")
    return InvalidModel(f"not an ONNX model, or a truncated one{why}")


def _check_text(graph: onnx.GraphProto) -> None:
    """Names that are no UTF-8 arrive as bytes; nothing further on expects them."""
    infos = [*graph.input, *graph.output, *graph.initializer]
    names: list[object] = [info.name for info in infos]
    for node in graph.node:
        names += [node.op_type, node.domain, node.name, *node.input, *node.output]
        names += [attr.name for attr in node.attribute]
    for name in names:
        if not isinstance(name, str):
            raise InvalidModel(f"the name {name!r} is no UTF-8 text; the model is damaged")
    for node in graph.node:
        for inner in graphs_of(node):
            _check_text(inner)


def _checked(model: onnx.ModelProto, name: str = "") -> onnx.ModelProto:
    if not model.HasField("graph") or not model.graph.output:
        raise _refusal(name, ": it has no graph with outputs")
    if not model.opset_import and model.ir_version >= _NAMES_OPSETS:
        raise _refusal(name, ": it names no operator set")
    _check_text(model.graph)
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and not 1 <= entry.version <= newest:
            raise InvalidModel(
                f"the model uses operator set {entry.version}; this installation of the onnx"
                f" package knows 1 to {newest}. Export with an older one or update onnx"
            )
    return model
