"""The unit of the run function: support, prototypes, the body, and the exports around it.

`tuili_run` is one parallel section: every thread walks all steps, see `run_steps`.
"""

from __future__ import annotations

import textwrap

from tuili.codegen.long_sizes import LongSizes
from tuili.codegen.prelude import prelude
from tuili.codegen.requirements import requirement_lines
from tuili.codegen.run_late import CLOCK, shared_state
from tuili.codegen.run_layout import RunLayout, c_of
from tuili.codegen.run_steps import WORTH_BYTES, WORTH_FLOPS, StepPrinter
from tuili.codegen.targets import Target
from tuili.codegen.text import c_string, comment_text
from tuili.lower.memory import MemoryPlan, aligned
from tuili.lower.program import HostCall, Kernel, Program, Step, all_steps, calls_of, counted_calls
from tuili.runtime.native import abi_header, pool_source, run_support
from tuili.tensors import Dim

__all__ = ["comment_text", "print_run", "signature"]


def signature(name: str, kernel: Kernel) -> str:
    """The C prototype of a kernel."""
    params = ", ".join(("int64_t begin", "int64_t end", "uint8_t *scratch", *kernel.params))
    return f"TL_HIDDEN void {name}({params})"


SPAN_THREADS = 64  # threads whose spans are kept


def print_run(
    program: Program, target: Target, names: dict[Kernel, str], *, timed: bool = False
) -> tuple[str, MemoryPlan | None]:
    """The unit of the run function, and the memory plan when all sizes are known.

    `timed` adds a clock after every call, read through `tuili_times`, and the times at which each
    thread began and ended it, read through `tuili_spans` (call, thread, begin and end).
    """
    layout, sizes = RunLayout(program), LongSizes()
    body = sizes.called(_body(program, layout, names, timed=timed))
    exports = sizes.called(_exports(program, layout))
    parts = [
        f"/* Model {program.name!r}, compiled by tuili for {target.name}: the run function. */",
        abi_header(),
        pool_source(),
        run_support(),
        prelude(target),
        *(f"{signature(name, kernel)};" for kernel, name in names.items()),
        shared_state(len(layout.heap), layout.num_late, layout.num_loops),
        sizes.definitions(),
        _HOST if program.host else "",
        _faults(program),
        CLOCK if timed and not layout.num_loops else "",
        _times(program) if timed else "",
        body,
        exports,
    ]
    return "\n".join(part for part in parts if part), layout.plan


_HOST = """
/* Has a node run by the host; on failure the run stops at `check`. */
static void tl_host(tl_shared *shared, int32_t check, int32_t step, const void *const *inputs,
                    void *const *outputs)
{
    tl_run *run = shared->run;
    if (run->host(run->host_context, step, inputs, outputs, run->dims))
        shared->stop = check;
}
"""


def _faults(program: Program) -> str:
    rows = "".join(f"    {c_string(message)},\n" for message in program.faults)
    return f'static const char *const tl_faults[] = {{\n    "",\n{rows}}};\n'


def _times(program: Program) -> str:
    """Nanoseconds per call, summed over runs until the caller sets them to zero."""
    count = sum(1 for _ in calls_of(program.steps))
    return textwrap.dedent(f"""
        static int64_t tl_times[{count + 1}], tl_last;
        static int64_t tl_spans[{count + 1}][{SPAN_THREADS}][2];
        static void tl_tick(int32_t call)
        {{
            const int64_t at = tl_now();
            if (call >= 0) tl_times[call] += at - tl_last;
            tl_last = at;
        }}
        static void tl_mark(int32_t tid, int32_t call, int32_t end)
        {{
            if (tid < {SPAN_THREADS} && (end || !tl_spans[call][tid][0]))
                tl_spans[call][tid][end] = tl_now();
        }}
        TL_EXPORT int64_t *tuili_times(void) {{ return tl_times; }}
        TL_EXPORT int64_t *tuili_spans(void) {{ return &tl_spans[0][0][0]; }}
        """)


def _symbol_lines(program: Program, *, used: str) -> list[str]:
    """Local constants for the symbols that the inputs bind."""
    names = [(index, f"d_{name}") for index, name in enumerate(program.symbols)]
    return [
        f"    const int64_t {name} = run->dims[{index}];"
        for index, name in names[: program.num_bound]
        if name in used
    ]


