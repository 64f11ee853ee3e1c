"""The command line as a whole: which commands there are, and how errors look."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tuili.cli.main import COMMANDS, app

RUNNER = CliRunner()


def run(*arguments):
    return RUNNER.invoke(app, list(map(str, arguments)))


def test_help_lists_every_command():
    text = run("--help").output
    assert all(f" {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    done = run(name, "--help")
    assert done.exit_code == 0, done.output
    assert f" {name} " in done.output


@pytest.mark.parametrize("name", ["", "run", "rollout", "config explain"])
def test_the_short_option_asks_for_help_too(name):
    done = run(*name.split(), "-h")
    assert done.exit_code == 0, done.output
    assert "completion" not in done.output


@pytest.mark.parametrize("port", [-2, 65536, 70000])
@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
def test_serve_refuses_a_port_that_there_is_not(name, port, tmp_path):
    """Which the system would take for another one: 70000 for 4464."""
    done = run("serve", tmp_path, f"--{name}-port", port)
    assert done.exit_code == 2
    assert "is not in the range" in done.output


def test_serve_says_where_a_file_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").touch()
    done = run("serve", "net.onnx")
    assert done.exit_code == 2
    assert "net/1/model.onnx" in done.output


def test_version_is_printed():
    import tuili

    assert run("--version").output == f"tuili {tuili.__version__}\n"


def test_a_misspelt_command_is_corrected():
    done = run("comple")
    assert done.exit_code == 2
    assert "Did you mean 'compile'?" in done.output


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [("serve", "orjson", "server"), ("compile", "onnx", "onnx"), ("bench", "matplotlib", "plot")],
)
def test_a_missing_package_is_told_with_its_extra(command, module, extra, monkeypatch):
    def missing(*_: object) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=f"{module}.part")

    monkeypatch.setattr(sys.modules["tuili.cli.main"], "import_module", missing)
    done = run(command, "anything")
    assert done.exit_code == 1
    assert f"needs the package {module!r}: pip install 'tuili[{extra}]'" in done.stderr


@pytest.mark.parametrize("command", ["compile", "run", "inspect", "bench"])
def test_a_missing_file_is_one_error_and_exit_code_1(command, tmp_path):
    done = run(command, tmp_path / "nothing.onnx")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "nothing.onnx" in done.stderr
    assert "Traceback" not in done.output


def test_python_m_tuili_works():
    done = subprocess.run(
        [sys.executable, "-m", "tuili", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("tuili ")
