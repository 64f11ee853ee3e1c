"""Times tuili beside onnxruntime and openvino on the real models: `make bench`.

Prints the table and writes every round to `--json` (default build/engines.json).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from benchmarks.models import MODELS
from tuili.bench.engines import Settings, installed
from tuili.bench.report import markdown, record, table
from tuili.bench.rounds import Comparison, compare

# Its classical operators are lacking in most engines; it is in the agreement tests only.
NOT_TIMED = {"digits_mlp"}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="all real models when none is named")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--dynamic", action="store_true", help="leave batch and sizes open")
    parser.add_argument("--json", type=Path, default=Path("build/engines.json"))
    parser.add_argument("--markdown", action="store_true", help="print the table of README")
    options = parser.parse_args()
    settings = Settings(options.threads, fixed_shapes=not options.dynamic)
    console = Console(width=160, log_path=False)
    comparisons = [
        _measured(name, settings, options.rounds, console)
        for name in options.models or MODELS
        if options.models or name not in NOT_TIMED
    ]
    console.print(table(comparisons, settings))
    if options.markdown:
        print(markdown(comparisons))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record(comparisons, settings), indent=1))
    console.print(f"every round: {options.json}")


def _measured(name: str, settings: Settings, rounds: int, console: Console) -> Comparison:
    model = MODELS[name]
    found = compare(model.path(), model.inputs(model.sizes[0]), installed(), settings, rounds, name)
    times = ", ".join(f"{t.engine} {t.median_ms:.2f}" for t in found.timings)
    console.log(f"{name}: {times}")
    for engine, reason in found.failures.items():
        console.log(f"{name}: {engine} failed: {reason}")
    return found


if __name__ == "__main__":
    main()
