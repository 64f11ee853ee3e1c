"""Starts a server under test, ours or the oracle, and stops it at the end."""

from __future__ import annotations

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
    repository: Path, log: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Our server over `repository`."""
    ports = free_ports()
    with _running(
        "tuili", tuili_command(repository, ports, arguments), ports, log, environment
    ) as it:
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
) -> Iterator[Server]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        _wait_ready(name, process, ports["http"], log)
        yield Server(name, ports, process, log)
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until it is live and has loaded what it will load."""
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-4000:]
    raise RuntimeError(f"{name} did not become ready within {_START_S:g} s:\n{tail}")
