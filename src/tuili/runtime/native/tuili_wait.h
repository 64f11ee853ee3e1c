/* Waiting for a word in memory to change: spin briefly by the clock, then sleep in the kernel. */
#ifndef TUILI_WAIT_H
#define TUILI_WAIT_H

#include <time.h>

/* Long enough to meet the next step of a running model, short enough to cost an idle machine nothing. */
#ifndef TL_SPIN_NS
#define TL_SPIN_NS 50000
#endif
#define TL_SPINS_PER_LOOK 32    /* pauses between two looks at the clock */

#if defined(__linux__) && !defined(TL_NO_FUTEX)
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Sleeps while *word == seen; may wake for no reason. */
static inline void tl_sleep(uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static inline void tl_wake(uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}
#else
#include <pthread.h>

/* Elsewhere one condition variable serves all words: a wake-up is a hint, sleepers look again. */
static pthread_mutex_t tl_sleep_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t tl_sleep_changed = PTHREAD_COND_INITIALIZER;

static inline void tl_sleep(uint32_t *word, uint32_t seen)
{
    pthread_mutex_lock(&tl_sleep_lock);
    if (__atomic_load_n(word, __ATOMIC_SEQ_CST) == seen)
        pthread_cond_wait(&tl_sleep_changed, &tl_sleep_lock);
    pthread_mutex_unlock(&tl_sleep_lock);
}

static inline void tl_wake(uint32_t *word)
{
    (void)word;
    pthread_mutex_lock(&tl_sleep_lock);
    pthread_cond_broadcast(&tl_sleep_changed);
    pthread_mutex_unlock(&tl_sleep_lock);
}
#endif

static inline void tl_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");       /* yield is a nop on most cores; isb takes ~20 ns */
#elif defined(__arm__)
    __asm__ volatile("yield" ::: "memory");
#elif defined(__riscv)
    __asm__ volatile(".4byte 0x100000F" ::: "memory"); /* the hint `pause` (Zihintpause) */
#endif
}

static inline int64_t tl_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Spins while *word == seen, for TL_SPIN_NS at most; returns the last value read. */
static inline uint32_t tl_spin(uint32_t *word, uint32_t seen)
{
    uint32_t value = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    if (value != seen)
        return value;
    const int64_t end = tl_now_ns() + TL_SPIN_NS;
    do {
        for (int spins = 0; spins < TL_SPINS_PER_LOOK; spins++) {
            value = __atomic_load_n(word, __ATOMIC_ACQUIRE);
            if (value != seen)
                return value;
            tl_pause();
        }
    } while (tl_now_ns() < end);
    return value;
}

#endif
