"""Webhooks: other systems are told of a roll-out's events, or asked whether it may go on."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from tuili.server.rollout.plan import Hook, Webhook

_log = logging.getLogger("tuili.server")


def refusal(hooks: Sequence[Webhook], when: Hook, body: dict[str, Any]) -> str:
    """Ask every hook of this moment: why one of them does not agree, or "". Blocks."""
    for hook in hooks:
        if hook.when == when:
            problem = _post(hook, body | {"when": when})
            if problem:
                return f"waiting for {hook.url} to agree: {problem}"
    return ""


def tell(hooks: Sequence[Webhook], body: dict[str, Any]) -> None:
    """Tell those that want to know of events; failures are logged. Blocks."""
    for hook in hooks:
        if hook.when == "event":
            problem = _post(hook, body | {"when": "event"})
            if problem:
                _log.warning("webhook %s: %s", hook.url, problem)


def _post(hook: Webhook, body: dict[str, Any]) -> str:
    """Why the hook did not answer 2xx, or ""."""
    if not hook.url.startswith(("http://", "https://")):
        return f"{hook.url!r} is no http address"
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked
        hook.url,
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=hook.timeout_s) as answer:  # noqa: S310
            answer.read()
    except urllib.error.HTTPError as error:
        return f"it answered {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(error)
    return ""
