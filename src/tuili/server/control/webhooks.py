"""Webhooks: other systems are told of a roll-out's events, or asked whether it may go on."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from tuili.server.posting import post
from tuili.server.rollout.plan import Hook, Webhook

_log = logging.getLogger("tuili.server")
_JSON = {"Content-Type": "application/json"}


async def refusal(hooks: Sequence[Webhook], when: Hook, body: dict[str, Any]) -> str:
    """Ask every hook of this moment: why one of them does not agree, or "".

    A redirect is no agreement: it may lead to a page for logging in, which answers 200.
    """
    for hook in hooks:
        if hook.when == when:
            problem = await _post(hook, body | {"when": when})
            if problem:
                return f"waiting for {hook.url} to agree: {problem}"
    return ""


async def tell(hooks: Sequence[Webhook], body: dict[str, Any]) -> None:
    """Tell those that want to know of events; failures are logged."""
    for hook in hooks:
        if hook.when == "event":
            problem = await _post(hook, body | {"when": "event"})
            if problem:
                _log.warning("webhook %s: %s", hook.url, problem)


async def _post(hook: Webhook, body: dict[str, Any]) -> str:
    return await post(hook.url, json.dumps(body).encode(), _JSON, hook.timeout_s)
