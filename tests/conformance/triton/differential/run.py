"""Sends the same requests to tuili and to a real Triton, and shows where the answers differ.

python -m tests.conformance.triton.differential.run                 all cases
python -m tests.conformance.triton.differential.run --match 'input/*'  some of them
python -m tests.conformance.triton.differential.run --json out.json    every answer of both
"""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tests.conformance.triton import servers
from tests.conformance.triton.differential import (
    grpc_cases,
    http_infer,
    http_oddities,
    http_operations,
    http_paths,
    models,
)
from tests.conformance.triton.differential.intended import INTENDED, Difference, Intended
from tests.conformance.triton.differential.wire import Case, Observed, Peer
from tests.conformance.triton.servers import Server

# What tells of time and use rather than of the protocol: only its type is compared.
_VOLATILE = re.compile(r"(count|ns|last_inference|batch_size)$")


@dataclass(slots=True)
class Result:
    """What one case showed: the differences that are meant, and those that are not."""

    case: str
    ours: list[Observed]
    theirs: list[Observed]
    intended: list[tuple[Difference, Intended]] = field(default_factory=list)
    other: list[Difference] = field(default_factory=list)


# Requests of which Triton 2.51 dies, maybe a little later: they come last.
_FATAL = (
    "input/shape huge",
    "input/shape overflow",
    "classes/text",
    "generate/numbers misfit",
    "generate_stream/numbers misfit",
)


def all_cases() -> list[Case]:
    """The whole table, in an order in which cases do not disturb each other."""
    found = [
        *http_infer.cases(),
        *grpc_cases.cases(),
        *http_operations.cases(),
        *http_paths.cases(),
        *http_oddities.cases(),
    ]
    return sorted(found, key=lambda case: case.name in _FATAL)


def run(case: Case, ours: Restartable, theirs: Restartable) -> Result:
    """One case against both servers."""
    mine, other = _answers(case, ours), _answers(case, theirs)
    result = Result(case.name, mine, other)
    for difference in differences(mine, other):
        row = next((each for each in INTENDED if each.covers(case.name, difference)), None)
        if row is None:
            result.other.append(difference)
        else:
            result.intended.append((difference, row))
    return result


def _answers(case: Case, server: Restartable) -> list[Observed]:
    answer = case.send(server.peer)
    if server.died():
        # An earlier request may have been its end: once more.
        answer = case.send(server.peer)
        if server.died():
            return [Observed("the server died")]
    return answer if isinstance(answer, list) else [answer]


def differences(ours: list[Observed], theirs: list[Observed]) -> Iterator[Difference]:
    """Where two lists of answers differ."""
    if len(ours) != len(theirs):
        yield Difference("answers", str(len(ours)), str(len(theirs)))
    for at, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        where = f"{at}." if len(ours) > 1 else ""
        if mine.status != other.status:
            yield Difference(f"{where}status", mine.status, other.status)
        if mine.text != other.text:
            yield Difference(f"{where}text", mine.text, other.text)
        if mine.kind != other.kind:
            yield Difference(f"{where}kind", mine.kind, other.kind)
        yield from _inside(f"{where}body", mine.body, other.body)


def _inside(path: str, mine: Any, other: Any) -> Iterator[Difference]:
    if isinstance(mine, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*mine, *other]):
            if key in mine and key in other:
                yield from _inside(f"{path}.{key}", mine[key], other[key])
            else:
                yield Difference(
                    f"{path}.{key}",
                    _shown(mine.get(key, "<absent>")),
                    _shown(other.get(key, "<absent>")),
                )
    elif isinstance(mine, list) and isinstance(other, list):
        mine, other = _by_name(mine), _by_name(other)
        if isinstance(mine, dict) and isinstance(other, dict):
            yield from _inside(path, mine, other)
            return
        if len(mine) != len(other):
            yield Difference(f"{path}.length", _shown(mine), _shown(other))
        for at, (one, two) in enumerate(zip(mine, other, strict=False)):
            yield from _inside(f"{path}.{at}", one, two)
    elif _VOLATILE.search(path) and type(mine) is type(other):
        return
    elif mine != other and not (mine != mine and other != other):  # noqa: PLR0124 - NaN
        yield Difference(path, _shown(mine), _shown(other))


