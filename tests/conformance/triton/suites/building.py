"""Repositories of models for Triton's tests: steps that put models there, or change them."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.conformance.triton import sources
from tests.conformance.triton.suites.suite import copy

Build = Callable[[Path, Path], None]


def examples(*names: str) -> Build:
    """Models of Triton's documentation."""

    def build(repository: Path, qa: Path) -> None:
        for name in names:
            copy(qa.parent / "docs" / "examples" / "model_repository" / name, repository / name)

    return build


def made(folder: str, *names: str) -> Build:
    """Models that a generator makes; all of the folder without names."""

    def build(repository: Path, qa: Path) -> None:
        source = sources.generated(folder)
        for each in sorted(source.iterdir()):
            if not names or each.name in names:
                copy(each, repository / each.name)

    return build


def stored(folder: str, *names: str) -> Build:
    """Models that lie in the test's own folder."""

    def build(repository: Path, qa: Path) -> None:
        for each in sorted((qa / folder).iterdir()):
            if each.is_dir() and (not names or each.name in names):
                copy(each, repository / each.name)

    return build


def python(*names: str) -> Build:
    """Models of `qa/python_models`, laid out as a repository has them."""

    def build(repository: Path, qa: Path) -> None:
        for name in names:
            source = qa / "python_models" / name
            folder = repository / name
            (folder / "1").mkdir(parents=True)
            for path in source.iterdir():
                if path.name == "config.pbtxt":
                    shutil.copy(path, folder)
                elif path.is_file():
                    shutil.copy(path, folder / "1")

    return build


def second(name: str) -> Build:
    """A version 2 that is as version 1."""

    def build(repository: Path, qa: Path) -> None:
        shutil.copytree(repository / name / "1", repository / name / "2")

    return build


def on_new_numpy(name: str) -> Build:
    """Replace what newer NumPys lack in a Python model."""

    def build(repository: Path, qa: Path) -> None:
        for path in (repository / name).glob("*/model.py"):
            path.write_text(path.read_text().replace("np.NINF", "-np.inf"))

    return build


def text(name: str, config: str, code: str = "") -> Build:
    """A model written here."""

    def build(repository: Path, qa: Path) -> None:
        version = repository / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version.parent / "config.pbtxt").write_text(config)
        if code:
            (version / "model.py").write_text(code)

    return build


def all_of(*builds: Build) -> Build:
    """All of these."""

    def build(repository: Path, qa: Path) -> None:
        for each in builds:
            each(repository, qa)

    return build


def edited(name: str, old: str, new: str) -> Build:
    """Change a configuration that another step has put there."""

    def build(repository: Path, qa: Path) -> None:
        path = repository / name / "config.pbtxt"
        written = path.read_text()
        if old not in written:
            raise RuntimeError(f"{path} has no {old!r}")
        path.write_text(written.replace(old, new))

    return build


def code(name: str, old: str, new: str) -> Build:
    """Change a Python model; `{repository}` in `new` is the folder of all models."""

    def build(repository: Path, qa: Path) -> None:
        path = repository / name / "1" / "model.py"
        written = path.read_text()
        if old not in written:
            raise RuntimeError(f"{path} has no {old!r}")
        path.write_text(written.replace(old, new.replace("{repository}", str(repository))))

    return build


def renamed(name: str, to: str) -> Build:
    """A copy of a model under another name."""

    def build(repository: Path, qa: Path) -> None:
        shutil.copytree(repository / name, repository / to)
        path = repository / to / "config.pbtxt"
        path.write_text(path.read_text().replace(f'name: "{name}"', f'name: "{to}"', 1))

    return build


def moved(name: str, to: str) -> Build:
    """A model under another name."""

    def build(repository: Path, qa: Path) -> None:
        renamed(name, to)(repository, qa)
        shutil.rmtree(repository / name)

    return build


def extended(name: str, more: str) -> Build:
    """Add to a configuration."""

    def build(repository: Path, qa: Path) -> None:
        with (repository / name / "config.pbtxt").open("a") as config:
            config.write(more)

    return build


def changed(name: str, pattern: str, new: str) -> Build:
    """As `edited`, by a pattern over lines; "*" are all models."""

    def build(repository: Path, qa: Path) -> None:
        names = [each.name for each in repository.iterdir()] if name == "*" else [name]
        for each in names:
            path = repository / each / "config.pbtxt"
            path.write_text(re.sub(pattern, new, path.read_text(), flags=re.MULTILINE))

    return build


def custom(*names: str) -> Build:
    """Models of `qa/custom_models`."""

    def build(repository: Path, qa: Path) -> None:
        for name in names:
            copy(qa / "custom_models" / name, repository / name)
            stand_in(repository / name)

    return build


def stands_in(name: str) -> Build:
    """Give a model that is there the Python code for the C++ back end that it names."""

    def build(repository: Path, qa: Path) -> None:
        stand_in(repository / name)

    return build


def stand_in(folder: Path, backend: str = "") -> None:
    """Put the Python model for a back end that is C++ in Triton; none for `identity`."""
    path = folder / "config.pbtxt"
    config = re.sub(r"^default_model_filename:.*\n", "", path.read_text(), flags=re.MULTILINE)
    found = re.search(r'^backend: *"(\w+)"', config, re.MULTILINE)
    backend = backend or (found.group(1) if found else "")
    code = Path(__file__).with_name("standins") / f"{backend}.py"
    if code.exists():
        config = re.sub(r"^backend:.*$", 'backend: "python"', config, flags=re.MULTILINE)
        (folder / "1").mkdir(exist_ok=True)
        shutil.copy(code, folder / "1" / "model.py")
    path.write_text(config)


_FLOAT_IO = 'max_batch_size: {batch}\ninput [ {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\noutput [ {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\n'


def identity(
    name: str, batch: int = 8, dims: str = "-1", more: str = "", kind: str = "FP32"
) -> Build:
    """An identity model."""
    config = _FLOAT_IO.format(batch=batch, dims=dims).replace("FP32", kind)
    return text(name, f'name: "{name}"\nbackend: "identity"\n{config}{more}')


def delay(milliseconds: int) -> str:
    """The parameter of an identity model that takes its time."""
    return (
        f'parameters [{{ key: "execute_delay_ms" value: {{ string_value: "{milliseconds}" }} }}]\n'
    )
