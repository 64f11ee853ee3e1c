"""What is found while a model runs, in C: memory of late sizes, and whether a loop goes on."""

from __future__ import annotations


def shared_state(heap: int, late: int, loops: int) -> str:
    """The state that the threads of one run share, and what thread 0 does to it.

    `heap` and `late` count the buffers whose size depends on data, without and with outputs.
    """
    late_fields = f"""
    int64_t capacity[{late}];        /* bytes of each late buffer, outputs after the heap */
    int64_t late_bytes;         /* their sum */"""
    loop_fields = f"""
    int32_t going[{loops}];           /* whether each loop has another round */
    int64_t deadline;           /* of all loops, in ns of the monotonic clock; 0: not set yet */"""
    return "\n".join(
        [
            _SHARED.format(
                heap=heap + 1,
                late=late_fields if late else "",
                loops=loop_fields if loops else "",
            ),
            *([_ROOM] if late else []),
            *([CLOCK + _ROUNDS] if loops else []),
        ]
    )


_SHARED = """
typedef struct tl_shared {{      /* what the threads of one run share */
    tl_run *run;
    tl_barrier barrier;
    tl_share *shares;           /* one for each thread */
    int32_t fault;              /* the code of an error that a kernel found */
    int32_t stop;               /* the check at which all threads leave */
    void *heap[{heap}];             /* buffers whose size depends on data */{late}{loops}
}} tl_shared;
"""

_ROOM = """
/* Makes a late buffer, or a larger one when it is too small; what `keep` bytes hold is kept.
 * On failure the run stops at `check`. */
static void tl_room(tl_shared *shared, int32_t check, int32_t index, void **slot, int64_t size,
                    int64_t keep, const char *name)
{
    tl_run *run = shared->run;
    const int64_t capacity = shared->capacity[index], used = shared->late_bytes - capacity;
    const int64_t most = run->most_bytes > 0 ? run->most_bytes : INT64_MAX / 2;
    if (capacity && size >= 0 && size <= capacity)
        return;
    if (size < 0 || size > most - used) {
        shared->stop = check;
        snprintf(run->error, (size_t)run->error_size,
                 "tensor '%s', whose shape depends on data, needs %lld bytes; such tensors of one "
                 "run may take %lld in all, and others hold %lld (limit data_bytes)",
                 name, (long long)size, (long long)most, (long long)used);
        return;
    }
    /* A buffer that grows once will grow again. */
    int64_t wanted = capacity ? size + size / 2 : size;
    wanted = (wanted <= most - used ? wanted : size) / TL_ALIGNMENT * TL_ALIGNMENT + TL_ALIGNMENT;
    if (capacity && !keep) {
        free(*slot);
        *slot = NULL;
    }
    void *memory = aligned_alloc(TL_ALIGNMENT, (size_t)wanted);
    if (!memory) {
        shared->stop = check;
        snprintf(run->error, (size_t)run->error_size,
                 "tensor '%s', whose shape depends on data, needs %lld bytes; there is no memory "
                 "for it", name, (long long)size);
        return;
    }
    if (capacity && keep) {
        memcpy(memory, *slot, (size_t)capacity);
        free(*slot);
    }
    *slot = memory;
    shared->capacity[index] = wanted;
    shared->late_bytes = used + wanted;
}

static inline void tl_need(tl_shared *shared, int32_t check, int32_t index, void **slot,
                           int64_t size, const char *name)
{
    tl_room(shared, check, index, slot, size, 0, name);
}

static inline void tl_keep(tl_shared *shared, int32_t check, int32_t index, void **slot,
                           int64_t size, const char *name)
{
    tl_room(shared, check, index, slot, size, 1, name);
}
"""

CLOCK = """
#include <time.h>

static int64_t tl_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}
"""

_ROUNDS = """
/* Whether a loop has another round; past the limits of the run it stops at `check`. */
static int32_t tl_another_round(tl_shared *shared, int32_t check, int64_t round, int64_t limit,
                                uint8_t going, const char *label)
{
    tl_run *run = shared->run;
    if (!going || round >= limit)
        return 0;
    if (shared->fault) {        /* what decides about the end may be wrong */
        shared->stop = check;
        return 0;
    }
    if (run->most_rounds > 0 && round >= run->most_rounds) {
        shared->stop = check;
        snprintf(run->error, (size_t)run->error_size,
                 "%s has run %lld rounds without an end; give it a limit, or allow more "
                 "(limit loop_rounds)", label, (long long)round);
    } else if (run->most_loop_ns > 0) {
        if (!shared->deadline)
            shared->deadline = tl_now() + run->most_loop_ns;
        else if (tl_now() > shared->deadline) {
            shared->stop = check;
            snprintf(run->error, (size_t)run->error_size,
                     "%s has not ended after %g s and %lld rounds (limit loop_seconds)", label,
                     (double)run->most_loop_ns * 1e-9, (long long)round);
        }
    }
    return !shared->stop;
}
"""
