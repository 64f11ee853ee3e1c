"""Model: answers, refusals, memory and many threads, on hand-written native code."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.native_models import (
    ADD_WEIGHT,
    COPY,
    TWICE,
    add_weight,
    build_library,
    contents,
    positives,
    spec,
    twice,
)
from tuili.artifact import write_artifact
from tuili.errors import InvalidArgument, InvalidArtifact, NotFound, Unavailable
from tuili.runtime import Model, load, pool_threads
from tuili.runtime.plan import MAX_PLANS
from tuili.tensors import DType

pytestmark = pytest.mark.skipif(os.name != "posix", reason="native models are for POSIX")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one artifact of each kind."""
    folder = tmp_path_factory.mktemp("models")
    twice(folder)
    positives(folder)
    add_weight(folder)
    return folder


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """More threads than a small machine has, so that they get in each other's way."""
    monkeypatch.setattr("tuili.runtime.loading.available_threads", lambda: 8)


@pytest.fixture
def model(shelf: Path) -> Model:
    return load(shelf / "twice.tuili")


def rows(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).random((count, 3), np.float32)


# -- answers -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_run_answers_for_any_size_and_threads(shelf: Path, threads: int, count: int) -> None:
    x = rows(count)
    y = load(shelf / "twice.tuili", threads=threads).run({"x": x})
    assert list(y) == ["y"]
    np.testing.assert_array_equal(y["y"], 2 * x)


def test_the_signature_is_known(model: Model) -> None:
    assert [str(s) for s in (*model.inputs, *model.outputs)] == ["x: f32[N, 3]", "y: f32[N, 3]"]
    assert repr(model) == "<Model 'toy': (x: f32[N, 3]) -> (y: f32[N, 3])>"


def test_weights_come_from_the_file(shelf: Path, tmp_path: Path) -> None:
    x = np.arange(5)
    for path in (shelf / "add.tuili", add_weight(tmp_path, single_file=True).path):
        np.testing.assert_array_equal(load(path).run({"x": x})["y"], x + 7)


def memory_without_numpy(x: Any) -> Any:
    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return x

    return Tensor()


@pytest.mark.parametrize(
    "make",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.astype(">f4"),
        lambda x: np.frombuffer(b"?" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape),
        lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
        np.ma.masked_array,
        memory_without_numpy,
    ],
    ids=["fortran", "strided", "big-endian", "misaligned", "read-only", "subclass", "protocol"],
)
def test_arrays_of_any_layout_are_accepted(model: Model, make: Callable[[Any], Any]) -> None:
    x = rows(4)
    np.testing.assert_array_equal(model.run({"x": make(x)})["y"], 2 * x)


def test_a_copy_and_a_pickled_model_are_loaded_from_its_path(shelf: Path) -> None:
    x = rows(3)
    with load(shelf / "twice.tuili", threads=1) as model:
        others = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
        assert [other.threads for other in others] == [1, 1]
    for other in others:  # whose life is their own
        assert np.array_equal(other.run({"x": x})["y"], 2 * x)


def test_a_scalar_is_an_array_of_rank_zero(tmp_path: Path) -> None:
    library = build_library(TWICE.replace("run->dims[0] * 3", "1"), tmp_path / "x.so")
    made = contents(library, [spec("x", "f32")], [spec("y", "f32")])
    model = load(write_artifact(made, tmp_path / "x.tuili").path)
    assert model.run({"x": np.float32(21)})["y"] == 42


def test_run_into_fills_the_arrays_given(model: Model) -> None:
    x, y = rows(5), np.empty((5, 3), np.float32)
    result = model.run_into({"x": x}, {"y": y})
    assert result["y"] is y
    np.testing.assert_array_equal(y, 2 * x)
    np.testing.assert_array_equal(model.run_into({"x": x}, {})["y"], 2 * x)


# -- data-dependent outputs ----------------------------------------------------------------------


