"""Damaged models: small changes to those of the ONNX backend suite, one for each seed.

One in four is a node of com.microsoft instead, which no schema describes.

python -m tests.importers.mutants                 5,000 seeds, read and interpreted
python -m tests.importers.mutants --seed 17       one, printed
python -m tests.importers.mutants --compile       compiled and run too

Whatever a model says, only tuili's own errors may come out.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from tuili.errors import InternalError, TuiliError
from tuili.importers.onnx import import_model
from tuili.ops.interpret import run

NUMBERS = (-(2**63), -(2**31), -7, -2, -1, 0, 1, 2, 3, 5, 17, 255, 2**31, 2**40, 2**63 - 1)
REALS = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-30, 1e30, 0.5)
KINDS = tuple(range(29))
_TURNS = 4  # seeds until one of com.microsoft again
Mutation = Callable[[ModelProto, random.Random], None]
Feeds = dict[str, Any]


# -- the models ----------------------------------------------------------------------------


@cache
def folders() -> list[Path]:
    """The small cases of the suite, in a fixed order."""
    root = Path(onnx.__file__).parent / "backend/test/data"
    return sorted(
        path.parent for path in root.glob("*/*/model.onnx") if path.stat().st_size < 20_000
    )


def read(folder: Path) -> tuple[ModelProto, Feeds]:
    """A case: its model, and its first inputs where they are tensors."""
    model = onnx.load(folder / "model.onnx")
    held = {tensor.name for tensor in model.graph.initializer}
    names = [info.name for info in model.graph.input if info.name not in held]
    feeds: Feeds = {}
    for index, name in enumerate(names):
        path = folder / "test_data_set_0" / f"input_{index}.pb"
        if path.exists():
            try:
                feeds[name] = numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))
            except Exception:  # noqa: BLE001 - a sequence or an optional
                continue
    return model, feeds


@cache
def contrib() -> list[tuple[str, ModelProto, Feeds]]:
    """The cases of com.microsoft, with all inputs open and with all but the first known."""
    from tests.ops import test_contrib, test_contrib_attention, test_contrib_layers
    from tests.ops.beside_onnxruntime import model_of

    found: list[tuple[str, ModelProto, Feeds]] = []
    for family in (test_contrib, test_contrib_attention, test_contrib_layers):
        for op, inputs, attrs, outputs, _ in family.CASES:
            for weights in (False, True):
                model = model_of(op, inputs, attrs, outputs, weights)
                asked = {info.name for info in model.graph.input}
                feeds = {f"i{k}": item for k, item in enumerate(inputs) if f"i{k}" in asked}
                found.append((op, model, feeds))
    return found


def drawn(seed: int, rng: random.Random) -> tuple[str, ModelProto, Feeds]:
    """A model that nothing is wrong with yet."""
    if seed % _TURNS == _TURNS - 1:
        name, model, feeds = rng.choice(contrib())
        copied = ModelProto()
        copied.CopyFrom(model)
        return name, copied, dict(feeds)
    folder = rng.choice(folders())
    return folder.name, *read(folder)


# -- the damage ----------------------------------------------------------------------------


def _nodes(model: ModelProto) -> list[NodeProto]:
    found: list[NodeProto] = []
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        found += graph.node
        waiting += [attr.g for node in graph.node for attr in node.attribute if attr.HasField("g")]
    return found


def _node(model: ModelProto, rng: random.Random) -> NodeProto:
    return rng.choice(_nodes(model))


def _drop_node(model: ModelProto, rng: random.Random) -> None:
    del model.graph.node[rng.randrange(len(model.graph.node))]


def _repeat_node(model: ModelProto, rng: random.Random) -> None:
    model.graph.node.add().CopyFrom(rng.choice(model.graph.node))


def _other_operator(model: ModelProto, rng: random.Random) -> None:
    names = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
    _node(model, rng).op_type = rng.choice([*names, "Frobnicate", "", "Convv"])


def _other_domain(model: ModelProto, rng: random.Random) -> None:
    _node(model, rng).domain = rng.choice(["", "ai.onnx.ml", "com.microsoft", "nowhere", "ai.onnx"])


def _other_input(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    names = ["", "nobody", *node.output, *(info.name for info in model.graph.input)]
    action = rng.randrange(4)
    if action == 0 or not node.input:
        node.input.append(rng.choice(names))
    elif action == 1:
        del node.input[rng.randrange(len(node.input))]
    elif action == 2:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    else:
        items = list(node.input)
        rng.shuffle(items)
        node.input[:] = items


def _other_output(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.output and rng.random() < 0.5:
        del node.output[rng.randrange(len(node.output))]
    else:
        node.output.append(rng.choice(["", "another", *node.input]))


def _attribute(model: ModelProto, rng: random.Random) -> AttributeProto | None:
    found = [attr for node in _nodes(model) for attr in node.attribute]
    return rng.choice(found) if found else None


def _other_value(model: ModelProto, rng: random.Random) -> None:
    attr = _attribute(model, rng)
    if attr is None:
        return _new_attribute(model, rng)
    match attr.type:
        case AttributeProto.INT:
            attr.i = rng.choice(NUMBERS)
        case AttributeProto.FLOAT:
            attr.f = rng.choice(REALS)
        case AttributeProto.STRING:
            attr.s = rng.choice([b"", b"FOO", b"\xff\xfe", b"a,b->c", attr.s + b"x"])
        case AttributeProto.INTS:
            _other_list(attr.ints, NUMBERS, rng)
        case AttributeProto.FLOATS:
            _other_list(attr.floats, REALS, rng)
        case AttributeProto.STRINGS:
            _other_list(attr.strings, (b"", b"FOO", b"\xff"), rng)
        case AttributeProto.TENSOR:
            _damage(attr.t, rng)
        case _:
            attr.type = rng.randrange(15)
    return None


def _other_list(items: Any, choices: tuple[Any, ...], rng: random.Random) -> None:
    action = rng.randrange(3)
    if action == 0 or not items:
        items.append(rng.choice(choices))
    elif action == 1:
        del items[rng.randrange(len(items))]
    else:
        items[rng.randrange(len(items))] = rng.choice(choices)


def _other_kind(model: ModelProto, rng: random.Random) -> None:
    attr = _attribute(model, rng)
    if attr is not None:
        attr.type = rng.randrange(15)


def _drop_attribute(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def _new_attribute(model: ModelProto, rng: random.Random) -> None:
    known = [attr.name for node in _nodes(model) for attr in node.attribute]
    name = rng.choice(["axis", "axes", "to", "mode", "alpha", "nonsense", *known])
    value = rng.choice([3, 2.5, "text", [1, 2], [0.5], ["x"], -1])
    _node(model, rng).attribute.append(onnx.helper.make_attribute(name, value))


def _damage(tensor: TensorProto, rng: random.Random) -> None:
    action = rng.randrange(5)
    if action == 0:
        tensor.data_type = rng.choice(KINDS)
    elif action == 1 and tensor.raw_data:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data))]
    elif action == 2:
        tensor.dims.append(rng.choice(NUMBERS))
    elif action == 3 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    else:
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", rng.choice(["", "gone.bin", "/etc/passwd", "../x"])


def _initializer(model: ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        _damage(rng.choice(model.graph.initializer), rng)
    else:
        _other_value(model, rng)


def _declared(model: ModelProto, rng: random.Random) -> None:
    infos = [*model.graph.input, *model.graph.output]
    info = rng.choice(infos)
    kind = info.type.tensor_type
    action = rng.randrange(5)
    if action == 0:
        kind.elem_type = rng.choice(KINDS)
    elif action == 1:
        info.name = rng.choice(["", "other", infos[0].name])
    elif action == 2:
        kind.ClearField("shape")
    elif action == 3:
        kind.shape.dim.add().dim_value = rng.choice(NUMBERS)
    elif kind.shape.dim:
        rng.choice(kind.shape.dim).dim_value = rng.choice(NUMBERS)


def _opset(model: ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.1:
        del model.opset_import[:]
    else:
        rng.choice(model.opset_import).version = rng.choice([*range(1, 30), 0, -1, 2**40])


MUTATIONS: tuple[Mutation, ...] = (
    _drop_node, _repeat_node, _other_operator, _other_domain, _other_input, _other_input,
    _other_output, _other_value, _other_value, _other_value, _other_kind, _drop_attribute,
    _new_attribute, _initializer, _initializer, _declared, _declared, _opset,
)  # fmt: skip


def _other_feeds(feeds: Feeds, rng: random.Random) -> None:
    """Numbers that steer shapes and places, out of range; or another shape."""
    name = rng.choice([*feeds])
    array = feeds[name]
    if array.dtype in (np.int64, np.int32) and array.size:
        changed = array.copy()
        limits = np.iinfo(array.dtype)
        changed.flat[rng.randrange(array.size)] = int(
            np.clip(rng.choice(NUMBERS), limits.min, limits.max)
        )
        feeds[name] = changed
    elif array.ndim:
        axis = rng.randrange(array.ndim)
        feeds[name] = np.delete(array, slice(rng.randrange(array.shape[axis] + 1)), axis)


def mutant(seed: int) -> tuple[str, bytes, Feeds]:
    """What was damaged, the bytes of a model, and inputs for it."""
    rng = random.Random(seed)
    name, model, feeds = drawn(seed, rng)
    action = rng.random()
    if action < 0.12 and feeds:
        _other_feeds(feeds, rng)
        return f"{name}: other inputs", model.SerializeToString(), feeds
    if action < 0.2:
        data = bytearray(model.SerializeToString())
        if rng.random() < 0.5:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] = rng.randrange(256)
        return f"{name}: other bytes", bytes(data), feeds
    mutation = rng.choice(MUTATIONS)
    if model.graph.node:
        mutation(model, rng)
    return f"{name}: {mutation.__name__.strip('_')}", model.SerializeToString(), feeds


# -- what must not happen ------------------------------------------------------------------


def outcome(seed: int, *, compiled: bool = False) -> tuple[str, str]:
    """`accepted`, `refused` or `foreign`, and what was raised."""
    label, data, feeds = mutant(seed)
    try:
        graph = import_model(data)
        given = {value.name: feeds[value.name] for value in graph.inputs if value.name in feeds}
        if compiled:
            _run_native(data, given)
        elif len(given) == len(graph.inputs):
            run(graph, given)
    except InternalError as error:
        return "foreign", f"{label}: {type(error).__name__}: {error}"
    except TuiliError as error:
        if "is damaged and cannot be read" in str(error):
            return "foreign", f"{label}: {error}"
        return "refused", f"{label}: {error}"
    except Exception:  # noqa: BLE001 - what this looks for
        return "foreign", f"{label}:\n{traceback.format_exc(limit=-3)}"
    return "accepted", label


def _run_native(data: bytes, feeds: Feeds) -> None:
    from tuili.compiler import compile as compile_model
    from tuili.host import HostSteps
    from tuili.runtime import load

    with tempfile.TemporaryDirectory(prefix="tuili-mutant-") as folder:
        artifact = compile_model(import_model(data), Path(folder) / "model.tuili")
        model = load(artifact.path, host=HostSteps)
        if len(feeds) == len(model.inputs):
            model.run(feeds)


def main() -> int:
    """Try seeds; print what is foreign, and fail when there is any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    first = options.start if options.seed is None else options.seed
    count = options.count if options.seed is None else 1
    counts: Counter[str] = Counter()
    for seed in range(first, first + count):
        kind, text = outcome(seed, compiled=options.compile)
        counts[kind] += 1
        if kind == "foreign" or options.seed is not None:
            print(f"seed {seed}: {kind}: {text}", flush=True)
    print(", ".join(f"{kind} {number}" for kind, number in sorted(counts.items())))
    return 1 if counts["foreign"] else 0


if __name__ == "__main__":
    sys.exit(main())
