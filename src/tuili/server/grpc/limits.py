"""What one gRPC client may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuili.server.protocol.restrictions import Restrictions
from tuili.server.room import Room


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Bounds of the gRPC front end; times are seconds, sizes bytes.

    `max_resets` and the two after it count frames of a connection in one second, against floods.
    """

    max_message_bytes: int = (1 << 31) - 1
    max_decompressed_bytes: int = 64 << 20
    max_header_bytes: int = 64 << 10
    most_header_bytes: int = 8 << 20  # above which they end the connection, not the call
    max_streams: int = 1024
    max_connections: int = 16_384
    max_frame_bytes: int = 1 << 20
    stream_window: int = 16 << 20
    connection_window: int = 256 << 20
    preface_timeout_s: float = 15.0
    message_timeout_s: float = 60.0
    min_message_rate: float = 16 << 10  # bytes for which a message may take a second longer
    max_waiting_messages: int = 4096  # of a stream that its client does not read
    # Of answers that a connection's client does not read; more calls begin when it has.
    max_waiting_bytes: int = 64 << 20
    write_timeout_s: float = 60.0
    linger_s: float = 2.0  # how long a client is listened to behind the last word
    max_resets: int = 1000
    max_control_frames: int = 2000
    max_empty_frames: int = 2000
    room: Room = field(default_factory=Room)  # that all connections share
    restrictions: Restrictions = field(default_factory=Restrictions)
