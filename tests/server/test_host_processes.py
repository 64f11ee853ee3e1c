"""The processes that model hosts run in."""

import contextlib
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tuili.backends import BackendOptions
from tuili.server.execution.host_child import HostSpec
from tuili.server.execution.host_processes import (
    FORK_SERVER,
    Forked,
    ForkServer,
    is_readable,
    start,
)
from tuili.server.execution.hosts import Host
from tuili.server.execution.running import InstanceDied
from tuili.tensors import DType, Sym, TensorSpec

SOURCE = """
import os, sys
import numpy as np

class Model:
    def __init__(self, parameters):
        self.drawn = np.random.random()
        print("loaded", file=sys.stderr)

    def run(self, inputs):
        open_files = len(os.listdir("/proc/self/fd"))
        policy = os.sched_getscheduler(0)
        marked = os.environ.get("TUILI_TEST_MARK", "") == "here"
        found = [self.drawn, os.getpid(), open_files, policy, marked, os.getsid(0)]
        return {"y": np.array([found], np.float64)}
"""
SPEC = TensorSpec("x", DType.F64, (Sym("batch"), 1))
TOLD = TensorSpec("y", DType.F64, (Sym("batch"), 6))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(SOURCE)
    return path


def started(path):
    host = Host(HostSpec("told-1", "python", path, BackendOptions(1, {}, (SPEC,), (TOLD,), 8)))
    host.start()
    return host


def is_alive(pid):
    """Whether a process that is about to end has not ended for long."""
    for _ in range(1000):
        if not Path(f"/proc/{pid}").exists():
            return False
        os.sched_yield()
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def told(host):
    (row,) = host.run({"x": np.zeros((1, 1))})["y"]
    return dict(zip(("drawn", "pid", "files", "policy", "marked", "session"), row, strict=True))


def told_of():
    """A process that is told of by the test, and how to tell."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Forked(ours), lambda number: theirs.send(number.to_bytes(8, "little", signed=True))


def test_any_number_of_threads_hear_of_a_process():
    process, tell = told_of()
    with ThreadPoolExecutor(8) as pool:
        numbers = [pool.submit(lambda: process.pid) for _ in range(8)]
        tell(4_000_000)
        assert {each.result(10) for each in numbers} == {4_000_000}
        assert process.poll() is None
        ends = [pool.submit(process.wait, 10) for _ in range(8)]
        tell(-9)
        assert {each.result(10) for each in ends} == {-9}
    assert process.pid == 4_000_000


def test_a_process_without_a_number_is_not_ended_in_place_of_the_own_group(monkeypatch):
    ended = []
    monkeypatch.setattr("tuili.server.execution.host_processes._START_S", 0.0)
    monkeypatch.setattr("os.killpg", lambda *_: ended.append(_))
    monkeypatch.setattr("os.kill", lambda *_: ended.append(_))
    process, _ = told_of()
    process.kill()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.0)
    assert ended == []


def test_descriptors_may_have_high_numbers():
    low, theirs = socket.socketpair()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 3000:
        pytest.skip("too few descriptors")
    with low, theirs, socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD, 2000)) as high:
        assert not is_readable(high, 0.0)
        theirs.send(b"x")
        assert is_readable(high, 1.0)


def test_hosts_start_where_the_folder_of_the_server_has_been_removed(model, tmp_path, monkeypatch):
    gone = tmp_path / "deployed"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    host = started(model)
    assert told(host)["pid"]
    host.close()


def test_a_forked_host_is_a_process_of_its_own(model, monkeypatch):
    first = started(model)
    monkeypatch.setenv("TUILI_TEST_MARK", "here")
    monkeypatch.setenv("TUILI_TEST_NO_TEXT", "caf\udce9")
    second = started(model)
    one, two = told(first), told(second)
    assert one["drawn"] != two["drawn"]
    assert one["pid"] != two["pid"]
    assert one["session"] == one["pid"]
    assert not one["marked"]
    assert two["marked"]
    assert one["files"] == two["files"] < 12
    assert one["policy"] == os.SCHED_OTHER
    first.close()
    second.close()


def test_the_fork_server_has_imported_what_every_host_uses():
    code = "import sys, tuili.backends.fork_server; print('numpy.random' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"


def test_its_end_is_told_with_its_cause(model):
    host = started(model)
    process = host._child.process
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    assert process.poll() is None
    process.kill()
    assert process.wait(10) == process.poll() == -signal.SIGKILL
    host.close()


def test_a_dead_fork_server_is_replaced(model):
    host = started(model)
    FORK_SERVER._process.kill()
    FORK_SERVER._process.wait()
    # The hosts that it made serve on.
    assert told(host)["policy"] == os.SCHED_OTHER
    other = started(model)
    assert told(other)["files"] < 12
    # Their guards still tell how they end.
    assert host._child.process.poll() is None
    other.close()
    host.close()
    assert host._child.process.poll() is not None


def test_hosts_end_with_the_process_that_wanted_them(model):
    source = f"""if True:
        from pathlib import Path
        from tests.server.test_host_processes import started
        host = started(Path({str(model)!r}))
        print(host._child.process.pid, flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, check=True, text=True
    )
    pid = int(done.stdout)
    assert "loaded" in done.stderr
    # Its end is on its way: its socket is closed.
    assert not is_alive(pid)


