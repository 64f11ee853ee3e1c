"""What the routes of roll-outs, labels and history do: one function from a `Call` to a `Reply`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qs

from tuili.errors import InvalidArgument
from tuili.server.http.call import Call
from tuili.server.http.reply import Reply, json_reply

_WHO: Final = b"x-tuili-operator"


def _who(call: Call) -> str:
    """Who asks: what the client says, and from where; a proxy that knows better sets the header."""
    return call.head.headers.get(_WHO, b"").decode("latin-1") or "http"


def _document(call: Call) -> dict[str, Any]:
    """A plan in JSON, or in YAML where the content type says so."""
    if b"yaml" not in call.head.headers.get(b"content-type", b""):
        return call.json()
    import yaml

    try:
        document: Any = yaml.safe_load(bytes(call.body))
    except yaml.YAMLError as error:
        raise InvalidArgument(f"the request's YAML does not parse: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgument("the request's YAML must be a mapping")
    return document


async def rollouts(call: Call) -> Reply:
    """List the roll-outs, or begin one."""
    commands = call.dataplane.rollouts
    if call.head.method == "GET":
        return json_reply(commands.list_all())
    document = _document(call)
    if b"dry_run=true" in call.head.query:
        document = document | {"dry_run": True}
    return json_reply(await commands.create(document, _who(call)))


def rollout(call: Call) -> Reply:
    """One roll-out with its numbers."""
    return json_reply(call.dataplane.rollouts.show(call.match.rollout))


async def rollout_action(call: Call) -> Reply:
    """Pause, resume, abort, promote or roll back."""
    match = call.match
    why = _text(call.json(), "why")
    done = await call.dataplane.rollouts.act(match.rollout, match.action, _who(call), why)
    return json_reply(done)


async def model_rollback(call: Call) -> Reply:
    """Let the version before, or `{"version": n}`, answer."""
    document = call.json()
    version = _version(document)
    why = _text(document, "why")
    found = await call.dataplane.rollouts.rollback(call.match.model, version, _who(call), why)
    return json_reply(found)


def model_labels(call: Call) -> Reply:
    """The labels of a model."""
    return json_reply(call.dataplane.rollouts.labels(call.match.model))


async def model_label(call: Call) -> Reply:
    """Point a label at a version, or remove it."""
    version = None if call.head.method == "DELETE" else _version(call.json())
    if version is None and call.head.method != "DELETE":
        raise InvalidArgument("a label needs a 'version'")
    match = call.match
    found = await call.dataplane.rollouts.label(match.model, match.label, version, _who(call))
    return json_reply(found)


async def history(call: Call) -> Reply:
    """The journal of a model or of all, after `?since=N`."""
    query = parse_qs(call.head.query.decode("latin-1"))
    since = query.get("since", ["0"])[0]
    if not since.isdecimal():
        raise InvalidArgument(f"since must be a number, got {since!r}")
    return json_reply(await call.dataplane.rollouts.history(call.match.model, int(since)))


def feedback(call: Call) -> Reply:
    """A client's opinion of an answer."""
    return json_reply(call.dataplane.rollouts.feedback(call.match.model, call.json()))


def _version(document: dict[str, Any]) -> int | None:
    version = document.get("version")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
        raise InvalidArgument(f"'version' must be a number, got {version!r}")
    return version


def _text(document: dict[str, Any], key: str) -> str:
    found = document.get(key, "")
    if not isinstance(found, str):
        raise InvalidArgument(f"{key!r} must be text, got {found!r}")
    return found


ROLLOUT_OPERATIONS: Final[dict[str, Callable[[Call], Reply | Awaitable[Reply]]]] = {
    "rollouts": rollouts,
    "rollout": rollout,
    "rollout_action": rollout_action,
    "model_rollback": model_rollback,
    "model_labels": model_labels,
    "model_label": model_label,
    "history": history,
    "feedback": feedback,
}
