"""Commands that end with whoever waits for them."""

import subprocess
import sys

import pytest

from tuili.server.tied import tied

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the tie is one of Linux")


def test_a_command_runs_as_it_would_by_itself():
    done = subprocess.run(
        tied(["sh", "-c", "echo $0; exit 3", "it"]), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, b"it\n")


@LINUX
def test_a_command_that_is_not_there_is_told():
    done = subprocess.run(tied(["/nowhere/python"]), capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (1, "[Errno 2] No such file or directory\n")


@LINUX
def test_a_command_ends_with_its_caller():
    source = """if True:
        import os, subprocess
        from tuili.server.tied import tied
        child = subprocess.Popen(tied(["sh", "-c", "echo begun; exec sleep 1000"]), stdout=-1)
        assert child.stdout.readline() == b"begun\\n"
        os._exit(7)
    """
    # Standard error ends with its last holder, which is the command.
    command = [sys.executable, "-c", source]
    assert subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=False).returncode == 7
