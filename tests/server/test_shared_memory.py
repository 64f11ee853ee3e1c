"""System shared memory of clients."""

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tuili.errors import (
    AlreadyExists,
    InternalError,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unsupported,
    UserError,
)
from tuili.runtime.streaming import stream
from tuili.server.execution.running import execute
from tuili.server.memory import asked
from tuili.server.memory.shared_memory import Lease, Regions
from tuili.server.memory.sigbus import GUARD
from tuili.server.protocol.messages import InferRequest, InputTensor, RequestedOutput


@pytest.fixture
def key():
    path = Path(f"/dev/shm/tuili-test-{os.getpid()}")
    path.write_bytes(bytes(range(64)))
    yield path.name
    path.unlink(missing_ok=True)


@pytest.fixture
def regions(key):
    found = Regions(allowed=True)
    found.register("r", "/" + key, 16, 32)
    yield found
    found.close()


def at(offset, size, region="r"):
    return {
        "shared_memory_region": region,
        "shared_memory_offset": offset,
        "shared_memory_byte_size": size,
    }


def lent(regions, *inputs, outputs=()):
    wanted = [RequestedOutput(f"y{n}", each) for n, each in enumerate(outputs)] or None
    request = InferRequest("m", list(inputs), outputs=wanted)
    return request, regions.lend(request)


def test_an_input_is_a_view_of_the_region(regions, key):
    tensor = InputTensor("x", "UINT8", (4,), None, at(2, 4))
    lent(regions, tensor)
    found = tensor.data
    assert found.tolist() == [18, 19, 20, 21]
    with Path("/dev/shm", key).open("r+b") as stream:
        stream.seek(18)
        stream.write(b"\xff")
    assert found[0] == 255


def test_an_output_is_written_to_its_place(regions, key):
    Lease(regions).write("y", at(0, 16), np.array([1.5, 2.5], np.float32), "FP32")
    raw = Path("/dev/shm", key).read_bytes()
    assert np.frombuffer(raw[16:24], np.float32).tolist() == [1.5, 2.5]
    assert raw[24:] == bytes(range(24, 64))


def test_status_and_unregister(regions, key):
    assert regions.status("r") == [{"name": "r", "key": "/" + key, "offset": 16, "byte_size": 32}]
    regions.unregister("r")
    regions.unregister("r")
    assert regions.status() == []
    with pytest.raises(NotFound, match="Unable to find system shared memory region: 'r'"):
        regions.status("r")


def test_a_view_outlives_its_registration(regions):
    found = Lease(regions).read(InputTensor("x", "UINT8", (1,), None, at(0, 1)))
    regions.unregister()
    assert found.tolist() == [16]


def test_registering_twice(regions, key):
    with pytest.raises(AlreadyExists, match="shared memory region 'r' already in manager"):
        regions.register("r", key, 0, 1)


def test_regions_leave_descriptors_for_connections(regions, key, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (12, 12))
    regions.register("2", key, 0, 1)
    regions.register("3", key, 0, 1)
    with pytest.raises(Unavailable, match="region '4': there are 3 regions, and no more at once"):
        regions.register("4", key, 0, 1)
    regions.unregister("2")
    regions.register("4", key, 0, 1)


@pytest.mark.parametrize(
    ("name", "offset", "size", "text"),
    [
        ("missing-key", 0, 1, "Unable to open shared memory region: 'missing-key'"),
        (None, 0, 65, "it ends at byte 65 of 64"),
        (None, 60, 5, "it ends at byte 65 of 64"),
        (None, -1, 5, "invalid args"),
        (None, 0, 0, "invalid args"),
        (None, 1 << 62, 1 << 62, "invalid args"),
        ("../../etc/passwd", 0, 1, "invalid shm key"),
        ("..", 0, 1, "invalid shm key"),
        ("", 0, 1, "invalid shm key"),
        ("triton_python_backend_shm_region_1", 0, 1, "reserved prefix 'triton_python"),
        ("/tuili_host_1", 0, 1, "reserved prefix 'tuili_host_"),
    ],
)
def test_regions_that_are_refused(regions, key, name, offset, size, text):
    with pytest.raises((InvalidArgument, InternalError), match=text):
        regions.register("new", key if name is None else name, offset, size)
    assert len(regions.status()) == 1


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (at(0, 4, "none"), "Unable to find shared memory region: 'none'"),
        (at(33, 0), "Invalid offset for shared memory region: 'r'"),
        (at(30, 4), r"Invalid offset \+ byte size for shared memory region: 'r'"),
        (at(1, (1 << 64) - 1), "Integer overflow detected: byte_size"),
        (at(-1, 4), "Invalid offset for shared memory region"),
        (at(0, -4), r"Invalid offset \+ byte size"),
        (at(1 << 63, 1 << 63), "Invalid offset for shared memory region"),
        (at(0, "4"), "'shared_memory_byte_size' must be a whole number, got '4'"),
        (at(0, 3), "input byte size mismatch for input 'x' for model 'm'. Expected 4, got 3"),
    ],
)
def test_places_that_are_refused(regions, parameters, text):
    with pytest.raises(UserError, match=text):
        regions.lend(InferRequest("m", [InputTensor("x", "FP32", (1,), None, parameters)]))


