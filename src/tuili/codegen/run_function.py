"""The run function: C that walks the steps of a program, and the exports around it.

`tuili_run` is one parallel section: every thread walks all steps, takes its share of each step's
grid and meets the others at a barrier. Steps too small to share run on thread 0.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from tuili.codegen.c_dims import c_dim
from tuili.codegen.prelude import prelude
from tuili.codegen.targets import Target
from tuili.lower.memory import Interval, MemoryPlan, aligned, lifetimes, plan_memory
from tuili.lower.program import (
    Arg,
    Branch,
    Call,
    Kernel,
    Place,
    Pointer,
    Program,
    Step,
    View,
    calls_of,
)
from tuili.runtime.native import abi_header, pool_source, run_support
from tuili.tensors import Dim, Sym, dim_max, substitute, symbols_of

# Sharing a step costs a barrier: about 1 us. Below these costs one thread is faster.
WORTH_FLOPS = 600_000
WORTH_BYTES = 200_000


def signature(name: str, kernel: Kernel) -> str:
    """The C prototype of a kernel."""
    params = ", ".join(("int64_t begin", "int64_t end", "uint8_t *scratch", *kernel.params))
    return f"TL_HIDDEN void {name}({params})"


def comment_text(text: str) -> str:
    """A C comment."""
    return f"/* {text.replace('*/', '* /')} */"


def print_run(
    program: Program, target: Target, names: dict[Kernel, str], *, timed: bool = False
) -> tuple[str, MemoryPlan | None]:
    """The unit of the run function, and the memory plan when all sizes are known.

    `timed` adds a clock after every call, read through `tuili_times`.
    """
    layout = _Layout(program, timed=timed)
    parts = [
        f"/* Model {program.name!r}, compiled by tuili for {target.name}: the run function. */",
        abi_header(),
        pool_source(),
        run_support(),
        prelude(target),
        *(f"{signature(name, kernel)};" for kernel, name in names.items()),
        _shared_struct(),
        _faults(program),
        *([_clock(program)] if timed else []),
        _body(program, layout, names),
        _exports(program, layout),
    ]
    return "\n".join(parts), layout.plan


def _symbol_names(dim: Dim) -> Dim:
    return substitute(dim, {name: Sym(f"d_{name}") for name in symbols_of(dim)})


def _c(dim: Dim) -> str:
    return c_dim(_symbol_names(dim))


class _Layout:
    """How the run function finds arena buffers: baked offsets, or offsets planned at run time."""

    def __init__(self, program: Program, *, timed: bool = False) -> None:
        self.timed = timed
        self.calls = 0
        self.lives = lifetimes(program)
        self.buffers = [buffer for buffer in program.buffers if buffer in self.lives]
        self.scratch = _most(step.scratch for step in calls_of(program.steps))
        self.slots = {buffer: slot for slot, buffer in enumerate(self.buffers)}
        self.plan = self._static_plan()

    def _static_plan(self) -> MemoryPlan | None:
        if any(not isinstance(buffer.size, int) for buffer in self.buffers):
            return None
        intervals = [Interval(int(b.size), *self.lives[b]) for b in self.buffers]  # pyright: ignore[reportArgumentType]
        plan = plan_memory(intervals)
        for buffer, offset in zip(self.buffers, plan.offsets, strict=True):
            buffer.offset = offset
        return plan

    @property
    def num_offsets(self) -> int:
        """Run-time offsets: one per buffer unless baked, then scratch start and stride."""
        return (0 if self.plan else len(self.buffers)) + 2

    def address(self, view: View) -> str:
        """The C expression of a view's address, as `uint8_t *`."""
        buffer = view.buffer
        match buffer.place:
            case Place.INPUT:
                start = f"(const uint8_t *)run->inputs[{buffer.index}]"
            case Place.OUTPUT:
                start = f"(uint8_t *)run->outputs[{buffer.index}]"
            case Place.WEIGHT:
                return f"run->weights + {buffer.offset}" + _plus(view.offset)
            case _:
                where = str(buffer.offset) if self.plan else f"run->offsets[{self.slots[buffer]}]"
                start = f"run->arena + {where}"
        return start + _plus(view.offset)


