"""Layout assignment: which tensors are blocked by channels, with the fewest bytes reordered.

Every node either wants blocked data, follows its neighbours, or refuses. A follower costs nothing
by itself, but each value that one side writes and the other side reads is reordered once per
direction. The cheapest choice is a minimum cut: blocked nodes on the source's side, plain ones on
the sink's; one auxiliary vertex per value and direction makes readers share a reorder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tuili.errors import InvalidArgument
from tuili.ir import Graph, Node, TensorType, Value
from tuili.passes.body import is_in_vectors
from tuili.passes.fuse_epilogue import OWN_SLOTS
from tuili.passes.min_cut import INFINITE, SINK, SOURCE, MinCut
from tuili.passes.quantized.parts import BYTES
from tuili.tensors import Dim, DType, evaluate, numel, symbols_of

FEW_CHANNELS = 4  # a convolution reads an image of so few channels as it is
# Stand for dims that are not known, to weigh reorders; a sum of samples needs a larger one.
GUESSES = (64, 1 << 16)


class Role(Enum):
    """What a node makes of blocked data."""

    WANTS = "wants"
    FOLLOWS = "follows"
    REFUSES = "refuses"


@dataclass(frozen=True, slots=True)
class Part:
    """A node's role, and the input slots whose layout is the node's (others stay plain)."""

    role: Role
    slots: tuple[int, ...] = ()
    writes_plain: bool = False  # whatever it reads


_REFUSES = Part(Role.REFUSES)


def assign_layouts(graph: Graph, block: int) -> bool:
    """Set layouts and insert Reorder nodes; the graph's inputs and outputs stay plain."""
    parts = {node: part_of(node, block) for node in graph.nodes}
    if not any(part.role is Role.WANTS for part in parts.values()):
        return False
    blocked = _cut(graph, parts)
    layout = f"nchw{block}c"
    for node in graph.nodes:
        if node in blocked and not parts[node].writes_plain:
            for value in node.outputs:
                value.type = value.tensor.with_layout(layout)
    _reorder(graph, parts, blocked, layout)
    return True


# -- roles -------------------------------------------------------------------------------------


def part_of(node: Node, block: int) -> Part:
    """What the node makes of blocked data."""
    rule = RULES.get(node.op)
    if rule is None or not all(_can_be_blocked(value) for value in node.outputs):
        return _REFUSES
    if node.op not in ON_BYTES and any(value.dtype in BYTES for value in node.outputs):
        return _REFUSES
    return rule(node, block)


def _can_be_blocked(value: Value | None) -> bool:
    if value is None or not isinstance(value.type, TensorType) or value.type.shape is None:
        return False
    fits = value.dtype is DType.F32 or value.dtype in BYTES
    return fits and 3 <= len(value.shape) <= 4 and isinstance(value.shape[1], int)


def _data_and_epilogue(node: Node, own_slots: int) -> tuple[int, ...]:
    """The data input and the epilogue's operands of the output's shape."""
    extra = range(own_slots, len(node.inputs))
    full = (slot for slot in extra if _is_full(node.input(slot), node.output))
    return (0, *full)


def _is_full(value: Value | None, output: Value) -> bool:
    if value is None or value.is_constant or not isinstance(value.type, TensorType):
        return False
    return _can_be_blocked(value) and value.shape[1] == output.shape[1]


def _conv(node: Node, block: int) -> Part:
    x = node.required(0)
    if not _has_known_weights(node) or not _can_be_blocked(x):
        return _REFUSES
    channels, outputs, groups = x.shape[1], node.output.shape[1], node.attrs.get("group", 1)
    assert isinstance(channels, int)
    assert isinstance(outputs, int)
    assert isinstance(groups, int)
    depthwise = groups == channels == outputs
    whole_blocks = channels // groups % block == 0 and outputs // groups % block == 0
    if groups != 1 and not depthwise and not (node.op == "QConv" or whole_blocks):
        return _REFUSES
    slots = _data_and_epilogue(node, OWN_SLOTS[node.op])
    if groups == 1 and channels <= FEW_CHANNELS:
        return Part(Role.WANTS, slots[1:])
    if outputs == groups == 1 and node.op == "Conv":
        return Part(Role.WANTS, (0,), writes_plain=True)
    return Part(Role.WANTS, slots)


def _has_known_weights(node: Node) -> bool:
    bias = node.input(3 if node.op == "QConv" else 2)
    return node.required(1).is_constant and (bias is None or bias.is_constant)


def _each_channel(node: Node, block: int) -> Part:
    return Part(Role.WANTS, _data_and_epilogue(node, OWN_SLOTS[node.op]))


