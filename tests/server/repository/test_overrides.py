"""Overrides of load requests."""

import base64

import pytest

from tuili.errors import NotPolled, UserError
from tuili.server.repository.overrides import parse


def test_files_replace_the_folder_until_discarded():
    text = base64.b64encode(b"two").decode()
    found = parse("m", {"config": "{}", "file:1/model.onnx": b"one", "file:/2/model.onnx": text})
    assert found.folder is not None
    assert found.folder.name == "m"
    assert (found.folder / "1" / "model.onnx").read_bytes() == b"one"
    assert (found.folder / "2" / "model.onnx").read_bytes() == b"two"
    found.discard()
    assert not found.folder.exists()


def test_files_that_there_is_no_place_for(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(NotPolled, match="failed to poll .* No such file or directory"):
        parse("m", {"config": "{}", "file:1/model.py": b""})


def test_a_config_alone_keeps_the_folder():
    found = parse("m", {"config": "{}"})
    assert (found.config, found.folder) == ("{}", None)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"file:1/model.onnx": b"x"}, "without providing a 'config' parameter is not allowed"),
        ({"config": 5}, "'config' must be JSON text, got 5"),
        ({"confg": "{}"}, "unrecognized load parameter 'confg'"),
        ({"config": "{}", "file:../../etc/x": b""}, "must stay inside the model's folder"),
        ({"config": "{}", "file:/../x": b""}, "must stay inside the model's folder"),
        ({"config": "{}", "file:/": b""}, "must stay inside the model's folder"),
        ({"config": "{}", "file:": b""}, "must stay inside the model's folder"),
        ({"config": "{}", "file:1/x": "no base64!"}, "is not base64"),
        ({"config": "{}", "file:1/x": 5}, "must be bytes, got int"),
    ],
)
def test_overrides_that_are_refused(parameters, text):
    with pytest.raises(UserError, match=text):
        parse("m", parameters)
