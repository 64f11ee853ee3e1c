"""compile, run, inspect and bench on a small model."""

import errno
import json
import os

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from tuili.cli.main import app

RUNNER = CliRunner()
NET = """<ir_version: 8, opset_import: ["": 17]>
net (float[n, 3] x) => (float[n, 2] y)
<float[3, 2] w = {1, -1, 2, 0, 0, 3}, float[2] b = {0.5, -0.5}> {
    s = Gemm(x, w, b)
    y = Relu(s)
}"""


def run(*arguments):
    return RUNNER.invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "net.onnx"
    onnx.save(onnx.parser.parse_model(NET), path)
    return path


@pytest.fixture(scope="module")
def artifact(model):
    path = model.with_suffix(".tuili")
    done = run("compile", model, "-o", path)
    assert done.exit_code == 0, done.output
    return path


def test_compile_writes_the_artifact_beside_the_model(artifact):
    assert (artifact / "manifest.json").exists()


def test_compile_quiet_prints_nothing(model, tmp_path):
    done = run("compile", model, "-o", tmp_path / "quiet.tuili", "--quiet", "--check")
    assert done.exit_code == 0
    assert done.output == ""


def test_compile_fixes_the_dims_that_are_asked_for(model, tmp_path):
    path = tmp_path / "fixed.tuili"
    assert run("compile", model, "-o", path, "--shape", "x=4x3").exit_code == 0
    assert json.loads((path / "manifest.json").read_text())["inputs"][0]["shape"] == [4, 3]


def test_compile_refuses_an_unknown_target(model, tmp_path):
    done = run("compile", model, "-o", tmp_path / "m.tuili", "--target", "x86-64-avx3")
    assert done.exit_code == 1
    assert "x86-64-avx2" in done.stderr


def test_print_after_an_unknown_pass_lists_those_that_ran(model, tmp_path):
    done = run("compile", model, "-o", tmp_path / "m.tuili", "--print-after", "fold")
    assert done.exit_code == 1
    assert "no such pass ran" in done.stderr
    last = done.stderr.split("These did: ")[1].split(", ")[-1].strip()
    shown = run("compile", model, "-o", tmp_path / "m.tuili", "--print-after", last, "-q")
    assert shown.exit_code == 0
    assert "Gemm" in shown.stdout or "MatMul" in shown.stdout


def test_run_saves_what_the_model_answers(artifact, tmp_path):
    x = np.array([[1, 2, 3], [-9, 0, 0]], np.float32)
    np.save(tmp_path / "x.npy", x)
    done = run("run", artifact, "--input", f"x={tmp_path / 'x.npy'}", "-o", tmp_path / "y.npz")
    assert done.exit_code == 0, done.output
    assert "f32" in done.stdout
    assert np.load(tmp_path / "y.npz")["y"].tolist() == [[5.5, 7.5], [0, 8.5]]


def test_run_makes_up_inputs_of_the_shape_asked_for(artifact):
    done = run("run", artifact, "--shape", "x=7x3", "--input", "x=random")
    assert "[7, 2]" in done.stdout


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("z=random", "no input 'z'"),
        ("random", "expected NAME=FILE.npy"),
        ("x=missing.npy", "no input file 'missing.npy'"),
    ],
)
def test_run_refuses_inputs_that_are_not_there(artifact, option, message):
    done = run("run", artifact, "--input", option)
    assert done.exit_code == 1
    assert message in done.stderr


def test_run_refuses_a_file_that_is_no_array(artifact, tmp_path):
    (tmp_path / "x.npy").write_bytes(b"nonsense")
    done = run("run", artifact, "--input", f"x={tmp_path / 'x.npy'}")
    assert done.exit_code == 1
    assert "is not a .npy or .npz file: it holds Python objects, or" in done.stderr


def test_run_refuses_a_file_of_several_arrays(artifact, tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3), b=np.ones(3))
    done = run("run", artifact, "--input", f"x={tmp_path / 'x.npz'}")
    assert done.exit_code == 1
    assert "holds a, b, and no array called 'x'" in done.stderr


@pytest.mark.parametrize("command", ["run", "inspect", "compile"])
def test_a_folder_of_something_else_is_no_model(command, tmp_path):
    done = run(command, tmp_path)
    assert done.exit_code == 1
    assert "is a folder" in done.stderr


def test_compile_never_replaces_a_file_that_is_no_artifact(model, tmp_path):
    before = model.read_bytes()
    for output in (model, tmp_path / "notes.txt"):
        (tmp_path / "notes.txt").write_text("years")
        done = run("compile", model, "-o", output)
        assert done.exit_code == 1
        assert "is a file, and no artifact" in done.stderr
    assert model.read_bytes() == before
    assert (tmp_path / "notes.txt").read_text() == "years"


def test_compile_replaces_its_own_file(model, tmp_path):
    for _ in range(2):
        done = run("compile", model, "-o", tmp_path / "m.tuiliz")
        assert done.exit_code == 0, done.output


def test_a_disk_that_is_full_is_one_error(model, monkeypatch, tmp_path):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "m.tuili")

    monkeypatch.setattr("tuili.compiler.write_artifact", full)
    done = run("compile", model, "-o", tmp_path / "m.tuili")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: 'm.tuili': No space left on device: free some")


