"""What `/metrics` tells."""

from tuili.server.telemetry.prometheus import exposition, write_exposition
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


def test_of_very_many_sizes_of_batches_the_last_are_counted_together():
    statistics = counted("any", caches=False)
    for rows in range(1, 5001):
        statistics.record_batch(rows, 1, (1, 1, 1), "idle")
        statistics.settle()
    counts = {rows: each.infer.count for rows, each in statistics.batches.items()}
    assert sum(counts.values()) == statistics.execution_count == 5000
    assert [rows for rows in counts if rows > 1000] == [1024, 2048, 4096, 8192]
    assert counts[2048] == 1024


def test_many_models_are_written_with_turns_for_others():
    many = [counted(f"m{at}", caches=False) for at in range(200)]
    work = write_exposition(many, True)
    assert sum(1 for _ in work) > 10
    assert exposition(many, True).count("tuili_request_duration_seconds_count") == 200
