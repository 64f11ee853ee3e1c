"""The C printer: a program becomes translation units that the system compiler turns into a library.

One unit holds the run function; every large kernel has a unit of its own, so that units compile in
parallel and an unchanged kernel is found in the object cache; small kernels share units.

`tuili_run` is one parallel section: every thread walks all steps, takes its share of each step's
grid and meets the others at a barrier. Steps too small to share run on thread 0.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from tuili.codegen.c_dims import c_dim
from tuili.codegen.prelude import prelude
from tuili.codegen.targets import Target
from tuili.lower.memory import Interval, MemoryPlan, aligned, lifetimes, plan_memory
from tuili.lower.program import Arg, Call, Kernel, Place, Pointer, Program, View
from tuili.runtime.native import abi_header, pool_source, run_support
from tuili.tensors import Dim, Sym, dim_max, substitute, symbols_of

# Sharing a step costs a barrier: about 1 us. Below these costs one thread is faster.
WORTH_FLOPS = 600_000
WORTH_BYTES = 200_000
GROUP_CHARACTERS = 12_000
ALONE_CHARACTERS = 2_500

_HEADER = "/* Model {name!r}, compiled by tuili for {target}. {what} */\n"


@dataclass(frozen=True, slots=True)
class SourceUnit:
    """One C file."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Emitted:
    """The C of a program, and its memory plan when all sizes are known."""

    units: tuple[SourceUnit, ...]
    plan: MemoryPlan | None


def emit(program: Program, target: Target) -> Emitted:
    """The C units of a program."""
    renamed = _unique_kernels(program)
    names = {kernel: name for name, kernel in renamed.items()}
    sources = _sources_by_kernel(program)
    run_unit, plan = _run_unit(program, target, names)
    groups = _groups(renamed)
    units = [SourceUnit("run", run_unit)]
    for group in groups:
        functions = [_function(name, renamed[name], sources[renamed[name]]) for name in group]
        what = "One kernel." if len(group) == 1 else f"{len(group)} kernels."
        text = _HEADER.format(name="kernels", target=target.name, what=what)
        units.append(SourceUnit(group[0], "\n".join([text, prelude(target), *functions])))
    return Emitted(tuple(units), plan)


# -- kernels ---------------------------------------------------------------------------------


def _unique_kernels(program: Program) -> dict[str, Kernel]:
    """Every distinct kernel once, under a unique C name."""
    named: dict[str, Kernel] = {}
    seen: set[Kernel] = set()
    for step in program.steps:
        kernel = step.kernel
        if kernel in seen:
            continue
        seen.add(kernel)
        name, count = kernel.name, 1
        while name in named:
            count += 1
            name = f"{kernel.name}_{count}"
        named[name] = kernel
    return named


def _sources_by_kernel(program: Program) -> dict[Kernel, list[str]]:
    labels: dict[Kernel, list[str]] = {}
    for step in program.steps:
        labels.setdefault(step.kernel, []).append(step.label)
    return labels


def _groups(kernels: dict[str, Kernel]) -> list[list[str]]:
    alone = [[name] for name, kernel in kernels.items() if _is_alone(kernel)]
    shared: list[list[str]] = []
    room = 0
    for name, kernel in kernels.items():
        if _is_alone(kernel):
            continue
        if room < _length(kernel):
            shared.append([])
            room = GROUP_CHARACTERS
        shared[-1].append(name)
        room -= _length(kernel)
    return [*alone, *shared]


def _is_alone(kernel: Kernel) -> bool:
    """Support functions of different kernels may share names, so such kernels share no unit."""
    return bool(kernel.support) or _length(kernel) >= ALONE_CHARACTERS


def _length(kernel: Kernel) -> int:
    return len(kernel.body) + len(kernel.support)


def _signature(name: str, kernel: Kernel) -> str:
    params = ", ".join(("int64_t begin", "int64_t end", "uint8_t *scratch", *kernel.params))
    return f"TL_HIDDEN void {name}({params})"


