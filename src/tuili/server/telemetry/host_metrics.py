"""The metrics of model hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tuili.server.telemetry.prometheus import escape


class HostState(NamedTuple):
    """What is shown of one host."""

    name: str
    instance: int
    up: bool
    deaths: int
    resident_bytes: int


def host_lines(hosts: Sequence[HostState]) -> list[str]:
    """Their lines in the Prometheus text."""
    lines: list[str] = []
    for name, kind, text, values in (
        ("tuili_host_up", "gauge", "Whether the model host runs", [int(h.up) for h in hosts]),
        ("tuili_host_deaths", "counter", "Deaths of the model host", [h.deaths for h in hosts]),
        (
            "tuili_host_resident_bytes",
            "gauge",
            "Memory of the model host",
            [h.resident_bytes for h in hosts],
        ),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [
            f'{name}{{host="{escape(host.name)}",instance="{host.instance}"}} {value}'
            for host, value in zip(hosts, values, strict=True)
        ]
    return lines if hosts else []
