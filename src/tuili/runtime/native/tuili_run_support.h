/* What the run function of every compiled model uses: shares of a grid, barrier, arena planner. */
#ifndef TUILI_RUN_SUPPORT_H
#define TUILI_RUN_SUPPORT_H

/* -- subnormal numbers ------------------------------------------------------------------------ */

/* From here on this thread's results below 2^-126 are zeros; returns what `tl_results_as` takes to go
 * back. Intel's processors take over a hundred cycles for each subnormal number, so that networks
 * whose numbers fade (untrained ones, decaying states) run up to 20 times as long with them. */
static inline uint32_t tl_results_flushed(void)
{
#ifdef __SSE2__
    const uint32_t before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 1u << 15);
    return before;
#else
    return 0;
#endif
}

static inline void tl_results_as(uint32_t before)
{
#ifdef __SSE2__
    __builtin_ia32_ldmxcsr(before);
#else
    (void)before;
#endif
}

/* -- shares of a step's grid ------------------------------------------------------------------ */

typedef struct tl_span {
    int64_t begin, end;
} tl_span;

/* The items of thread tid among n; the first total % n threads take one more. */
static inline tl_span tl_split(int64_t total, int32_t tid, int32_t n)
{
    const int64_t each = total / n, more = total % n;
    const int64_t begin = each * tid + (tid < more ? tid : more);
    return (tl_span){begin, begin + each + (tid < more)};
}

/* How much of its share of a step a thread has handed out: the number of the step in the upper half,
 * pieces in the lower. A word of an earlier step means that nobody has begun. */
typedef struct tl_share {
    uint64_t word __attribute__((aligned(64)));
} tl_share;

/* A thread's walk through a step: the pieces of its own share, then what others have left. A thread
 * that a busy neighbour or a slow core holds up thus loses its share to the others, piece by piece. */
typedef struct tl_claim {
    int64_t begin, end;         /* the items to work on now */
    int64_t total;
    tl_share *shares;
    uint32_t step, pieces;
    int32_t tid, n, passed;     /* shares that are known to be empty */
} tl_claim;

/* `step` counts from 1 and rises; pieces 0: the step is not worth sharing. */
static inline tl_claim tl_claim_start(tl_share *shares, uint32_t step, int64_t total,
                                      uint32_t pieces, int32_t tid, int32_t n)
{
    return (tl_claim){0, 0, total, shares, step, pieces, tid, n, 0};
}

/* Takes the next piece. Apart, or every step of the run function would hold a copy. */
static __attribute__((noinline, unused)) int tl_claim_piece(tl_claim *c)
{
    for (; c->passed < c->n; c->passed++) {
        const int32_t owner = (c->tid + c->passed) % c->n;
        const tl_span share = tl_split(c->total, owner, c->n);
        const int64_t size = share.end - share.begin;
        uint64_t *word = &c->shares[owner].word, seen = __atomic_load_n(word, __ATOMIC_RELAXED);
        for (;;) {
            const uint64_t piece = seen >> 32 == c->step ? seen & UINT32_MAX : 0;
            if (piece >= c->pieces)
                break;
            const uint64_t taken = (uint64_t)c->step << 32 | (piece + 1);
            if (!__atomic_compare_exchange_n(word, &seen, taken, 0, __ATOMIC_RELAXED,
                                             __ATOMIC_RELAXED))
                continue;
            seen = taken;
            c->begin = share.begin + size * (int64_t)piece / c->pieces;
            c->end = share.begin + size * (int64_t)(piece + 1) / c->pieces;
            if (c->begin < c->end)
                return 1;
        }
    }
    return 0;
}

static inline int tl_claim_next(tl_claim *c)
{
    if (c->n > 1 && c->pieces > 0)
        return tl_claim_piece(c);
    if (c->tid != 0 || c->passed++)     /* all of it, once */
        return 0;
    c->end = c->total;
    return c->total > 0;
}

/* -- barrier ---------------------------------------------------------------------------------- */

/* Zero-initialised. The phase is its sense: it changes when the last thread arrives. */
typedef struct tl_barrier {
    uint32_t phase;
    uint32_t sleepers;
    int32_t arrived __attribute__((aligned(64)));   /* apart from the word that all spin on */
    char pad[60];
} tl_barrier;

