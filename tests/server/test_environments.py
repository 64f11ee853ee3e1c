"""Python models in environments of their own."""

import asyncio
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.server.test_dataplane import add, plane
from tuili.errors import InvalidModel
from tuili.server.protocol.messages import InferRequest, InputTensor

MODEL = """
import sys
import numpy as np
import only_here

class Model:
    def __init__(self, parameters):
        pass

    def run(self, inputs):
        return {"y": np.array([only_here.ANSWER, "only_here" in sys.modules], np.int64)}
"""
CONFIG = """
backend: "python"
input {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }}
output {{ name: "y" data_type: TYPE_INT64 dims: [ 2 ] }}
parameters {{ key: "EXECUTION_ENV_PATH" value: {{ string_value: "{path}" }} }}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment with a module that nobody else has."""
    folder = tmp_path_factory.mktemp("env") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "only_here.py").write_text("ANSWER = 42\n")
    return folder


def answer(repository, path, **options):
    """What the model with that parameter answers."""
    add(repository, "m", 1, config=CONFIG.format(path=path))
    (repository / "m" / "1" / "model.py").write_text(MODEL)

    async def run():
        dataplane = plane(repository, cache=repository.parent / "cache", **options)
        await dataplane.start()
        try:
            if failures := dataplane.repository.failures():
                raise InvalidModel(failures["m"])
            tensor = InputTensor("x", "FP32", (1,), np.zeros(1, np.float32))
            found = asyncio.get_running_loop().create_future()
            dataplane.submit(InferRequest("m", [tensor]), found.set_result)
            return (await asyncio.wait_for(found, 30)).outputs[0].data.tolist()
        finally:
            await dataplane.close(10)

    return asyncio.run(run())


def test_a_folder_is_used_as_it_is(tmp_path, environment):
    assert answer(tmp_path / "models", environment) == [42, 1]


def test_an_archive_in_the_models_folder_is_unpacked_once(tmp_path, environment):
    (tmp_path / "models" / "m").mkdir(parents=True)
    _packed(environment, tmp_path / "models" / "m" / "env.tar.gz")
    path = "$$TRITON_MODEL_DIRECTORY/env.tar.gz"
    assert answer(tmp_path / "models", path) == [42, 1]
    (unpacked,) = _kept(tmp_path)
    assert (unpacked / "bin" / "python").exists()


@pytest.mark.parametrize(("make", "text"), [
    (lambda folder: folder / "nowhere", "does not exist"),
    (lambda folder: _archive(folder, "readme"), "has no bin/python"),
    (lambda folder: _file(folder, "no archive"), "not .*file"),
    (lambda folder: _damaged(folder), "EXECUTION_ENV_PATH .*x.tar.gz': Compressed file ended"),  # noqa: PLW0108 - defined below
    (lambda folder: _python(folder, "import os; os.write(1, b'\\xff')"), "has Python \ufffd"),
    (lambda folder: _python(folder, "print('3.4')"), "has Python 3.4, the server"),
    (lambda folder: _python(folder, "raise SystemExit('no')"), "does not run: .*no"),
])  # fmt: skip
def test_what_cannot_be_an_environment_is_told(tmp_path, make, text):
    with pytest.raises(InvalidModel, match=text):
        answer(tmp_path / "models", make(tmp_path))


def test_without_a_process_of_its_own_there_is_no_environment(tmp_path, environment):
    with pytest.raises(InvalidModel, match="needs a process of the model's own"):
        answer(tmp_path / "models", environment, isolation="none")


@pytest.mark.parametrize("make", [
    lambda folder: _archive(folder, "readme"),
    lambda folder: _packed(_python(folder, "print('3.4')")),
    lambda folder: _packed(_python(folder, "raise SystemExit('no')")),
])  # fmt: skip
def test_nothing_is_left_of_an_archive_that_cannot_be_used(tmp_path, make):
    archive = make(tmp_path)
    with pytest.raises(InvalidModel, match=r"has no bin/python|has Python 3.4|does not run"):
        answer(tmp_path / "models", archive)
    assert _kept(tmp_path) == []


def test_what_a_killed_server_has_half_unpacked_is_unpacked_anew(tmp_path, environment):
    archive = _packed(environment, tmp_path / "env.tar")
    assert answer(tmp_path / "first", archive) == [42, 1]
    (unpacked,) = _kept(tmp_path)
    (unpacked / ".tuili-whole").unlink()
    next(unpacked.glob("lib/python*/site-packages/only_here.py")).unlink()
    assert answer(tmp_path / "second", archive) == [42, 1]


def _kept(folder: Path) -> list[Path]:
    return [each for each in (folder / "cache" / "environments").iterdir() if each.is_dir()]


def _packed(folder: Path, path: Path | None = None) -> Path:
    path = path or folder.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        for each in folder.iterdir():
            archive.add(each, each.name)
    return path


def _archive(folder: Path, name: str) -> Path:
    (folder / name).write_text("")
    with tarfile.open(folder / "x.tar", "w") as archive:
        archive.add(folder / name, name)
    return folder / "x.tar"


def _damaged(folder: Path) -> Path:
    """An archive of which the end did not arrive."""
    (folder / "random").write_bytes(random.randbytes(100_000))
    with tarfile.open(folder / "x.tar.gz", "w:gz") as archive:
        archive.add(folder / "random", "bin/python")
    os.truncate(folder / "x.tar.gz", 50_000)
    return folder / "x.tar.gz"


def _file(folder: Path, text: str) -> Path:
    (folder / "x.tar.gz").write_text(text)
    return folder / "x.tar.gz"


def _python(folder: Path, code: str) -> Path:
    """An environment whose Python says something else."""
    bin_folder = folder / "odd" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "python").write_text(f"#!{sys.executable}\n{code}\n")
    (bin_folder / "python").chmod(0o755)
    return folder / "odd"
