"""Times tuili beside other engines on networks that nobody tuned it for: `make bench-unseen`.

Networks of common shapes with random weights, exported once; see `export_unseen`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.fetch import cache_dir, locked
from benchmarks.models import Feeds, torch_python
from tuili.bench.engines import Settings, installed
from tuili.bench.feeds import random_feeds
from tuili.bench.report import record, table
from tuili.bench.rounds import compare
from tuili.importers.onnx import import_model
from tuili.tensors import DType, TensorSpec

NETWORKS = (
    "resnet18", "mobilenet_v2", "regnet_y", "efficientnet_b0", "convnext_tiny", "vit_small",
    "swin_tiny", "segformer_b0", "distilbert", "gpt2", "whisper_encoder", "wav2vec2", "unet",
    "volume_unet", "lstm_tagger", "forest",
)  # fmt: skip
# Made by the Python of this environment, not by that of torch.
SCRIPTS = {"forest": "export_forest.py"}
WORDS = 8000  # of the smallest vocabulary


def network(name: str) -> Path:
    """The ONNX file of a network, exported on first use."""
    with locked(f"unseen-{name}") as cache:
        target = cache / "onnx" / f"unseen-{name}.onnx"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            unfinished = target.with_suffix(".part")
            python = sys.executable if name in SCRIPTS else torch_python()
            script = Path(__file__).with_name(SCRIPTS.get(name, "export_unseen.py"))
            subprocess.run([python, script, name, unfinished], check=True)
            unfinished.rename(target)
    return target


def feeds_of(path: Path) -> Feeds:
    """Random numbers; words for the first integer input, ones for masks."""
    specs = [
        TensorSpec(value.name, value.tensor.dtype, value.shape)
        for value in import_model(path).inputs
    ]
    feeds = random_feeds(specs)
    rng = np.random.default_rng(0)
    for index, spec in enumerate(specs):
        if spec.dtype is DType.I64:
            shape = feeds[spec.name].shape
            feeds[spec.name] = rng.integers(0, WORDS, shape) if index == 0 else np.ones(shape, int)
    return feeds


def main() -> None:
    """Print the table; write every round to `--json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, default=cache_dir() / "unseen.json")
    options = parser.parse_args()
    settings = Settings(options.threads)
    console = Console(width=160, log_path=False)
    comparisons = []
    for name in options.networks or NETWORKS:
        path = network(name)
        found = compare(path, feeds_of(path), installed(), settings, options.rounds, name)
        comparisons.append(found)
        times = ", ".join(f"{t.engine} {t.median_ms:.3g}" for t in found.timings)
        console.log(f"{name}: {times} {found.failures or ''}")
    console.print(table(comparisons, settings))
    options.json.write_text(json.dumps(record(comparisons, settings), indent=1) + "\n")


if __name__ == "__main__":
    main()
