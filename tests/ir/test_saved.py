"""The saved form: what is loaded equals what was saved, and damage is one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from tests.ir.test_text import EXAMPLE, WEIGHTS
from tuili.errors import InvalidModel, NotFound
from tuili.ir import Graph, verify
from tuili.ir.saved import load, save, schema_text
from tuili.ir.text import parse, to_text
from tuili.tensors import DType

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "graph.schema.json"


def example() -> Graph:
    graph = parse(EXAMPLE, WEIGHTS)
    attrs = {"nan": float("nan"), "low": float("-inf"), "big": 2**62, "none": ()}
    graph.add("Odd", [], attrs, outputs=["odd"])
    for kind in DType:
        if kind is not DType.STR:
            graph.add_constant(np.arange(5).astype(kind.numpy), f"c_{kind.value}")
    return graph


def test_what_is_loaded_equals_what_was_saved(tmp_path: Path) -> None:
    graph = example()
    save(graph, tmp_path / "graph.json")
    again = load(tmp_path / "graph.json")
    verify(again)
    weights: tuple[dict, dict] = ({}, {})
    assert to_text(again, weights[0]) == to_text(graph, weights[1])
    for key, array in weights[1].items():
        np.testing.assert_array_equal(weights[0][key], array)


def test_weights_are_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    save(example(), tmp_path / "graph.json")
    array = load(tmp_path / "graph.json").constants["w"].constant
    assert not array.flags.writeable
    base = array
    while not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_saving_twice_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(example(), tmp_path / name / "graph.json")
    for suffix in ("json", "safetensors"):
        one, two = (tmp_path / name / f"graph.{suffix}" for name in ("a", "b"))
        assert one.read_bytes() == two.read_bytes()


def test_the_schema_file_is_what_the_classes_say(tmp_path: Path) -> None:
    message = "run: python -m tuili.ir.saved > docs/reference/graph.schema.json"
    assert SCHEMA.read_text() == schema_text(), message
    save(example(), tmp_path / "graph.json")
    jsonschema.validate(
        json.loads((tmp_path / "graph.json").read_text()), json.loads(schema_text())
    )


def _node(saved):
    return saved["graph"]["nodes"][0]


DAMAGE = {
    "version": (lambda s: s.update(version=2), "has version 2 of the format; this tuili reads"),
    "format": (lambda s: s.update(format="zip"), "its format is 'zip'; expected 'tuili-graph'"),
    "unknown key": (lambda s: s.update(extra=1), "unknown field `extra`"),
    "missing key": (lambda s: s["graph"].pop("nodes"), "missing required field `nodes`"),
    "wrong type": (
        lambda s: _node(s).update(op=3),
        r"Expected `str`, got `int` - at `\$.graph.nod",
    ),
    "unknown name": (lambda s: _node(s).update(inputs=["gone"]), "Conv node 'conv1' reads 'gone'"),
    "duplicate": (
        lambda s: s["graph"]["inputs"].append({"name": "x"}),
        "value 'x' is defined twice",
    ),
    "output": (lambda s: s["graph"].update(outputs=["gone"]), "graph 'main' reads 'gone'"),
    "dtype": (
        lambda s: s["graph"]["constants"][0]["contents"].update(dtype="f33"),
        "unknown element type 'f33'",
    ),
    "size": (
        lambda s: s["graph"]["constants"][0]["contents"].update(shape=[65, 3, 7, 7]),
        r"w: tensor 'w' has 37632 bytes; f32\[65, 3, 7, 7\] needs 38220",
    ),
    "tensor": (
        lambda s: s["graph"]["constants"][0]["contents"].update(tensor="gone"),
        "w: its tensor 'gone' is not in the weights file",
    ),
    "dim": (
        lambda s: s["graph"]["inputs"][0]["type"].update(shape=["N +"]),
        "not a dim expression",
    ),
    "weights outside": (lambda s: s.update(weights="../w.safetensors"), r"\$.weights"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_one_clear_error(tmp_path: Path, change, message) -> None:
    path = tmp_path / "graph.json"
    save(example(), path)
    saved = json.loads(path.read_text())
    change(saved)
    path.write_text(json.dumps(saved))
    with pytest.raises(InvalidModel, match=rf"graph.json.*{message}"):
        load(path)


def test_text_that_is_not_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text("{")
    with pytest.raises(InvalidModel, match="is not a saved graph: Input data was truncated"):
        load(path)


@pytest.mark.parametrize("size", [0, 4, 9, 200])
def test_truncated_weights_are_refused(tmp_path: Path, size: int) -> None:
    save(example(), tmp_path / "graph.json")
    weights = tmp_path / "graph.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(InvalidModel, match="graph.safetensors is no safetensors file"):
        load(tmp_path / "graph.json")


def test_weights_with_a_short_end_are_refused(tmp_path: Path) -> None:
    save(example(), tmp_path / "graph.json")
    weights = tmp_path / "graph.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InvalidModel, match=r"tensor '.*' claims bytes .*; it is damaged"):
        load(tmp_path / "graph.json")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone.json' does not exist"):
        load(tmp_path / "gone.json")
    save(example(), tmp_path / "graph.json")
    (tmp_path / "graph.safetensors").unlink()
    with pytest.raises(NotFound, match=r"graph.safetensors' is missing"):
        load(tmp_path / "graph.json")
