"""The C that every library carries: thread pool, barrier, shares, arena planner."""

from __future__ import annotations

import ctypes
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.native_models import build_library
from tuili.lower.memory import Interval, MemoryPlan, by_size, place_in_order

# Entry points for the tests; all stress loops are in C, where races have a chance.
PROBES = """
TL_EXPORT int64_t plan(int64_t n, const int64_t *sizes, const int32_t *first, const int32_t *last,
                       int64_t *offsets)
{
    return tl_plan_arena(n, sizes, first, last, offsets);
}

TL_EXPORT void split(int64_t total, int32_t tid, int32_t n, int64_t *span)
{
    const tl_span found = tl_split(total, tid, n);
    span[0] = found.begin;
    span[1] = found.end;
}

/* Threads take pieces in a given order; `items` counts how often each item was taken. */
TL_EXPORT void claim(int64_t total, int32_t pieces, int32_t n, int64_t count, const int32_t *order,
                     int32_t *items)
{
    tl_share shares[64] = {{0}};
    tl_claim claims[64];
    for (int32_t tid = 0; tid < n; tid++)
        claims[tid] = tl_claim_start(shares, 7, total, (uint32_t)pieces, tid, n);
    for (int64_t i = 0; i < count + n; i++) {
        tl_claim *c = &claims[i < count ? order[i] : i - count];
        do {    /* after the given order every thread works until nothing is left */
            if (!tl_claim_next(c)) break;
            for (int64_t item = c->begin; item < c->end; item++) items[item]++;
        } while (i >= count);
    }
}

typedef struct {
    tl_share *shares;
    tl_barrier barrier;
    int64_t rounds, total;
    int32_t *items;
} steps_t;

static void walk(void *arg, int32_t tid, int32_t n)
{
    steps_t *steps = arg;
    for (int64_t round = 1; round <= steps->rounds; round++) {
        tl_claim c = tl_claim_start(steps->shares, (uint32_t)round, steps->total, 3, tid, n);
        while (tl_claim_next(&c))
            for (int64_t item = c.begin; item < c.end; item++)
                __atomic_add_fetch(&steps->items[item], 1, __ATOMIC_RELAXED);
        tl_barrier_wait(&steps->barrier, n);
    }
}

/* Every item is counted once a round, whoever comes late. */
TL_EXPORT int64_t stress_claims(tl_pool *pool, int32_t threads, int64_t rounds, int64_t total)
{
    tl_share shares[64] = {{0}};
    int32_t items[256] = {0};
    steps_t steps = {.shares = shares, .rounds = rounds, .total = total, .items = items};
    pool->parallel(pool, threads, walk, &steps);
    int64_t wrong = 0;
    for (int64_t item = 0; item < total; item++) wrong += items[item] != rounds;
    return wrong;
}

TL_EXPORT int32_t pool_threads(tl_pool *pool) { return pool->threads; }

typedef struct {
    tl_pool *pool;
    tl_barrier barrier;
    int64_t rounds, calls, wrong, most;
    int64_t cells[64];
} work_t;

/* Each thread writes its cell, waits, and looks at everybody's. */
static void body(void *arg, int32_t tid, int32_t n)
{
    work_t *work = arg;
    for (int64_t round = 1; round <= work->rounds; round++) {
        work->cells[tid] = round;
        tl_barrier_wait(&work->barrier, n);
        for (int32_t other = 0; other < n; other++)
            if (work->cells[other] != round)
                __atomic_add_fetch(&work->wrong, 1, __ATOMIC_RELAXED);
        tl_barrier_wait(&work->barrier, n);
    }
    if (tid == 0) {
        work->calls++;
        work->most = n > work->most ? n : work->most;
    }
}

/* Returns wrong observations; the largest team goes to `most`. */
TL_EXPORT int64_t stress(tl_pool *pool, int32_t threads, int64_t calls, int64_t rounds,
                         int64_t *most)
{
    work_t work = {.pool = pool, .rounds = rounds};
    for (int64_t call = 0; call < calls; call++)
        pool->parallel(pool, threads, body, &work);
    *most = work.most;
    return work.wrong + (work.calls != calls);
}

typedef struct {
    tl_pool *pool;
    int64_t calls, rounds, wrong;
    int32_t threads;
} caller_t;

static void *caller(void *arg)
{
    caller_t *self = arg;
    int64_t most;
    self->wrong = stress(self->pool, self->threads, self->calls, self->rounds, &most);
    return NULL;
}

TL_EXPORT int64_t stress_callers(tl_pool *pool, int32_t callers, int32_t threads, int64_t calls)
{
    pthread_t running[64];
    caller_t arguments[64];
    int64_t wrong = 0;
    for (int32_t i = 0; i < callers; i++) {
        arguments[i] = (caller_t){pool, calls, 2, 0, threads};
        pthread_create(&running[i], NULL, caller, &arguments[i]);
    }
    for (int32_t i = 0; i < callers; i++) {
        pthread_join(running[i], NULL);
        wrong += arguments[i].wrong;
    }
    return wrong;
}

static void nest(void *arg, int32_t tid, int32_t n)
{
    work_t *outer = arg;
    int64_t most;
    (void)tid, (void)n;
    __atomic_add_fetch(&outer->wrong, stress(outer->pool, 3, 20, 2, &most), __ATOMIC_RELAXED);
    __atomic_add_fetch(&outer->calls, 1, __ATOMIC_RELAXED);
}

TL_EXPORT int64_t stress_nested(tl_pool *pool, int32_t threads, int64_t calls)
{
    work_t work = {.pool = pool};
    for (int64_t call = 0; call < calls; call++)
        pool->parallel(pool, threads, nest, &work);
    return work.wrong + (work.calls < calls);
}

typedef struct { tl_pool *pool; int32_t depth, sizes[8]; } levels_t;

/* A call inside a call; only tid 0 goes deeper. */
static void level(void *arg, int32_t tid, int32_t n)
{
    levels_t *levels = arg;
    if (tid)
        return;
    levels->sizes[levels->depth++] = n;
    if (levels->depth < 4)
        levels->pool->parallel(levels->pool, levels->depth == 1 ? 1 : 64, level, levels);
}

/* Team sizes of calls that are under way at once: the first two want one thread, the others all. */
TL_EXPORT void nested_sizes(tl_pool *pool, int32_t *sizes)
{
    levels_t levels = {.pool = pool};
    pool->parallel(pool, 1, level, &levels);
    memcpy(sizes, levels.sizes, 4 * sizeof *sizes);
}

static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* CPU time that the process takes in `ns` nanoseconds after some parallel work. */
TL_EXPORT int64_t idle_cpu_ns(tl_pool *pool, int32_t threads, int64_t ns)
{
    int64_t most;
    stress(pool, threads, 10, 1, &most);
    const int64_t before = cpu_ns();
    const struct timespec pause = {.tv_nsec = ns};
    nanosleep(&pause, NULL);
    return cpu_ns() - before;
}

TL_EXPORT int64_t tuili_num_offsets(void) { return 0; }
TL_EXPORT int64_t tuili_plan(tl_run *run) { (void)run; return 0; }
TL_EXPORT int32_t tuili_run(tl_run *run) { (void)run; return 0; }
"""

