"""Tokenizer beside onnxruntime, which defines it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.ops.beside_onnxruntime import by_onnxruntime
from tests.ops.from_onnx import graph_of
from tuili import load
from tuili.errors import InvalidModel
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.ops.strings import text_array

ATTRS: list[dict[str, Any]] = [
    {"tokenexp": "[a-z]+"},
    {"tokenexp": "[a-z]+", "mincharnum": 2},
    {"tokenexp": "[a-z]+", "mark": 1},
    {"tokenexp": r"\w+"},
    {"tokenexp": r"\b\w\w+\b"},
    {"tokenexp": "."},
    {"tokenexp": "x*"},
    {"tokenexp": "a|ab"},
    {"tokenexp": "a|ab", "separators": ["b"]},
    {"separators": [""]},
    {"separators": [""], "mark": 1},
    {"separators": [" "]},
    {"separators": ["[ ,]+"], "mark": 1},
    {"separators": ["b", "ab"]},
    {"separators": ["ab", "b"], "mincharnum": 2},
]
TEXTS = [
    text_array(["ab, b c", "", "éa b xx"], (3,)),
    text_array(["ab abb xab", " ", "Ab1_c", "née"], (2, 2)),
    text_array(["", ""], (2,)),
]


def model_of(attrs: dict[str, Any], dims: list[Any]) -> onnx.ModelProto:
    words = {"mark": 0, "pad_value": "#", "mincharnum": 1} | attrs
    node = onnx.helper.make_node("Tokenizer", ["x"], ["y"], domain="com.microsoft", **words)
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.STRING, dims)
    graph = onnx.helper.make_graph([node], "g", [x], [onnx.ValueInfoProto(name="y")])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("texts", TEXTS, ids=lambda texts: str(texts.shape))
@pytest.mark.parametrize("attrs", ATTRS, ids=str)
def test_it_cuts_as_onnxruntime_does(attrs: dict[str, Any], texts: Any) -> None:
    proto = model_of(attrs, list(texts.shape))
    (expected,) = by_onnxruntime(proto, {"x": texts})
    found = run(graph_of(proto), {"x": texts})["y"]
    assert found.shape == expected.shape
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({}, "neither separators nor tokenexp"),
        ({"separators": [""], "mincharnum": 2}, "mincharnum is over 1"),
        ({"separators": ["a", ""]}, "a separator is empty"),
        ({"tokenexp": "[a-"}, r"the regular expression '\[a-' cannot be read"),
    ],
)
def test_what_says_no_tokens_is_refused(attrs: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidModel, match=said):
        infer(graph_of(model_of(attrs, ["n"])))


def test_a_vectoriser_of_text_runs_as_a_model(tmp_path: Path) -> None:
    proto = model_of({"tokenexp": "[a-zA-Z0-9_]+"}, ["n"])
    proto.graph.node.append(
        onnx.helper.make_node(
            "TfIdfVectorizer", ["y"], ["z"], mode="TF", min_gram_length=1, max_gram_length=1,
            max_skip_count=0, ngram_counts=[0], ngram_indexes=[0, 1], pool_strings=["ab", "c"],
        )
    )  # fmt: skip
    del proto.graph.output[:]
    proto.graph.output.append(onnx.ValueInfoProto(name="z"))
    onnx.save(proto, tmp_path / "text.onnx")
    found = load(tmp_path / "text.onnx").run({"x": np.array(["ab, c ab", "é"], object)})["z"]
    assert found.tolist() == [[2, 1], [0, 0]]
