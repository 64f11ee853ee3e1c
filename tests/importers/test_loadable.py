"""What `tuili.load` takes, and a cache that was damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tuili
from tuili.errors import InvalidArgument, NotFound

NET = '<ir_version: 8, opset_import: ["": 17]> net (float[n] x) => (float[n] y) {y = Neg(x)}'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(NET), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.mark.parametrize(
    "form",
    [str, Path, Path.read_bytes, onnx.load, lambda path: tuili.compile(path, path.parent / "a")],
)
def test_a_model_is_loaded_in_every_form(model: Path, form: Any) -> None:
    assert tuili.load(form(model)).run({"x": [1.0, -2.0]})["y"].tolist() == [-1, 2]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (None, InvalidArgument, "the model is a NoneType, expected the path of a file"),
        (3, InvalidArgument, "the model is a int, expected"),
        ("~/no.onnx", NotFound, "no model file '~/no.onnx'; a `~` is only"),
        ("https://x.org/no.onnx", NotFound, "no model file 'https://x.org/no.onnx'; it is a URL"),
        ("no.onnx", NotFound, "no model file 'no.onnx'$"),
    ],
)
def test_anything_else_is_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tuili.load(given)


def test_a_file_of_an_artifact_is_not_taken_for_a_model(model: Path) -> None:
    artifact = tuili.compile(model).path
    with pytest.raises(InvalidArgument, match=r"model.c' is a part of the artifact '.*net.tuili'"):
        tuili.load(artifact / "model.c")


def test_a_cached_model_that_was_damaged_is_compiled_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUILI_CACHE", str(tmp_path / "cache"))
    path = tuili.load(model).path
    data = bytearray(path.read_bytes())
    at = data.index(b"tuili_abi")  # within the code, whose checksum counts
    data[at : at + 5] = b"other"
    path.write_bytes(data)
    again = tuili.load(model)
    assert np.array_equal(again.run({"x": np.ones(2, np.float32)})["y"], [-1, -1])
