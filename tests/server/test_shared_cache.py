"""The shared cache over a real Redis: what is stored comes back, and a dead Redis costs nothing."""

import asyncio
import contextlib

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.queue_servers import REDIS, process
from tests.server.test_dataplane import IDENTITY, add, infer, plane, request
from tuili.errors import InvalidArgument
from tuili.server.serving.shared_cache import SharedCache, content_digest, packed, unpacked


def texts(*items):
    found = np.empty(len(items), dtype=object)
    found[:] = items
    return found


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array(3, np.int64),
        np.zeros((0, 4), np.float16),
        np.array([True, False]),
        np.arange(4).astype(ml_dtypes.bfloat16),
        texts(b"a", b"", b"\xff\0"),
    ],
)
def test_outputs_are_the_same_after_storing(array):
    found = unpacked(packed({"y": array}))["y"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tolist() == array.tolist()


@given(st.binary(max_size=40))
def test_bytes_that_are_no_outputs_raise_and_do_nothing_else(value):
    with contextlib.suppress(msgspec.DecodeError, ValueError, TypeError):
        assert isinstance(unpacked(value), dict)


def test_the_digest_follows_content_and_configuration(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"weights")
    first = content_digest(tmp_path, "{}")
    assert content_digest(tmp_path, "{}") == first
    assert content_digest(tmp_path, '{"max_batch_size": 4}') != first
    (tmp_path / "model.onnx").write_bytes(b"Weights")
    assert content_digest(tmp_path, "{}") != first


async def look_up(cache, key):
    waiting = asyncio.get_running_loop().create_future()
    cache.look_up(key, waiting.set_result)
    return await asyncio.wait_for(waiting, 5)


def test_what_one_server_keeps_another_finds(tmp_path):
    async def scenario(url):
        one, other = SharedCache(url, timeout_s=5), SharedCache(url, timeout_s=5)
        assert await look_up(other, b"key") is None
        one.keep(b"key", {"y": np.array([1, 2])})
        await one.close()
        found = await look_up(other, b"key")
        assert found["y"].tolist() == [1, 2]
        await other.close()

    with process(REDIS, tmp_path) as port:
        asyncio.run(scenario(f"redis://127.0.0.1:{port}"))


def test_a_redis_that_is_not_there_is_a_miss_and_is_then_left_alone(caplog):
    async def scenario():
        cache = SharedCache("redis://127.0.0.1:9")
        assert await look_up(cache, b"key") is None
        answers = []
        cache.look_up(b"key", answers.append)
        assert answers == [None]  # at once, without asking
        cache.keep(b"key", {})
        await cache.close()

    asyncio.run(scenario())
    assert "left alone for 5 s" in caplog.text


def test_other_urls_are_refused():
    with pytest.raises(InvalidArgument, match="'http://x' is no redis:// URL"):
        SharedCache("http://x")


def add_model(repository):
    add(repository, "m", 1, config=IDENTITY + "response_cache { enable: true }")


async def asked(repository, url):
    """How many runs one request took on a server of its own, and its answer."""
    dataplane = plane(repository, response_cache_url=url, response_cache_timeout_s=10)
    await dataplane.start()
    found = await infer(dataplane, request(shape=(1, 2)))
    (stats,) = dataplane.model_statistics("m")["model_stats"]
    await dataplane.close(10)
    return stats["execution_count"], found.outputs[0].data.tolist()


def test_a_second_server_answers_without_running_until_the_version_changes(tmp_path):
    repository = tmp_path / "models"
    add_model(repository)

    async def scenario(url):
        first, second = await asked(repository, url), await asked(repository, url)
        (repository / "m" / "1" / "weights").write_bytes(b"other")
        third = await asked(repository, url)
        assert [runs for runs, _ in (first, second, third)] == [1, 0, 1]
        assert first[1] == second[1] == third[1]

    with process(REDIS, tmp_path) as port:
        asyncio.run(scenario(f"redis://127.0.0.1:{port}"))


def test_a_dead_redis_does_not_keep_a_model_from_answering(tmp_path):
    add_model(tmp_path / "models")
    runs, _ = asyncio.run(asked(tmp_path / "models", "redis://127.0.0.1:9"))
    assert runs == 1
