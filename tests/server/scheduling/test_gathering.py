"""Gather: a batch waits for those who come again, and for nobody else."""

from collections.abc import Iterator

from tuili.server.scheduling.gathering import Gather

TURN_S = 5e-6
LONG_S = 1.0


def batches(
    gather: Gather, count: int, come: list[tuple[float, int]]
) -> Iterator[tuple[int, float]]:
    """Size and delay of batches where so many requests come at these times after the first one."""
    start = 0.0
    for _ in range(count):
        start += LONG_S
        now = start
        while True:
            waiting = sum(number for at, number in come if now >= start + at)
            if not gather.holds(waiting, now):
                break
            now += TURN_S
        yield waiting, now - start


def test_two_halves_of_the_clients_become_one_batch():
    sizes = [size for size, _ in batches(Gather(64), 100, [(0.0, 4), (50e-6, 4)])]
    assert sizes[0] == 4
    assert sizes[40:60] == [8] * 20


def test_clients_that_come_one_by_one_become_one_batch():
    come = [(40e-6 * number, 1) for number in range(32)]
    assert [size for size, _ in batches(Gather(64), 100, come)][40:60] == [32] * 20


def test_a_single_client_waits_in_ever_fewer_batches():
    gather = Gather(64)
    delays = [delay for _, delay in batches(gather, 320, [(0.0, 1)])]
    assert [at + 1 for at, delay in enumerate(delays) if delay] == [32, 96, 224]
    assert max(delays) < 100e-6
    # Another one is noticed all the same, and soon again once there have been two.
    late = batches(gather, 9000, [(0.0, 1), (50e-6, 1)])
    first = next(at for at, (size, _) in enumerate(late) if size == 2)
    assert first < 512
    assert all(size == 2 for size, _ in late)


def test_who_left_is_waited_for_once():
    gather = Gather(64)
    assert list(batches(gather, 64, [(0.0, 5), (50e-6, 3)]))[-1][0] == 8
    delays = [delay for _, delay in batches(gather, 20, [(0.0, 5)])]
    assert [delay > 0 for delay in delays] == [True] * 3 + [False] * 17


def test_who_comes_after_all_are_gone_is_not_waited_for():
    assert {size for size, _ in batches(Gather(64), 100, [(0.0, 4), (200e-6, 4)])} == {4}


def test_a_full_batch_leaves_at_once():
    gather = Gather(8)
    assert list(batches(gather, 100, [(0.0, 9)])) == [(9, 0.0)] * 100
