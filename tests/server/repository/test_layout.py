"""The layout of a repository on disk."""

import os

import pytest

from tuili.errors import InvalidArgument, InvalidModel, NotFound
from tuili.server.repository import layout


def test_versions_are_positive_numbers_without_leading_zeros(tmp_path):
    for name in ("1", "12", "3", "0", "01", "-1", "v2", "warmup"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").touch()
    assert layout.versions_of(tmp_path) == [1, 3, 12]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "Model name cannot be empty"),
        (" \t", "Model name cannot be empty"),
        ("..", "must not contain path traversal characters"),
        (".. ", "must not contain path traversal characters"),
        ("a/b", "must not contain path traversal characters"),
        ("a\\b", "must not contain path traversal characters"),
        (".hidden", "invalid model name"),
        ("a\0", "invalid model name"),
        ("x" * 256, "invalid model name"),
        ("a\nb", "invalid model name"),
    ],
)
def test_names_that_are_no_folder_of_the_repository(name, text):
    with pytest.raises(InvalidArgument, match=text):
        layout.check_name(name)


def test_an_artifact_is_preferred_to_its_source(tmp_path):
    (tmp_path / "model.onnx").touch()
    assert layout.model_file(tmp_path, "").name == "model.onnx"
    (tmp_path / "model.tuili").touch()
    assert layout.model_file(tmp_path, "").name == "model.tuili"
    assert layout.model_file(tmp_path, "model.onnx").name == "model.onnx"


def test_a_version_without_a_model_says_what_is_there(tmp_path):
    (tmp_path / "weights.pt").touch()
    with pytest.raises(InvalidModel, match=r"model.tuiliz, model.onnx, model.py; found \['weights"):
        layout.model_file(tmp_path, "")


def test_files_that_lie_one_folder_too_high_are_told(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    assert layout.no_version(tmp_path / "m") == "no version folder"
    assert layout.lost_models([tmp_path, tmp_path / "none"]) == []
    (tmp_path / "m" / "net.onnx").touch()
    (tmp_path / "net.onnx").touch()
    assert layout.no_version(tmp_path / "m") == "no version folder; move net.onnx to m/1/"
    (told,) = layout.lost_models([tmp_path])
    assert told.endswith("net.onnx is not served: a repository holds a model as NAME/1/net.onnx")


def test_a_model_in_two_repositories_is_refused(tmp_path):
    for repository in ("a", "b"):
        (tmp_path / repository / "m").mkdir(parents=True)
    with pytest.raises(InvalidModel, match="is in more than one repository"):
        layout.find_model([tmp_path / "a", tmp_path / "b"], "m")


def test_models_are_found_and_hidden_folders_are_not(tmp_path):
    for name in ("m", ".git", "n"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").touch()
    assert list(layout.find_models([tmp_path])) == ["m", "n"]
    assert layout.find_model([tmp_path], "x") is None


def test_a_missing_repository_is_an_error(tmp_path):
    with pytest.raises(NotFound, match="cannot be read"):
        layout.find_models([tmp_path / "none"])


def test_the_fingerprint_follows_every_change(tmp_path):
    seen = [layout.fingerprint(tmp_path)]
    (tmp_path / "1").mkdir()
    seen.append(layout.fingerprint(tmp_path))
    (tmp_path / "1" / "model.onnx").write_text("a")
    seen.append(layout.fingerprint(tmp_path))
    (tmp_path / "1" / "model.onnx").write_text("ab")
    seen.append(layout.fingerprint(tmp_path))
    assert len(set(seen)) == 4
    assert layout.fingerprint(tmp_path) == seen[-1]


@pytest.mark.parametrize("name", ["labels.txt", "1/model.onnx", "1/more/weights.bin"])
def test_a_pipe_in_a_models_folder_is_refused_and_not_waited_for(tmp_path, name):
    (tmp_path / "1" / "more").mkdir(parents=True)
    (tmp_path / "1" / "nowhere").symlink_to("nothing")
    layout.require_files(tmp_path / "1")
    os.mkfifo(tmp_path / name)
    with pytest.raises(InvalidModel, match=f"{name} is neither a file nor a folder"):
        layout.require_files(tmp_path / "1")
