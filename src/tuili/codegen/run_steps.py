"""The steps of a program as C: who runs what, where threads meet, what is made while running.

Rules
1. Every thread walks the same steps. A step is shared by all threads or belongs to thread 0.
   Of a shared step a thread takes pieces: of its own share, then of what others have left.
2. Threads meet before a step unless both it and the step before it belong to thread 0.
3. What thread 0 finds out (dims, new memory) is looked at after the next meeting only.
4. Rounds of a loop are between meetings: thread 0 decides about the next one, then threads meet.
5. Steps one after the other whose subnormal results are zeros are made so together.
6. A failure stops the run at the check whose number it names: a slow thread that is still at an
   earlier check goes on to the same place as the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuili.codegen.requirements import check_lines
from tuili.codegen.run_layout import RunLayout, c_of
from tuili.codegen.text import c_string, comment_text
from tuili.lower.program import (
    Arg,
    Branch,
    Buffer,
    Call,
    Demand,
    HostCall,
    Kernel,
    Pointer,
    ReadSymbol,
    Repeat,
    Room,
    SetSymbol,
    Step,
    View,
    found_by,
    touched,
)
from tuili.tensors import Dim

# Sharing a step costs a barrier: about 1 us. Below these costs one thread is faster.
WORTH_FLOPS = 600_000
WORTH_BYTES = 200_000
PIECE_FLOPS = 4_000_000
PIECE_BYTES = 1_000_000
MOST_PIECES = 8
GUESSED_PIECES = 4
_MEET = "tl_barrier_wait(&shared->barrier, n);"
_FLUSHED, _SUBNORMAL = "before = tl_results_flushed();", "tl_results_as(before);"


def shares(call: Call, c_of: Callable[[Dim], str]) -> str:
    """The C condition for running a call on all threads: "0", "1" or an expression."""
    if call.grid == 1:
        return "0"
    if call.spread:
        return "1"
    sized = [(call.flops, WORTH_FLOPS), (call.bytes, WORTH_BYTES)]
    known = [cost >= worth for cost, worth in sized if isinstance(cost, int)]
    if any(known):
        return "1"
    open_costs = [f"{c_of(cost)} >= {worth}" for cost, worth in sized if not isinstance(cost, int)]
    return " || ".join(open_costs) or "0"


def pieces_of(call: Call) -> int:
    """Into how many pieces a thread's share of a step is cut, for others to take when it is late.

    A piece lasts some tens of microseconds, so that handing it out costs nothing.
    """
    flops = call.flops if isinstance(call.flops, int) else GUESSED_PIECES * PIECE_FLOPS
    moved = call.bytes if isinstance(call.bytes, int) else 0
    return max(1, min(MOST_PIECES, max(flops // PIECE_FLOPS, moved // PIECE_BYTES)))


class StepPrinter:
    """Prints lists of steps; remembers which late buffers exist at each point."""

    def __init__(self, layout: RunLayout, names: dict[Kernel, str], *, timed: bool) -> None:
        self._layout = layout
        self._names = names
        self._timed = timed
        self._calls = 0
        self._checks = 0
        self._loops = 0
        self._own: Buffer | None = None  # what lies in the thread's own memory
        self._c = layout.dims.c
        self._symbols = {name: index for index, name in enumerate(layout.program.symbols)}

    def print(self, steps: Sequence[Step], made: set[Buffer]) -> list[str]:
        """The C of steps that begin after a meeting; `made` grows by what they make."""
        lines: list[str] = []
        apart = False  # whether threads may be at different places
        flushed = False  # whether subnormal results are zeros
        for index, step in enumerate(steps):
            new = self._make(step, made)
            flushes = isinstance(step, Call) and step.flushes
            if flushed and (new or not flushes):
                lines.append(_SUBNORMAL)
                flushed = False
            if new:
                lines += [*([_MEET] if index else []), *new, *self._check()]
                apart = False
            alone = not new and index > 0
            if alone and (apart or not self._is_alone(step)):
                lines.append(_MEET)
            if flushes and not flushed:
                lines.append(_FLUSHED)
                flushed = True
            lines += self._step(step, made)
            apart = not self._is_alone(step)
            if found := found_by(step):
                lines += [_MEET, *map(self._symbol, found)]
                apart = False
        return [*lines, _SUBNORMAL] if flushed else lines

    def _make(self, step: Step, made: set[Buffer]) -> list[str]:
        """Thread 0 makes the late buffers that a step is the first to touch."""
        if isinstance(step, HostCall):
            return []
        late = [b for b in touched(step) if self._layout.is_late(b) and b not in made]
        made.update(late)
        return [self._need(buffer) for buffer in dict.fromkeys(late)]

    def _need(self, buffer: Buffer) -> str:
        """Make a late buffer, or stop at the next check."""
        return f"if (tid == 0) {self._room('tl_need', buffer, buffer.size)};"

    def _room(self, function: str, buffer: Buffer, size: Dim) -> str:
        index, slot = self._layout.late_index(buffer), self._layout.slot(buffer)
        where = f"{self._checks + 1}, {index}, &{slot}"
        count = c_of(size, saturating=True)
        return f"{function}(shared, {where}, {count}, {c_string(buffer.name)})"

    def _check(self) -> list[str]:
        self._checks += 1
        return [_MEET, f"if (shared->stop == {self._checks}) return;"]

    def _symbol(self, name: str) -> str:
        return f"const int64_t d_{name} = run->dims[{self._symbols[name]}]; (void)d_{name};"

    def _step(self, step: Step, made: set[Buffer]) -> list[str]:
        match step:
            case Call():
                return [*self._call(step), *self._tick()]
            case Branch():
                return self._branch(step, made)
            case Repeat():
                return self._repeat(step, made)
            case Room():
                if not self._layout.is_late(step.buffer):
                    return []  # rows of no elements take none, however many they become
                room = self._room("tl_keep", step.buffer, step.size)
                return [f"if (tid == 0) {room};", *self._check()]
            case HostCall():
                return self._host(step, made)
            case Demand():
                return self._demand(step)
            case SetSymbol():
                return [f"if (tid == 0) {self._set(step.symbol, step.dim)};"]
            case ReadSymbol():
                dims = f"run->dims[{self._symbols[step.symbol]}]"
                ctype = step.view.buffer.dtype.c
                source = f"((const {ctype} *)({self._layout.address(step.view)}))[{step.element}]"
                return [f"if (tid == 0) {dims} = (int64_t){source};"]

    def _demand(self, step: Demand) -> list[str]:
        """Thread 0 stops the run where sizes that it found do not fit."""
        stop = f"shared->stop = {self._checks + 1};"
        lines: list[str] = []
        for each in step.requirements:
            first, *rest = check_lines(each, stop)
            lines += [f"else {first}" if lines else first, *rest]
        return ["if (tid == 0) {", *_indented(lines), "}", *self._check()]

    def _is_alone(self, step: Step) -> bool:
        """Whether the step belongs to thread 0."""
        match step:
            case Call():
                return shares(step, self._c) == "0"
            case Branch() | Repeat():
                return False
            case _:
                return True

    def _tick(self) -> list[str]:
        if not self._timed:
            return []
        self._calls += 1
        return [f"if (tid == 0) tl_tick({self._calls - 1});"]

    def _marked(self, call: str) -> str:
        """A kernel's call; under a clock, between the marks of its thread."""
        if not self._timed:
            return f"{call};"
        mark = f"tl_mark(tid, {self._calls}"
        return f"{{ {mark}, 0); {call}; {mark}, 1); }}"

    def _call(self, step: Call) -> list[str]:
        pairs = zip(step.args, step.kernel.params, strict=True)
        args = ", ".join(self._argument(arg, param) for arg, param in pairs)
        name, grid, tail = self._names[step.kernel], self._c(step.grid), f", {args}" if args else ""
        shared = shares(step, self._c)
        if shared == "0":
            alone = self._marked(f"{name}(0, {grid}, scratch{tail})")
            return [comment_text(step.label), f"if (tid == 0) {alone}"]
        pieces = pieces_of(step)
        count = str(pieces) if shared == "1" else f"{shared} ? {pieces} : 0"
        call = self._marked(f"{name}(c.begin, c.end, scratch{tail})")
        return [
            comment_text(step.label),
            "{",
            f"    tl_claim c = tl_claim_start(shared->shares, ++turn, {grid}, {count}, tid, n);",
            f"    while (tl_claim_next(&c)) {call}",
            "}",
        ]

    def _argument(self, arg: Arg, param: str) -> str:
        if isinstance(arg, Pointer):
            ctype = param.rsplit("*", 1)[0].strip()
            return f"({ctype} *)({self._address(arg.view)})"
        return arg if isinstance(arg, str) else self._c(arg)

    def _address(self, view: View) -> str:
        if view.buffer is self._own:
            return f"own + {self._c(view.offset)}"
        return self._layout.address(view)

    def _branch(self, step: Branch, made: set[Buffer]) -> list[str]:
        then_made, otherwise_made = set(made), set(made)
        then = self.print(step.then, then_made)
        otherwise = self.print(step.otherwise, otherwise_made)
        made.update(then_made & otherwise_made)
        return [
            comment_text(step.label),
            f"if (*(const uint8_t *)({self._layout.address(step.condition)})) {{",
            *_indented(then),
            "} else {",
            *_indented(otherwise),
            "}",
        ]

    def _set(self, symbol: str, dim: Dim) -> str:
        return f"run->dims[{self._symbols[symbol]}] = {self._c(dim)}"

    def _repeat(self, step: Repeat, made: set[Buffer]) -> list[str]:
        """A scope: what is before the rounds, then rounds with a scope each, commits in another."""
        if step.counted:
            return self._counted(step, made)
        going = f"shared->going[{self._loops}]"
        self._loops += 1
        enter = self.print(step.enter, made)
        decide = self._decide(step, going)
        inside = set(made)
        body = self.print(step.body, inside)
        symbols = [self._symbol(symbol) for symbol in step.symbols]
        commit = self.print(step.commit, inside)
        sets = [f"if (tid == 0) {self._set(symbol, dim)};" for symbol, dim in step.carry]
        return [
            comment_text(step.label),
            "{",
            *_indented(enter),
            f"    for (int64_t d_{step.round} = 0;; d_{step.round}++) {{",
            *_indented(decide, 2),
            f"        if (!{going}) break;",
            *_indented(symbols, 2),
            *_indented(body, 2),
            f"        {_MEET}",
            *_indented([*sets, _MEET] if sets else [], 2),
            "        {",
            *_indented([*symbols, *commit], 3),
            "        }",
            "    }",
            "}",
        ]

    def _counted(self, step: Repeat, made: set[Buffer]) -> list[str]:
        """Rounds that every thread counts for itself."""
        assert step.limit is not None
        assert not isinstance(step.limit, View)
        limit, at = self._c(step.limit), f"d_{step.round}"
        apart = [] if step.block is None else self._apart(step, step.block, limit)
        body = self.print(step.body, set(made))
        start = "apart" if apart else "0"
        return [
            comment_text(step.label),
            "{",
            *_indented(apart),
            f"    for (int64_t {at} = {start}; {at} < {limit}; {at}++) {{",
            f"        if ({at} > {start}) {_MEET}",
            *_indented(body, 2),
            "    }",
            "}",
        ]

    def _apart(self, step: Repeat, block: Buffer, limit: str) -> list[str]:
        """As many rounds as all threads have equal shares of, each by one thread in its own block.

        The rest is left to all threads together.
        """
        calls, self._own = self._calls, block
        try:
            body = [line for call in step.body for line in self._alone(call)]
        finally:
            self._calls, self._own = calls, None
        stride, at = f"run->offsets[{self._layout.num_offsets - 1}]", f"d_{step.round}"
        return [
            f"const int64_t apart = n > 1 ? {limit} / n * n : 0;",
            "if (apart) {",
            f"    uint8_t *const own = scratch + {stride} - {self._layout.own_block};",
            "    const int64_t each = apart / n;",
            f"    const uint32_t pieces = each < {MOST_PIECES} ? (uint32_t)each : {MOST_PIECES};",
            "    tl_claim c = tl_claim_start(shared->shares, ++turn, apart, pieces, tid, n);",
            "    while (tl_claim_next(&c)) {",
            f"        for (int64_t {at} = c.begin; {at} < c.end; {at}++) {{",
            *_indented(body, 3),
            "        }",
            "    }",
            "}",
        ]

    def _alone(self, step: Step) -> list[str]:
        """A call that the thread makes for itself."""
        assert isinstance(step, Call)
        pairs = zip(step.args, step.kernel.params, strict=True)
        args = "".join(f", {self._argument(arg, param)}" for arg, param in pairs)
        call = f"{self._names[step.kernel]}(0, {self._c(step.grid)}, scratch{args})"
        return [comment_text(step.label), self._marked(call), *self._tick()]

    def _decide(self, step: Repeat, going: str) -> list[str]:
        """Thread 0 decides about another round."""
        limit, flag = "INT64_MAX", "1"
        if isinstance(step.limit, View):
            limit = f"*(const int64_t *)({self._layout.address(step.limit)})"
        elif step.limit is not None:
            limit = self._c(step.limit)
        if step.going is not None:
            flag = f"*(const uint8_t *)({self._layout.address(step.going)})"
        where = f"shared, {self._checks + 1}, d_{step.round}, {limit}, {flag}"
        ask = f"tl_another_round({where}, {c_string(step.label)})"
        return [_MEET, f"if (tid == 0) {going} = {ask};", *self._check()]

    def _host(self, step: HostCall, made: set[Buffer]) -> list[str]:
        """Thread 0 asks the host twice: to compute, then to copy into memory of the found size."""
        inputs = ", ".join(self._layout.address(view) for view in step.inputs) or "NULL"
        outputs = ", ".join(self._layout.address(view) for view in step.outputs) or "NULL"
        late = [v.buffer for v in step.outputs if self._layout.is_late(v.buffer)]
        late = [buffer for buffer in dict.fromkeys(late) if buffer not in made]
        made.update(late)
        compute = [
            comment_text(f"{step.label}, by the host"),
            "if (tid == 0) {",
            f"    const void *const inputs[] = {{{inputs}}};",
            f"    tl_host(shared, {self._checks + 1}, {step.index}, inputs, NULL);",
            "}",
            *(self._check() if step.symbols or late else []),
        ]
        copy = [
            *map(self._symbol, step.symbols),
            *map(self._need, late),
            f"if (tid == 0 && shared->stop != {self._checks + 1}) {{",
            f"    void *const outputs[] = {{{outputs}}};",
            f"    tl_host(shared, {self._checks + 1}, {step.index}, NULL, outputs);",
            "}",
            *self._check(),
        ]
        return [*compute, *copy]


def _indented(lines: Sequence[str], levels: int = 1) -> list[str]:
    return [f"{'    ' * levels}{line}" for line in lines]
