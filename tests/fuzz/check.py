"""Runs graphs through the compiler and onnxruntime, and compares with the NumPy meaning.

Many graphs become one model, and one call of the C compiler. When the whole fails or answers
wrongly, its parts are tried alone.
"""

from __future__ import annotations

import random
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tests.fuzz.compare import difference, unrest
from tests.fuzz.explained import explained
from tests.fuzz.part import Discard, Part
from tests.fuzz.steps import GROUPS, build
from tests.fuzz.to_onnx import model_of
from tuili.compiler import compile as compile_model
from tuili.errors import InvalidArgument, TuiliError
from tuili.host import HostSteps
from tuili.importers.onnx import import_model
from tuili.ir import Node, Value
from tuili.ir.text import to_text
from tuili.runtime import Model, load
from tuili.tensors import Array

# All arrays of a graph, and its inputs among them.
Resized: TypeAlias = tuple[dict[Value, Array], dict[Value, Array]]
# Sizes that are open until the run broadcast to the larger one, which 0 against 1 would not.
ZERO_AGAINST_ONE = "they must be equal or one of them 1, and none 0"
REFUSALS = (TuiliError, ValueError, TypeError, IndexError, ZeroDivisionError)
MISFIT_TRIES = 4
SIZES_BESIDE = (1, 2, 3, 4, 5, 6, 9, 16, 18)


