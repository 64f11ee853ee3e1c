"""Tuning records: what is kept, what counts for whom, and what a compilation takes from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tuili.codegen.decisions import decisions_files, read_decisions, tuned_option
from tuili.codegen.tuning import Entry, Times, add_entries, read_record, read_times
from tuili.errors import InvalidArgument, NotFound
from tuili.lower.choice import Decision

NAMES = ("first", "second", "third")


def entry(problem: str = "p", target: str = "t", processor: str = "c", **ns: int) -> Entry:
    return Entry(target=target, processor=processor, problem=problem, ns=ns or {"first": 5})


@pytest.mark.parametrize(
    ("ns", "chosen"),
    [
        ({"first": 1000, "second": 900, "third": 950}, "second"),
        ({"first": 900, "second": 1000, "third": 950}, "first"),
        ({"first": 1000, "second": 990}, "first"),  # no clock is that exact
        ({"second": 1000, "third": 900}, "third"),  # the first was not measured
        ({"second": 1}, "first"),  # beside nothing, a time says nothing
        ({"gone": 1, "first": 10}, "first"),
        ({}, "first"),
    ],
)
def test_the_fastest_that_was_measured_is_taken(ns: dict[str, int], chosen: str) -> None:
    name, why = Times({"p": ns}).pick("p", NAMES)
    assert name == chosen
    assert bool(why) == (len(ns.keys() & set(NAMES)) > 1)


def test_the_reason_names_both_times() -> None:
    times = Times({"p": {"first": 1_520_000, "second": 1_310_000, "third": 2_000_000}})
    assert times.pick("p", NAMES)[1] == "measured: 1.310 ms against 1.520 ms of first"
    quick = Times({"p": {"first": 2_000, "second": 3_000}})
    assert quick.pick("p", NAMES)[1] == "measured: 2.00 us against 3.00 us of second"


def test_only_plans_without_times_are_asked_about() -> None:
    times = Times({"p": {"first": 1, "second": 2}})
    assert not times.lacks("p", ("first", "second"))
    assert times.lacks("p", NAMES)
    assert times.lacks("q", ("first", "second"))


def test_times_of_other_processors_and_targets_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "record"
    add_entries(path, [entry(first=1), entry(target="u", first=2), entry(processor="d", first=3)])
    assert read_times(path, "t", "c").by_problem == {"p": {"first": 1}}
    assert read_times(path, "t", "other").digest == ""


def test_joined_records_are_a_record_and_later_lines_count(tmp_path: Path) -> None:
    one, two, both = (tmp_path / name for name in ("one", "two", "both"))
    add_entries(one, [entry("p", first=1), entry("q", first=2)])
    add_entries(two, [entry("p", first=7)])
    both.write_bytes(one.read_bytes() + b"\n" + two.read_bytes())
    assert read_times(both, "t", "c").by_problem == {"p": {"first": 7}, "q": {"first": 2}}


def test_new_entries_take_the_place_of_old_ones_and_lines_are_in_order(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "record"
    add_entries(path, [entry("b", first=1), entry("a", first=2)])
    add_entries(path, [entry("b", first=3)])
    assert [(each.problem, each.ns) for each in read_record(path)] == [
        ("a", {"first": 2}),
        ("b", {"first": 3}),
    ]
    assert len(path.read_bytes().splitlines()) == 2


GOOD = '{"target":"t","processor":"c","problem":"p","ns":{"first":1}}'


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "truncated"),
        ("\udcff", "invalid character"),
        ("[]", "Expected `object`"),
        (GOOD.replace("1}", "0}"), r">= 1.*\$.ns"),
        (GOOD.replace('"ns"', '"nanoseconds"'), "unknown field `nanoseconds`"),
        (GOOD.replace('{"first":1}', "{}"), "length >= 1"),
    ],
)
def test_a_damaged_record_is_told_with_file_and_line(
    line: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "record"
    path.write_bytes(f"{GOOD}\n{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(InvalidArgument, match=re.escape(f"{path}:2: ")) as caught:
        read_record(path)
    assert re.search(complaint, str(caught.value))
    assert "remove the line" in str(caught.value)


def test_a_named_record_must_exist_and_the_users_own_need_not(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no tuning record .* --tune"):
        read_times(tmp_path / "none", "t", "c")
    assert read_times(None, "t", "nobody's processor").by_problem == {}


def test_artifacts_tell_only_of_what_was_measured() -> None:
    by_cost = Decision("p", NAMES, "first")
    measured = Decision("q", NAMES, "second", "measured: a against b")
    assert decisions_files({"a": by_cost}) == {}
    assert tuned_option({"a": by_cost}) == {}
    (file,) = decisions_files({"a": by_cost, "b": measured, "c": measured}).values()
    (told,) = read_decisions(file)
    assert (told.nodes, told.chosen, told.instead_of) == (["b", "c"], "second", "first")
    assert str(told) == "q: second; measured: a against b (b and 1 more)"
    assert tuned_option({"a": by_cost, "b": measured})["tuned"].startswith("1 of 2 choices")
