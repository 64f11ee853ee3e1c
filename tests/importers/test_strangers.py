"""Files and folders of other formats: what they are, and how an ONNX model is made of them."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import pytest
from onnx import parser

from tuili.errors import InvalidModel, NotFound
from tuili.importers.onnx import import_model

TEXT = parser.parse_model(
    '<ir_version: 8, opset_import: ["" : 23]> m (float[N] x) => (float[N] y) { y = Relu(x) }'
)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("metadata.json", r"Keras' own file; .* MODEL.export\('MODEL.onnx', format='onnx'\)"),
        ("m/archive_format", r"torch.onnx.export\(torch.export.load\('MODEL.pt2'\)"),
        ("serialized_exported_program.json", "a program of torch.export"),
        ("m/constants.pkl", "TorchScript; .*dynamo=False"),
        ("m/data.pkl", "torch.save wrote: most often weights without the network"),
        ("x.npy", "NumPy's arrays"),
        ("m/model.onnx", "a zip archive with an ONNX model in it; unpack it"),
        ("readme.txt", "a zip archive; unpack it first"),
    ],
)
def test_an_archive_is_known_by_what_it_holds(tmp_path: Path, member: str, message: str) -> None:
    path = tmp_path / "m.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "")
        archive.writestr("m/data.pkl" if member == "m/constants.pkl" else "notes", "")
    with pytest.raises(InvalidModel, match=f"not an ONNX model but .*{message}"):
        import_model(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04....", "a zip archive, a damaged one"),
        (zlib.compress(b"\x80\x04.."), "compressed data, as joblib's; .*skl2onnx"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file; if it is Keras', load it"),
        (b"CBM1....", "CatBoost's; save it once more"),
        (b"{L\x00\x00", "XGBoost's UBJSON; convert the model with onnxmltools"),
        (b"ftrt....", "a TensorRT engine"),
        (b"7767517\n2 2\n", "ncnn's"),
        (b"\x30\0\0\0ORTM", "onnxruntime's own format"),
    ],
)
def test_a_file_is_known_by_its_first_bytes(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match=f"not an ONNX model but .*{message}"):
        import_model(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m.pb", "TensorFlow's graph; convert it: .* --graphdef"),
        ("m.pdmodel", "Paddle's; convert it: paddle2onnx"),
        ("m.mlmodel", "a Core ML one"),
        ("m.MNN", "MNN's"),
    ],
)
def test_a_file_that_says_nothing_is_known_by_its_name(
    tmp_path: Path, name: str, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x08\x04")
    with pytest.raises(InvalidModel, match=f"by its name it is {message}"):
        import_model(path)


def test_an_onnx_model_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "model.pb"
    path.write_bytes(TEXT.SerializeToString())
    assert [node.op for node in import_model(path).nodes] == ["Relu"]


@pytest.mark.parametrize(
    ("folder", "file", "message"),
    [
        ("m", "saved_model.pb", "a SavedModel of TensorFlow; .* --saved-model .*m --output"),
        ("m", "net.onnx", "a folder; name a model in it, such as .*net.onnx"),
        ("m", "config.json", "optimum-cli export onnx --model .*m FOLDER"),
        ("m.mlpackage", "Manifest.json", "a Core ML one"),
        ("m", "notes.txt", "is a folder; expected an .onnx file"),
    ],
)
def test_a_folder_is_known_by_what_it_holds(
    tmp_path: Path, folder: str, file: str, message: str
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / file).touch()
    with pytest.raises(NotFound, match=message):
        import_model(tmp_path / folder)