def _conv_transpose(node: Node, block: int) -> Part:
    plain = node.attrs.get("group", 1) != 1 or not _has_known_weights(node)
    if plain or not _can_be_blocked(node.required(0)):
        return _REFUSES
    if node.output.shape[1] == 1 and _taps_are_apart(node, block):
        return Part(Role.WANTS, (0,), writes_plain=True)
    return Part(Role.WANTS, _data_and_epilogue(node, 3))


def _taps_are_apart(node: Node, block: int) -> bool:
    """Whether every output of a ConvTranspose has exactly one tap: kernel equal to stride."""
    taps, strides = node.required(1).shape[2:], node.attrs.get("strides")
    sizes = zip(node.required(0).shape[2:], node.output.shape[2:], taps, strict=True)
    grown = all(out == size * tap for size, out, tap in sizes)
    pads, dilations = node.attrs.get("pads") or (0,), node.attrs.get("dilations") or (1,)
    assert isinstance(pads, tuple)
    assert isinstance(dilations, tuple)
    simple = not any(pads) and all(dilation == 1 for dilation in dilations)
    count = numel(taps)
    return strides == taps and grown and simple and isinstance(count, int) and block % count == 0


def _pool(node: Node, block: int) -> Part:
    many_outputs = len(node.outputs) > 1
    if many_outputs or not _can_be_blocked(node.required(0)):
        return _REFUSES
    return Part(Role.FOLLOWS, _data_and_epilogue(node, 1))


def _elementwise(node: Node, block: int) -> Part:
    shares = [slot for slot, value in enumerate(node.inputs) if not _is_spread(value)]
    if not is_in_vectors(node):
        return _REFUSES
    if not shares or not all(_may_share(node.input(slot), node.output, block) for slot in shares):
        return _REFUSES
    return Part(Role.FOLLOWS, tuple(shares))


def _is_spread(value: Value | None) -> bool:
    """One element, or a constant per channel: kernels read these in plain layout."""
    if value is None:
        return True
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        return False
    shape = value.type.shape
    if numel(shape) == 1:
        return True
    per_channel = len(shape) >= 3 and numel(shape) == shape[1]
    return value.is_constant and (per_channel or _is_channel_suffix(value))


def _is_channel_suffix(value: Value) -> bool:
    """[C, 1, 1]: broadcasts like [1, C, 1, 1]."""
    shape = value.shape
    return len(shape) >= 2 and all(dim == 1 for dim in shape[1:])


def _may_share(value: Value | None, output: Value, block: int) -> bool:
    if not _can_be_blocked(value) or value is None or value.is_constant:
        return False
    same_rank = len(value.shape) == len(output.shape)
    return same_rank and value.shape[1] == output.shape[1]


def _concat(node: Node, block: int) -> Part:
    rank = len(node.output.shape)
    axis = node.attrs.get("axis", 0)
    assert isinstance(axis, int)
    pieces = [value for value in node.inputs if value is not None]
    if axis % rank != 1 or not all(_can_be_blocked(value) for value in pieces):
        return _REFUSES
    whole = all(isinstance(v.shape[1], int) and v.shape[1] % block == 0 for v in pieces[:-1])
    return Part(Role.FOLLOWS, tuple(range(len(pieces)))) if whole else _REFUSES


def _spatial(node: Node, block: int) -> Part:
    """Resize and the like: fine while batch and channels stay as they are."""
    x = node.required(0)
    kept = _can_be_blocked(x) and x.shape[:2] == node.output.shape[:2]
    return Part(Role.FOLLOWS, (0,)) if kept else _REFUSES


def _frames(node: Node, block: int) -> Part:
    """Copies of whole pictures; side by side only where all blocks are whole."""
    x = node.required(0)
    if not _can_be_blocked(x):
        return _REFUSES
    channels = x.shape[1]
    assert isinstance(channels, int)
    whole = channels % block == 0 or channels == node.output.shape[1]
    return Part(Role.FOLLOWS, (0,)) if whole else _REFUSES


# Their kernels write blocked bytes.
ON_BYTES = {"QConv", "Fused", "QuantizeLinear", "MaxPool"}

Rule = Callable[[Node, int], Part]

RULES: dict[str, Rule] = {
    "Conv": _conv,
    "QConv": _conv,
    "EachChannelOfFrames": _each_channel,
    "QuantizeLinear": _elementwise,
    "DequantizeLinear": _elementwise,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _pool,
    "GlobalMaxPool": _pool,
    "Resize": _spatial,
    "Pad": _spatial,
    "Frames": _frames,
    "Fused": _elementwise,
    **dict.fromkeys(
        ("Add", "Sub", "Mul", "Div", "Max", "Min", "Relu", "Clip", "Sigmoid", "Tanh", "Elu", "Pow",
         "HardSigmoid", "HardSwish", "LeakyRelu", "Gelu", "Erf", "Exp", "Sqrt", "Abs", "Neg"),
        _elementwise,
    ),
    "Concat": _concat,
}  # fmt: skip


