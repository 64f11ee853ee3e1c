"""What `/metrics` tells."""

from tuili.server.telemetry.prometheus import exposition
from tuili.server.telemetry.statistics import Statistics


def counted(name, *, caches):
    statistics = Statistics(name, "1")
    statistics.caches = caches
    return statistics


def test_only_models_with_a_cache_count_its_hits():
    text = exposition([counted("with", caches=True), counted("without", caches=False)], True)
    assert 'nv_cache_num_hits_per_model{model="with",version="1"} 0' in text
    assert 'nv_cache_num_hits_per_model{model="without"' not in text
    assert "nv_cache" not in exposition([counted("without", caches=False)], True)
