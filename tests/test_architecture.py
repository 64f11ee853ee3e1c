"""The house rules that no linter knows."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import tuili

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
COMPILER_SIDE = ("compiler", "ir", "ops", "passes", "lower", "codegen", "importers", "compress")
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base", "core"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_sources_are_found():
    assert SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_source_file_is_over_600_lines(path):
    if path.name.endswith("_pb2.py"):
        pytest.skip("written by protoc")
    assert len(path.read_text().splitlines()) <= 600


def test_no_module_has_a_vague_name():
    vague = [name_of(p) for p in SOURCES if {p.stem, p.parent.name} & VAGUE_NAMES]
    assert vague == []


def test_no_function_is_over_100_lines():
    long = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 100:
                    long.append(f"{name_of(path)}:{node.lineno} {node.name} has {lines} lines")
    assert long == []


@pytest.mark.parametrize("module", ["tuili", "tuili.runtime", "tuili.server", "tuili.artifact"])
def test_running_loads_no_compiler_module(module):
    script = f"import sys, {module}; print(*sorted(m for m in sys.modules if m[:6] == 'tuili.'))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[1] for name in done.stdout.split()}
    assert loaded.isdisjoint(COMPILER_SIDE)


def test_import_of_tuili_is_quick():
    script = "import sys, tuili; print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_public_names():
    assert sorted(tuili.__all__) == [
        "Artifact",
        "CKernel",
        "DType",
        "Limits",
        "Model",
        "REQUIRED",
        "TensorSpec",
        "TuiliError",
        "__version__",
        "compile",
        "load",
        "operator",
    ]
    assert dir(tuili) == sorted(tuili.__all__)


@pytest.mark.parametrize("name", tuili.__all__)
def test_every_public_name_loads(name):
    assert getattr(tuili, name)


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tuili' has no attribute 'compyle'"):
        _ = tuili.compyle


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_structs_are_decoded_by_decoders_that_are_made_on_import(path):
    # msgspec learns a type at its first use; when two threads do that at once, the process ends.
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".decode"):
            given = [ast.unparse(each.value) for each in node.keywords if each.arg == "type"]
            assert all("msgspec.Raw" in text or text.islower() for text in given), given


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_what_other_folders_import_of_tuili_is_there(folder):
    imports = {
        (str(node.module), alias.name, name_of(path))
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "tuili"
        for alias in node.names
    }
    assert imports
    assert [each for each in sorted(imports) if not _is_there(*each[:2])] == []


def _is_there(module, name):
    found = importlib.import_module(module)
    return hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}") is not None


def test_version_is_the_newest_in_the_changelog():
    headings = [s for s in (ROOT / "CHANGELOG.md").read_text().splitlines() if s[:4] == "## ["]
    versions = [s.split("[")[1].split("]")[0] for s in headings]
    assert tuili.__version__ in versions[:2]