def test_an_output_whose_size_depends_on_data_is_not_copied(shelf: Path) -> None:
    model = load(shelf / "positives.tuili")
    x = np.array([1, -2, 3, -4, 5], np.float32)
    results = [model.run({"x": sign * x})["y"] for sign in (1, -1, 0)]
    assert model.decided_by_data
    assert [list(y) for y in results] == [[1, 3, 5], [2, 4], []]
    assert not results[0].flags.owndata
    results[0][0] = 9  # the caller may write to what it got


def test_such_an_output_outlives_its_model(shelf: Path) -> None:
    model = load(shelf / "positives.tuili")
    y = model.run({"x": np.ones(100_000, np.float32)})["y"]
    model.close()
    del model
    gc.collect()
    assert y.sum() == 100_000


def test_memory_of_such_outputs_is_given_back(shelf: Path) -> None:
    model = load(shelf / "positives.tuili")
    x = np.ones(1_000_000, np.float32)
    model.run({"x": x})
    before = resident_bytes()
    for _ in range(50):
        model.run({"x": x})
    assert resident_bytes() - before < 16_000_000


def test_a_failing_run_raises_its_message_and_the_next_run_works(shelf: Path) -> None:
    model = load(shelf / "positives.tuili")
    bad = np.array([1, np.nan], np.float32)
    for _ in range(3):
        with pytest.raises(
            InvalidArgument, match="model 'toy': the run failed: node 'f': element 1"
        ):
            model.run({"x": bad})
    assert list(model.run({"x": bad[:1]})["y"]) == [1]


# -- refusals ------------------------------------------------------------------------------------

F32 = np.float32
ROOT = Path(__file__).parents[2]
WRONG_FEEDS: list[tuple[Any, str]] = [
    ({}, r"model 'toy': no array for x: f32\[N, 3\]; given: nothing"),
    ({"X": rows(1)}, r"no input 'X'.* Inputs: x"),
    ({"x": rows(1), "z": rows(1)}, "no input 'z'"),
    ([rows(1)], "expected a mapping from input names to arrays, found list"),
    (rows(1), "expected a mapping from input names to arrays, found ndarray"),
    ({"x": [[1.0, 2.0], [3.0]]}, r"'x' is a list, of which NumPy cannot make an array for x: f32"),
    ({"x": [["a", "b", "c"]]}, "'x', list: its elements are <U1, expected f32"),
    ({"x": "abc"}, r"input 'x' is a str, expected a NumPy array for x: f32\[N, 3\]"),
    ({"x": np.zeros((1, 3))}, r"has dtype f64, expected f32 .* \.astype\('float32'\)"),
    ({"x": np.zeros((1, 3), np.int32)}, "has dtype i32, expected f32"),
    ({"x": np.zeros((1, 3), "datetime64[s]")}, r"has dtype datetime64\[s\], expected f32"),
    ({"x": np.array([["a", "b", "c"]])}, "has dtype str, expected f32"),
    ({"x": np.zeros(3, F32)}, r"shape \[3\] of rank 1, expected \[N, 3\] of rank 2"),
    ({"x": np.zeros((1, 4), F32)}, r"shape \[1, 4\], expected \[N, 3\]: axis 1 is 4, expected 3"),
    ({"x": None}, "input 'x' is a NoneType"),
]


@pytest.mark.parametrize(("feeds", "message"), WRONG_FEEDS)
@pytest.mark.parametrize("method", ["run", "run_into"])
def test_wrong_feeds_are_named(model: Model, feeds: Any, message: str, method: str) -> None:
    call = model.run if method == "run" else lambda feeds: model.run_into(feeds, {})
    with pytest.raises(InvalidArgument, match=message):
        call(feeds)
    assert model.run({"x": rows(2)})["y"].shape == (2, 3)