def test_a_region_too_small_for_the_output(regions):
    with pytest.raises(InvalidArgument, match="should be at least 8 bytes"):
        Lease(regions).write("y", at(0, 4), np.zeros(2, np.float32), "FP32")


def test_an_object_that_its_owner_shrank_is_refused_not_touched(regions, key):
    os.truncate(f"/dev/shm/{key}", 8)
    with pytest.raises(InvalidArgument, match="was truncated by its owner"):
        Lease(regions).read(InputTensor("x", "UINT8", (4,), None, at(0, 4)))


def test_an_object_that_shrinks_while_it_is_read_gives_zeros_and_is_refused_from_then_on(key):
    page = 4096
    Path("/dev/shm", key).write_bytes(b"\7" * 3 * page)
    regions = Regions(allowed=True)
    regions.register("r", key, 0, 3 * page)
    tensor = InputTensor("x", "UINT8", (3 * page,), None, at(0, 3 * page))
    lease = Lease(regions)
    found = lease.read(tensor)
    lease.require_whole()
    os.truncate(f"/dev/shm/{key}", page)
    assert found.sum() == 7 * page
    with pytest.raises(InvalidArgument, match="was truncated by its owner"):
        lease.require_whole()
    os.truncate(f"/dev/shm/{key}", 3 * page)
    with pytest.raises(InvalidArgument, match="was truncated by its owner"):
        lease.read(tensor)
    regions.close()


def test_a_write_into_an_object_that_shrank_is_an_error_and_no_crash(key, monkeypatch):
    page = 4096
    Path("/dev/shm", key).write_bytes(bytes(3 * page))
    regions = Regions(allowed=True)
    regions.register("r", key, 0, 3 * page)
    lease = Lease(regions)
    take = lease.place

    def shrink_then(parameters):
        view = take(parameters)
        os.truncate(f"/dev/shm/{key}", 0)
        return view

    monkeypatch.setattr(lease, "place", shrink_then)
    with pytest.raises(InvalidArgument, match="was truncated by its owner"):
        lease.write("y", at(0, 3 * page), np.ones(3 * page, np.uint8), "UINT8")
    regions.close()


def test_an_unlinked_object_serves_on(regions, key):
    Path("/dev/shm", key).unlink()
    tensor = InputTensor("x", "UINT8", (4,), None, at(2, 4))
    assert Lease(regions).read(tensor).tolist() == [18, 19, 20, 21]


def test_a_fault_in_memory_that_is_nobodys_ends_the_process_as_ever():
    source = """if True:
        import mmap, os
        from tuili.server.memory.sigbus import GUARD
        GUARD.watch(mmap.mmap(-1, 4096))
        descriptor = os.memfd_create("x")
        os.ftruncate(descriptor, 4096)
        other = mmap.mmap(descriptor, 4096)
        os.ftruncate(descriptor, 0)
        other[0]
    """
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=False)
    assert done.returncode == -signal.SIGBUS


@pytest.mark.parametrize("decided_by_data", [False, True])
def test_what_a_model_counts_before_it_writes_no_client_changes(regions, key, decided_by_data):
    class Model:
        def run(self, inputs):
            before = inputs["x"].copy()
            Path("/dev/shm", key).write_bytes(bytes(64))
            return {"changed": (inputs["x"] != before).any()}

    model = Model()
    model.decided_by_data = decided_by_data
    tensor = InputTensor("x", "UINT8", (16,), None, at(8, 16))
    lent(regions, tensor)
    item = SimpleNamespace(materialized=lambda: {"x": tensor.data.reshape(4, 4)[1:]})
    assert execute(model, [item]).outputs["changed"] == (not decided_by_data)