/* Returns when n threads have called it; what they wrote before is visible to all after. */
static inline void tl_barrier_wait(tl_barrier *barrier, int32_t n)
{
    if (n == 1)
        return;
    const uint32_t phase = __atomic_load_n(&barrier->phase, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&barrier->arrived, 1, __ATOMIC_ACQ_REL) == n) {
        __atomic_store_n(&barrier->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&barrier->phase, phase + 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&barrier->sleepers, __ATOMIC_SEQ_CST))
            tl_wake(&barrier->phase);
        return;
    }
    if (tl_spin(&barrier->phase, phase) != phase)
        return;
    /* Announced before the sleep looks at the phase, so that the last thread cannot miss it. */
    __atomic_add_fetch(&barrier->sleepers, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&barrier->phase, __ATOMIC_SEQ_CST) == phase)
        tl_sleep(&barrier->phase, phase);
    __atomic_sub_fetch(&barrier->sleepers, 1, __ATOMIC_RELAXED);
}

/* -- arena planner ---------------------------------------------------------------------------- */

typedef struct tl_planned {
    int64_t size, index;
    int32_t first;
} tl_planned;

/* A product of sizes; a large number instead of one that overflows. */
static inline __attribute__((unused)) int64_t tl_mul(int64_t a, int64_t b)
{
    const int64_t most = INT64_MAX / 16;
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) || product > most ? most : product;
}

static inline int64_t tl_aligned(int64_t size)
{
    return (size + TL_ALIGNMENT - 1) / TL_ALIGNMENT * TL_ALIGNMENT;
}

/* Largest first, then by start of life, then by number: a total order, so that qsort is stable. */
static int tl_by_size(const void *left, const void *right)
{
    const tl_planned *a = left, *b = right;
    if (a->size != b->size)
        return a->size < b->size ? 1 : -1;
    if (a->first != b->first)
        return a->first < b->first ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

/* Greedy by size with best fit (arXiv 2001.03288). Buffer i of sizes[i] bytes is alive from step
 * first[i] to step last[i]. Writes aligned offsets, returns the bytes of the arena; -1 when a size
 * is negative, the sum overflows or memory is out. */
static __attribute__((unused)) int64_t tl_plan_arena(int64_t n, const int64_t *sizes,
                                                     const int32_t *first, const int32_t *last,
                                                     int64_t *offsets)
{
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++)
        if (sizes[i] < 0 || __builtin_add_overflow(total, sizes[i], &total)
            || total > INT64_MAX / 4)
            return -1;
    if (n == 0)
        return 0;
    tl_planned *order = malloc((size_t)n * (sizeof *order + sizeof(int64_t)));
    if (!order)
        return -1;
    int64_t *placed = (int64_t *)(order + n);       /* by offset, then by size */
    for (int64_t i = 0; i < n; i++)
        order[i] = (tl_planned){sizes[i], i, first[i]};
    qsort(order, (size_t)n, sizeof *order, tl_by_size);
    int64_t top = 0;
    for (int64_t count = 0; count < n; count++) {
        const int64_t me = order[count].index, wanted = tl_aligned(sizes[me]);
        int64_t best = -1, best_gap = 0, end = 0;
        for (int64_t j = 0; j < count; j++) {
            const int64_t other = placed[j];
            if (first[other] > last[me] || first[me] > last[other])
                continue;
            const int64_t gap = offsets[other] - end, other_end = offsets[other] + tl_aligned(sizes[other]);
            if (gap >= wanted && (best < 0 || gap < best_gap)) {
                best = end;
                best_gap = gap;
            }
            end = other_end > end ? other_end : end;
        }
        offsets[me] = best < 0 ? end : best;
        top = offsets[me] + wanted > top ? offsets[me] + wanted : top;
        int64_t at = count;
        for (; at > 0; at--) {
            const int64_t before = placed[at - 1];
            if (offsets[before] < offsets[me]
                || (offsets[before] == offsets[me] && tl_aligned(sizes[before]) <= wanted))
                break;
            placed[at] = before;
        }
        placed[at] = me;
    }
    free(order);
    return top;
}

/* -- exports that are the same in every library ------------------------------------------------- */

TL_EXPORT uint32_t tuili_abi(void)
{
    return TUILI_ABI;
}

TL_EXPORT void tuili_free(void *memory)
{
    free(memory);
}

#endif
