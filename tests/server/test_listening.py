from __future__ import annotations

from tuili.server.listening import Connections


class Counted:
    def __init__(self) -> None:
        self.checks: list[float] = []
        self.drained = self.aborted = False

    def check(self, now: float) -> None:
        self.checks.append(now)

    def drain(self) -> None:
        self.drained = True

    def dismiss(self, text: str) -> bool:
        return False

    def abort(self) -> None:
        self.aborted = True


def test_many_connections_are_checked_in_rounds_of_batches():
    connections = Connections(10_000)
    clients = [Counted() for _ in range(1200)]
    for client in clients:
        connections.opened(client)
    assert [connections.tick(1.0), connections.tick(2.0), connections.tick(3.0)] == [
        True, True, False,
    ]  # fmt: skip
    assert all(len(client.checks) == 1 for client in clients)
    assert connections.now == 3.0


def test_clients_above_the_limit_are_asked_to_leave():
    connections = Connections(1)
    first, second = Counted(), Counted()
    connections.opened(first)
    connections.opened(second)
    assert (first.drained, second.drained, len(connections)) == (False, True, 2)
    connections.closed(second)
    connections.abort()
    assert (first.aborted, second.aborted) == (True, False)