X = rows(2)
WRONG_RESULTS: list[tuple[Any, str]] = [
    ({"z": X}, "no output 'z'"),
    ({"y": [1]}, "'y' is a list"),
    ({"y": np.zeros((3, 3), F32)}, r"is f32\[3, 3\], expected f32\[2, 3\]"),
    ({"y": np.zeros((2, 3))}, r"is f64\[2, 3\], expected f32"),
    ({"y": np.asfortranarray(X)}, "not C-contiguous"),
    ({"y": np.frombuffer(bytes(24), F32).reshape(2, 3)}, "is read-only"),
    ({"y": X}, "shares memory with another array"),
]


@pytest.mark.parametrize(("outputs", "message"), WRONG_RESULTS)
def test_wrong_result_arrays_are_named(model: Model, outputs: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        model.run_into({"x": X}, outputs)


def test_a_data_dependent_output_cannot_be_given(shelf: Path) -> None:
    with pytest.raises(
        InvalidArgument, match="cannot be given: the output's shape depends on the data"
    ):
        load(shelf / "positives.tuili").run_into({"x": X[0]}, {"y": X[1]})


def test_a_plan_that_fails_is_an_error(shelf: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"no memory plan for x \[13\]: 13 is not for us"):
        load(shelf / "add.tuili").run({"x": np.zeros(13, np.int64)})


def test_too_much_memory_is_an_error_and_not_a_crash(shelf: Path) -> None:
    model = load(shelf / "add.tuili")
    with pytest.raises(
        InvalidArgument, match="inputs too large for this machine: .* bytes for inter"
    ):
        model.run({"x": np.zeros(1_000_001, np.int64)})
    assert model.run({"x": np.zeros(1, np.int64)})["y"] == 7


def test_an_output_too_large_for_memory_is_an_error(tmp_path: Path) -> None:
    library = build_library(TWICE, tmp_path / "x.so")
    made = contents(library, [spec("x", "f32", "N", 3)], [spec("y", "f32", "N*1000000000000", 3)])
    with pytest.raises(
        InvalidArgument, match="inputs too large for this machine: Unable to allocate"
    ):
        load(write_artifact(made, tmp_path / "x.tuili").path).run({"x": rows(2)})


def test_an_input_too_small_for_an_output_is_an_error(tmp_path: Path) -> None:
    library = build_library(TWICE, tmp_path / "x.so")
    made = contents(library, [spec("x", "f32", "N", 3)], [spec("y", "f32", "N - 4", 3)])
    with pytest.raises(
        InvalidArgument, match=r"\[N - 4, 3\] would be \[-2, 3\] for N = 2: an input"
    ):
        load(write_artifact(made, tmp_path / "x.tuili").path).run({"x": rows(2)})


# -- loading -------------------------------------------------------------------------------------


def test_nothing_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no artifact at .*nothing.tuili"):
        load(tmp_path / "nothing.tuili")


@pytest.mark.parametrize("threads", [-1, 100_000])
def test_absurd_threads_are_refused(shelf: Path, threads: int) -> None:
    with pytest.raises(InvalidArgument, match=f"threads is {threads}, expected 0"):
        load(shelf / "twice.tuili", threads=threads)


@pytest.mark.parametrize(("asked", "given"), [(0, 3), (1, 1), (2, 2), (3, 3), (64, 3)])
def test_threads_are_at_most_those_available(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, asked: int, given: int
) -> None:
    monkeypatch.setattr("tuili.runtime.loading.available_threads", lambda: 3)
    assert load(shelf / "twice.tuili", threads=asked).threads == given


def test_loading_and_running_start_no_process(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError(f"a process was started: {args}")

    monkeypatch.setattr("subprocess.Popen.__init__", refuse)
    monkeypatch.setattr("os.system", refuse)
    model = load(shelf / "add.tuili")
    assert model.run({"x": np.zeros(1, np.int64)})["y"] == 7


@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.STR], ids=lambda d: d.value)
def test_every_element_type_passes_through(tmp_path: Path, dtype: DType) -> None:
    library = build_library(COPY, tmp_path / "x.so", (f"-DITEM_BYTES={dtype.itemsize}",))
    made = contents(library, [spec("x", dtype.value, "N")], [spec("y", dtype.value, "N")])
    model = load(write_artifact(made, tmp_path / "x.tuili").path)
    x = np.array([0, 1, 1, 0, 1]).astype(dtype.numpy)
    y = model.run({"x": x})["y"]
    assert y.dtype == x.dtype
    assert y.tobytes() == x.tobytes()