def _body(program: Program, layout: RunLayout, names: dict[Kernel, str], *, timed: bool) -> str:
    lines = StepPrinter(layout, names, timed=timed).print(program.steps, set())
    text = textwrap.indent("\n".join([*layout.dims.lines(), *lines]), "    ")
    last = layout.num_offsets
    start, stride = f"run->offsets[{last - 2}]", f"run->offsets[{last - 1}]"
    head = [
        "static void tl_body(void *arg, int32_t tid, int32_t n)",
        "{",
        "    tl_shared *shared = arg;",
        "    tl_run *run = shared->run;",
        *_symbol_lines(program, used=text),
        f"    uint8_t *const scratch = run->arena + {start} + tid * {stride};",
        "    uint32_t turn = 0;      /* shared steps so far */",
        "    uint32_t before = 0;    /* how results are rounded outside sums of products */",
        "    (void)scratch, (void)n, (void)turn, (void)before;",
        *(["    if (tid == 0) tl_tick(-1);"] if timed else []),
    ]
    return "\n".join([*head, text, "}", ""])


def _worth_threads(program: Program) -> str:
    """The C condition for using threads at all: the whole model is worth it."""
    flops: Dim = 0
    moved: Dim = 0
    for call, times in counted_calls(program.steps):
        if program.depends_on_data(call.flops) or program.depends_on_data(call.bytes):
            return "1"
        flops, moved = flops + times * call.flops, moved + times * call.bytes
    return f"{c_of(flops)} >= {WORTH_FLOPS} || {c_of(moved)} >= {WORTH_BYTES}"


def _exports(program: Program, layout: RunLayout) -> str:
    worth, checks = _worth_threads(program), requirement_lines(program)
    lines = [
        "TL_EXPORT int64_t tuili_num_offsets(void)",
        "{",
        f"    return {layout.num_offsets};",
        "}",
        "",
        "TL_EXPORT int64_t tuili_plan(tl_run *run)",
        "{",
        *_plan_lines(program, layout),
        "}",
        "",
        "TL_EXPORT int32_t tuili_run(tl_run *run)",
        "{",
        *_host_check(program.steps),
        *_symbol_lines(program, used="\n".join((worth, *checks))),
        *checks,
        "    tl_shared shared = {.run = run};",
        f"    const int32_t threads = run->threads > 1 && ({worth}) ? run->threads : 1;",
        "    if (threads > 1) {",
        "        tl_share shares[threads];",
        "        memset(shares, 0, sizeof shares);",
        "        shared.shares = shares;",
        "        run->pool->parallel(run->pool, threads, tl_body, &shared);",
        "    } else {",
        "        tl_body(&shared, 0, 1);",
        "    }",
        *(f"    free(shared.heap[{slot}]);" for slot in layout.heap.values()),
        "    if (shared.fault)",
        '        snprintf(run->error, (size_t)run->error_size, "%s", tl_faults[shared.fault]);',
        "    return shared.fault || shared.stop;",
        "}",
        "",
    ]
    return "\n".join(lines)


def _host_check(steps: list[Step]) -> list[str]:
    if not any(isinstance(step, HostCall) for step in all_steps(steps)):
        return []
    return [
        "    if (!run->host) {",
        '        snprintf(run->error, (size_t)run->error_size, "the model has host steps");',
        "        return 1;",
        "    }",
    ]


def _plan_lines(program: Program, layout: RunLayout) -> list[str]:
    scratch = c_of(layout.scratch, saturating=True)
    own = f" + (run->threads > 1 ? {layout.own_block} : 0)" if layout.own_block else ""
    scratch = f"    const int64_t stride = ({scratch} + 63) / 64 * 64{own};"
    last = layout.num_offsets
    if layout.plan:
        lines = [scratch, f"    const int64_t size = {aligned(layout.plan.size)};"]
    else:
        lines = [scratch, *_late_plan(layout)]
    return [
        *_symbol_lines(program, used="\n".join(lines)),
        *lines,
        f"    run->offsets[{last - 2}] = size;",
        f"    run->offsets[{last - 1}] = stride;",
        "    return size + stride * run->threads;"
        if layout.plan and isinstance(layout.scratch, int)
        else "    return size + tl_mul(stride, run->threads);",
    ]


def _late_plan(layout: RunLayout) -> list[str]:
    """The plan for sizes that the shapes of the inputs decide."""
    lives = [layout.lives[buffer] for buffer in layout.buffers]
    # Empty inputs may claim any size in their other axes, and a plan of wrapped products is none.
    sizes = ", ".join(c_of(buffer.size, saturating=True) for buffer in layout.buffers)
    first, last = (", ".join(str(life[i]) for life in lives) for i in (0, 1))
    return [
        f"    const int64_t sizes[] = {{{sizes}}};",
        f"    static const int32_t first[] = {{{first}}};",
        f"    static const int32_t last[] = {{{last}}};",
        f"    const int64_t size = tl_plan_arena({len(lives)}, sizes, first, last, run->offsets);",
        "    if (size < 0) {",
        '        snprintf(run->error, (size_t)run->error_size, "no plan for such sizes");',
        "        return -1;",
        "    }",
    ]
