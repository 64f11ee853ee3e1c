/* The thread pool that every compiled model carries; the runtime makes one and shares it.
 *
 * Theory of operation. Free workers form a stack. A call takes up to n - 1 of them (its team), hands
 * each its part through the worker's own ticket word, works as tid 0 itself and waits until the
 * team's count of unfinished members is zero. Calls from several threads, or from inside a body,
 * take what is free, up to an equal share for each call, and else run alone: nothing waits for another
 * call, so nothing can deadlock. Threads at work, callers included, stay within pool->threads. A waiting thread
 * spins for TL_SPIN_NS, then sleeps, so that an idle pool takes no CPU. Threads start on first use,
 * which also heals a forked child: it forgets the parent's threads and starts its own.
 */
#include <pthread.h>
#include <signal.h>

#define TL_STACK_BYTES ((size_t)8 << 20)
#define TL_MAX_THREADS 4096
#define TL_ASLEEP 0x80000000u   /* in `unfinished`: the caller sleeps */

typedef struct tl_worker {
    uint32_t ticket __attribute__((aligned(128)));  /* rises with every piece of work */
    uint32_t asleep;
    tl_body_fn *body;
    void *arg;
    int32_t tid, n;
    int32_t caller_cpu;                 /* -1: not known */
    uint32_t *unfinished;               /* the count in the team's first worker */
    struct tl_worker *next;             /* in the stack of free workers, or in the team */
    uint32_t count __attribute__((aligned(128)));   /* unfinished members of the team it leads */
} tl_worker;

typedef struct tl_threads {
    tl_pool pool;                       /* what others see; the first member */
    pthread_mutex_t lock;               /* guards everything below */
    tl_worker *free;
    int32_t workers;                    /* started and alive */
    int32_t busy;                       /* threads at work, callers included */
    int32_t calls;                      /* callers at work */
    struct tl_threads *next_pool;
} tl_threads;

static pthread_mutex_t tl_pools_lock = PTHREAD_MUTEX_INITIALIZER;
static tl_threads *tl_pools;            /* all pools of this library, for fork */

#ifdef __linux__
#include <sched.h>

static cpu_set_t tl_allowed;            /* what the process may use, when its first pool is made */

static int32_t tl_here(void) { return sched_getcpu(); }

static void tl_allow(void)
{
    if (!CPU_COUNT(&tl_allowed) && sched_getaffinity(0, sizeof tl_allowed, &tl_allowed))
        CPU_ZERO(&tl_allowed);
}

/* A worker that wakes on its caller's CPU moves away for good: the kernel likes to wake it there, and
 * leaves it there, since both sleep at barriers in turn. */
static void tl_leave(int32_t cpu)
{
    if (cpu < 0 || sched_getcpu() != cpu)
        return;
    cpu_set_t others = tl_allowed;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others))
        sched_setaffinity(0, sizeof others, &others);
}
#else
static void tl_allow(void) {}
static int32_t tl_here(void) { return -1; }
static void tl_leave(int32_t cpu) { (void)cpu; }
#endif

static void *tl_worker_main(void *arg)
{
    tl_worker *self = arg;
    uint32_t done = 0;
    for (;;) {
        if (tl_spin(&self->ticket, done) == done) {
            __atomic_store_n(&self->asleep, 1, __ATOMIC_SEQ_CST);
            while (__atomic_load_n(&self->ticket, __ATOMIC_SEQ_CST) == done)
                tl_sleep(&self->ticket, done);
            __atomic_store_n(&self->asleep, 0, __ATOMIC_RELAXED);
        }
        done++;
        tl_leave(self->caller_cpu);
        uint32_t *unfinished = self->unfinished;
        self->body(self->arg, self->tid, self->n);
        if (__atomic_sub_fetch(unfinished, 1, __ATOMIC_ACQ_REL) == TL_ASLEEP)
            tl_wake(unfinished);        /* lives in a worker, and workers are never freed */
    }
    return NULL;
}

/* Starts one worker and makes it free. Called with the lock held. */
static int tl_start_worker(tl_threads *pool)
{
    tl_worker *worker = NULL;
    if (posix_memalign((void **)&worker, 128, sizeof *worker))
        return 0;
    memset(worker, 0, sizeof *worker);
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, TL_STACK_BYTES);
    sigfillset(&all);                   /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&thread, &attributes, tl_worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failed) {
        free(worker);
        return 0;
    }
    worker->next = pool->free;
    pool->free = worker;
    pool->workers++;
    return 1;
}

/* Takes up to `wanted` free workers as a list; counts them and the caller as busy. A call among others
 * takes no more than its share, so that none of them is left alone for long. */
static tl_worker *tl_take_team(tl_threads *pool, int32_t wanted, int32_t *size)
{
    tl_worker *team = NULL, **end = &team;
    int32_t taken = 0;
    pthread_mutex_lock(&pool->lock);
    const int32_t room = pool->pool.threads - pool->busy - 1;
    const int32_t share = pool->pool.threads / ++pool->calls - 1;
    if (wanted > room)
        wanted = room;
    if (wanted > share)
        wanted = share;
    for (; taken < wanted && (pool->free || tl_start_worker(pool)); taken++) {
        *end = pool->free;
        end = &pool->free->next;
        pool->free = pool->free->next;
    }
    *end = NULL;
    pool->busy += taken + 1;
    pthread_mutex_unlock(&pool->lock);
    *size = taken + 1;
    return team;
}

