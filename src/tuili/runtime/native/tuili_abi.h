/* tuili native ABI, version 2: what a compiled model and the runtime that loads it agree on.
 *
 * A compiled model is one shared library without dependencies beyond libc. The runtime
 *   1. checks tuili_abi() == TUILI_ABI;
 *   2. makes one tl_pool for the process with the first library it loads and lends it to all others;
 *   3. for every new set of dims: fills run->dims, calls tuili_plan, keeps run->offsets;
 *   4. for every run: fills inputs and outputs, calls tuili_run.
 * A tl_run belongs to one thread at a time; different tl_run may run at the same time.
 */
#ifndef TUILI_ABI_H
#define TUILI_ABI_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1           /* futex and CLOCK_MONOTONIC under every -std */
#endif
#include <stdint.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TUILI_ABI 2u
#define TL_ALIGNMENT 64         /* of weights, arena and every buffer inside them */

#ifndef TL_EXPORT
#define TL_EXPORT __attribute__((visibility("default")))
#endif
#ifndef TL_HIDDEN
#define TL_HIDDEN __attribute__((visibility("hidden")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A body of parallel work: called once on each of n threads at the same time, with tid 0..n-1. */
typedef void tl_body_fn(void *arg, int32_t tid, int32_t n);

/* Threads that several models share. A library uses a pool only through these fields, so that the
 * pool may come from a library that another version of tuili compiled. */
typedef struct tl_pool {
    uint32_t abi;
    int32_t threads;            /* the most threads that work at once, callers included */
    /* Calls body on up to n threads, the caller being tid 0, and returns when all have returned.
     * The team is smaller than n when threads are busy with other calls; body gets its real size.
     * All members of a team run at the same time, so that they may wait for each other. */
    void (*parallel)(struct tl_pool *pool, int32_t n, tl_body_fn *body, void *arg);
} tl_pool;

/* Everything that one run needs. */
typedef struct tl_run {
    const void *const *inputs;  /* in manifest order, C-contiguous */
    void **outputs;             /* in manifest order; a NULL entry has a data-dependent shape:
                                   the run allocates it, the caller frees it with tuili_free */
    int64_t *dims;              /* one per manifest symbol; those of inputs are set by the caller,
                                   data-dependent ones are written by the run */
    const uint8_t *weights;     /* TL_ALIGNMENT aligned */
    uint8_t *arena;             /* TL_ALIGNMENT aligned, at least what tuili_plan returned */
    int64_t *offsets;           /* tuili_num_offsets() entries, written by tuili_plan */
    tl_pool *pool;              /* may be NULL when threads is 1 */
    int32_t threads;
    char *error;                /* a message when the result is not 0 */
    int64_t error_size;
    /* Runs a node that has no native code, in two calls: with outputs NULL it computes and sets the
     * data-dependent dims, with inputs NULL it copies the results. 0: done; else error is set. */
    int32_t (*host)(void *context, int32_t step, const void *const *inputs, void *const *outputs,
                    int64_t *dims);
    void *host_context;
    int64_t most_rounds;        /* limits of what depends on data, 0: none. Rounds of a loop, */
    int64_t most_loop_ns;       /* time from the first round of the first loop, */
    int64_t most_bytes;         /* memory of tensors whose shape depends on data */
} tl_run;

TL_EXPORT uint32_t tuili_abi(void);
TL_EXPORT int64_t tuili_num_offsets(void);
TL_EXPORT int64_t tuili_plan(tl_run *run);      /* dims, threads -> offsets; arena bytes, < 0: error */
TL_EXPORT int32_t tuili_run(tl_run *run);       /* 0: all outputs are written */
TL_EXPORT void tuili_free(void *memory);        /* an output that the run allocated */
TL_EXPORT tl_pool *tuili_pool_create(int32_t threads);              /* NULL: out of memory */
TL_EXPORT int32_t tuili_pool_resize(tl_pool *pool, int32_t threads); /* the new number of threads */

#ifdef __cplusplus
}
#endif
#endif