class Seeded:
    """Choices from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, count: int) -> int:
        return self._random.randrange(count)


@dataclass
class Finding:
    """A difference, or a failure."""

    name: str
    kind: str  # native, second size, misfit, onnxruntime, error, crash
    text: str
    graph: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.kind}: {self.text}\n{self.graph}"


@dataclass
class Tally:
    """What a batch showed."""

    graphs: int = 0
    resized: int = 0
    refused: int = 0  # second sizes that the model does not take
    misfits: int = 0  # sizes that must be refused, and were
    compared: int = 0  # graphs that onnxruntime ran too
    explained: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def explain(self, reason: str) -> None:
        self.explained[reason] = self.explained.get(reason, 0) + 1


def seeded(seed: int, group: str = "all") -> Part | None:
    """The graph of a seed; None when no step fitted."""
    try:
        return build(Seeded(seed), f"s{seed}_", GROUPS[group])
    except Discard:
        return None


def check_seeds(
    seeds: Sequence[int], group: str = "all", *, with_onnxruntime: bool = True
) -> Tally:
    """Build, run and compare the graphs of some seeds."""
    with np.errstate(all="ignore"):
        parts = {f"seed {seed}": part for seed in seeds if (part := seeded(seed, group))}
        return check_parts(parts, with_onnxruntime=with_onnxruntime)


def check_parts(parts: Mapping[str, Part], *, with_onnxruntime: bool = True) -> Tally:
    """Run and compare graphs; the names are for the report."""
    tally = Tally(graphs=len(parts))
    _check_native(dict(parts), tally)
    if with_onnxruntime:
        for name, part in parts.items():
            _check_onnxruntime(name, part, tally)
    return tally


# -- tuili ---------------------------------------------------------------------------------


def _check_native(parts: dict[str, Part], tally: Tally) -> None:
    try:
        rounds = _run(parts, tally)
    except Exception as error:  # noqa: BLE001 - whatever a pass or a kernel raises is a finding
        if len(parts) == 1:
            ((name, part),) = parts.items()
            if str(error).endswith(ZERO_AGAINST_ONE):
                tally.explain("open sizes 0 and 1 broadcast to 0; tuili refuses such a run")
                return
            text = str(error) if isinstance(error, TuiliError) else traceback.format_exc(limit=-4)
            tally.findings.append(Finding(name, "error", text, to_text(part.graph)))
            return
        names = list(parts)
        for half in (names[: len(names) // 2], names[len(names) // 2 :]):
            _check_native({name: parts[name] for name in half}, tally)
        return
    for name, part in parts.items():
        for each in rounds:
            if name in each.wanted:
                tally.resized += each.kind != "native"
                _compare(name, part, each, tally)


@dataclass
class Round:
    """What a run should give, by the name of the graph, and what it gave."""

    kind: str
    wanted: dict[str, dict[Value, Array]]
    got: dict[str, Array]


def _run(parts: Mapping[str, Part], tally: Tally) -> list[Round]:
    """Compile and run, with the sizes of the making, then with others for the open axes."""
    model = model_of([part.graph for part in parts.values()])
    with tempfile.TemporaryDirectory(prefix="tuili-fuzz-") as folder:
        artifact = compile_model(import_model(model), Path(folder) / "model.tuili")
        loaded = load(artifact.path, host=HostSteps)
        first = {name: part.arrays for name, part in parts.items()}
        rounds = [Round("native", first, _feed(loaded, parts, {}))]
        others = {name: found for name, part in parts.items() if (found := resized(part))}
        fitting = {
            name: found for name, found in others.items() if _fits(loaded, parts, {name: found})
        }
        tally.refused += len(others) - len(fitting)
        if fitting:
            wanted = {name: arrays for name, (arrays, _) in fitting.items()}
            rounds.append(Round("second size", wanted, _feed(loaded, parts, fitting)))
        _check_misfits(loaded, parts, tally)
        return rounds


def _check_misfits(loaded: Model, parts: Mapping[str, Part], tally: Tally) -> None:
    """Sizes that the meaning refuses: generated code that took them would leave its tensors."""
    for name, part in parts.items():
        found = misfit(part)
        if found is None:
            continue
        feeds, why = found
        try:
            _feed(loaded, parts, {name: ({}, feeds)})
        except InvalidArgument:
            tally.misfits += 1
        else:
            sizes = ", ".join(f"{v.name}: {list(a.shape)}" for v, a in feeds.items())
            text = f"answers for {sizes}, of which the meaning says: {why}"
            tally.findings.append(Finding(name, "misfit", text, to_text(part.graph)))


def _fits(loaded: Model, parts: Mapping[str, Part], changed: Mapping[str, Resized]) -> bool:
    """Whether the model takes these sizes; NumPy broadcasts some that the standard refuses."""
    try:
        _feed(loaded, parts, changed)
    except InvalidArgument as error:
        if any(text in str(error) for text in ("must be equal", "do not fit together")):
            return False
        # Where nothing is taken NumPy does not look at the indices; tuili refuses them first.
        empty = any(not a.size for arrays, _ in changed.values() for a in arrays.values())
        if empty and "the first must not be smaller" in str(error):
            return False
        raise
    return True


def _feed(
    loaded: Model, parts: Mapping[str, Part], changed: Mapping[str, Resized]
) -> dict[str, Array]:
    feeds: dict[str, Array] = {}
    for name, part in parts.items():
        given = changed[name][1] if name in changed else {}
        feeds |= {v.name: np.array(given.get(v, part.arrays[v])) for v in part.graph.inputs}
    return {name: np.array(array) for name, array in loaded.run(feeds).items()}


def resized(part: Part) -> Resized | None:
    """All arrays, and the inputs, for other sizes of the open axes; None when none fit."""
    if not part.symbols or any(node.graphs() for node in part.graph.nodes):
        return None
    rng = random.Random(len(part.graph.nodes))
    feeds = _drawn(part, {name: rng.choice(SIZES_BESIDE) for name in part.symbols})
    try:
        arrays = part.replay(feeds)
    except REFUSALS:
        return None
    usable = all(_is_usable(array) for array in arrays.values())
    return (arrays, feeds) if usable else None


def misfit(part: Part) -> tuple[dict[Value, Array], str] | None:
    """Inputs of other sizes that the meaning refuses, and what it says; None when it takes all."""
    if not part.symbols or any(node.graphs() for node in part.graph.nodes):
        return None
    rng = random.Random(-len(part.graph.nodes))
    for _ in range(MISFIT_TRIES):
        feeds = _drawn(part, {name: rng.choice(SIZES_BESIDE) for name in part.symbols})
        try:
            part.replay(feeds)
        except REFUSALS as error:
            return feeds, str(error)
    return None


def _drawn(part: Part, sizes: Mapping[str, int]) -> dict[Value, Array]:
    """Inputs for sizes of the open axes."""
    return {
        value: leaf.draw([d if isinstance(d, int) else sizes[str(d)] for d in value.shape])
        for value, leaf in part.leaves.items()
        if value.producer is None and value in part.graph.inputs
    }


def _is_usable(array: Array) -> bool:
    if array.size > 100_000:
        return False
    if array.dtype.kind in "biu":
        return True
    wide = array.astype(np.float64)
    return bool(np.isfinite(wide).all() and np.abs(wide).max(initial=0) < 1e4)


def _compare(name: str, part: Part, run: Round, tally: Tally) -> None:
    feeds = {value: run.wanted[name][value] for value in part.graph.inputs}
    for value in part.graph.outputs:
        got, wanted = run.got[value.name], run.wanted[name][value]
        text = difference(got, wanted)
        if not text:
            continue
        if not difference(got, wanted, unrest(part, value, feeds)):
            tally.explain("ill-conditioned: other roundings move the answer as far")
        elif run.kind == "onnxruntime" and (reason := explained(part, value)):
            tally.explain(reason)
        else:
            shown = to_text(part.graph)
            tally.findings.append(Finding(name, run.kind, f"{value.name}: {text}", shown))
            return


# -- onnxruntime ---------------------------------------------------------------------------


def _ends_onnxruntime(part: Part, node: Node) -> bool:
    return node.op == "Unique" and "axis" in node.attrs and not part.of(node.required(0)).size


def _check_onnxruntime(name: str, part: Part, tally: Tally) -> None:
    import onnxruntime

    if any(_ends_onnxruntime(part, node) for node in part.graph.nodes):
        tally.explain("Unique: of nothing, along an axis, ends the process of onnxruntime")
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = model_of([part.graph])
    feeds = {v.name: part.arrays[v] for v in part.graph.inputs}
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        found = session.run(None, feeds)
    except Exception:  # noqa: BLE001 - it lacks operators and types; its errors share no class
        return
    tally.compared += 1
    got = {value.name: np.asarray(a) for value, a in zip(part.graph.outputs, found, strict=True)}
    _compare(name, part, Round("onnxruntime", {name: part.arrays}, got), tally)