# -- the cut -----------------------------------------------------------------------------------


def _cut(graph: Graph, parts: dict[Node, Part]) -> set[Node]:
    """The nodes that work on blocked data."""
    network = MinCut()
    vertices = {node: _vertex(network, parts[node]) for node in graph.nodes}
    plain = {node for node, part in parts.items() if part.writes_plain}
    for value in _values(graph):
        producer = value.producer
        writer = SINK if producer is None or producer in plain else vertices.get(producer, SINK)
        readers = {_reader(user, slot, parts, vertices) for user, slot in value.uses}
        _price(network, writer, readers - {writer}, weight(value))
    side = network.source_side()
    return {node for node in graph.nodes if vertices[node] in side}


def _vertex(network: MinCut, part: Part) -> int:
    if part.role is Role.FOLLOWS:
        return network.vertex()
    return SOURCE if part.role is Role.WANTS else SINK


def _values(graph: Graph) -> list[Value]:
    made = [value for node in graph.nodes for value in node.outputs]
    read = dict.fromkeys([*graph.inputs, *graph.captured(), *_constants(graph)])
    return [value for value in [*read, *made] if _can_be_blocked(value)]


def _constants(graph: Graph) -> list[Value]:
    """Those of the graph itself; weights among them, which nothing reads blocked, cost nothing."""
    read = (value for node in graph.nodes for value in node.inputs)
    return [value for value in read if value and value.is_constant]


def _reader(
    user: Node | Graph, slot: int, parts: dict[Node, Part], vertices: dict[Node, int]
) -> int:
    if isinstance(user, Node) and user in parts and slot in parts[user].slots:
        return vertices[user]
    return SINK


def _price(network: MinCut, writer: int, readers: set[int], price: int) -> None:
    """One price for all readers on the other side, in each direction."""
    if not readers:
        return
    to_plain, to_blocked = network.vertex(), network.vertex()
    network.edge(writer, to_plain, price)
    network.edge(to_blocked, writer, price)
    for reader in readers:
        network.edge(to_plain, reader, INFINITE)
        network.edge(reader, to_blocked, INFINITE)


def weight(value: Value) -> int:
    """The bytes that a reorder of the value moves, with a guess for unknown dims."""
    size = numel(value.shape)
    return max(1, _guessed(size) * value.dtype.itemsize)


def _guessed(size: Dim) -> int:
    for guess in GUESSES:
        try:
            return evaluate(size, dict.fromkeys(symbols_of(size), guess))
        except InvalidArgument:  # a divisor that is 0 for this one
            continue
    return 1


# -- reorders ----------------------------------------------------------------------------------


def _reorder(graph: Graph, parts: dict[Node, Part], blocked: set[Node], layout: str) -> None:
    for value in _values(graph):
        for wanted in ("", layout):
            if wanted != value.layout:
                _reorder_value(graph, value, wanted, parts, blocked)


def _reorder_value(
    graph: Graph, value: Value, wanted: str, parts: dict[Node, Part], blocked: set[Node]
) -> None:
    """Give the readers that need another layout one shared copy in it."""
    readers = [use for use in value.uses if _wants_blocked(*use, parts, blocked) == bool(wanted)]
    if not readers:
        return
    own = value.producer if value.producer and value.producer.graph is graph else None
    copy = graph.add(
        "Reorder",
        [value],
        {"layout": wanted},
        outputs=[f"{value.name}_{wanted or 'plain'}"],
        types=[value.tensor.with_layout(wanted)],
        before=None if own else graph.nodes[0],
        after=own,
    ).output
    if any(user is graph for user, _ in readers):
        _swap_names(graph, value, copy)
    for user, slot in readers:
        if isinstance(user, Node):
            user.set_input(slot, copy)
        else:
            user.set_outputs([copy if i == slot else v for i, v in enumerate(user.outputs)])


def _swap_names(graph: Graph, value: Value, copy: Value) -> None:
    """The graph's outputs keep their names."""
    name, other = value.name, copy.name
    graph.rename(copy, f"{other}_")
    graph.rename(value, other)
    graph.rename(copy, name)


def _wants_blocked(
    user: Node | Graph, slot: int, parts: dict[Node, Part], blocked: set[Node]
) -> bool:
    return isinstance(user, Node) and user in blocked and slot in parts[user].slots
