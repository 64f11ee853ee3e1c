"""`tuili rollout`, `history`, `rollback`, `label`: what operators do with a running server."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuili.cli.operating import call

Server = Annotated[str, typer.Option(help="The server's HTTP address.", envvar="TUILI_SERVER")]
Name = Annotated[str, typer.Argument(help="The roll-out's name.")]
Model = Annotated[str, typer.Argument(help="The model's name.")]
Why = Annotated[str, typer.Option(help="Why, for the journal.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the server answers.")]
HERE = "http://127.0.0.1:8000"

rollout = typer.Typer(
    help="Begin, watch and steer roll-outs of model versions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@rollout.command()
def start(
    plan: Annotated[Path, typer.Argument(help="A YAML or JSON file.", exists=True, dir_okay=False)],
    dry_run: Annotated[bool, typer.Option(help="Only say what it would do.")] = False,
    follow: Annotated[bool, typer.Option(help="Watch it until it is over.")] = False,
    server: Server = HERE,
) -> None:
    """Begin a roll-out."""
    path = "/v2/rollouts?dry_run=true" if dry_run else "/v2/rollouts"
    found = call(server, "POST", path, plan.read_bytes(), "application/yaml")
    if dry_run:
        _print_json(found)
        return
    _show(found)
    if follow:
        watch(found["name"], server)


@rollout.command(name="list")
def list_all(server: Server = HERE) -> None:
    """All roll-outs, the newest first."""
    table = Table()
    for title in ("name", "model", "state", "step", "candidates", "why"):
        table.add_column(title, overflow="fold")
    found = call(server, "GET", "/v2/rollouts")
    for each in found["rollouts"]:
        step = f"{each['step'] + 1}/{each['steps']}"
        candidates = ", ".join(f"{name}={v}" for name, v in each["candidates"].items())
        cells = (each["name"], each["model"], each["state"], step, candidates, each["why"])
        table.add_row(*(Text(str(cell)) for cell in cells))
    _console().print(table)
    for told in found.get("unreadable", ()):
        _console().print(f"! {told}", markup=False)


@rollout.command()
def show(name: Name, server: Server = HERE, as_json: AsJson = False) -> None:
    """A roll-out with its verdicts and numbers."""
    found = call(server, "GET", f"/v2/rollouts/{quote(name)}")
    if as_json:
        _print_json(found)
    else:
        _show(found)


@rollout.command()
def watch(name: Name, server: Server = HERE) -> None:
    """Print what happens until the roll-out is over; exit code 1 unless it was promoted."""
    last = ""
    while True:
        found = call(server, "GET", f"/v2/rollouts/{quote(name)}")
        line = _line(found)
        if line != last:
            _console().print(line, markup=False)
            last = line
        if found["state"] in ("PROMOTED", "ROLLED_BACK", "ABORTED"):
            raise typer.Exit(0 if found["state"] == "PROMOTED" else 1)
        time.sleep(1.0)


@rollout.command()
def pause(name: Name, why: Why = "", server: Server = HERE) -> None:
    """Keep the weights as they are; only a rollback can happen."""
    _act(server, name, "pause", why)


@rollout.command()
def resume(name: Name, why: Why = "", server: Server = HERE) -> None:
    """Go on with the present step, from zero."""
    _act(server, name, "resume", why)


@rollout.command()
def abort(name: Name, why: Why = "", server: Server = HERE) -> None:
    """End it: the stable version has all traffic again."""
    _act(server, name, "abort", why)


@rollout.command()
def promote(name: Name, why: Why = "", server: Server = HERE) -> None:
    """Promote the candidate now, whatever the numbers say."""
    _act(server, name, "promote", why)


def history(
    model: Annotated[str, typer.Argument(help="A model; none for all.")] = "",
    since: Annotated[int, typer.Option(min=0, help="Only entries after this number.")] = 0,
    server: Server = HERE,
    as_json: AsJson = False,
) -> None:
    """Show the journal: who decided what, when, why, and by which numbers."""
    path = f"/v2/models/{quote(model)}/history" if model else "/v2/history"
    entries = call(server, "GET", f"{path}?since={since}")["entries"]
    if as_json:
        _print_json(entries)
        return
    table = Table()
    for title in ("#", "when", "model", "who", "event", "why"):
        table.add_column(title, overflow="fold")
    for entry in entries:
        when = datetime.fromtimestamp(entry["at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        cells = (entry["seq"], when, entry["model"], entry["who"], _event(entry), entry["why"])
        table.add_row(*(Text(str(cell)) for cell in cells))
    _console().print(table)


def rollback(
    model: Model,
    to: Annotated[int | None, typer.Option(help="The version; default: the one before.")] = None,
    why: Why = "",
    server: Server = HERE,
) -> None:
    """Let an earlier version of a model answer, without interruption."""
    body = {"why": why} | ({} if to is None else {"version": to})
    path = f"/v2/models/{quote(model)}/rollback"
    found = call(server, "POST", path, json.dumps(body).encode())
    if "state" in found:
        _show(found)
    else:
        _console().print(f"{model}: version {found['version']} answers, before {found['before']}")


def label(
    model: Model,
    name: Annotated[str, typer.Argument(help="The label; none to list them.")] = "",
    version: Annotated[int | None, typer.Argument(help="A loaded version.")] = None,
    remove: Annotated[bool, typer.Option(help="Remove the label.")] = False,
    server: Server = HERE,
) -> None:
    """List the labels of a model, or point one at a version."""
    path = f"/v2/models/{quote(model)}/labels"
    if remove:
        found = call(server, "DELETE", f"{path}/{quote(name)}")
    elif name:
        body = json.dumps({"version": version}).encode()
        found = call(server, "POST", f"{path}/{quote(name)}", body)
    else:
        found = call(server, "GET", path)
    for each, number in sorted(found["labels"].items()):
        _console().print(f"{each} -> {number}", markup=False)


def _act(server: str, name: str, action: str, why: str) -> None:
    body = json.dumps({"why": why}).encode()
    _show(call(server, "POST", f"/v2/rollouts/{quote(name)}/{action}", body))


def _show(found: dict[str, Any]) -> None:
    console = _console()
    console.print(_line(found), markup=False)
    for variant, verdict in found.get("verdicts", {}).items():
        console.print(f"  {variant}: {verdict['outcome']}: {verdict['why']}", markup=False)
    for variant, numbers in found.get("here", {}).items():
        counts = ", ".join(f"{key} {value}" for key, value in numbers.items() if value)
        console.print(f"  {variant} here: {counts}", markup=False)
    for key in ("waits_for", "trouble"):
        if found.get(key):
            console.print(f"  {found[key]}", markup=False)


def _line(found: dict[str, Any]) -> str:
    weights = ", ".join(f"{name} {weight:g} %" for name, weight in found.get("weights", {}).items())
    place = f"step {found['step'] + 1} of {found['steps']} ({weights})" if weights else ""
    return " ".join(filter(None, (found["name"], found["state"], place, found["why"])))


def _event(entry: dict[str, Any]) -> str:
    version = entry["numbers"].get("version")
    return f"{entry['event']} {version}" if version is not None else entry["event"]


def _console() -> Console:
    return Console(soft_wrap=True, highlight=False)


def _print_json(found: Any) -> None:
    print(json.dumps(found, indent=2))  # noqa: T201
