"""Which operators of a model nothing here can express: all of them, with their nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from onnx import NodeProto, defs

from tuili.errors import UnsupportedOperator
from tuili.importers.onnx.functions import Functions, opsets_of, schema_of
from tuili.importers.onnx.order import graphs_of
from tuili.importers.onnx.upgrades import is_known
from tuili.ops.table import hint

_SHOWN = 5

_FOR_ONE_MACHINE = (
    "ONNX Runtime's layout optimiser wrote the operators of {} for the processor it ran on, with"
    " weights in that processor's blocks. Save the optimised model with graph_optimization_level ="
    " ORT_ENABLE_EXTENDED, or give the model as it was before"
)
# Operators, by what their names start with, that no model says of itself, and what to do.
_ADVICE = {
    "com.microsoft.nchwc::": _FOR_ONE_MACHINE,
    "com.ms.internal.nhwc::": _FOR_ONE_MACHINE,
    "com.microsoft::EPContext": (
        "{} holds what another runtime has compiled for its own device. Give the model as it was"
        " before"
    ),
    "org.pytorch.aten::": (
        "PyTorch's exporter left the operators of {} as they were. Export with dynamo=True, or with"
        " operator_export_type=ONNX, which says what it cannot translate"
    ),
}
_LEFT_OVER = (
    "ONNX has no {}: tf2onnx leaves what it cannot translate as TensorFlow calls it, and says so in"
    " its log. Export with a newer operator set, or write that part of the model otherwise"
)


def check(nodes: Iterable[NodeProto], opsets: Mapping[str, int], functions: Functions) -> None:
    """Raise UnsupportedOperator that lists every unknown operator with its nodes."""
    missing: dict[str, list[str]] = {}
    _Search(functions, missing).visit(nodes, opsets)
    if not missing:
        return
    lines = [f"  {op}: {_nodes(found)}.{_hint(op)}" for op, found in sorted(missing.items())]
    for start, advice in _ADVICE.items():
        if any(op.startswith(start) for op in missing):
            lines.append(advice.format(start.removesuffix("::")))
    left = [op for op in sorted(missing) if "::" not in op and not defs.has(op)]
    if left:
        lines.append(_LEFT_OVER.format(" or ".join(left)))
    count = f"{len(missing)} operator{'s are' if len(missing) > 1 else ' is'} not supported"
    raise UnsupportedOperator(
        f"{count}:\n" + "\n".join(lines), [(op, found) for op, found in sorted(missing.items())]
    )


def _hint(op: str) -> str:
    """The nearest known operator, where no advice is given."""
    return "" if any(op.startswith(start) for start in _ADVICE) else hint(op)


def _nodes(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"node{'s' if len(names) > 1 else ''} {shown}{more}"


class _Search:
    def __init__(self, functions: Functions, missing: dict[str, list[str]]) -> None:
        self._functions = functions
        self._missing = missing
        self._entered: set[tuple[str, str, str]] = set()
        self._bodies: dict[tuple[str, str, int], bool] = {}

    def visit(self, nodes: Iterable[NodeProto], opsets: Mapping[str, int]) -> None:
        """Look at nodes, the graphs inside them and the functions they call."""
        for node in nodes:
            self._look(node, opsets)
            for graph in graphs_of(node):
                self.visit(graph.node, opsets)

    def _look(self, node: NodeProto, opsets: Mapping[str, int]) -> None:
        key = (node.domain, node.op_type, node.overload)
        local = self._functions.get(key)
        if local is not None:
            if key not in self._entered:
                self._entered.add(key)
                self.visit(local.node, opsets_of(local.opset_import))
            return
        domain = "" if node.domain in ("", "ai.onnx") else node.domain
        op = f"{domain}::{node.op_type}" if domain else node.op_type
        if op == "Constant" or is_known(op) or self._expands(node, domain, opsets.get(domain, 0)):
            return
        name = node.name or next(iter(node.output), "")
        self._missing.setdefault(op, []).append(name)

    def _expands(self, node: NodeProto, domain: str, version: int) -> bool:
        """Whether the standard defines the operator by a body of known operators."""
        key = (domain, node.op_type, version)
        if key not in self._bodies:
            self._bodies[key] = False  # a body that calls itself is no help
            schema = schema_of(node.op_type, domain, version)
            self._bodies[key] = schema is not None and self._has_body(schema)
        return self._bodies[key]

    def _has_body(self, schema: Any) -> bool:
        if schema.has_context_dependent_function:
            return True
        if not schema.has_function:
            return False
        missing: dict[str, list[str]] = {}
        body = schema.function_body
        inner = _Search({}, missing)
        inner._bodies = self._bodies
        inner.visit(body.node, opsets_of(body.opset_import))
        return not missing
