"""The page docs/reference/conformance.md, written by the run that it describes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import onnx

from tests.conformance.outcome import Outcome

# Cases that fail, and why that is so.
FAILING: dict[str, str] = {
    "test_attention_4d_causal_fp16_expanded": (
        "fused float16 operators keep their intermediate results in float32; the suite rounds each"
    ),
}
_NAMES = {
    "Node": "node",
    "PyTorchConvertedModel": "pytorch-converted",
    "PyTorchOperatorModel": "pytorch-operator",
    "RealModel": "real",
    "SimpleModel": "simple",
}


_PAGE = """# Conformance

`make conformance` runs the whole ONNX backend suite (`onnx.backend.test`, onnx {version}, opset
{opset}) through `tuili.onnx_backend`, the module that the public ONNX scoreboard could use, and
writes this page.

{counts}

Of the cases that passed, {native} ran natively from end to end, and {partly} had at least one node
that Python runs by its NumPy meaning inside the same program (a *host step*; `tuili inspect` and
the manifest list them).

What does not pass, and why:

{rest}
"""


def page(outcomes: Sequence[Outcome]) -> str:
    """The whole page."""
    how = Counter(outcome.how for outcome in outcomes if outcome.result == "passed")
    return _PAGE.format(
        version=onnx.__version__,
        opset=onnx.defs.onnx_opset_version(),
        counts="\n".join(_counts(outcomes)),
        native=how["native"],
        partly=how["partly native"],
        rest="\n".join(_rest(outcomes)),
    )


def _counts(outcomes: Sequence[Outcome]) -> list[str]:
    columns = "category | cases | passed | failed | skipped | rate"
    lines = [f"| {columns} |", "|---|---:|---:|---:|---:|---:|"]
    for category in [*sorted({outcome.category for outcome in outcomes}), ""]:
        rows = [outcome for outcome in outcomes if category in (outcome.category, "")]
        count = Counter(outcome.result for outcome in rows)
        passed, failed, skipped = (count[key] for key in ("passed", "failed", "skipped"))
        cells = [_NAMES.get(category, category) or "all", str(len(rows)), str(passed), str(failed)]
        cells += [str(skipped), f"{passed / len(rows):.2%}"]
        lines.append("| " + " | ".join(cells if category else [f"**{c}**" for c in cells]) + " |")
    return lines


def _rest(outcomes: Sequence[Outcome]) -> list[str]:
    lines = ["| case | result | why |", "|---|---|---|"]
    for outcome in outcomes:
        if outcome.result != "passed":
            name = re.sub(r"_cpu$", "", outcome.name.partition(".")[2])
            reason = FAILING.get(name, outcome.reason.replace("|", "\\|"))
            lines.append(f"| `{name}` | {outcome.result} | {reason} |")
    return lines