def _function(name: str, kernel: Kernel, labels: list[str]) -> str:
    nodes = ", ".join(labels[:4]) + (f" and {len(labels) - 4} more" if len(labels) > 4 else "")
    lines = ["", *([kernel.support, ""] if kernel.support else []), _comment(nodes)]
    lines += [_signature(name, kernel), "{", "    (void)begin, (void)end, (void)scratch;"]
    return "\n".join([*lines, textwrap.indent(kernel.body, "    "), "}"])


def _comment(text: str) -> str:
    return f"/* {text.replace('*/', '* /')} */"


# -- the run function ------------------------------------------------------------------------


def _run_unit(
    program: Program, target: Target, names: dict[Kernel, str]
) -> tuple[str, MemoryPlan | None]:
    layout = _Layout(program)
    parts = [
        _HEADER.format(name=program.name, target=target.name, what="The run function."),
        abi_header(),
        pool_source(),
        run_support(),
        prelude(target),
        *(f"{_signature(name, kernel)};" for kernel, name in names.items()),
        _shared_struct(),
        _faults(program),
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

    def __init__(self, program: Program) -> None:
        self.lives = lifetimes(program)
        self.buffers = [buffer for buffer in program.buffers if buffer in self.lives]
        self.scratch = _most(step.scratch for step in program.steps)
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


def _c_string(text: str) -> str:
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"'


def _symbol_lines(program: Program, *, used: str) -> list[str]:
    names = [(index, f"d_{name}") for index, name in enumerate(program.symbols)]
    return [
        f"    const int64_t {name} = run->dims[{index}];" for index, name in names if name in used
    ]


def _body(program: Program, layout: _Layout, names: dict[Kernel, str]) -> str:
    lines: list[str] = []
    shared_before = False  # whether the last step ran on several threads
    for index, step in enumerate(program.steps):
        shares = _shares(step)
        if index and (shares != "0" or shared_before):
            lines.append("    tl_barrier_wait(&shared->barrier, n);")
        lines += _call(step, layout, names[step.kernel], shares)
        shared_before = shares != "0"
    text = "\n".join(lines)
    head = [
        "static void tl_body(void *arg, int32_t tid, int32_t n)",
        "{",
        "    tl_shared *shared = arg;",
        "    tl_run *run = shared->run;",
        *_symbol_lines(program, used=text),
        _scratch_line(layout),
    ]
    return "\n".join([*head, text, "}", ""])


def _scratch_line(layout: _Layout) -> str:
    last = layout.num_offsets
    start, stride = f"run->offsets[{last - 2}]", f"run->offsets[{last - 1}]"
    return (
        f"    uint8_t *const scratch = run->arena + {start} + tid * {stride};\n    (void)scratch;"
    )


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
    comment = f"    {_comment(step.label)}"
    grid = _c(step.grid)
    tail = f", {args}" if args else ""
    if shares == "0":
        return [comment, f"    if (tid == 0) {name}(0, {grid}, scratch{tail});"]
    span = (
        f"tl_split({grid}, tid, n)" if shares == "1" else f"tl_split_if({shares}, {grid}, tid, n)"
    )
    return [
        comment,
        "    {",
        f"        const tl_span span = {span};",
        f"        if (span.begin < span.end) {name}(span.begin, span.end, scratch{tail});",
        "    }",
    ]


def _argument(arg: Arg, param: str, layout: _Layout) -> str:
    if isinstance(arg, Pointer):
        ctype = param.rsplit("*", 1)[0].strip()
        return f"({ctype} *)({layout.address(arg.view)})"
    return arg if isinstance(arg, str) else _c(arg)


def _total(program: Program) -> str:
    """The C condition for using threads at all: some step is worth sharing."""
    conditions = dict.fromkeys(_shares(step) for step in program.steps)
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
            f"    const int64_t size = tl_plan_arena({len(lives)}, sizes, first, last, run->offsets);",
        ]
    text = "\n".join(lines)
    return [
        *_symbol_lines(program, used=text),
        *lines,
        f"    run->offsets[{last - 2}] = size;",
        f"    run->offsets[{last - 1}] = stride;",
        "    return size + stride * run->threads;",
    ]