KINDS = {"futex": (), "portable": ("-DTL_NO_FUTEX",)}


def load_probes(folder: Path, flags: tuple[str, ...]) -> ctypes.CDLL:
    strict = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-function")
    library = ctypes.CDLL(str(build_library(PROBES, folder / "probes.so", (*strict, *flags))))
    for name in ("plan", "stress", "stress_callers", "stress_nested", "idle_cpu_ns"):
        getattr(library, name).restype = ctypes.c_int64
    library.tuili_pool_create.restype = ctypes.c_void_p
    return library


@pytest.fixture(scope="module", params=KINDS)
def probes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return load_probes(tmp_path_factory.mktemp("probes"), KINDS[request.param])


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return load_probes(tmp_path_factory.mktemp("planner"), ())


def make_pool(probes: ctypes.CDLL, threads: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(probes.tuili_pool_create(threads))


I64 = ctypes.c_int64


# -- pool and barrier ----------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "calls"), [(1, 10_000), (2, 10_000), (4, 1_000)])
def test_tiny_calls_in_a_row_meet_at_every_barrier(
    probes: ctypes.CDLL, threads: int, calls: int
) -> None:
    most = I64()
    pool = make_pool(probes, threads)
    assert probes.stress(pool, threads, I64(calls), I64(1), ctypes.byref(most)) == 0
    assert most.value == threads


def test_callers_at_once_share_the_workers(probes: ctypes.CDLL) -> None:
    assert probes.stress_callers(make_pool(probes, 4), 5, 3, I64(400)) == 0


def test_calls_inside_calls_do_not_wait_for_each_other(probes: ctypes.CDLL) -> None:
    assert probes.stress_nested(make_pool(probes, 3), 3, I64(50)) == 0


def test_a_call_among_others_takes_no_more_than_its_share(probes: ctypes.CDLL) -> None:
    sizes = (ctypes.c_int32 * 4)()
    probes.nested_sizes(make_pool(probes, 12), sizes)
    assert list(sizes) == [1, 1, 12 // 3, 12 // 4]


def test_a_team_is_never_larger_than_the_pool(probes: ctypes.CDLL) -> None:
    most = I64()
    pool = make_pool(probes, 2)
    assert probes.stress(pool, 8, I64(10), I64(1), ctypes.byref(most)) == 0
    assert most.value == 2


@pytest.mark.parametrize(("asked", "given"), [(3, 3), (1, 1), (0, 1), (-5, 1), (1 << 30, 4096)])
def test_resizing_is_within_bounds(probes: ctypes.CDLL, asked: int, given: int) -> None:
    pool = make_pool(probes, 2)
    assert probes.tuili_pool_resize(pool, asked) == given
    assert probes.pool_threads(pool) == given


def test_a_pool_grows_and_shrinks_between_calls(probes: ctypes.CDLL) -> None:
    pool = make_pool(probes, 1)
    sizes: list[int] = []
    for threads in (1, 3, 2, 4, 1):
        probes.tuili_pool_resize(pool, threads)
        most = I64()
        assert probes.stress(pool, 4, I64(20), I64(1), ctypes.byref(most)) == 0
        sizes.append(most.value)
    assert sizes == [1, 3, 2, 4, 1]


def test_an_idle_pool_takes_no_cpu(probes: ctypes.CDLL) -> None:
    used = probes.idle_cpu_ns(make_pool(probes, 4), 4, I64(200_000_000))
    assert used < 10_000_000


@given(
    st.integers(0, 200),
    st.integers(0, 9),
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1), max_size=40))
    ),
)
def test_pieces_are_taken_once_in_whatever_order_threads_come(
    planner: ctypes.CDLL, total: int, pieces: int, team: tuple[int, list[int]]
) -> None:
    n, order = team
    items = np.zeros(max(total, 1), np.int32)
    planner.claim(
        I64(total), pieces, n, I64(len(order)), (ctypes.c_int32 * max(len(order), 1))(*order),
        items.ctypes.data_as(ctypes.c_void_p),
    )  # fmt: skip
    assert (items[:total] == 1).all()


