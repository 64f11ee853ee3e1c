"""Which back end runs a version, and what is tried when one cannot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuili.errors import InvalidModel, TuiliError, Unsupported
from tuili.server.loading import candidates as candidates_module
from tuili.server.loading import preparing
from tuili.server.loading.candidates import candidates
from tuili.server.loading.preparing import prepare
from tuili.server.options import ServerOptions
from tuili.server.repository.config import from_json
from tuili.server.repository.source import Source


def tried(folder, config=None, causes=None, **options):
    found = from_json("m", config or {}, Source("config.pbtxt"))
    settings = ServerOptions(repository=(folder,), **options)
    return [
        (backend, path.name)
        for backend, path in candidates(folder, found, settings, [] if causes is None else causes)
    ]


def parameter(key, value):
    return {"parameters": {key: {"string_value": value}}}


@pytest.fixture
def version(tmp_path, monkeypatch):
    monkeypatch.setattr(candidates_module, "compiled", lambda *_: Path("compiled.tuili"))
    return tmp_path


@pytest.mark.parametrize(
    ("files", "config", "options", "found"),
    [
        (["model.onnx"], {}, {"onnx_executor": "tuili"},
         [("tuili", "compiled.tuili"), ("mixed", "compiled.tuili")]),
        (["model.onnx"], {}, {"onnx_executor": "onnxruntime"}, [("onnxruntime", "model.onnx")]),
        (["model.onnx"], parameter("executor", "onnxruntime"), {}, [("onnxruntime", "model.onnx")]),
        (["model.onnx"], {"backend": "onnxruntime"}, {"onnx_executor": "tuili"},
         [("tuili", "compiled.tuili"), ("mixed", "compiled.tuili")]),
        (["model.tuili"], {}, {}, [("tuili", "model.tuili"), ("mixed", "model.tuili")]),
        (["model.py"], {}, {}, [("python", "model.py")]),
        ([], {"backend": "identity"}, {}, [("identity", None)]),
        (["net.onnx", "model.onnx"], {"default_model_filename": "net.onnx"},
         {"onnx_executor": "onnxruntime"}, [("onnxruntime", "net.onnx")]),
    ],
)  # fmt: skip
def test_candidates(version, files, config, options, found):
    for name in files:
        (version / name).touch()
    expected = [(backend, name or version.name) for backend, name in found]
    assert tried(version, config, **options) == expected


def test_what_does_not_compile_runs_in_onnxruntime_where_it_is_installed(version, monkeypatch):
    pytest.importorskip("onnxruntime")

    def fails(source, cache, apart, precision):
        raise InvalidModel("no kernel")

    monkeypatch.setattr(candidates_module, "compiled", fails)
    (version / "model.onnx").touch()
    causes = []
    assert tried(version, causes=causes) == [("onnxruntime", "model.onnx")]
    assert [str(cause) for cause in causes] == ["no kernel"]
    assert tried(version, onnx_executor="tuili") == []


def test_a_bad_executor_is_refused(version):
    (version / "model.onnx").touch()
    with pytest.raises(InvalidModel, match="must be auto, tuili or onnxruntime, got 'tensorrt'"):
        tried(version, parameter("executor", "tensorrt"))


def test_a_bad_precision_is_refused(version):
    (version / "model.onnx").touch()
    with pytest.raises(InvalidModel, match="'precision' must be f32 or bf16, got 'fp16'"):
        tried(version, parameter("precision", "fp16"))


@pytest.mark.parametrize(
    ("errors", "expected", "attempts"),
    [
        ([Unsupported("text"), InvalidModel("python too"), None], None, 3),
        ([Unsupported("first"), Unsupported("second"), Unsupported("third")], "first", 3),
        ([InvalidModel("config is wrong"), None, None], "config is wrong", 1),
    ],
)
def test_the_next_candidate_is_tried_only_where_it_may_help(
    tmp_path, monkeypatch, errors, expected, attempts
):
    names = iter(["tuili", "mixed", "onnxruntime"])
    monkeypatch.setattr(preparing, "candidates", lambda *_: ((name, tmp_path) for name in names))
    made = []

    def attempt(*args):
        made.append(args)
        error = errors[len(made) - 1]
        if error is not None:
            raise error
        return "prepared"

    monkeypatch.setattr(preparing, "prepare_at", attempt)
    config = from_json("m", {}, Source("config.pbtxt"))
    options = ServerOptions(repository=(tmp_path,))
    if expected is None:
        assert prepare(tmp_path, config, 1, options) == "prepared"
    else:
        with pytest.raises(TuiliError, match=expected):
            prepare(tmp_path, config, 1, options)
    assert len(made) == attempts


COUNTS = """
class Model:
    def __init__(self, parameters):
        self.rows = []

    def run(self, inputs):
        self.rows.append(len(inputs["x"]))
        return {"y": inputs["x"]}

    def close(self):
        self.rows.append("closed")
