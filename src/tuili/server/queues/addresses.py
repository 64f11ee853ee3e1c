"""URLs of queues: `redis://...` and `nats://...` with options after the question mark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, urlsplit

from tuili.errors import InvalidArgument, nearest

OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "redis": ("stream", "group", "answers", "dead", "claim_s"),
    "rediss": ("stream", "group", "answers", "dead", "claim_s"),
    "nats": ("stream", "subject", "group", "answers", "dead", "claim_s"),
    "tls": ("stream", "subject", "group", "answers", "dead", "claim_s"),
}


def options_of(url: str) -> Mapping[str, str]:
    """The options in a URL; InvalidArgument names what is unknown."""
    parts = urlsplit(url)
    if parts.scheme not in OPTIONS:
        raise InvalidArgument(
            f"{url!r} is no queue: expected redis://, rediss://, nats:// or tls://"
        )
    known = OPTIONS[parts.scheme]
    found = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    for key in found:
        if key not in known:
            raise InvalidArgument(
                f"{url!r} has the unknown option {key!r}.{nearest(key, known)} "
                f"Known: {', '.join(known)}"
            )
    if not found.get("claim_s", "1").replace(".", "", 1).isdigit():
        raise InvalidArgument(f"{url!r}: claim_s must be seconds, got {found['claim_s']!r}")
    return found


def option(options: Mapping[str, str], name: str, default: str) -> str:
    """An option or its default."""
    return options.get(name) or default
