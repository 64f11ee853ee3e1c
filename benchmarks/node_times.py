"""Times every kernel call of real models: milliseconds, GFLOP/s, GB/s, percent of the FMA peak.

python -m benchmarks.node_times MODEL... [--threads N] [--target T] [--exact] [--top N]
       [--precision bf16]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from benchmarks.kernels_conv import measure_peak
from benchmarks.models import MODELS
from benchmarks.single_kernel import this_target
from tuili.bench.explain.timing import CallTime, timed
from tuili.compiler import Options
from tuili.precision import EXACT, PRECISIONS


def lines(calls: list[CallTime], peak: float, top: int) -> Iterator[str]:
    """The slowest calls first, each with what it attains."""
    total = sum(each.best_ns for each in calls)
    for each in sorted(calls, key=lambda t: -t.best_ns)[:top]:
        ns = max(each.best_ns, 1)
        rate = each.flops / ns
        yield (
            f"{each.best_ns / 1e6:8.3f} ms {100 * each.best_ns / total:5.1f} %"
            f" {rate:7.1f} GFLOP/s {100 * rate / peak:5.1f} %"
            f" {each.bytes / ns:6.1f} GB/s  {each.call.kernel.name:36} {each.call.label[:60]}"
        )
    yield f"{total / 1e6:8.3f} ms in {len(calls)} calls"


def main() -> None:
    """Print the table of each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--precision", choices=PRECISIONS, default=EXACT)
    parser.add_argument("--top", type=int, default=40)
    options = parser.parse_args()
    target = this_target()
    peak = measure_peak(target) * options.threads
    print(f"{target.name}: FMA peak {peak:.1f} GFLOP/s on {options.threads} threads")
    for name in options.models:
        model = MODELS[name]
        feeds = model.inputs((options.batch, *model.sizes[0][1:]))
        shapes = {key: value.shape for key, value in feeds.items()}
        chosen = Options(shapes=shapes, exact=options.exact, precision=options.precision)
        found = timed(model.path(), chosen, options.threads, feeds)
        print(name, *lines(found.calls, peak, options.top), sep="\n")


if __name__ == "__main__":
    main()
