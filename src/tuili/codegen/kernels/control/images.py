"""EachImage: the body's steps for one image after the other, which it finds by their number."""

from __future__ import annotations

from tuili.codegen.kernel import Context, size_of
from tuili.ir import Graph, Node, Value
from tuili.lower.program import Repeat, View
from tuili.tensors import Sym


def emit_each_image(node: Node, ctx: Context) -> None:
    """Images are read and written where they lie in their batch."""
    body = node.attrs["body"]
    assert isinstance(body, Graph)
    number = ctx.new_round()
    for inner, outer in zip(body.inputs, node.inputs, strict=True):
        assert outer is not None
        ctx.views[inner] = _image(inner, ctx.view(outer), number)
    for inner, outer in zip(body.outputs, node.outputs, strict=True):
        ctx.views[inner] = _image(inner, ctx.view(outer), number)
    batch = node.output.shape[0]
    steps = ctx.steps_of(lambda: ctx.emit_graph(body))
    ctx.program.steps.append(
        Repeat(node.label, number, batch, None, [], steps, (), [], counted=True)
    )


def _image(inner: Value, whole: View, number: str) -> View:
    return View(whole.buffer, whole.offset + Sym(number) * size_of(inner.tensor))
