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


# As those that hold what must not be lost.
DURABLE_REDIS = "redis-server --port {port} --appendonly yes --appendfsync always --dir {folder}"


@contextmanager
def process(command, folder):
    """The port of a server that accepts connections; skips the test where it is not installed."""
    with broker(command, folder) as server:
        yield server.port


@contextmanager
def broker(command, folder):
    """As `process`, itself."""
    program = command.split()[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Broker(command, port, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Broker:
    """The server of a queue, which may be killed and come back."""

    def __init__(self, command, port, folder):
        self.port = port
        self._command = shlex.split(command.format(port=port, folder=folder))
        self._process = None

    def start(self):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._command, **quiet)
        _wait_for(self.port, self._process)

    def kill(self):
        """As a machine that fails: nothing is said to clients, nothing is put in order."""
        self._process.kill()
        self._process.wait()

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def _wait_for(port, server):
    while server.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise RuntimeError("the server ended")
