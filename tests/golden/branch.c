
/* Relu node 'r' */
TL_HIDDEN void k_relu(int64_t begin, int64_t end, uint8_t *scratch, const float *restrict x0, float *restrict y)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t LENGTH = 4;
    const int64_t RUN = 4096;
    const int64_t RUNS = 1;
    for (int64_t item = begin; item < end; item++) {
        const int64_t run = item;
        const int64_t y_at = 0;
        const int64_t x0_at = 0;
        float *const yp = y + y_at;
        const float *const x0p = x0 + x0_at;
        const int64_t first = run * RUN, last = tl_min(first + RUN, LENGTH);
        int64_t i = first;
        for (; i + V <= last; i += V) {
            const vf a0 = v_load(x0p + i);
            const vf t0 = v_max(v_set1(0.0f), a0);
            v_store(yp + i, t0);
        }
        if (i < last) {
            const vf a0 = v_loadn(x0p + i, last - i);
            const vf t0 = v_max(v_set1(0.0f), a0);
            v_storen(yp + i, t0, last - i);
        }
    }
}

/* Neg node 'n' */
TL_HIDDEN void k_neg(int64_t begin, int64_t end, uint8_t *scratch, const float *restrict x0, float *restrict y)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t LENGTH = 4;
    const int64_t RUN = 4096;
    const int64_t RUNS = 1;
    for (int64_t item = begin; item < end; item++) {
        const int64_t run = item;
        const int64_t y_at = 0;
        const int64_t x0_at = 0;
        float *const yp = y + y_at;
        const float *const x0p = x0 + x0_at;
        const int64_t first = run * RUN, last = tl_min(first + RUN, LENGTH);
        int64_t i = first;
        for (; i + V <= last; i += V) {
            const vf a0 = v_load(x0p + i);
            const vf t0 = -a0;
            v_store(yp + i, t0);
        }
        if (i < last) {
            const vf a0 = v_loadn(x0p + i, last - i);
            const vf t0 = -a0;
            v_storen(yp + i, t0, last - i);
        }
    }
}
static void tl_body(void *arg, int32_t tid, int32_t n)
{
    tl_shared *shared = arg;
    tl_run *run = shared->run;
    uint8_t *const scratch = run->arena + run->offsets[0] + tid * run->offsets[1];
    uint32_t turn = 0;      /* shared steps so far */
    uint32_t before = 0;    /* how results are rounded outside sums of products */
    (void)scratch, (void)n, (void)turn, (void)before;
    /* If node 'y' */
    if (*(const uint8_t *)((const uint8_t *)run->inputs[0])) {
        /* Relu node 'r' */
        if (tid == 0) k_relu(0, 1, scratch, (const float *)((const uint8_t *)run->inputs[1]), (float *)((uint8_t *)run->outputs[0]));
    } else {
        /* Neg node 'n' */
        if (tid == 0) k_neg(0, 1, scratch, (const float *)((const uint8_t *)run->inputs[1]), (float *)((uint8_t *)run->outputs[0]));
    }
}

TL_EXPORT int64_t tuili_num_offsets(void)
{
    return 2;
}

TL_EXPORT int64_t tuili_plan(tl_run *run)
{
    const int64_t stride = (0 + 63) / 64 * 64;
    const int64_t size = 0;
    run->offsets[0] = size;
    run->offsets[1] = stride;
    return size + stride * run->threads;
}

TL_EXPORT int32_t tuili_run(tl_run *run)
{
    tl_shared shared = {.run = run};
    const int32_t threads = run->threads > 1 && (8 >= 600000 || 64 >= 200000) ? run->threads : 1;
    if (threads > 1) {
        tl_share shares[threads];
        memset(shares, 0, sizeof shares);
        shared.shares = shares;
        run->pool->parallel(run->pool, threads, tl_body, &shared);
    } else {
        tl_body(&shared, 0, 1);
    }
    if (shared.fault)
        snprintf(run->error, (size_t)run->error_size, "%s", tl_faults[shared.fault]);
    return shared.fault || shared.stop;
}