static void tl_return_team(tl_threads *pool, tl_worker *team, int32_t size)
{
    pthread_mutex_lock(&pool->lock);
    pool->busy -= size;
    pool->calls--;
    if (team) {
        tl_worker *last = team;
        while (last->next)
            last = last->next;
        last->next = pool->free;
        pool->free = team;
    }
    pthread_mutex_unlock(&pool->lock);
}

static void tl_hand_out(tl_worker *team, int32_t size, tl_body_fn *body, void *arg)
{
    const int32_t here = tl_here();
    int32_t tid = 1;
    for (tl_worker *worker = team; worker; worker = worker->next, tid++) {
        worker->body = body;
        worker->arg = arg;
        worker->tid = tid;
        worker->n = size;
        worker->caller_cpu = here;
        worker->unfinished = &team->count;
        __atomic_add_fetch(&worker->ticket, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&worker->asleep, __ATOMIC_SEQ_CST))
            tl_wake(&worker->ticket);
    }
}

/* Returns when the count is zero. */
static void tl_wait_finished(uint32_t *count)
{
    uint32_t value = __atomic_load_n(count, __ATOMIC_ACQUIRE);
    const int64_t end = value ? tl_now_ns() + TL_SPIN_NS : 0;
    while (value) {
        const uint32_t after = tl_spin(count, value);
        if (after == value || tl_now_ns() >= end)
            break;
        value = after;
    }
    value = __atomic_load_n(count, __ATOMIC_ACQUIRE);
    if (value)
        value = __atomic_or_fetch(count, TL_ASLEEP, __ATOMIC_ACQ_REL);
    while (value & ~TL_ASLEEP) {
        tl_sleep(count, value);
        value = __atomic_load_n(count, __ATOMIC_ACQUIRE);
    }
}

static void tl_parallel(tl_pool *shared, int32_t n, tl_body_fn *body, void *arg)
{
    tl_threads *pool = (tl_threads *)shared;
    int32_t size;
    tl_worker *team = tl_take_team(pool, n - 1, &size);
    if (team) {
        __atomic_store_n(&team->count, (uint32_t)(size - 1), __ATOMIC_RELAXED);
        tl_hand_out(team, size, body, arg);
    }
    body(arg, 0, size);
    if (team)
        tl_wait_finished(&team->count);
    tl_return_team(pool, team, size);
}

/* -- fork ------------------------------------------------------------------------------------- */

static void tl_before_fork(void)
{
    pthread_mutex_lock(&tl_pools_lock);
    for (tl_threads *pool = tl_pools; pool; pool = pool->next_pool)
        pthread_mutex_lock(&pool->lock);
}

static void tl_after_fork_parent(void)
{
    for (tl_threads *pool = tl_pools; pool; pool = pool->next_pool)
        pthread_mutex_unlock(&pool->lock);
    pthread_mutex_unlock(&tl_pools_lock);
}

static void tl_after_fork_child(void)
{
    /* The parent's workers do not exist here. Their few bytes are left to the kernel. */
    for (tl_threads *pool = tl_pools; pool; pool = pool->next_pool) {
        pool->free = NULL;
        pool->workers = 0;
        pool->busy = 0;
        pool->calls = 0;
        pthread_mutex_init(&pool->lock, NULL);
    }
    pthread_mutex_init(&tl_pools_lock, NULL);
}

static void tl_watch_fork(void)
{
    pthread_atfork(tl_before_fork, tl_after_fork_parent, tl_after_fork_child);
}

/* -- exports ---------------------------------------------------------------------------------- */

TL_EXPORT int32_t tuili_pool_resize(tl_pool *shared, int32_t threads)
{
    tl_threads *pool = (tl_threads *)shared;
    threads = threads < 1 ? 1 : threads > TL_MAX_THREADS ? TL_MAX_THREADS : threads;
    pthread_mutex_lock(&pool->lock);
    /* Workers above a lower limit stay asleep: they cost no CPU, and the limit may rise again. */
    __atomic_store_n(&pool->pool.threads, threads, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&pool->lock);
    return threads;
}

TL_EXPORT tl_pool *tuili_pool_create(int32_t threads)
{
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    tl_threads *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pthread_once(&watched, tl_watch_fork);
    tl_allow();
    pthread_mutex_init(&pool->lock, NULL);
    pool->pool.abi = TUILI_ABI;
    pool->pool.parallel = tl_parallel;
    tuili_pool_resize(&pool->pool, threads);
    pthread_mutex_lock(&tl_pools_lock);
    pool->next_pool = tl_pools;
    tl_pools = pool;
    pthread_mutex_unlock(&tl_pools_lock);
    return &pool->pool;
}