def _plus(offset: Dim) -> str:
    return "" if offset == 0 else f" + {_c(offset)}"


def _most(dims: Iterable[Dim]) -> Dim:
    most: Dim = 0
    for dim in dims:
        most = dim_max(most, dim)
    return most


def _shared_struct() -> str:
    return textwrap.dedent("""
        typedef struct tl_shared {      /* what the threads of one run share */
            tl_run *run;
            tl_barrier barrier;
            int32_t fault;
        } tl_shared;
        """)


def _faults(program: Program) -> str:
    rows = "".join(f"    {_c_string(message)},\n" for message in program.faults)
    return f'static const char *const tl_faults[] = {{\n    "",\n{rows}}};\n'


def _clock(program: Program) -> str:
    """Nanoseconds per call, summed over the runs since the last `tuili_times`."""
    count = sum(1 for _ in calls_of(program.steps))
    return textwrap.dedent(f"""
        #include <time.h>
        static int64_t tl_times[{count + 1}], tl_last;
        static void tl_tick(int32_t call)
        {{
            struct timespec now;
            clock_gettime(CLOCK_MONOTONIC, &now);
            const int64_t at = now.tv_sec * 1000000000 + now.tv_nsec;
            if (call >= 0) tl_times[call] += at - tl_last;
            tl_last = at;
        }}
        TL_EXPORT int64_t *tuili_times(void) {{ return tl_times; }}
        """)


def _c_string(text: str) -> str:
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"'


def _symbol_lines(program: Program, *, used: str) -> list[str]:
    names = [(index, f"d_{name}") for index, name in enumerate(program.symbols)]
    return [
        f"    const int64_t {name} = run->dims[{index}];" for index, name in names if name in used
    ]


def _body(program: Program, layout: _Layout, names: dict[Kernel, str]) -> str:
    lines, _ = _steps(program.steps, layout, names)
    text = textwrap.indent("\n".join(lines), "    ")
    head = [
        "static void tl_body(void *arg, int32_t tid, int32_t n)",
        "{",
        "    tl_shared *shared = arg;",
        "    tl_run *run = shared->run;",
        *_symbol_lines(program, used=text),
        _scratch_line(layout),
        *(["    if (tid == 0) tl_tick(-1);"] if layout.timed else []),
    ]
    return "\n".join([*head, text, "}", ""])


def _scratch_line(layout: _Layout) -> str:
    last = layout.num_offsets
    start, stride = f"run->offsets[{last - 2}]", f"run->offsets[{last - 1}]"
    return (
        f"    uint8_t *const scratch = run->arena + {start} + tid * {stride};\n    (void)scratch;"
    )


def _steps(
    steps: Sequence[Step], layout: _Layout, names: dict[Kernel, str]
) -> tuple[list[str], bool]:
    """The C of steps that begin after a barrier, and whether threads may be apart at the end."""
    lines: list[str] = []
    apart = False  # whether the last step ran on several threads
    for index, step in enumerate(steps):
        shares = "1" if isinstance(step, Branch) else _shares(step)
        if index and (shares != "0" or apart):
            lines.append("tl_barrier_wait(&shared->barrier, n);")
        if isinstance(step, Branch):
            lines += _branch(step, layout, names)
        else:
            lines += _call(step, layout, names[step.kernel], shares)
            if layout.timed:
                lines.append(f"if (tid == 0) tl_tick({layout.calls});")
                layout.calls += 1
        apart = shares != "0"
    return lines, apart


def _branch(step: Branch, layout: _Layout, names: dict[Kernel, str]) -> list[str]:
    then, _ = _steps(step.then, layout, names)
    otherwise, _ = _steps(step.otherwise, layout, names)
    return [
        comment_text(step.label),
        f"if (*(const uint8_t *)({layout.address(step.condition)})) {{",
        *(f"    {line}" for line in then),
        "} else {",
        *(f"    {line}" for line in otherwise),
        "}",
    ]


