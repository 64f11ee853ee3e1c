
/* MatMul node 'y' */
TL_HIDDEN void k_matmul_3x4x2(int64_t begin, int64_t end, uint8_t *scratch, const float *restrict x, float *restrict y, const float *restrict w, const float *restrict extra0)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t M = 3;
    const int64_t K = 4;
    const int64_t N = 2;
    const int64_t PANELS = 1;
    const int64_t ROWS = 3;
    const float *const a = x;
    float *const out = y;
    const int64_t at = 0;
    (void)at;
    for (int64_t item = begin; item < end; item++) {
        const int64_t block = item / PANELS, col = item % PANELS * 32;
        const float *const panel = w + col * K;
        const int64_t last = tl_min((block + 1) * ROWS, M);
        const int64_t k0 = 0, DEPTH = K;
        (void)k0;
        const float *const columns = panel + k0 * 32;
        for (int64_t row = block * ROWS; row < last;) {
            const int64_t left = last - row, tiles = (left + 13) / 14;
            const int64_t height = (left + tiles - 1) / tiles;
            const float *const rows = a + row * K + k0;
            switch (height) {
            case 3: {
                vf acc0_0 = {0}, acc0_1 = {0}, acc1_0 = {0}, acc1_1 = {0}, acc2_0 = {0}, acc2_1 = {0};
                const float *const a0 = rows + 0 * K;
                const float *const a1 = rows + 1 * K;
                const float *const a2 = rows + 2 * K;
                #pragma GCC unroll 4
                for (int64_t k = 0; k < DEPTH; k++) {
                    const vf b0 = v_load(columns + k * 32 + 0 * V);
                    const vf b1 = v_load(columns + k * 32 + 1 * V);
                    const vf x0 = v_set1(a0[k]);
                    acc0_0 += x0 * b0;
                    acc0_1 += x0 * b1;
                    const vf x1 = v_set1(a1[k]);
                    acc1_0 += x1 * b0;
                    acc1_1 += x1 * b1;
                    const vf x2 = v_set1(a2[k]);
                    acc2_0 += x2 * b0;
                    acc2_1 += x2 * b1;
                }
                float sums[3][32];
                v_store(&sums[0][0 * V], acc0_0);
                v_store(&sums[0][1 * V], acc0_1);
                v_store(&sums[1][0 * V], acc1_0);
                v_store(&sums[1][1 * V], acc1_1);
                v_store(&sums[2][0 * V], acc2_0);
                v_store(&sums[2][1 * V], acc2_1);
                for (int64_t r = 0; r < 3; r++)
                    for (int64_t c = 0; c < N - col; c++) {
                        const float e_x = sums[r][c];
                        const float e_in0 = extra0[col + c];
                        const float e_0 = e_x + e_in0;
                        const float e_1 = s_max(0.0f, e_0);
                        out[(row + r) * N + col + c] = e_1;
                    }
                break;
            }
            }
            row += height;
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
    before = tl_results_flushed();
    /* MatMul node 'y' */
    if (tid == 0) k_matmul_3x4x2(0, 1, scratch, (const float *)((const uint8_t *)run->inputs[0]), (float *)((uint8_t *)run->outputs[0]), (const float *)(run->weights + 0), (const float *)(run->weights + 512));
    tl_results_as(before);
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
    const int32_t threads = run->threads > 1 && (48 >= 600000 || 104 >= 200000) ? run->threads : 1;
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