LIBRARIES = [
    ("TL_EXPORT uint32_t tuili_abi(void) { return 9; }", "has ABI 9, this tuili calls ABI 2"),
    ("TL_EXPORT uint32_t tuili_abi(void) { return 2; }", "has no function tuili_num_offsets"),
    ("int x;", "has no function tuili_abi"),
]


@pytest.mark.parametrize(("source", "message"), LIBRARIES)
def test_a_foreign_library_is_refused(tmp_path: Path, source: str, message: str) -> None:
    from tuili.codegen.toolchain import Toolchain, Unit
    from tuili.runtime.native import abi_header

    unit = Unit("run", f"{abi_header()}\n{source}\n")
    library = Toolchain.find().build([unit], tmp_path / "x.so")
    made = contents(library, [spec("x", "f32", "N")], [spec("y", "f32", "N")])
    with pytest.raises(InvalidArtifact, match=message):
        load(write_artifact(made, tmp_path / "x.tuili").path)


def test_a_library_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(b"\x7fELF" + b"?" * 1000)
    made = contents(tmp_path / "x.so", [spec("x", "f32", "N")], [spec("y", "f32", "N")])
    with pytest.raises(InvalidArtifact, match="the library does not load"):
        load(write_artifact(made, tmp_path / "x.tuili").path)


def test_absurd_numbers_of_offsets_are_refused(tmp_path: Path) -> None:
    library = build_library(
        TWICE.replace("{ return 1; }", "{ return INT64_MAX; }"), tmp_path / "x.so"
    )
    made = contents(library, [spec("x", "f32", "N", 3)], [spec("y", "f32", "N", 3)])
    with pytest.raises(InvalidArtifact, match="asks for 9223372036854775807 offsets"):
        load(write_artifact(made, tmp_path / "x.tuili").path)


def test_an_artifact_replaced_at_its_path_is_loaded_afresh(tmp_path: Path) -> None:
    first = load(twice(tmp_path).path)
    library = build_library(TWICE.replace("y[i] = 2", "y[i] = 1 + 2"), tmp_path / "y.so")
    made = contents(library, [spec("x", "f32", "N", 3)], [spec("y", "f32", "N", 3)])
    second = load(write_artifact(made, tmp_path / "twice.tuili").path)
    x = rows(3)
    np.testing.assert_array_equal(first.run({"x": x})["y"], 2 * x)
    np.testing.assert_array_equal(second.run({"x": x})["y"], 2 * x + 1)


def test_loading_over_and_over_takes_no_more_memory(tmp_path: Path) -> None:
    paths = [add_weight(tmp_path).path, twice(tmp_path, single_file=True).path]
    feeds: list[dict[str, Any]] = [{"x": np.arange(100)}, {"x": rows(100)}]

    def serve() -> None:
        for path, feed in zip(paths, feeds, strict=True):
            with load(path) as model:
                model.run(feed)

    for _ in range(20):
        serve()
    before = resident_bytes()
    for _ in range(300):
        serve()
    assert resident_bytes() - before < 4_000_000


