"""What one HTTP client may ask of the server; the defaults are safe on the open net."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuili.server.protocol.restrictions import Restrictions
from tuili.server.room import Room


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of the HTTP front end; times are seconds, sizes bytes."""

    max_head_bytes: int = 32 << 10
    max_body_bytes: int = 1 << 30
    max_json_bytes: int = 64 << 20  # JSON text, and what a compressed body may grow to
    max_json_depth: int = 100
    max_json_members: int = 16_384  # of an object in a long text
    max_chunks: int = 65_536
    max_connections: int = 16_384
    head_timeout_s: float = 15.0
    keep_alive_s: float = 75.0
    max_backlog_bytes: int = 64 << 20  # of a stream that its client does not read
    write_timeout_s: float = 60.0
    # A body may take `body_timeout_s` plus its size at this rate, however it drips.
    body_timeout_s: float = 30.0
    min_body_rate: float = 16 << 10
    # How long an idle client is listened to once the server ends: its request may be on the way.
    parting_s: float = 0.2
    linger_s: float = 2.0  # how long a refused client is listened to before the door shuts
    # Whether a chunked body may come with a Content-Length, which then means nothing.
    length_beside_chunks: bool = False
    host_optional: bool = False  # whether HTTP/1.1 may come without Host
    # Whether health is told in the body too, as by KServe, and at `/`; Triton does neither.
    health_in_body: bool = True
    room: Room = field(default_factory=Room)  # that all connections share
    restrictions: Restrictions = field(default_factory=Restrictions)
