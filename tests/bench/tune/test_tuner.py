"""Tuning a small network for real: its plans agree, and what it finds is what compiling takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from tuili import compiler
from tuili.bench.tune.problems import Question, variant
from tuili.cli.main import app
from tuili.codegen.targets import TARGETS
from tuili.codegen.tuning import Entry, add_entries, read_record
from tuili.compiler import Options, generate, package
from tuili.host import HostSteps
from tuili.importers.onnx import import_model
from tuili.lower.choice import by_cost
from tuili.runtime import load
from tuili.runtime.cpu import host_features

NET = """<ir_version: 8, opset_import: ["": 17]>
net (float[1, 32, 16, 16] x) => (float[1, 64] y)
<float[64, 32, 3, 3] w1, float[64, 1, 3, 3] w2, float[64, 64, 1, 1] w3, float[256, 64] w4,
 float[64, 32, 3, 3] w5> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1)
    b = Conv <pads = [1, 1, 1, 1], group = 64> (a, w2)
    c = Conv (b, w3)
    d = Conv <pads = [1, 1, 1, 1]> (x, w5)
    s = Add(c, d)
    t = MaxPool <kernel_shape = [8, 8], strides = [8, 8]> (s)
    f = Flatten(t)
    y = MatMul(f, w4)
}"""
SHAPES = {
    "w1": (64, 32, 3, 3),
    "w2": (64, 1, 3, 3),
    "w3": (64, 64, 1, 1),
    "w4": (256, 64),
    "w5": (64, 32, 3, 3),
}
CODES = """<ir_version: 8, opset_import: ["": 17]>
codes (float[1, 32, 16, 16] x) => (float[1, 64] y)
<int8[64, 32, 3, 3] w1, int8[64, 1, 3, 3] w2, int8[64, 64, 1, 1] w3, int8[256, 64] w4,
 float s = {0.05}, float t = {0.002}, uint8 z = {128}, int8 n = {0}> {
    q0 = QuantizeLinear(x, s, z)
    x0 = DequantizeLinear(q0, s, z)
    f1 = DequantizeLinear(w1, t, n)
    a = Conv <pads = [1, 1, 1, 1]> (x0, f1)
    q1 = QuantizeLinear(a, s, z)
    x1 = DequantizeLinear(q1, s, z)
    f2 = DequantizeLinear(w2, t, n)
    b = Conv <pads = [1, 1, 1, 1], group = 64> (x1, f2)
    q2 = QuantizeLinear(b, s, z)
    x2 = DequantizeLinear(q2, s, z)
    f3 = DequantizeLinear(w3, t, n)
    c = Conv (x2, f3)
    m = MaxPool <kernel_shape = [8, 8], strides = [8, 8]> (c)
    f = Flatten(m)
    q3 = QuantizeLinear(f, s, z)
    x3 = DequantizeLinear(q3, s, z)
    f4 = DequantizeLinear(w4, t, n)
    y = MatMul(x3, f4)
}"""
RUNNER = CliRunner()


def saved(text: str, folder: Path) -> Path:
    """The model of a text, with random weights."""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        if f" {name}" not in text:
            continue
        weights = (rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32)
        if text is CODES:
            weights = rng.integers(-127, 128, shape).astype(np.int8)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(NET, tmp_path_factory.mktemp("tune"))


def run(*arguments: object) -> str:
    done = RUNNER.invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(
    ("text", "op", "tolerance"), [(NET, "Conv", 1e-5), (CODES, "QConv", 0)], ids=["f32", "codes"]
)
def test_all_plans_of_a_problem_compute_the_same(
    text: str, op: str, tolerance: float, tmp_path: Path
) -> None:
    model, options = saved(text, tmp_path), Options()
    decisions = generate(import_model(model), options, pick=by_cost).program.decisions
    asked = [Question(each.problem, each.names, ()) for each in decisions.values()]
    assert op in {each.problem.split()[0] for each in asked}
    x = np.random.default_rng(1).standard_normal((1, 32, 16, 16)).astype(np.float32)
    found = []
    for place in range(max(len(each.names) for each in asked)):
        compiled = generate(import_model(model), options, pick=variant(place, asked))
        made = package(compiled, options, tmp_path / f"{place}.tuili")
        found.append(load(made.path, host=HostSteps).run({"x": x})["y"])
    assert len(found) > 1
    for other in found[1:]:
        most = tolerance * np.abs(found[0]).max()
        np.testing.assert_allclose(other, found[0], rtol=0, atol=most)


def test_what_was_measured_is_compiled_told_and_not_measured_again(
    net: Path, tmp_path: Path
) -> None:
    record, artifact = tmp_path / "record.jsonl", tmp_path / "net.tuili"
    tune = ("compile", net, "-o", artifact, "--tune", "--tuning", record, "--tune-seconds", 0)
    first = RUNNER.invoke(app, list(map(str, tune)))
    assert "4 problems measured" in first.stderr
    assert [bool(entry.by) for entry in read_record(record)] == [True] * 4
    assert "5 of 5 choices were measured" in run("inspect", artifact)
    assert "every problem of this model was measured before" in (
        RUNNER.invoke(app, list(map(str, tune))).stderr
    )
    assert "chosen by time: Conv 1x32x16x16" in run("explain", net, "--tuning", record)


def written(record: Path, options: Options, wanted: Sequence[int], net: Path) -> None:
    """A record in which the plan at each wanted place is the fastest."""
    from tuili.runtime.cpu import processor

    decisions = generate(import_model(net), options, pick=by_cost).program.decisions
    problems = {each.problem: each.names for each in decisions.values()}
    add_entries(
        record,
        [
            Entry(
                target=options.resolve().name,
                processor=processor(),
                problem=problem,
                ns={name: 100 + (at != place) * 900 for at, name in enumerate(names)},
            )
            for (problem, names), place in zip(problems.items(), wanted, strict=True)
        ],
    )


def test_the_same_record_gives_the_same_bytes(net: Path, tmp_path: Path) -> None:
    record, options = tmp_path / "record", Options()
    written(record, options, (1, 1, 1, 1), net)
    made = [
        compiler.compile(net, tmp_path / f"{name}.tuiliz", tuning=tuning).path.read_bytes()
        for name, tuning in (("a", record), ("b", record), ("c", "/dev/null"))
    ]
    assert made[0] == made[1] != made[2]


def test_exact_compilations_take_the_fastest_exact_plan(net: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    written(record, Options(), (0, 0, 0, 0), net)
    exact = generate(import_model(net), Options(exact=True, tuning=record)).program.decisions
    assert all("winograd" not in each.chosen for each in exact.values())
    free = generate(import_model(net), Options(tuning=record)).program.decisions
    assert any("winograd" in each.chosen for each in free.values())


def test_targets_that_this_machine_does_not_run_are_refused(net: Path) -> None:
    other = next(name for name, t in TARGETS.items() if not host_features().issuperset(t.requires))
    done = RUNNER.invoke(app, ["compile", str(net), "--tune", "--target", other])
    assert done.exit_code == 1
    assert f"target {other} cannot be measured here" in done.stderr


def test_a_damaged_record_ends_the_compilation(net: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.write_text(json.dumps({"target": "t"}))
    done = RUNNER.invoke(app, ["compile", str(net), "--tuning", str(record)])
    assert done.exit_code != 0
    assert f"{record}:1" in done.stderr