def _by_name(items: list[Any]) -> Any:
    """Lists whose order means nothing as dictionaries: tensors, models, extensions, batches."""
    if items and all(isinstance(item, dict) and "name" in item for item in items):
        return {f"{item['name']}/{item.get('version', '')}": item for item in items}
    if items and all(isinstance(item, dict) and "batch_size" in item for item in items):
        return {f"batch {item['batch_size']}": item for item in items}
    if items and all(isinstance(item, str) and item.islower() for item in items):
        return dict.fromkeys(items, "there")
    return items


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """The table; 1 when a difference is not meant or a row is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default="*", help="a glob over the names of cases")
    parser.add_argument("--json", type=Path, help="where to write every answer")
    parser.add_argument("--verbose", action="store_true", help="show what is intended, too")
    options = parser.parse_args(arguments)
    cases = [case for case in all_cases() if fnmatchcase(case.name, options.match)]
    with tempfile.TemporaryDirectory(prefix="tuili-diff-") as scratch:
        results = _compare(cases, Path(scratch))
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in results], indent=1))
    return _report(results, whole=options.match == "*", verbose=options.verbose)


class Restartable:
    """A server that is started again when a case has killed it."""

    def __init__(self, start: Callable[[], AbstractContextManager[Server]]) -> None:
        self._start = start
        self._life = ExitStack()
        self.peer = self._begin()

    def _begin(self) -> Peer:
        return Peer(self._life.enter_context(self._start()))

    def died(self) -> bool:
        """Whether the last case was its end; it lives again after this question."""
        if self.peer.server.process.poll() is None:
            return False
        self._life.close()
        self.peer = self._begin()
        return True

    def close(self) -> None:
        """End it."""
        self._life.close()


def _compare(cases: list[Case], scratch: Path) -> list[Result]:
    repository = scratch / "repository"
    models.write(repository)
    loads = [f"--load-model={name}" for name in models.LOADED]

    def start_triton() -> AbstractContextManager[Server]:
        return servers.triton(
            repository, scratch / "triton.log", "--model-control-mode=explicit",
            "--exit-timeout-secs=2", *loads,
        )  # fmt: skip

    def start_tuili() -> AbstractContextManager[Server]:
        return servers.tuili(
            repository, scratch / "tuili.log", "--model-control-mode", "explicit",
            "--compat", "triton", "--allow-client-shm", "--exit-timeout", "2", *loads,
        )  # fmt: skip

    theirs, ours = Restartable(start_triton), Restartable(start_tuili)
    try:
        return [run(case, ours, theirs) for case in cases]
    finally:
        theirs.close()
        ours.close()


def _report(results: list[Result], whole: bool, verbose: bool) -> int:
    used: Counter[Intended] = Counter()
    wrong = 0
    for result in results:
        used.update(row for _, row in result.intended)
        if result.other:
            wrong += 1
            print(f"DIFFERENT {result.case}")
            for each in result.other:
                print(
                    f"  {each.aspect}\n    ours   {each.ours[:400]}\n    theirs {each.theirs[:400]}"
                )
    meant = sum(1 for result in results if result.intended and not result.other)
    if verbose or whole:
        print("\nintended differences:")
        for row, count in used.items():
            print(f"  {count:4d} x {row.cases}: {row.aspect}: {row.reason}")
    stale = [row for row in INTENDED if row.always and row not in used] if whole else []
    for row in stale:
        print(f"STALE {row.cases}: {row.aspect}: nothing differs so any more: {row.reason}")
    requests = sum(len(result.ours) for result in results)
    same = len(results) - meant - wrong
    print(
        f"\n{len(results)} cases, {requests} answers: {same} the same, {meant} different on purpose, "
        f"{wrong} different"
    )
    return 1 if wrong or stale else 0


if __name__ == "__main__":
    sys.exit(main())
