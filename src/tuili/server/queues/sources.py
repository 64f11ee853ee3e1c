"""Which queue a URL means: a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from tuili.server.queues.addresses import options_of
from tuili.server.queues.messages import Source
from tuili.server.queues.nats_jetstream import JetStream
from tuili.server.queues.redis_streams import RedisStream

SOURCES: Final[Mapping[str, Callable[[str], Source]]] = {
    "redis": RedisStream,
    "rediss": RedisStream,
    "nats": JetStream,
    "tls": JetStream,
}


def source_of(url: str) -> Source:
    """The queue at a URL, not yet opened; InvalidArgument when there is no such kind."""
    options_of(url)
    return SOURCES[urlsplit(url).scheme](url)
