"""The order of the passes, as one function that reads as a list."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tuili.errors import InternalError, TuiliError
from tuili.ir import Graph
from tuili.ops.infer import infer
from tuili.passes.affine import fold_into_weights, split_batch_norm
from tuili.passes.appended import stack_appended
from tuili.passes.attention.fuse import fuse_attention
from tuili.passes.attention.to_core import attention_to_core
from tuili.passes.branches import inline_branches
from tuili.passes.casts import plain_casts
from tuili.passes.composites import composites_to_core
from tuili.passes.counted import count_rounds
from tuili.passes.cse import share_equal_nodes
from tuili.passes.dead import remove_dead
from tuili.passes.each_image import each_image
from tuili.passes.einsum import einsum_to_matmul
from tuili.passes.few_channels import split_transposed, widen_few_channels
from tuili.passes.fold import fold_constants
from tuili.passes.fold_shapes import fold_shapes
from tuili.passes.fuse_elementwise import fuse_elementwise
from tuili.passes.fuse_epilogue import fuse_epilogues
from tuili.passes.gemm import gemm_to_matmul
from tuili.passes.identities import remove_identities
from tuili.passes.kept_axes import keep_axes
from tuili.passes.known_lists import know_lists
from tuili.passes.layout import assign_layouts
from tuili.passes.merge_groups import merge_groups
from tuili.passes.ml.to_core import ml_to_core
from tuili.passes.movement import merge_movement
from tuili.passes.pads import fold_pads
from tuili.passes.quantized.recognise import KEPT, recognise_quantized, split_dequantize
from tuili.passes.quantized.weight_codes import plain_weight_codes
from tuili.passes.recognise import recognise
from tuili.passes.settle_ranks import settle_ranks
from tuili.passes.sink_transposes import sink_transposes
from tuili.passes.strength import reduce_strength
from tuili.passes.unroll import unroll_loops
from tuili.passes.volume_patches import volume_patches
from tuili.passes.volumes import volumes_to_frames
from tuili.passes.whole_windows import whole_windows
from tuili.passes.widen_half import widen_half

OnPass = Callable[[str, Graph], None]
MOST_ROUNDS = 8


def optimise(graph: Graph, *, block: int, on_pass: OnPass, exact: bool = False) -> None:
    """Everything between a typed graph and one that kernels can run; `block` is the target's.

    `exact` leaves out what replaces arithmetic by cheaper arithmetic that rounds otherwise.
    """
    run = _Runner(graph, on_pass)
    if not exact:
        run("widen_half", lambda: widen_half(graph))
    run("fold_constants_but_codes", lambda: fold_constants(graph, KEPT))
    run("recognise_quantized", lambda: recognise_quantized(graph))
    run("stack_appended", lambda: stack_appended(graph))
    run("settle_ranks", lambda: settle_ranks(graph))
    for _ in range(MOST_ROUNDS):
        if _simplify(graph, run):
            continue
        if not run("volumes_to_frames", lambda: volumes_to_frames(graph, infer(graph))):
            break
    if not exact:
        run("reduce_strength", lambda: reduce_strength(graph, infer(graph)))
    run("fold_constants", lambda: fold_constants(graph))
    run("remove_dead", lambda: remove_dead(graph))
    run("merge_groups", lambda: on_all(graph, partial(merge_groups, block=block)))
    run("split_transposed", lambda: on_all(graph, partial(split_transposed, block=block)))
    run("fuse_attention", lambda: on_all(graph, fuse_attention))
    run("remove_dead", lambda: remove_dead(graph))
    run("split_dequantize", lambda: on_all(graph, split_dequantize))
    infer(graph)
    run("fuse_epilogues", lambda: on_all(graph, fuse_epilogues))
    run("fuse_elementwise", lambda: on_all(graph, fuse_elementwise))
    run("fuse_epilogues_again", lambda: on_all(graph, fuse_epilogues))
    if run("widen_few_channels", lambda: on_all(graph, partial(widen_few_channels, block=block))):
        run("merge_movement", lambda: merge_movement(graph, infer(graph)))
        run("remove_dead", lambda: remove_dead(graph))
        infer(graph)
    run("assign_layouts", lambda: on_all(graph, partial(assign_layouts, block=block)))
    run("share_equal_nodes", lambda: on_all(graph, share_equal_nodes))
    run("remove_dead", lambda: remove_dead(graph))
    run("each_image", lambda: each_image(graph))


def _simplify(graph: Graph, run: _Runner) -> bool:
    """One round of rewrites that make the graph smaller; returns whether anything changed."""
    contents = infer(graph)
    unrolled = run("unroll_loops", lambda: unroll_loops(graph, contents))
    if run("know_lists", lambda: know_lists(graph, contents)) or unrolled:
        contents = infer(graph)
    steps = (
        unrolled,
        run("fold_shapes", lambda: fold_shapes(graph, contents)),
        run("fold_constants", lambda: fold_constants(graph)),
        run("count_rounds", lambda: count_rounds(graph, contents)),
        run("inline_branches", lambda: inline_branches(graph, contents)),
        run("stack_appended", lambda: stack_appended(graph)),
        run("plain_casts", lambda: on_all(graph, plain_casts)),
        run("remove_identities", lambda: remove_identities(graph, contents)),
        run("remove_dead", lambda: remove_dead(graph)),
        run("share_equal_nodes", lambda: on_all(graph, share_equal_nodes)),
        run("gemm_to_matmul", lambda: on_all(graph, gemm_to_matmul)),
        run("einsum_to_matmul", lambda: on_all(graph, einsum_to_matmul)),
        run("ml_to_core", lambda: on_all(graph, partial(ml_to_core, contents=contents))),
        run("weight_codes", lambda: on_all(graph, partial(plain_weight_codes, contents=contents))),
        run(
            "attention_to_core",
            lambda: on_all(graph, partial(attention_to_core, contents=contents)),
        ),
        run(
            "composites_to_core",
            lambda: on_all(graph, partial(composites_to_core, contents=contents)),
        ),
        run("sink_transposes", lambda: on_all(graph, sink_transposes)),
        run("merge_movement", lambda: merge_movement(graph, contents)),
        run("keep_axes", lambda: on_all(graph, partial(keep_axes, contents=contents))),
        run("whole_windows", lambda: on_all(graph, whole_windows)),
        run("volume_patches", lambda: volume_patches(graph)),
        run("fold_pads", lambda: fold_pads(graph, contents)),
        run("split_batch_norm", lambda: on_all(graph, split_batch_norm)),
        run("fold_into_weights", lambda: on_all(graph, fold_into_weights)),
        run("recognise", lambda: on_all(graph, partial(recognise, contents=contents))),
        run("remove_dead", lambda: remove_dead(graph)),
    )
    return any(steps)


def on_all(graph: Graph, step: Callable[[Graph], bool]) -> bool:
    """Run a pass on a graph and on the branches and loop bodies nested in it."""
    nested = [
        inner
        for node in graph.nodes
        for name, inner in node.attrs.items()
        if isinstance(inner, Graph) and name != "epilogue" and node.op != "Fused"
    ]
    return any([step(graph), *(on_all(inner, step) for inner in nested)])


class _Runner:
    """Runs passes, tells the watcher, and says in errors which passes had run before."""

    def __init__(self, graph: Graph, on_pass: OnPass) -> None:
        self._graph = graph
        self._on_pass = on_pass
        self._done: list[str] = []

    def __call__(self, name: str, step: Callable[[], bool]) -> bool:
        try:
            changed = step()
        except TuiliError:
            raise
        except Exception as error:
            before = ", ".join(self._done[-6:]) or "none"
            raise InternalError(
                f"pass {name!r} failed on graph {self._graph.name!r}: {error!r}; "
                f"passes before it: {before}. Please report it with the model"
            ) from error
        self._done.append(name)
        if changed:
            self._on_pass(name, self._graph)
        return changed
