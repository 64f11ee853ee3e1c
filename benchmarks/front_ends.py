"""One front end beside several: answers per second, and what a request that is passed on costs.

    python -m benchmarks.front_ends [--front-ends 2] [--rounds 3]

The model is an MLP of 1.1 million weights (about 2 MFLOP a row), which runs inline. Rounds of the
two servers alternate; the generator (`tuili bench --server`) takes its share of the machine.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIMS = (64, 1024, 1024, 10)
ASKED = 500


def write_model(folder: Path) -> None:
    """Three matrix products with ReLU between them; any batch."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for at, shape in enumerate(pairwise(DIMS)):
        values = random.standard_normal(shape, np.float32) / 16
        weights.append(numpy_helper.from_array(values, f"w{at}"))
        nodes.append(helper.make_node("MatMul", [f"x{at}", f"w{at}"], [f"y{at}"]))
        nodes.append(helper.make_node("Relu", [f"y{at}"], [f"x{at + 1}"]))
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])]
        for name, size in (("x0", DIMS[0]), (f"x{len(DIMS) - 1}", DIMS[-1]))
    ]
    graph = helper.make_graph(nodes, "mlp", *ends, weights)
    (folder / "mlp" / "1").mkdir(parents=True)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, folder / "mlp" / "1" / "model.onnx")


@contextmanager
def serving(folder: Path, front_ends: int) -> Iterator[dict[str, int]]:
    """The ports of a running server."""
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "tuili", "serve", str(folder), *ports]
    command += [f"--frontends={front_ends}", "--log-level=warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield {name: int(port) for name, port in re.findall(r"(\w+)=(\d+)", line)}
        process.terminate()


def rate(protocol: str, port: int) -> float:
    """Answers per second of 32 clients."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        url = f"{protocol}://127.0.0.1:{port}"
        subprocess.run(
            [sys.executable, "-m", "tuili", "bench", "mlp", "--server", url, "--concurrency", "32",
             "--windows", "3", "--json", file.name],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return float(json.load(file)["levels"][0]["window"]["rate"])


def answered_beside(ports: dict[str, int]) -> int:
    """How many requests other front ends answered by themselves."""
    url = f"http://127.0.0.1:{ports['metrics']}/metrics"
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    return sum(map(int, re.findall(r"^tuili_front_end_inferences\S+ (\d+)", text, re.MULTILINE)))


def one_of_each(ports: dict[str, int]) -> dict[str, HTTPConnection]:
    """A connection that the owner took, and one that another front end did."""
    body = {"inputs": [{"name": "x0", "datatype": "FP32", "shape": [1, 64], "data": [0.0] * 64}]}
    found: dict[str, HTTPConnection] = {}
    while len(found) < 2:
        before, connection = answered_beside(ports), HTTPConnection("127.0.0.1", ports["http"])
        connection.request("POST", "/v2/models/mlp/infer", json.dumps(body))
        connection.getresponse().read()
        where = "passed on" if answered_beside(ports) > before else "owner"
        found.setdefault(where, connection)
    return found


def hop(ports: dict[str, int]) -> dict[str, float]:
    """Median microseconds of a request that only the owner answers, by who took it."""
    spent: dict[str, list[float]] = {}
    connections = one_of_each(ports)
    for _ in range(ASKED):
        for where, connection in connections.items():
            start = time.perf_counter()
            connection.request("GET", "/v2/models/mlp")
            connection.getresponse().read()
            spent.setdefault(where, []).append((time.perf_counter() - start) * 1e6)
    return {where: statistics.median(each) for where, each in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--front-ends", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder)
        with serving(folder, 1) as one, serving(folder, options.front_ends) as several:
            for protocol in ("http", "grpc"):
                rounds = [
                    (rate(protocol, one[protocol]), rate(protocol, several[protocol]))
                    for _ in range(options.rounds)
                ]
                ratio = statistics.median(b / a for a, b in rounds)
                shown = ", ".join(f"{a:,.0f} / {b:,.0f}" for a, b in rounds)
                print(f"{protocol}: 1 / {options.front_ends} front ends: {shown}: x{ratio:.2f}")
            for where, each in hop(several).items():
                print(f"HTTP metadata, {where}: {each:.0f} us")


if __name__ == "__main__":
    main()
