"""The shared stores of several servers: a SQLite file, and a PostgreSQL of the tests' own."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tuili.errors import Unavailable
from tuili.server.control.opening import open_store

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def postgres_command(*words):
    """PostgreSQL does not run as root."""
    if os.getuid() != 0:
        return list(words)
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words]


@pytest.fixture(scope="module")
def postgres():
    """The address of a database of its own; the server ends with the tests of this file."""
    if not BINARIES:
        pytest.skip("needs the Debian package postgresql")
    folder = Path("/tmp") / f"tuili-pg-{os.getpid()}"
    folder.mkdir()
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    binaries, data = BINARIES[-1], str(folder / "data")
    initdb = postgres_command(str(binaries / "initdb"), "-D", data, "-A", "trust", "-U", "tuili")
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder)
    command = postgres_command(
        str(binaries / "postgres"), "-D", data, "-p", str(port), "-k", str(folder),
        "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
    )  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=folder)
    address = f"postgresql://tuili@127.0.0.1:{port}/postgres"
    try:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                open_store(address).close()
                break
            except (OSError, Unavailable):
                assert time.monotonic() < end, "PostgreSQL did not start"
        yield address
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def state(request, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "journal.db")
    return request.getfixturevalue("postgres")