def _shares(step: Call) -> str:
    """The C condition for running a step on all threads: "0", "1" or an expression."""
    if step.grid == 1:
        return "0"
    sized = [(step.flops, WORTH_FLOPS), (step.bytes, WORTH_BYTES)]
    known = [cost >= worth for cost, worth in sized if isinstance(cost, int)]
    if any(known):
        return "1"
    open_costs = [f"{_c(cost)} >= {worth}" for cost, worth in sized if not isinstance(cost, int)]
    return " || ".join(open_costs) or "0"


def _call(step: Call, layout: _Layout, name: str, shares: str) -> list[str]:
    args = ", ".join(
        _argument(arg, param, layout)
        for arg, param in zip(step.args, step.kernel.params, strict=True)
    )
    comment = comment_text(step.label)
    grid = _c(step.grid)
    tail = f", {args}" if args else ""
    if shares == "0":
        return [comment, f"if (tid == 0) {name}(0, {grid}, scratch{tail});"]
    span = (
        f"tl_split({grid}, tid, n)" if shares == "1" else f"tl_split_if({shares}, {grid}, tid, n)"
    )
    return [
        comment,
        "{",
        f"    const tl_span span = {span};",
        f"    if (span.begin < span.end) {name}(span.begin, span.end, scratch{tail});",
        "}",
    ]


def _argument(arg: Arg, param: str, layout: _Layout) -> str:
    if isinstance(arg, Pointer):
        ctype = param.rsplit("*", 1)[0].strip()
        return f"({ctype} *)({layout.address(arg.view)})"
    return arg if isinstance(arg, str) else _c(arg)


def _total(program: Program) -> str:
    """The C condition for using threads at all: some step is worth sharing."""
    conditions = dict.fromkeys(_shares(step) for step in calls_of(program.steps))
    if "1" in conditions:
        return "1"
    return " || ".join(f"({c})" for c in conditions if c != "0") or "0"


def _exports(program: Program, layout: _Layout) -> str:
    worth = _total(program)
    plan = _plan_lines(program, layout)
    lines = [
        "TL_EXPORT int64_t tuili_num_offsets(void)",
        "{",
        f"    return {layout.num_offsets};",
        "}",
        "",
        "TL_EXPORT int64_t tuili_plan(tl_run *run)",
        "{",
        *plan,
        "}",
        "",
        "TL_EXPORT int32_t tuili_run(tl_run *run)",
        "{",
        *_symbol_lines(program, used=worth),
        "    tl_shared shared = {.run = run};",
        f"    const int32_t threads = ({worth}) ? run->threads : 1;",
        "    if (threads > 1)",
        "        run->pool->parallel(run->pool, threads, tl_body, &shared);",
        "    else",
        "        tl_body(&shared, 0, 1);",
        "    if (shared.fault) {",
        '        snprintf(run->error, (size_t)run->error_size, "%s", tl_faults[shared.fault]);',
        "        return 1;",
        "    }",
        "    return 0;",
        "}",
        "",
    ]
    return "\n".join(lines)


def _plan_lines(program: Program, layout: _Layout) -> list[str]:
    scratch = f"    const int64_t stride = ({_c(layout.scratch)} + 63) / 64 * 64;"
    last = layout.num_offsets
    if layout.plan:
        lines = [scratch, f"    const int64_t size = {aligned(layout.plan.size)};"]
    else:
        lives = [layout.lives[buffer] for buffer in layout.buffers]
        sizes = ", ".join(_c(buffer.size) for buffer in layout.buffers)
        lines = [
            scratch,
            f"    const int64_t sizes[] = {{{sizes}}};",
            f"    static const int32_t first[] = {{{', '.join(str(a) for a, _ in lives)}}};",
            f"    static const int32_t last[] = {{{', '.join(str(b) for _, b in lives)}}};",
            (
                "    const int64_t size ="
                f" tl_plan_arena({len(lives)}, sizes, first, last, run->offsets);"
            ),
            "    if (size < 0) {",
            '        snprintf(run->error, (size_t)run->error_size, "no plan for such sizes");',
            "        return -1;",
            "    }",
        ]
    text = "\n".join(lines)
    return [
        *_symbol_lines(program, used=text),
        *lines,
        f"    run->offsets[{last - 2}] = size;",
        f"    run->offsets[{last - 1}] = stride;",
        "    return size + stride * run->threads;",
    ]