def test_a_process_may_end_while_outputs_and_threads_are_alive(shelf: Path) -> None:
    script = (
        "import numpy as np, sys, tuili.runtime as r\n"
        "model = r.load(sys.argv[1] + '/twice.tuili', threads=3)\n"
        "y = model.run({'x': np.ones((99, 3), np.float32)})\n"
        "z = r.load(sys.argv[1] + '/positives.tuili').run({'x': np.ones(9, np.float32)})\n"
        "np.kept = z\n"
    )
    command = [sys.executable, "-X", "dev", "-c", script, str(shelf)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("single_file", [False, True])
def test_loading_while_a_writer_replaces_gives_one_or_the_other(
    tmp_path: Path, single_file: bool
) -> None:
    path = tmp_path / "add.tuili"
    library = build_library(ADD_WEIGHT, tmp_path / "add.so")
    i64 = [spec("x", "i64", "N")], [spec("y", "i64", "N")]
    done = threading.Event()

    def write(weight: int) -> None:
        weights = [(0, np.full(weight * 8 + 8, weight, np.int64))]
        write_artifact(contents(library, *i64, weights), path, single_file=single_file)

    def replace_it() -> None:
        for weight in range(2, 100):
            write(weight)
        done.set()

    write(1)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(replace_it)
        loads = 0
        while not done.is_set() or not loads:
            try:
                model = load(path)
            except Unavailable:
                continue  # it was replaced too often, and says so
            loads += 1
            answer = int(model.run({"x": np.zeros(1, np.int64)})["y"][0])
            assert model.artifact.manifest.weights.bytes == answer * 64 + 64
        writer.result()


@pytest.mark.parametrize("single_file", [False, True])
def test_unloading_removes_the_code(tmp_path: Path, single_file: bool) -> None:
    path = twice(tmp_path, single_file=single_file).path
    trace = "memfd:twice.tuili" if single_file else str(path)
    with load(path) as model:
        model.run({"x": rows(1)})
        assert trace in Path("/proc/self/maps").read_text()
    del model
    gc.collect()
    assert trace not in Path("/proc/self/maps").read_text()


def test_a_closed_model_is_unavailable(shelf: Path) -> None:
    model = load(shelf / "twice.tuili")
    model.run({"x": rows(1)})
    model.close()
    model.close()
    for count in (1, 2):
        with pytest.raises(Unavailable, match="model 'toy' is closed"):
            model.run({"x": rows(count)})


# -- memory --------------------------------------------------------------------------------------


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_memory_does_not_grow_with_the_variety_of_shapes(model: Model) -> None:
    for count in range(1, 2 * MAX_PLANS):
        model.run({"x": rows(count)})
    before = resident_bytes()
    for count in range(1, 20 * MAX_PLANS):
        model.run({"x": np.zeros((count, 3), F32)})
    assert len(model._plans) == MAX_PLANS
    assert resident_bytes() - before < 8_000_000


def test_a_shape_in_use_keeps_its_plan(model: Model) -> None:
    hot = rows(7)
    model.run({"x": hot})
    kept = model._plans[((7, 3),)]
    for count in range(100, 100 + 5 * MAX_PLANS):
        model.run({"x": rows(count)})
        model.run({"x": hot})
    assert model._plans[((7, 3),)] is kept


def test_one_large_run_does_not_hold_memory_for_ever(shelf: Path) -> None:
    # In a process of its own: a server that ran in this one may have told malloc to keep memory.
    script = (
        "import sys, numpy as np\n"
        "from tests.runtime.test_model import resident_bytes\n"
        "from tuili.runtime import load\n"
        "model = load(sys.argv[1])\n"
        "small = np.zeros((10, 3), np.float32)\n"
        "model.run({'x': small})\n"
        "before = resident_bytes()\n"
        "model.run({'x': np.zeros((8_000_000, 3), np.float32)})\n"
        "model.run({'x': small})\n"
        "print(resident_bytes() - before)\n"
    )
    command = [sys.executable, "-c", script, str(shelf / "twice.tuili")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(result.stdout) < 32_000_000


# -- many threads --------------------------------------------------------------------------------


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize("threads", [1, 3])
def test_many_callers_at_once_get_their_own_answers(shelf: Path, threads: int) -> None:
    model = load(shelf / "twice.tuili", threads=threads)

    def call(seed: int) -> bool:
        x = rows(seed % 50 + 1, seed)
        return bool(np.array_equal(model.run({"x": x})["y"], 2 * x))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(2000)))
    assert len(model._contexts) <= model._max_idle