def test_bench_refuses_an_engine_that_is_not_known(model):
    done = run("bench", model, "--engine", "onxruntime")
    assert done.exit_code == 1
    assert "unknown engine 'onxruntime'. Did you mean 'onnxruntime'?" in done.stderr


def test_bench_of_a_tiny_model_alone_shows_its_time_and_what_is_missing(model, monkeypatch):
    monkeypatch.setattr("tuili.cli.bench_engines.installed", lambda: ["tuili"])
    done = run("bench", model, "--rounds", "1")
    assert done.exit_code == 0, done.output
    assert "no other engine is installed; pip install 'tuili[bench]'" in done.stdout
    assert "0.00 (" not in done.stdout


def test_inspect_shows_signature_sizes_and_kernels(artifact):
    done = run("inspect", artifact)
    assert done.exit_code == 0, done.output
    for text in ("x: f32[n, 3]", "y: f32[n, 2]", "weights", "arena", "kernels"):
        assert text in done.stdout


def test_what_inspect_tells_is_whole(artifact):
    assert str(artifact) in run("inspect", artifact).stdout.replace("\n         ", "")


NAN = """<ir_version: 8, opset_import: ["": 17]>
net (float[n] x) => (float[n] the_name_of_an_output_that_is_long_indeed)
{ z = Sub(x, x)  the_name_of_an_output_that_is_long_indeed = Div(z, z) }"""


def test_run_shows_what_looks_like_markup_and_whole_names(tmp_path):
    onnx.save(onnx.parser.parse_model(NAN), tmp_path / "nan.onnx")
    done = run("run", tmp_path / "nan.onnx", "--shape", "x=2")
    assert "[nan nan]" in done.stdout
    assert "…" not in done.stdout


def test_run_wants_numbers_for_dims(artifact):
    done = run("run", artifact, "--shape", "x=nx3")
    assert "every dim must be a number, got ('n', 3); `tuili compile` is where" in done.stderr


def test_a_url_is_told_apart_from_a_file():
    assert "it is a URL: fetch the file first" in run("run", "https://x.org/net.onnx").stderr


UNIQUE = """<ir_version: 8, opset_import: ["": 17]>
net (float[n] x) => (float[m] y) { y = Unique(x) }"""


def test_inspect_says_which_nodes_python_runs_and_why(artifact, tmp_path):
    onnx.save(onnx.parser.parse_model(UNIQUE), tmp_path / "unique.onnx")
    assert "host steps: none" in run("inspect", artifact).stdout
    done = run("inspect", tmp_path / "unique.onnx")
    assert "host steps: 1" in done.stdout
    assert "Unique node 'y': its shape depends on data" in done.stdout


def test_bench_compares_the_engines_and_keeps_every_round(model, tmp_path):
    kept = tmp_path / "rounds.json"
    options = ("--rounds", 2, "--shape", "x=2x3", "--json", kept)
    done = run("bench", model, "--engine", "tuili", "--engine", "onnxruntime", *options)
    assert done.exit_code == 0, done.output
    (comparison,) = json.loads(kept.read_text())["comparisons"]
    assert {t["engine"] for t in comparison["timings"]} == {"tuili", "onnxruntime"}
    assert all(t["difference"] < 1e-5 for t in comparison["timings"])


@pytest.mark.parametrize(
    "options",
    [
        ("--shape", f"x={10**12}x3"),
        ("--shape", f"x={10**30}x3"),
        ("--shape", f"x={10**10}x3"),  # which the system may promise, and kill us for
    ],
)
def test_run_refuses_inputs_that_no_memory_holds(artifact, options):
    done = run("run", artifact, *options)
    assert done.exit_code == 1
    assert "x: f32[n, 3]" in done.stderr
    assert "is too large" in done.stderr


def test_compile_refuses_a_dim_that_no_artifact_can_name(model, tmp_path):
    done = run("compile", model, "-o", tmp_path / "m.tuili", "--shape", f"x={10**30}x3")
    assert (done.exit_code, "'x': 1000000000000000000000000000000 is no dim" in done.stderr) == (
        1,
        True,
    )


def test_a_negative_seed_is_a_wrong_option(artifact):
    assert run("run", artifact, "--seed", "-1").exit_code == 2


def test_what_run_saves_it_reads(artifact, tmp_path):
    """An .npz file gives an input the array of its name, or its only one."""
    x = np.ones((2, 3), np.float32)
    np.savez(tmp_path / "one.npz", other=x)
    np.savez(tmp_path / "two.npz", other=x[:1], x=x)
    for file in ("one.npz", "two.npz"):
        done = run("run", artifact, "--input", f"x={tmp_path / file}")
        assert (done.exit_code, "[2, 2]" in done.stdout) == (0, True)


def test_memory_that_runs_out_is_one_error(model, monkeypatch, tmp_path):
    def out(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("tuili.compiler.write_artifact", out)
    done = run("compile", model, "-o", tmp_path / "m.tuili")
    assert (done.exit_code, done.stderr) == (1, "error: memory ran out\n")


def test_paths_are_told_as_they_are(model, tmp_path):
    """Square brackets are no markup, long lines are not folded."""
    path = tmp_path / f"m [x]{'y' * 100}.tuili"
    done = run("compile", model, "-o", path)
    assert done.stderr.startswith(f"{path} (")
