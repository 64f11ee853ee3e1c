"""tuili beside Triton and the Python servers, in interleaved rounds: answers per second, checked.

    make bench-server            python -m benchmarks.server --rounds 5 --json FILE
    python -m benchmarks.server --servers tuili,triton --cases "small http,mlp grpc" --free

The server has core 0 and the load generator core 1, unless --free. Every server runs once per
round, so that a slow moment of the machine hits all; medians of the rounds are shown, and the ratio
of tuili (and of tuili with its model in a host) to each. `python -m benchmarks.peers.install`
installs the peers; absent ones are skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.peers import install
from benchmarks.peers.servers import SERVERS, Case, Server, started
from tuili.bench.load.levels import Level, Settings
from tuili.bench.load.windows import Window
from tuili.bench.report import machine

CASES = [
    *(Case(m, p, c) for m in ("small", "mlp") for p in ("http", "grpc") for c in (1, 8, 32)),
    *(Case("small", protocol, c) for protocol in ("json", "http-ids", "grpc-ids") for c in (8, 32)),
    *(Case("big", protocol, 8) for protocol in ("http", "grpc", "shm")),
    *(Case("python", protocol, c) for protocol in ("http", "grpc") for c in (8, 32)),
]
Samples = dict[tuple[str, str], list[Level]]


def available(names: Iterable[str]) -> list[Server]:
    """The servers of those names that are installed."""
    found = []
    for name in names:
        peer = name.partition("-")[0]
        if peer == "tuili" or install.python(peer).exists():
            found.append(SERVERS[name])
        else:
            print(f"{name} is not installed: python -m benchmarks.peers.install {peer}")
    return found


def run_round(
    servers: list[Server], cases: list[Case], settings: Settings, cores: str, samples: Samples
) -> None:
    """Every server once, each over all its cases."""
    for server in servers:
        mine = [case for case in cases if server.serves(case)]
        models = list(dict.fromkeys(case.model for case in mine))
        groups = [[model] for model in models] if server.one_model else [models]
        for group in filter(None, groups):
            with tempfile.TemporaryDirectory(prefix="tuili-bench-") as folder:
                try:
                    measure(server, group, mine, settings, cores, Path(folder), samples)
                except RuntimeError as error:
                    print(f"{error}\n{(Path(folder) / 'log').read_text()[:3000]}", file=sys.stderr)


def measure(
    server: Server,
    models: list[str],
    cases: list[Case],
    settings: Settings,
    cores: str,
    folder: Path,
    samples: Samples,
) -> None:
    """One server over the cases of some models."""
    with started(server, models[0], folder, cores) as running:
        for case in cases:
            if case.model not in models:
                continue
            with running.load(case, settings) as load:
                level = load.closed(case.concurrency)
            if not level.window.clean:
                print(f"{server.name} {case}: {level.texts}", file=sys.stderr)
            samples[server.name, str(case)].append(level)


def table(samples: Samples, cases: list[Case], servers: list[Server]) -> Table:
    """Medians; in brackets how many times as many answers tuili gives."""
    grid = Table(title="answers/s (tuili / it), p99 ms, CPU us", title_justify="left")
    grid.add_column("case")
    for server in servers:
        grid.add_column(server.name, justify="right")
    for case in map(str, cases):
        own = [
            median(samples[name, case])
            for name in ("tuili", "tuili-host", "tuili-poll")
            if (name, case) in samples
        ]
        row = [case]
        for server in servers:
            levels = samples.get((server.name, case))
            row.append(cell(levels, own, server) if levels else "")
        grid.add_row(*row)
    return grid


def cell(levels: list[Level], own: list[float], server: Server) -> str:
    """One server's medians in one case."""
    rate = median(levels)
    ratio = ""
    if own and not server.name.startswith("tuili"):
        ratio = " (" + ", ".join(f"{each / rate:.2f}" for each in own) + ")"
    p99 = statistics.median(level.window.percentile(99.0) for level in levels)
    cpu = statistics.median(level.cpu_us or 0.0 for level in levels)
    return f"{rate:,.0f}{ratio} {p99:.2g} {cpu:.0f}"


def median(levels: list[Level]) -> float:
    """Answers per second."""
    return statistics.median(level.window.rate for level in levels)


def main() -> None:
    usual = [server.name for server in SERVERS.values() if not server.when_asked]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one sample")
    parser.add_argument("--servers", default=",".join(usual))
    parser.add_argument("--cases", default="", help="those that start with one of these")
    parser.add_argument("--free", action="store_true", help="both cores for both")
    parser.add_argument("--json", type=Path, help="keep every sample; adds to what is there")
    parser.add_argument("--show", type=Path, help="print the medians of a kept file instead")
    options = parser.parse_args()
    if options.show:
        samples = stored(options.show, free=options.free)
        shown = [server for server in SERVERS.values() if any(s == server.name for s, _ in samples)]
        Console(width=240).print(table(samples, CASES, shown))
        return
    servers = available(options.servers.split(","))
    starts = [text.strip() for text in options.cases.split(",")]
    cases = [case for case in CASES if any(str(case).startswith(start) for start in starts)]
    settings = Settings(warm_up_s=0.3, window_s=options.seconds, windows=1)
    if not options.free:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    samples: Samples = defaultdict(list)
    for _ in range(options.rounds):
        run_round(servers, cases, settings, "" if options.free else "0", samples)
    Console(width=200).print(table(samples, cases, servers))
    if options.json:
        keep(options.json, samples, free=options.free)


def keep(path: Path, samples: Samples, *, free: bool) -> None:
    """Add the samples to a file."""
    runs = json.loads(path.read_text()) if path.exists() else []
    rows = [
        {"server": server, "case": case, "samples": [asdict(level) for level in levels]}
        for (server, case), levels in samples.items()
    ]
    told = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    runs.append({**told, "cores": "free" if free else "one each", "rows": rows})
    text = ",\n".join(json.dumps(run) for run in runs)
    path.write_text(f"[{text}]\n")


def stored(path: Path, *, free: bool) -> Samples:
    """The samples of a file, of all runs with one core each or with both cores free."""
    samples: Samples = defaultdict(list)
    for run in json.loads(path.read_text()):
        if (run["cores"] == "free") is not free:
            continue
        for row in run["rows"]:
            for kept in row["samples"]:
                shares = kept["window"].pop("percentiles_ms")
                window = Window(
                    **kept.pop("window"), percentiles_ms={float(k): v for k, v in shares.items()}
                )
                samples[row["server"], row["case"]].append(Level(**kept, window=window))
    return samples


if __name__ == "__main__":
    main()