@pytest.mark.parametrize("total", [1, 5, 64, 200])
def test_threads_that_race_for_pieces_take_each_once(probes: ctypes.CDLL, total: int) -> None:
    assert probes.stress_claims(make_pool(probes, 4), 4, I64(500), I64(total)) == 0


@given(st.integers(0, 10**6), st.integers(1, 64))
def test_shares_cover_the_grid_and_differ_by_one(
    planner: ctypes.CDLL, total: int, threads: int
) -> None:
    spans: list[tuple[int, int]] = []
    for tid in range(threads):
        span = (I64 * 2)()
        planner.split(I64(total), tid, threads, span)
        spans.append((span[0], span[1]))
    assert spans[0][0] == 0
    assert spans[-1][1] == total
    assert all(left[1] == right[0] for left, right in pairwise(spans))
    sizes = {end - begin for begin, end in spans}
    assert max(sizes) - min(sizes) <= 1


# -- arena planner -------------------------------------------------------------------------------


def plan_in_c(library: ctypes.CDLL, lives: list[Interval]) -> tuple[int, list[int]]:
    sizes = np.array([life.size for life in lives], np.int64)
    first = np.array([life.first for life in lives], np.int32)
    last = np.array([life.last for life in lives], np.int32)
    offsets = np.full(max(len(lives), 1), -1, np.int64)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (sizes, first, last, offsets)]
    size = library.plan(I64(len(lives)), *pointers)
    return size, offsets[: len(lives)].tolist()


def interval(data: tuple[int, int, int]) -> Interval:
    size, first, length = data
    return Interval(size, first, first + length)


LIVES = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 8)).map(interval),
    max_size=40,
)


@given(LIVES)
def test_buffers_alive_together_do_not_overlap(planner: ctypes.CDLL, lives: list[Interval]) -> None:
    size, offsets = plan_in_c(planner, lives)
    for i, one in enumerate(lives):
        assert offsets[i] % 64 == 0
        assert 0 <= offsets[i] <= size - one.size
        for j, other in enumerate(lives[:i]):
            if one.first <= other.last and other.first <= one.last:
                apart = offsets[i] + one.size <= offsets[j] or offsets[j] + other.size <= offsets[i]
                assert apart


@given(LIVES)
def test_the_plan_is_the_one_made_at_compile_time(
    planner: ctypes.CDLL, lives: list[Interval]
) -> None:
    expected: MemoryPlan = place_in_order(lives, by_size(lives))
    size, offsets = plan_in_c(planner, lives)
    assert (size, offsets) == (expected.size, list(expected.offsets))
    assert expected.lower_bound <= size


def chain(sizes: list[int]) -> list[Interval]:
    return [Interval(size, step, step + 1) for step, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("lives", "size"),
    [
        ([], 0),
        (chain([1]), 64),
        (chain([64, 64, 64, 64]), 128),
        (chain([100, 1000, 100]), 128 + 1024),
        ([Interval(64, 0, 9), Interval(64, 1, 2), Interval(64, 3, 4)], 128),
    ],
)
def test_simple_plans_are_the_best_ones(
    planner: ctypes.CDLL, lives: list[Interval], size: int
) -> None:
    assert plan_in_c(planner, lives)[0] == size


BAD: list[list[int]] = [[-1], [64, -64], [2**62, 2**62], [2**63 - 1], [2**63 - 65, 1]]


@pytest.mark.parametrize("sizes", BAD)
def test_absurd_sizes_have_no_plan(planner: ctypes.CDLL, sizes: list[int]) -> None:
    lives: Any = [Interval(size, 0, 1) for size in sizes]
    assert plan_in_c(planner, lives)[0] == -1
