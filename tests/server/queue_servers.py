"""Real servers for tests: started on a free port of loopback, stopped at the end."""

import shlex
import shutil
import socket
import subprocess
from contextlib import contextmanager

import pytest

# {port} and {folder} are filled in.
REDIS = "redis-server --port {port} --save '' --appendonly no --dir {folder}"
NATS = "nats-server -a 127.0.0.1 -p {port} -js -sd {folder}"


@contextmanager
def process(command, folder):
    """The port of a server that accepts connections; skips the test where it is not installed."""
    program = command.split()[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        shlex.split(command.format(port=port, folder=folder)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            _wait_for(port, server)
            yield port
        finally:
            server.terminate()


def _wait_for(port, server):
    while server.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise RuntimeError("the server ended")