def test_off_by_default():
    regions = Regions(allowed=False)
    with pytest.raises(
        Unsupported, match="Client shared memory is disabled. Start the server with"
    ):
        regions.register("r", "k", 0, 1)
    with pytest.raises(Unsupported, match="disabled"):
        regions.lend(InferRequest("m", [InputTensor("x", "UINT8", (1,), None, at(0, 1))]))


def test_a_region_goes_with_the_last_request_that_holds_it(regions, key):
    leases = [lent(regions, outputs=[at(0, 4)])[1] for _ in range(2)]
    regions.unregister()
    late = lent(regions, outputs=[at(0, 4)])[1]
    for lease in (*leases, late):
        assert [each["name"] for each in regions.status()] == ["r"]
        lease.end()
        lease.end()
    assert regions.status() == []


def test_a_name_that_is_registered_anew_is_another_region_for_later_requests_only(regions, key):
    first = lent(regions, outputs=[at(0, 4)])[1]
    regions.unregister("r")
    regions.register("r", key, 0, 8)
    second = lent(regions, outputs=[at(0, 4)])[1]
    first.write("y0", at(0, 4), np.array([1, 1, 1, 1], np.uint8), "UINT8")
    second.write("y0", at(0, 4), np.array([2, 2, 2, 2], np.uint8), "UINT8")
    raw = Path("/dev/shm", key).read_bytes()
    assert raw[:4] == b"\2\2\2\2"
    assert raw[16:20] == b"\1\1\1\1"
    first.end()
    assert [each["byte_size"] for each in regions.status()] == [8]
    second.end()
    assert [each["byte_size"] for each in regions.status()] == [8]


def test_a_request_that_is_refused_holds_nothing(regions):
    good = InputTensor("x", "UINT8", (4,), None, at(0, 4))
    with pytest.raises(NotFound, match="Unable to find shared memory region: 'none'"):
        lent(regions, good, outputs=[at(0, 4, "none")])
    regions.unregister()
    assert regions.status() == []


def test_all_descriptors_and_mappings_are_let_go(regions, key):
    def mapped():
        return Path("/proc/self/maps").read_text().count(key)

    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for size in range(1, 9):
        regions.register("more", key, 0, size)
        request, lease = lent(regions, InputTensor("x", "UINT8", (1,), None, at(0, 1, "more")))
        regions.unregister("more")
        assert mapped() == 2
        assert descriptors() == before + 1
        lease.end()
        del request, lease
    assert descriptors() == before
    assert mapped() == 1


def test_of_cuda_there_is_nothing(regions):
    assert asked.status(regions, "cuda", "") == []
    with pytest.raises(NotFound, match="Unable to find cuda shared memory region: 'c'"):
        asked.status(regions, "cuda", "c")
    with pytest.raises(InvalidArgument, match="this server has no CUDA"):
        asked.register(regions, "cuda", "c", {"key": "k", "byte_size": 1})
    asked.unregister(regions, "cuda", "")
    with pytest.raises(Unsupported, match="disabled"):
        asked.unregister(Regions(allowed=False), "cuda", "")


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"byte_size": 1}, "region 'n' needs a 'key', got None"),
        ({"key": "k", "byte_size": "1"}, "region 'n': 'byte_size' must be a number, got '1'"),
        ({"key": "k", "byte_size": 1, "offset": True}, "'offset' must be a number, got True"),
    ],
)
def test_what_is_no_region_is_told(regions, parameters, text):
    with pytest.raises(InvalidArgument, match=text):
        asked.register(regions, "system", "n", parameters)


def test_memory_that_is_taken_away_under_a_large_copy_is_survived(tmp_path):
    size = 1 << 20
    with (tmp_path / "memory").open("wb+") as file:
        file.truncate(size)
        memory = mmap.mmap(file.fileno(), size)
        guarded = GUARD.watch(memory)
        os.ftruncate(file.fileno(), size // 2)
    stream(memoryview(memory), np.ones(size, np.uint8))
    assert guarded.lost
