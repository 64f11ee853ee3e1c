"""Requests per second and CPU per request of the front ends, over a data plane that echoes.

    python benchmarks/server_front_end.py [--seconds 3] [--rounds 3] [--big] [--ids] [--whole]

With --whole it is the whole `tuili serve`, its identity backend behind its batcher.

The server runs on core 0, the load generator on core 1: `wrk` and `h2load` (Debian packages wrk and
nghttp2-client) where they are installed, else a plain socket client, which is itself the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tuili.server import grpc, http
from tuili.server.dataplane import DataPlane
from tuili.server.listening import Address
from tuili.server.main import keep_memory_warm
from tuili.server.protocol.messages import InferRequest, InferResponse, OutputTensor

SHAPES = {"small": (1, 16), "big": (1, 3, 224, 224)}


class Echo(DataPlane):
    """Answers every request with its inputs, at once."""

    def __init__(self) -> None:
        pass

    def submit(self, request: InferRequest, reply):
        outputs = [
            OutputTensor("OUTPUT", item.datatype, item.shape, item.data) for item in request.inputs
        ]
        reply(InferResponse(request.model, "1", outputs, request.id))


async def serve() -> None:
    """Serve both protocols, print the ports, and stop when standard input ends."""
    keep_memory_warm()
    dataplane = Echo()
    servers = [
        await http.start(dataplane, Address("127.0.0.1", 0)),
        await grpc.start(dataplane, Address("127.0.0.1", 0)),
    ]
    gc.collect()
    gc.freeze()
    print(json.dumps([server.port for server in servers]), flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await ended.wait()


def http_body(shape: tuple[int, ...]) -> tuple[bytes, int]:
    data = np.random.default_rng(0).random(shape, dtype=np.float32).tobytes()
    text = json.dumps(
        {
            "inputs": [
                {
                    "name": "INPUT", "shape": list(shape), "datatype": "FP32",
                    "parameters": {"binary_data_size": len(data)},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()  # fmt: skip
    return text + data, len(text)


def grpc_body(model: str) -> bytes:
    from tuili.server.grpc.schema import INFERENCE

    shape = SHAPES[model]
    data = np.random.default_rng(0).random(shape, dtype=np.float32).tobytes()
    message = INFERENCE["ModelInferRequest"](model_name=model, raw_input_contents=[data])
    message.inputs.add(name="INPUT", datatype="FP32", shape=shape)
    text = message.SerializeToString()
    return struct.pack(">BI", 0, len(text)) + text


def run_wrk(port: int, clients: int, seconds: float, model: str, ids: bool) -> float:
    body, json_length = http_body(SHAPES[model])
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "body")
        data.write_bytes(body)
        script = Path(folder, "infer.lua")
        script.write_text(
            f"""
