"""From a file or bytes to a ModelProto, with clear refusals."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tuili.artifact import is_artifact
from tuili.errors import InvalidModel, NotFound
from tuili.importers.onnx.order import graphs_of

_ZIP = (
    "a zip archive; unpack it first, or if it is PyTorch's or Keras' own file, "
    "export the model to ONNX"
)
_PICKLE = (
    "a pickle; convert it where it was made (scikit-learn: skl2onnx, PyTorch: torch.onnx.export)"
)
# What people often have instead of a model: (first bytes, what it is)
_IMPOSTORS = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the real file with `git lfs pull`"),
    (b"<!DOCTYPE", "a web page; the download went wrong"),
    (b"<html", "a web page; the download went wrong"),
    (b"PK\x03\x04", _ZIP),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file; export the model to ONNX"),
    (b"\x80\x02", _PICKLE),
    (b"\x80\x03", _PICKLE),
    (b"\x80\x04", _PICKLE),
    (b"\x80\x05", _PICKLE),
    (b"GGUF", "a GGUF file; export the original model to ONNX"),
    (b"<?xml", "an XML file, as OpenVINO's are; take the ONNX file that it was made of"),
    (b"{", "JSON text; convert XGBoost's with onnxmltools, and name the .onnx file"),
    (b"tree\n", "LightGBM's text; convert the model with onnxmltools"),
)

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
        raise NotFound(f"model file {str(path)!r} {_other_than_file(path)}; expected an .onnx file")
    return _checked(_decoded(path.read_bytes())), path.parent


def _other_than_file(path: Path) -> str:
    if not path.exists():
        return "does not exist"
    return "is a folder" if path.is_dir() else "is a device, pipe or socket"


def _decoded(data: bytes) -> onnx.ModelProto:
    if not data:
        raise InvalidModel("the file is empty; expected an ONNX model")
    for start, what in _IMPOSTORS:
        if data.startswith(start):
            raise InvalidModel(f"this is not an ONNX model but {what}")
    if data[4:8] == b"TFL3":
        raise InvalidModel(
            "this is not an ONNX model but a LiteRT (TensorFlow Lite) one; convert it: "
            "python -m tf2onnx.convert --tflite MODEL.tflite --output MODEL.onnx"
        )
    if data[8:10] == b'{"':
        raise InvalidModel(
            "this is not an ONNX model but safetensors: weights without the network; "
            "export the model to ONNX"
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise InvalidModel(
            f"not an ONNX model, or a truncated one ({len(data)} bytes read): {error}"
        ) from error
    return model


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


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    if not model.HasField("graph") or not model.graph.output:
        raise InvalidModel("not an ONNX model, or a truncated one: it has no graph with outputs")
    if not model.opset_import and model.ir_version >= _NAMES_OPSETS:
        raise InvalidModel("not an ONNX model, or a truncated one: it names no operator set")
    _check_text(model.graph)
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and not 1 <= entry.version <= newest:
            raise InvalidModel(
                f"the model uses operator set {entry.version}; this installation of the onnx"
                f" package knows 1 to {newest}. Export with an older one or update onnx"
            )
    return model
