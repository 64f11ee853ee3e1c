"""What pass tests share: graphs from text, run on random inputs."""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph
from tuili.ir.text import parse
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.tensors import Array


def load(text: str) -> Graph:
    """A typed graph from its text."""
    graph = parse(text)
    infer(graph)
    return graph


def feeds(graph: Graph) -> dict[str, Array]:
    """Normal random inputs, the same on every call."""
    rng = np.random.default_rng(0)
    return {v.name: rng.standard_normal(v.shape).astype(v.dtype.numpy) for v in graph.inputs}


def run_on_random(graph: Graph) -> list[Array]:
    """The outputs for random inputs."""
    return list(run(graph, feeds(graph)).values())
