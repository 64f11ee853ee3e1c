"""A better version is promoted by itself, three bad ones are sent back, and no request fails.

    python -m examples.canary [--picture canary.png]

A server answers with version 1 of a text recogniser, under load from the first moment to the last.
Versions 2 to 5 arrive one after the other; each gets the same plan. Nobody decides anything.
Exits with 1 when the story ends differently, or when one request of a client failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from examples.canary.load import Seen, ask, pictures
from examples.canary.versions import MODEL, add_version, compiled
from tuili.cli.operating import call

CLIENTS = 3
ENDS = {2: "PROMOTED", 3: "ROLLED_BACK", 4: "ROLLED_BACK", 5: "ROLLED_BACK"}
WHAT = {
    2: "compiled for this machine",
    3: "30 % slower",
    4: "wrong on 2 % of the inputs",
    5: "its process dies",
}
PLAN: dict[str, Any] = {
    "model": MODEL,
    "steps": [
        {"shadow": 100, "min_time_s": 5, "min_samples": 200},
        {"weight": 50, "min_time_s": 5, "min_samples": 50},
    ],
    "metrics": {
        "error_rate": {"margin": 0.05},
        "latency_p50": {"tolerance": 0.05, "margin": 0.2},
        "disagreement": {"tolerance": 0.001, "margin": 0.02},
    },
    "rollback_window_s": 5,
}


def main() -> int:
    """Tell the story."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("canary.png"))
    options = parser.parse_args()
    plain = "x86-64" if platform.machine() == "x86_64" else "native"
    print("compiling the recogniser for two targets (kept for the next time) ...", flush=True)
    for target in (plain, "native"):
        compiled(target)
    with tempfile.TemporaryDirectory(prefix="tuili-canary-") as folder:
        repository = Path(folder)
        add_version(repository, 1, plain)
        command = [sys.executable, "-m", "tuili", "serve", folder, "--http-port=0",
                   "--grpc-port=-1", "--metrics-port=-1", "--log-level=error"]  # fmt: skip
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            return tell(repository, plain, server, options.picture)
        finally:
            server.terminate()
            server.wait(30)


def tell(repository: Path, plain: str, server: subprocess.Popen[str], picture: Path) -> int:
    """Put load on the server, roll out one version after the other, print what happened."""
    assert server.stdout is not None
    port = server.stdout.readline().split("http=")[1].split()[0]
    address, seen, lines = f"127.0.0.1:{port}", Seen(), pictures()
    threads = [
        threading.Thread(target=ask, args=(address, seen, seed, lines)) for seed in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    chapters: list[tuple[float, str]] = []
    wrong: list[str] = []
    try:
        time.sleep(3.0)
        for version, wanted in ENDS.items():
            add_version(repository, version, plain)
            ended = roll_out(f"http://{address}", version, seen, chapters)
            if ended != wanted:
                wrong.append(f"version {version} ended {ended}, not {wanted}")
        time.sleep(3.0)
    finally:
        seen.stop.set()
        for thread in threads:
            thread.join()
    return report(seen, chapters, wrong, picture)


def roll_out(server: str, version: int, seen: Seen, chapters: list[tuple[float, str]]) -> str:
    """One roll-out from its beginning to its end."""
    name = f"v{version}"
    began = seen.now()
    print(f"\n{began:6.1f} s  version {version} arrives: {WHAT[version]}", flush=True)
    chapters.append((began, f"v{version} arrives: {WHAT[version]}"))
    plan = json.dumps(PLAN | {"name": name, "candidate": version}).encode()
    call(server, "POST", "/v2/rollouts", plan)
    last = ""
    while True:
        found = call(server, "GET", f"/v2/rollouts/{name}")
        line = f"{found['state']} step {found['step'] + 1}: {found['why']}"
        if line != last:
            print(f"{seen.now():6.1f} s  {line}", flush=True)
            last = line
        if found["state"] in ("PROMOTED", "ROLLED_BACK", "ABORTED", "HOLDING"):
            chapters.append((seen.now(), f"v{version} {found['state'].lower()}"))
            print(f"{'':10}after {seen.now() - began:.1f} s", flush=True)
            return str(found["state"])
        time.sleep(0.5)


def report(seen: Seen, chapters: list[tuple[float, str]], wrong: list[str], picture: Path) -> int:
    """The numbers at the end, and the picture."""
    errors = Counter(row[3] for row in seen.rows if row[3])
    print(f"\n{len(seen.rows)} requests in {seen.now():.0f} s, {sum(errors.values())} failed")
    for version in sorted({row[2] for row in seen.rows if row[2]}):
        times = sorted(row[1] for row in seen.rows if row[2] == version)
        p99 = times[min(int(0.99 * len(times)), len(times) - 1)]
        print(
            f"  version {version} gave {len(times):6} answers, "
            f"median {1e3 * median(times):.1f} ms, p99 {1e3 * p99:.1f} ms"
        )
    for text, count in errors.most_common(3):
        print(f"  {count} times: {text}")
    for text in wrong:
        print(f"  {text}")
    try:
        from examples.canary.plot import draw
    except ImportError as error:
        print(f"no picture: {error}")
    else:
        draw(picture, seen, chapters)
        print(f"picture: {picture}")
    return 1 if errors or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
