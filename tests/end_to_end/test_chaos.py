"""A slice of `make chaos`: hosts die, leak, hang and crash under load, and nothing is lost."""

import re

import pytest

from benchmarks import chaos


@pytest.mark.slow
def test_nothing_is_wrong_refused_or_lost_while_hosts_die():
    fates, metrics = chaos.run(calm_s=1.0, chaos_s=15.0, kill_every_s=2.5, rate=8.0)
    assert chaos.verdict(fates, latency=False) == []
    assert all(fate.chaos.answers > 10 for fate in fates)
    deaths = dict(re.findall(r'tuili_host_deaths\{host="(\w+)-1",instance="0"\} (\d+)', metrics))
    assert int(deaths["killed"]) > 0
    assert deaths["quiet"] == "0"
    poisoned = [fate for fate in fates if fate.subject.poisoned]
    assert all(fate.poison > 0 and fate.texts for fate in poisoned)
