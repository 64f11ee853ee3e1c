"""What is remembered of sequences by what has no queue of them."""

from tuili.server.scheduling.remembered import Remembered


def test_sequences_are_remembered_until_they_end_or_idle():
    kept = Remembered[str](idle_s=10)
    kept.keep(7, "candidate", 0.0, ends=False)
    kept.keep("x", "stable", 5.0, ends=False)
    assert [kept.get(7, 9.0), kept.get("x", 9.0)] == ["candidate", "stable"]
    assert len(kept) == 2
    assert kept.get(7, 10.0) is None
    kept.keep("x", "stable", 11.0, ends=True)
    assert len(kept) == 0


def test_a_sequence_that_goes_on_elsewhere_is_forgotten():
    kept = Remembered[bool](idle_s=10)
    for sequence in (1, 2, 3):
        kept.keep(sequence, True, 0.0, ends=False)
    kept.forget(2)
    kept.forget(9)
    assert [kept.get(at, 1.0) for at in (1, 2, 3)] == [True, None, True]
    kept.clear()
    assert len(kept) == 0