"""


def counting(tmp_path, rows, **source):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.py").write_text(COUNTS)
    tensor = {"data_type": "TYPE_FP32", "dims": [2]}
    source = source or {"zero_data": True}
    sample = {"inputs": {"x": {**tensor, **source}}, "batch_size": rows, "count": 2}
    config = {
        "max_batch_size": 8,
        "input": [{"name": "x", **tensor}],
        "output": [{"name": "y", **tensor}],
        "model_warmup": [{"name": "zeros", **sample}],
        **parameter("isolation", "none"),
    }
    return from_json("m", config, Source("config.pbtxt"))


def test_an_instance_that_comes_later_is_as_warm_as_the_first(tmp_path):
    options = ServerOptions(repository=(tmp_path,))
    prepared = prepare(tmp_path, counting(tmp_path, 3), 1, options)
    later = prepared.warm_another(1)
    assert later._model.rows == prepared.instances[0]._model.rows == [3, 3]


def test_an_instance_that_cannot_be_warmed_is_closed(tmp_path, monkeypatch):
    options = ServerOptions(repository=(tmp_path,))
    prepared = prepare(tmp_path, counting(tmp_path, 3), 1, options)
    made = prepared.another(1)
    monkeypatch.setattr(made._model, "run", lambda inputs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        replace(prepared, another=lambda number: made).warm_another(1)
    assert made._model.rows == ["closed"]


def test_every_row_of_a_warm_up_has_what_the_file_begins_with(tmp_path):
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "pair").write_bytes(np.array([1, 2, 3], np.float32).tobytes())
    config = counting(tmp_path, 2, input_data_file="pair")
    prepared = prepare(tmp_path, config, 1, ServerOptions(repository=(tmp_path,)))
    assert prepared.instances[0]._model.rows == [2, 2]


def test_a_warm_up_file_that_is_too_short_is_named_with_what_it_must_hold(tmp_path):
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "half").write_bytes(bytes(4))
    config = counting(tmp_path, 2, input_data_file="half")
    wanted = (
        r"model 'm': warm-up of input 'x': .*warmup/half.*: 4 bytes of data, .*\[1, 2\] takes 8"
    )
    with pytest.raises(InvalidModel, match=wanted):
        prepare(tmp_path, config, 1, ServerOptions(repository=(tmp_path,)))


def test_a_model_whose_warm_up_fails_is_closed(tmp_path):
    config = counting(tmp_path, 2, input_data_file="nothing")
    closed = tmp_path / "closed"
    code = COUNTS.replace('self.rows.append("closed")', f"open({str(closed)!r}, 'w').close()")
    (tmp_path / "1" / "model.py").write_text(code)
    with pytest.raises(InvalidModel, match="nothing is missing"):
        prepare(tmp_path, config, 1, ServerOptions(repository=(tmp_path,)))
    assert closed.exists()


@pytest.mark.parametrize("name", ["a!b", "a;b", "a$b", "a(b)", "a\\b", "a~b"])
def test_names_that_a_shell_would_read_are_refused_to_python_models_as_by_triton(tmp_path, name):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.py").write_text("class Model: pass")
    config = from_json(name, {"backend": "python"}, Source("config.pbtxt"))
    with pytest.raises(InvalidModel, match="Invalid stub name: contains invalid characters"):
        prepare(tmp_path, config, 1, ServerOptions(repository=(tmp_path,), compat="triton"))