def test_closing_ends_the_helper():
    server = ForkServer()
    server._running()
    server.close()
    assert server._process.wait(60) == 0


def test_a_host_that_hangs_does_not_outlive_its_server_for_long():
    source = """if True:
        import os, socket, sys
        from tuili.server.execution.host_processes import ForkServer, Interpreter
        ours, theirs = socket.socketpair()
        hangs = Interpreter([sys.executable, "-c", "print(flush=True)\\nwhile True: pass"], {})
        process = ForkServer(grace_s=0.1).fork("hangs", [theirs.fileno()], frozenset(), hangs)
        print(process.pid, flush=True)
        os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, check=True, text=True, timeout=60
    )
    # Standard output ends with its last holder, which is the host.
    assert done.stdout.split()[0].isdigit()


def test_what_a_model_started_is_ended_with_it(model):
    model.write_text(SOURCE + "\nimport subprocess\nsubprocess.Popen(['sleep', '1000'])\n")
    host = started(model)
    pid = host._child.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    host.close()
    assert not is_alive(int(child))


LEAVES = """
import os, time
import numpy as np

class Model:
    def __init__(self, parameters):
        if os.fork() == 0:
            CHILD
            while True:
                time.sleep(60)

    def run(self, inputs):
        os._exit(7)
"""


@pytest.mark.parametrize("child", ["pass", "os.setsid()"])
def test_a_child_of_a_model_does_not_hide_its_end(model, child):
    model.write_text(LEAVES.replace("CHILD", child))
    host = started(model)
    pid = host._child.process.pid
    (left,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    try:
        with pytest.raises(InstanceDied, match="exit status 7"):
            host.run({"x": np.zeros((1, 1))})
        host.close()
        assert not is_alive(int(left))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(left), signal.SIGKILL)


DAEMON = """
import os, subprocess, sys
import numpy as np

class Model:
    def __init__(self, parameters):
        code = "import os; print(os.getpid(), flush=True); os.dup2(2, 1); "
        code += "os.execvp('sleep', ['sleep', '1000'])"
        # Its parent ends before it does, its session is its own, and it knows nothing of the host.
        shell = f"setsid setsid {sys.executable} -c \\"$1\\" &"
        command = ["sh", "-c", shell, "sh", code]
        self.pid = int(subprocess.run(command, env={}, stdout=-1, check=True).stdout)

    def run(self, inputs):
        return {"y": np.full((1, 6), self.pid, np.float64)}
"""


@pytest.mark.parametrize("end", ["close", "kill"])
def test_what_has_left_the_group_of_a_host_ends_with_it(model, end):
    model.write_text(DAEMON)
    host = started(model)
    left = int(host.run({"x": np.zeros((1, 1))})["y"][0, 0])
    assert is_alive(left)
    try:
        if end == "kill":
            os.kill(host._child.process.pid, signal.SIGKILL)
            assert host._child.process.wait(10) == -signal.SIGKILL
        host.close()
        assert not is_alive(left)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)


NONSENSE = """
import os, socket
import numpy as np

class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        for number in map(int, os.listdir("/proc/self/fd")):
            try:
                with socket.socket(fileno=os.dup(number)) as there:
                    there.send(b"\\x07 no message")
            except OSError:
                pass
        return {"y": np.zeros((1, 6))}
"""


def test_a_host_that_sends_what_is_no_message_is_ended(model):
    model.write_text(NONSENSE)
    host = started(model)
    with pytest.raises(InstanceDied, match="is no answer"):
        host.run({"x": np.zeros((1, 1))})
    assert host._child.process.wait(60) == -signal.SIGKILL
    host.close()


def test_a_host_may_have_an_interpreter_of_its_own(tmp_path):
    with (tmp_path / "out").open("w+b") as stream:
        process = start([stream.fileno()], frozenset(os.sched_getaffinity(0)))
        # No socket: it tells what is wrong, and ends.
        assert process.wait(60) == 1
