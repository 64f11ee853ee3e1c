
/* Transpose node 'y' */
TL_HIDDEN void k_transpose_32(int64_t begin, int64_t end, uint8_t *scratch, const uint32_t *restrict x0, uint32_t *restrict y)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t ROWS = 6;
    const int64_t LENGTH = 40;
    const int64_t RUN = 102;
    const int64_t RUNS = 1;
    for (int64_t item = begin; item < end; item++) {
        const int64_t run = item;
        const int64_t y_at = 0;
        const int64_t x0_at = 0;
        const int64_t last_row = tl_min((run + 1) * RUN, ROWS);
        for (int64_t row = run * RUN; row < last_row; row++) {
            uint32_t *const yp = y + y_at + row;
            const uint32_t *const x0p = x0 + x0_at + row * 40;
            const int64_t first = 0, last = LENGTH;
            for (int64_t j = first; j < last; j++)
                yp[j * 6] = x0p[j];
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
    /* Transpose node 'y' */
    if (tid == 0) k_transpose_32(0, 1, scratch, (const uint32_t *)((const uint8_t *)run->inputs[0]), (uint32_t *)((uint8_t *)run->outputs[0]));
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
    const int32_t threads = run->threads > 1 && (0 >= 600000 || 1920 >= 200000) ? run->threads : 1;
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