@pytest.mark.usefixtures("eight_cpus")
def test_a_run_on_fewer_threads_keeps_to_them_and_gives_the_same(shelf: Path) -> None:
    model, x = load(shelf / "twice.tuili", threads=3), rows(1000)
    seen: list[int] = []
    for run in (model.run, lambda feeds: model.run_on(feeds, 1), model.run):
        np.testing.assert_array_equal(run({"x": x})["y"], 2 * x)
        seen += [context.run.threads for context in model._contexts]
    assert seen == [3, 1, 3]


@pytest.mark.usefixtures("eight_cpus")
def test_models_share_one_pool_that_grows(shelf: Path) -> None:
    models = [load(shelf / "twice.tuili", threads=threads) for threads in (2, 5, 3)]
    assert len({model._pool for model in models}) == 1
    assert pool_threads() >= 5
    x = rows(1000)
    for model in models:
        np.testing.assert_array_equal(model.run({"x": x})["y"], 2 * x)


@pytest.mark.usefixtures("eight_cpus")
def test_closing_while_others_run_is_safe(shelf: Path) -> None:
    for _ in range(20):
        model = load(shelf / "twice.tuili", threads=2)
        x = rows(50)
        started = threading.Event()
        refused: list[int] = []

        def call(
            model: Model = model, x: Any = x, started: Any = started, refused: Any = refused
        ) -> None:
            for _ in range(200):
                try:
                    np.testing.assert_array_equal(model.run({"x": x})["y"], 2 * x)
                except Unavailable:
                    refused.append(1)
                started.set()

        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        started.wait(10)
        model.close()
        for caller in callers:
            caller.join()
        with pytest.raises(Unavailable, match="closed"):
            model.run({"x": x})


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_runs_with_threads_of_its_own(shelf: Path) -> None:
    model = load(shelf / "twice.tuili", threads=3)
    x = rows(1000)
    model.run({"x": x})
    child = os.fork()
    if child == 0:
        good = all(np.array_equal(model.run({"x": x})["y"], 2 * x) for _ in range(100))
        os._exit(0 if good else 1)
    for _ in range(100):
        np.testing.assert_array_equal(model.run({"x": x})["y"], 2 * x)
    assert os.waitpid(child, 0)[1] == 0


def test_a_run_releases_the_gil(tmp_path: Path) -> None:
    source = TWICE.replace(
        "shared_t shared = {.run = run};",
        "const volatile int32_t *go = run->inputs[0]; while (!*go) ;"
        "shared_t shared = {.run = run};",
    )
    library = build_library(source, tmp_path / "x.so")
    made = contents(library, [spec("x", "f32", "N", 3)], [spec("y", "f32", "N", 3)])
    model = load(write_artifact(made, tmp_path / "x.tuili").path)
    x = np.zeros((1, 3), np.float32)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(model.run, {"x": x})
        x[0, 0] = 1  # native code waits for this store, which needs the GIL
        answer.result(30)


def test_the_runtime_loads_no_compiler() -> None:
    script = (
        "import sys, tuili.runtime\n"
        "walls = ('compiler', 'importers', 'codegen', 'passes', 'lower', 'ops', 'ir')\n"
        "print([name for name in sys.modules if name.split('.')[:1] == ['tuili'] "
        "and name.split('.')[1:2] and name.split('.')[1] in walls])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_metadata_is_there(tmp_path: Path) -> None:
    library = build_library(TWICE, tmp_path / "x.so")
    made = contents(library, [spec("x", "f32", "N", 3)], [spec("y", "f32", "N", 3)])
    made = replace(made, metadata={"author": "me"})
    model = load(write_artifact(made, tmp_path / "x.tuili").path)
    assert model.artifact.manifest.metadata == {"author": "me"}
