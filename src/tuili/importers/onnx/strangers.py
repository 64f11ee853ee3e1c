"""What people often have instead of an ONNX model, and how an ONNX model is made of it."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path, PurePath

_PICKLE = (
    "a pickle; convert it where it was made (scikit-learn: skl2onnx, PyTorch: torch.onnx.export)"
)
_PACKED = "compressed data, as joblib's; if it is scikit-learn's, load it and convert it: skl2onnx"
_KERAS = (
    "load it in Python (keras.saving.load_model) and call MODEL.export('MODEL.onnx', format='onnx')"
)
_EXPORTED = (
    "a program of torch.export; export it: "
    "torch.onnx.export(torch.export.load('MODEL.pt2'), f='MODEL.onnx')"
)
_ORIGINAL = "take the ONNX file that it was made of"
_TF2ONNX = "convert it: python -m tf2onnx.convert"
_COREML = f"a Core ML one; nothing converts it back: {_ORIGINAL}, or export the original model"
_SCRIPTED = (
    "TorchScript; export it: "
    "torch.onnx.export(torch.jit.load('MODEL.pt'), EXAMPLE_INPUTS, 'MODEL.onnx', dynamo=False)"
)
_SAVED = (
    "what torch.save wrote: most often weights without the network. Load it into the network "
    "that it was saved from, and export that: torch.onnx.export"
)

# (how far into the file, what is there, what the file is)
_STARTS = (
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the real file with `git lfs pull`"),
    (0, b"<!DOCTYPE", "a web page; the download went wrong"),
    (0, b"<html", "a web page; the download went wrong"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first, or if joblib made it, convert it: skl2onnx"),
    (0, b"\x89HDF", f"an HDF5 file; if it is Keras', {_KERAS}"),
    (0, b"\x80\x02", _PICKLE),
    (0, b"\x80\x03", _PICKLE),
    (0, b"\x80\x04", _PICKLE),
    (0, b"\x80\x05", _PICKLE),
    (0, b"\x78\x01", _PACKED),
    (0, b"\x78\x5e", _PACKED),
    (0, b"\x78\x9c", _PACKED),
    (0, b"\x78\xda", _PACKED),
    (0, b"GGUF", "a GGUF file; export the original model to ONNX"),
    (0, b"<?xml", f"an XML file, as OpenVINO's are; {_ORIGINAL}"),
    (0, b"{L", "XGBoost's UBJSON; convert the model with onnxmltools"),
    (0, b"{", "JSON text; convert XGBoost's with onnxmltools, and name the .onnx file"),
    (0, b"tree\n", "LightGBM's text; convert the model with onnxmltools"),
    (0, b"CBM1", "CatBoost's; save it once more: MODEL.save_model('MODEL.onnx', format='onnx')"),
    (0, b"ftrt", f"a TensorRT engine, of one kind of GPU; {_ORIGINAL}"),
    (0, b"ptrt", f"a TensorRT engine, of one kind of GPU; {_ORIGINAL}"),
    (0, b"7767517", f"ncnn's; {_ORIGINAL}, or export the original model"),
    (4, b"ORTM", f"onnxruntime's own format (.ort); {_ORIGINAL}"),
    (
        4,
        b"TFL3",
        f"a LiteRT (TensorFlow Lite) one; {_TF2ONNX} --tflite MODEL.tflite --output MODEL.onnx",
    ),
    (8, b'{"', "safetensors: weights without the network; export the model to ONNX"),
)

# What only the name tells.
_ENDINGS = {
    ".pb": f"TensorFlow's graph; {_TF2ONNX} --graphdef MODEL.pb --inputs X:0 --outputs Y:0 "
    "--output MODEL.onnx",
    ".pdmodel": "Paddle's; convert it: paddle2onnx --model_dir . --model_filename MODEL.pdmodel "
    "--params_filename MODEL.pdiparams --save_file MODEL.onnx",
    ".mlmodel": _COREML,
    ".mnn": f"MNN's; {_ORIGINAL}",
}

# What only one kind of zip archive holds: (the end of a name in it, what the archive is)
_MEMBERS = (
    ("metadata.json", f"Keras' own file; {_KERAS}"),
    ("archive_format", _EXPORTED),
    ("serialized_exported_program.json", _EXPORTED),
    ("constants.pkl", _SCRIPTED),
    ("data.pkl", _SAVED),
    (".npy", "NumPy's arrays (.npz); name the model that they belong to"),
    (".onnx", "a zip archive with an ONNX model in it; unpack it first"),
)


def kind_of_file(data: bytes) -> str | None:
    """What a file is that is no ONNX model, and what to do; None where its bytes do not tell."""
    if data.startswith(b"PK\x03\x04"):
        return _kind_of_archive(data)
    return next((what for at, mark, what in _STARTS if data.startswith(mark, at)), None)


def kind_by_name(name: str) -> str | None:
    """The same by the end of its name, for what could not be read."""
    return _ENDINGS.get(PurePath(name).suffix.lower())


def _kind_of_archive(data: bytes) -> str:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a zip archive, a damaged one; fetch it again, and unpack it"
    for ending, what in _MEMBERS:
        if any(name.endswith(ending) for name in names):
            return what
    return "a zip archive; unpack it first"


def kind_of_folder(path: Path) -> str:
    """What a folder is, said after its name, and what to do."""
    if path.suffix == ".mlpackage":
        return f"is not an ONNX model but {_COREML}"
    if (path / "saved_model.pb").is_file():
        return (
            "is a folder, a SavedModel of TensorFlow; "
            f"{_TF2ONNX} --saved-model {path} --output MODEL.onnx"
        )
    if found := sorted(path.glob("*.onnx")):
        return f"is a folder; name a model in it, such as {str(found[0])!r}"
    if (path / "config.json").is_file():
        return (
            "is a folder, as transformers writes them; "
            f"export it: optimum-cli export onnx --model {path} FOLDER"
        )
    return "is a folder; expected an .onnx file"
