"""`tuili history`, `diff`, `tag`, `rollback`: the versions of a model in a repository.

`history` and `rollback` ask a running server when no repository is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuili.cli import rollout
from tuili.cli.publish import RepositoryConfig, RepositoryOption, now, user
from tuili.errors import InvalidArgument

if TYPE_CHECKING:
    from tuili.server.publishing.versions import By, Version

Name = Annotated[str, typer.Argument(help="The model's name.")]
OtherRepository = Annotated[
    str | None,
    typer.Option(
        "--repository", "-r", envvar="TUILI_REPOSITORY", help="A folder, or a URL: s3, gs, az."
    ),
]
OtherServer = Annotated[str | None, typer.Option(help="A server's HTTP address instead.")]
Why = Annotated[str, typer.Option(help="Why, for the history.")]


def history(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model; of a server, none for all.")
    ] = "",
    repository: OtherRepository = None,
    events: Annotated[bool, typer.Option("--events", help="Decisions, not versions.")] = False,
    since: Annotated[int, typer.Option(min=0, help="Journal: entries after this number.")] = 0,
    server: OtherServer = None,
    as_json: Annotated[bool, typer.Option("--json", help="Journal: as it comes.")] = False,
    repository_config: RepositoryConfig = None,
) -> None:
    """Show the versions in a repository, or what a server's journal says of a model."""
    if repository is None or server is not None:
        rollout.history(name, since, server or rollout.HERE, as_json)
        return
    if not name:
        raise InvalidArgument("which model? The versions in a repository are those of one model")
    from tuili.server.publishing import versions
    from tuili.server.publishing.places import place_of
    from tuili.server.registry import ledger

    place = place_of(repository, repository_config)
    if events:
        rows = [
            (each.at, each.user, each.action, str(each.version), each.tag, each.why)
            for each in place.decide(name, ledger.read).events
        ]
        _print(("at", "user", "action", "version", "tag", "why"), rows)
    else:
        titles = ("version", "state", "tags", "at", "user", "size", "metrics", "digest", "notes")
        _print(titles, [_row(each) for each in place.decide(name, versions.history)])


def diff(
    name: Name,
    old: Annotated[str, typer.Argument(help="A version's number or tag.")],
    new: Annotated[str, typer.Argument(help="Another one.")],
    repository: RepositoryOption,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run both: time, and how far answers differ.")
    ] = False,
    repository_config: RepositoryConfig = None,
) -> None:
    """Compare two versions: signature, size, metrics, parameters, origin; on request by running."""
    from tuili.cli.comparing import compared, measured
    from tuili.server.publishing.places import place_of
    from tuili.server.publishing.versions import described

    place = place_of(repository, repository_config)
    before, after = place.decide(name, lambda at: (described(at, old), described(at, new)))
    rows = compared(before, after)
    if measure:
        folder = place.whole(name)
        rows += measured(*(folder / str(each.version) for each in (before, after)))
    titles = ("what", f"version {before.version}", f"version {after.version}", "change")
    _print(titles, rows)


def tag(
    name: Name,
    version: Annotated[str, typer.Argument(help="A number or a tag.")],
    label: Annotated[str, typer.Argument(help="The tag.")],
    repository: RepositoryOption,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the tag instead.")] = False,
    why: Why = "",
    repository_config: RepositoryConfig = None,
) -> None:
    """Let a tag point to a version; a tag may stand wherever a number does."""
    from tuili.server.publishing import versions
    from tuili.server.publishing.places import place_of

    def removed(folder: Path) -> int:
        at = versions.resolve(folder, label)
        if at != versions.resolve(folder, version):
            raise InvalidArgument(f"tag {label!r} of {name!r} points to {at}, not {version}")
        return versions.untag(folder, label, _by(why))

    place = place_of(repository, repository_config)
    if delete:
        _say(f"{name}: tag {label} is removed from version {place.decide(name, removed)}")
    else:
        number = place.decide(name, lambda at: versions.tag(at, version, label, _by(why)))
        _say(f"{name}: tag {label} points to version {number}")


def rollback(
    name: Name,
    repository: OtherRepository = None,
    to: Annotated[str | None, typer.Option(help="The version; default: the one before.")] = None,
    restore: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Repository: take it back.")
    ] = None,
    why: Why = "",
    server: OtherServer = None,
    repository_config: RepositoryConfig = None,
) -> None:
    """Let an earlier version answer: withdraw newer ones in a repository, or tell a server."""
    if repository is None or server is not None:
        if to is not None and not to.isdecimal():
            raise InvalidArgument(f"--to {to!r}: a server takes the number of a version")
        rollout.rollback(name, None if to is None else int(to), why, server or rollout.HERE)
        return
    from tuili.server.publishing import versions
    from tuili.server.publishing.places import place_of

    place = place_of(repository, repository_config)
    if restore is not None:
        number = place.decide(name, lambda at: versions.restore(at, restore, _by(why)))
        _say(f"{name}: version {number} is restored")
        return
    target, gone = place.decide(name, lambda at: versions.rollback(at, _by(why), to))
    _say(f"{name}: version {', '.join(map(str, gone))} withdrawn, {target} is the newest one")


def _by(why: str) -> By:
    from tuili.server.publishing.versions import By

    return By(user(), now(), why)


def _row(version: Version) -> tuple[str, ...]:
    number, state, tags = str(version.number), version.state, ", ".join(version.tags)
    about = version.record
    if about is None:
        return number, state, tags, "", "", "", "", "", "(no record)"
    metrics = ", ".join(f"{key}={value:g}" for key, value in about.metrics.items())
    origin = about.provenance
    size = f"{about.size_bytes / 1e6:.1f} MB"
    digest = about.digest.removeprefix("sha256:")[:12]
    return number, state, tags, origin.at, origin.user, size, metrics, digest, about.notes


def _print(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)
