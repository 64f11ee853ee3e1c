"""Starts a server under test, ours or the oracle, and stops it at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from tests.conformance.triton import oracle

_START_S = 900.0  # what many models take to compile, once
_SETTLE_S = 10.0  # a server that is not ready so long after its start never will be


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: its name, ports by protocol, process and log."""

    name: str
    ports: Mapping[str, int]
    process: subprocess.Popen[bytes]
    log: Path


def free_ports() -> dict[str, int]:
    """Three ports that nobody listens on now."""
    sockets = {name: socket.socket() for name in ("http", "grpc", "metrics")}
    for each in sockets.values():
        each.bind(("127.0.0.1", 0))
    ports = {name: each.getsockname()[1] for name, each in sockets.items()}
    for each in sockets.values():
        each.close()
    return ports


def tuili_command(
    repository: Path, ports: Mapping[str, int], arguments: Sequence[str]
) -> list[str]:
    """The command line of our server."""
    listening = [f"--{name}-port={port}" for name, port in ports.items()]
    return [sys.executable, "-m", "tuili", "serve", str(repository), *listening, *arguments]


@contextmanager
def tuili(
    repository: Path,
    log: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    start_s: float = _START_S,
) -> Iterator[Server]:
    """Our server over `repository`."""
    ports = free_ports()
    line = tuili_command(repository, ports, arguments)
    # For models that look at the metrics of their own server.
    told = {**(environment or os.environ), "METRICS_PORT": str(ports["metrics"])}
    with _running("tuili", line, ports, log, told, start_s) as it:
        yield it


@contextmanager
def triton(repository: Path, log: Path, *arguments: str) -> Iterator[Server]:
    """The real Triton over `repository`."""
    ports = free_ports()
    line = oracle.command(repository, ports, list(arguments))
    with _running("triton", line, ports, log, oracle.environment()) as it:
        yield it


@contextmanager
def _running(
    name: str,
    command: Sequence[str],
    ports: Mapping[str, int],
    log: Path,
    environment: Mapping[str, str] | None,
    start_s: float = _START_S,
) -> Iterator[Server]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        _wait_ready(name, process, ports["http"], log, start_s)
        yield Server(name, ports, process, log)
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(
    name: str, process: subprocess.Popen[bytes], port: int, log: Path, limit_s: float
) -> None:
    """Until it is live and has loaded what it will load."""
    end = time.monotonic() + limit_s
    settled = False
    while time.monotonic() < end and process.poll() is None:
        if _ready_status(port) == 200:
            return
        if not settled and b"\nready: " in log.read_bytes():
            settled, end = True, min(end, time.monotonic() + _SETTLE_S)
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-4000:]
    raise RuntimeError(f"{name} did not become ready within {limit_s:g} s:\n{tail}")


def _ready_status(port: int) -> int | None:
    """What it answers when asked whether it is ready; None when it does not listen yet."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