local file = io.open("{data}", "rb")
local body = file:read("*a")
wrk.method = "POST"
wrk.headers["Inference-Header-Content-Length"] = "{json_length}"
wrk.body = body
local count = 0
if {str(ids).lower()} then
  request = function()
    count = count + 1
    local id = string.format('{{"id":"%08d",', count)
    wrk.headers["Inference-Header-Content-Length"] = tostring({json_length} + #id - 1)
    return wrk.format(nil, nil, nil, id .. string.sub(body, 2))
  end
end
"""
        )
        url = f"http://127.0.0.1:{port}/v2/models/{model}/infer"
        command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s"]
        done = subprocess.run(
            [*command, "-s", str(script), url], capture_output=True, text=True, check=True
        )
    if "Non-2xx" in done.stdout:
        raise RuntimeError(done.stdout)
    found = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
    assert found is not None, done.stdout
    return int(found[1]) / float(found[2])


def run_h2load(port: int, clients: int, seconds: float, model: str) -> float:
    with tempfile.NamedTemporaryFile() as data:
        data.write(grpc_body(model))
        data.flush()
        command = ["taskset", "-c", "1", "h2load", f"-c{clients}", "-m1", "-t1", f"-D{seconds:g}"]
        url = f"http://127.0.0.1:{port}/inference.GRPCInferenceService/ModelInfer"
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        done = subprocess.run(
            [*command, "-d", data.name, *headers, url], capture_output=True, text=True, check=True
        )
    found = re.search(r"([\d.]+) req/s", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


def run_sockets(port: int, clients: int, seconds: float, model: str) -> float:
    """Closed loop over HTTP without any tool: one request per connection in turn."""
    body, json_length = http_body(SHAPES[model])
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Inference-Header-Content-Length: {json_length}\r\n\r\n"
    ).encode()
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for each in sockets:
            each.sendall(head + body)
        for each in sockets:
            answer = each.recv(1 << 20)
            length = int(re.search(rb"\r\nContent-Length: (\d+)", answer)[1])
            missing = answer.index(b"\r\n\r\n") + 4 + length - len(answer)
            while missing > 0:
                missing -= len(each.recv(1 << 20))
            done += 1
    return done / (time.perf_counter() - start)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_repository(folder: Path) -> None:
    """An identity model for each size."""
    for name, shape in SHAPES.items():
        (folder / name / "1").mkdir(parents=True)
        tensor = f"data_type: TYPE_FP32 dims: {list(shape[1:])}"
        (folder / name / "config.pbtxt").write_text(
            'backend: "identity" max_batch_size: 64 dynamic_batching { }\n'
            f'input {{ name: "INPUT" {tensor} }} output {{ name: "OUTPUT" {tensor} }}\n'
        )


def start_server(whole: bool, folder: Path) -> tuple[subprocess.Popen, int, int]:
    """The server's process on core 0, its HTTP and its gRPC port."""
    command = ["taskset", "-c", "0", sys.executable]
    if not whole:
        server = subprocess.Popen(
            [*command, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert server.stdout is not None
        return server, *json.loads(server.stdout.readline())
    write_repository(folder)
    ports = ["--http-port=0", "--grpc-port=0", "--metrics-port=-1", "--log-level=warning"]
    server = subprocess.Popen(
        [*command, "-m", "tuili", "serve", str(folder), *ports],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    found = dict(re.findall(r"(http|grpc)=(\d+)", server.stdout.readline().decode()))
    return server, int(found["http"]), int(found["grpc"])


def measure(seconds: float, rounds: int, sizes: list[str], ids: bool, whole: bool) -> None:
    folder = tempfile.TemporaryDirectory()
    server, http_port, grpc_port = start_server(whole, Path(folder.name))
    print(f"{'case':24}{'req/s (median)':>16}{'best':>10}{'CPU us/request':>16}")
    for size in sizes:
        for protocol in ("http", "grpc"):
            for clients in (1, 8, 32):
                rates, costs = [], []
                for _ in range(rounds):
                    before = cpu_seconds(server.pid)
                    start = time.perf_counter()
                    if protocol == "grpc":
                        if shutil.which("h2load") is None:
                            continue
                        rate = run_h2load(grpc_port, clients, seconds, size)
                    elif shutil.which("wrk") is None:
                        rate = run_sockets(http_port, clients, seconds, size)
                    else:
                        rate = run_wrk(http_port, clients, seconds, size, ids)
                    busy = cpu_seconds(server.pid) - before
                    costs.append(busy / (rate * min(seconds, time.perf_counter() - start)) * 1e6)
                    rates.append(rate)
                if rates:
                    name = f"{size} {protocol} c={clients}"
                    median = statistics.median(rates)
                    print(f"{name:24}{median:16,.0f}{max(rates):10,.0f}{min(costs):16.1f}")
    server.terminate()
    server.wait(20)
    folder.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="be the server (used by the script)")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--big", action="store_true", help="also a 602 kB tensor")
    parser.add_argument("--ids", action="store_true", help="every HTTP request has its own id")
    parser.add_argument("--whole", action="store_true", help="the whole server, not an echo")
    options = parser.parse_args()
    if options.serve:
        import uvloop

        uvloop.run(serve())
        return
    sizes = ["small", "big"] if options.big else ["small"]
    measure(options.seconds, options.rounds, sizes, options.ids, options.whole)


if __name__ == "__main__":
    main()
