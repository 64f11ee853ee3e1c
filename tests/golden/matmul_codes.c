
/* com.microsoft::MatMulNBits node 'y' */
TL_HIDDEN void k_matmul_codes_4_4x2(int64_t begin, int64_t end, uint8_t *scratch, const float *restrict x, float *restrict y, const uint8_t *restrict w, const float *restrict scale)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t M = 9;
    const int64_t K = 4;
    const int64_t N = 2;
    const int64_t PANELS = 1;
    const int64_t ROWS = 9;
    const float *const a = x;
    float *const out = y;
    const int64_t at = 0;
    (void)at;
    for (int64_t item = begin; item < end; item++) {
        const int64_t block = item / PANELS, panel = item % PANELS;
        const int64_t last = tl_min((block + 1) * ROWS, M);
        const uint8_t *const codes = w + panel * K * 32;
        const float *const scales = scale + panel * 64;
        {
            const int64_t col = panel * 64 + 0 * V;
            if (col < N) {
                for (int64_t row = block * ROWS; row < last;) {
                    const int64_t left = last - row, tiles = (left + 8) / 9;
                    const int64_t height = (left + tiles - 1) / tiles;
                    const int64_t stop = K;
                    int64_t k = 0;
                    switch (height) {
                    case 9: {
                        vf acc0_0 = {0}, acc0_1 = {0}, acc1_0 = {0}, acc1_1 = {0}, acc2_0 = {0}, acc2_1 = {0}, acc3_0 = {0}, acc3_1 = {0}, acc4_0 = {0}, acc4_1 = {0}, acc5_0 = {0}, acc5_1 = {0}, acc6_0 = {0}, acc6_1 = {0}, acc7_0 = {0}, acc7_1 = {0}, acc8_0 = {0}, acc8_1 = {0};
                        const float *const a0 = a + (row + 0) * K;
                        const float *const a1 = a + (row + 1) * K;
                        const float *const a2 = a + (row + 2) * K;
                        const float *const a3 = a + (row + 3) * K;
                        const float *const a4 = a + (row + 4) * K;
                        const float *const a5 = a + (row + 5) * K;
                        const float *const a6 = a + (row + 6) * K;
                        const float *const a7 = a + (row + 7) * K;
                        const float *const a8 = a + (row + 8) * K;
                        while (k < stop) {
                            const int64_t rest = tl_min((k / 4 + 1) * 4, stop);
                            const float *const s = scales + k / 4 * 64;
                            const vf s0 = v_load(s + 0 * V);
                            const vf s1 = v_load(s + 1 * V);
                            const vf z0 = v_exact(s0 * 8.0f);
                            const vf z1 = v_exact(s1 * 8.0f);
                            for (; k < rest; k++) {
                                const uint8_t *const q = codes + k * 32;
                                const vi q0 = v_load_bytes(q + 0 * V);
                                const vi q1 = v_load_bytes(q + 1 * V);
                                const vf w0 = v_to_float((q0) & 15) * s0 - z0;
                                const vf w1 = v_to_float((q1) & 15) * s1 - z1;
                                const vf x0 = v_set1(a0[k]);
                                acc0_0 += x0 * w0;
                                acc0_1 += x0 * w1;
                                const vf x1 = v_set1(a1[k]);
                                acc1_0 += x1 * w0;
                                acc1_1 += x1 * w1;
                                const vf x2 = v_set1(a2[k]);
                                acc2_0 += x2 * w0;
                                acc2_1 += x2 * w1;
                                const vf x3 = v_set1(a3[k]);
                                acc3_0 += x3 * w0;
                                acc3_1 += x3 * w1;
                                const vf x4 = v_set1(a4[k]);
                                acc4_0 += x4 * w0;
                                acc4_1 += x4 * w1;
                                const vf x5 = v_set1(a5[k]);
                                acc5_0 += x5 * w0;
                                acc5_1 += x5 * w1;
                                const vf x6 = v_set1(a6[k]);
                                acc6_0 += x6 * w0;
                                acc6_1 += x6 * w1;
                                const vf x7 = v_set1(a7[k]);
                                acc7_0 += x7 * w0;
                                acc7_1 += x7 * w1;
                                const vf x8 = v_set1(a8[k]);
                                acc8_0 += x8 * w0;
                                acc8_1 += x8 * w1;
                            }
                        }
                        float sums[9][32];
                        v_store(&sums[0][0 * V], acc0_0);
                        v_store(&sums[0][1 * V], acc0_1);
                        v_store(&sums[1][0 * V], acc1_0);
                        v_store(&sums[1][1 * V], acc1_1);
                        v_store(&sums[2][0 * V], acc2_0);
                        v_store(&sums[2][1 * V], acc2_1);
                        v_store(&sums[3][0 * V], acc3_0);
                        v_store(&sums[3][1 * V], acc3_1);
                        v_store(&sums[4][0 * V], acc4_0);
                        v_store(&sums[4][1 * V], acc4_1);
                        v_store(&sums[5][0 * V], acc5_0);
                        v_store(&sums[5][1 * V], acc5_1);
                        v_store(&sums[6][0 * V], acc6_0);
                        v_store(&sums[6][1 * V], acc6_1);
                        v_store(&sums[7][0 * V], acc7_0);
                        v_store(&sums[7][1 * V], acc7_1);
                        v_store(&sums[8][0 * V], acc8_0);
                        v_store(&sums[8][1 * V], acc8_1);
                        for (int64_t r = 0; r < 9; r++)
                            for (int64_t c = 0; c < N - col; c++) {
                                out[(row + r) * N + col + c] = sums[r][c];
                            }
                        break;
                    }
                    }
                    row += height;
                }
            }
        }
        {
            const int64_t col = panel * 64 + 2 * V;
            if (col < N) {
                for (int64_t row = block * ROWS; row < last;) {
                    const int64_t left = last - row, tiles = (left + 8) / 9;
                    const int64_t height = (left + tiles - 1) / tiles;
                    const int64_t stop = K;
                    int64_t k = 0;
                    switch (height) {
                    case 9: {
                        vf acc0_0 = {0}, acc0_1 = {0}, acc1_0 = {0}, acc1_1 = {0}, acc2_0 = {0}, acc2_1 = {0}, acc3_0 = {0}, acc3_1 = {0}, acc4_0 = {0}, acc4_1 = {0}, acc5_0 = {0}, acc5_1 = {0}, acc6_0 = {0}, acc6_1 = {0}, acc7_0 = {0}, acc7_1 = {0}, acc8_0 = {0}, acc8_1 = {0};
                        const float *const a0 = a + (row + 0) * K;
                        const float *const a1 = a + (row + 1) * K;
                        const float *const a2 = a + (row + 2) * K;
                        const float *const a3 = a + (row + 3) * K;
                        const float *const a4 = a + (row + 4) * K;
                        const float *const a5 = a + (row + 5) * K;
                        const float *const a6 = a + (row + 6) * K;
                        const float *const a7 = a + (row + 7) * K;
                        const float *const a8 = a + (row + 8) * K;
                        while (k < stop) {
                            const int64_t rest = tl_min((k / 4 + 1) * 4, stop);
                            const float *const s = scales + k / 4 * 64;
                            const vf s2 = v_load(s + 2 * V);
                            const vf s3 = v_load(s + 3 * V);
                            const vf z2 = v_exact(s2 * 8.0f);
                            const vf z3 = v_exact(s3 * 8.0f);
                            for (; k < rest; k++) {
                                const uint8_t *const q = codes + k * 32;
                                const vi q0 = v_load_bytes(q + 0 * V);
                                const vi q1 = v_load_bytes(q + 1 * V);
                                const vf w2 = v_to_float(q0 >> 4) * s2 - z2;
                                const vf w3 = v_to_float(q1 >> 4) * s3 - z3;
                                const vf x0 = v_set1(a0[k]);
                                acc0_0 += x0 * w2;
                                acc0_1 += x0 * w3;
                                const vf x1 = v_set1(a1[k]);
                                acc1_0 += x1 * w2;
                                acc1_1 += x1 * w3;
                                const vf x2 = v_set1(a2[k]);
                                acc2_0 += x2 * w2;
                                acc2_1 += x2 * w3;
                                const vf x3 = v_set1(a3[k]);
                                acc3_0 += x3 * w2;
                                acc3_1 += x3 * w3;
                                const vf x4 = v_set1(a4[k]);
                                acc4_0 += x4 * w2;
                                acc4_1 += x4 * w3;
                                const vf x5 = v_set1(a5[k]);
                                acc5_0 += x5 * w2;
                                acc5_1 += x5 * w3;
                                const vf x6 = v_set1(a6[k]);
                                acc6_0 += x6 * w2;
                                acc6_1 += x6 * w3;
                                const vf x7 = v_set1(a7[k]);
                                acc7_0 += x7 * w2;
                                acc7_1 += x7 * w3;
                                const vf x8 = v_set1(a8[k]);
                                acc8_0 += x8 * w2;
                                acc8_1 += x8 * w3;
                            }
                        }
                        float sums[9][32];
                        v_store(&sums[0][0 * V], acc0_0);
                        v_store(&sums[0][1 * V], acc0_1);
                        v_store(&sums[1][0 * V], acc1_0);
                        v_store(&sums[1][1 * V], acc1_1);
                        v_store(&sums[2][0 * V], acc2_0);
                        v_store(&sums[2][1 * V], acc2_1);
                        v_store(&sums[3][0 * V], acc3_0);
                        v_store(&sums[3][1 * V], acc3_1);
                        v_store(&sums[4][0 * V], acc4_0);
                        v_store(&sums[4][1 * V], acc4_1);
                        v_store(&sums[5][0 * V], acc5_0);
                        v_store(&sums[5][1 * V], acc5_1);
                        v_store(&sums[6][0 * V], acc6_0);
                        v_store(&sums[6][1 * V], acc6_1);
                        v_store(&sums[7][0 * V], acc7_0);
                        v_store(&sums[7][1 * V], acc7_1);
                        v_store(&sums[8][0 * V], acc8_0);
                        v_store(&sums[8][1 * V], acc8_1);
                        for (int64_t r = 0; r < 9; r++)
                            for (int64_t c = 0; c < N - col; c++) {
                                out[(row + r) * N + col + c] = sums[r][c];
                            }
                        break;
                    }
                    }
                    row += height;
                }
            }
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
    /* com.microsoft::MatMulNBits node 'y' */
    if (tid == 0) k_matmul_codes_4_4x2(0, 1, scratch, (const float *)((const uint8_t *)run->inputs[0]), (float *)((uint8_t *)run->outputs[0]), (const uint8_t *)(run->weights + 0), (const float *)(run->weights + 128));
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
    const int32_t threads = run->threads > 1 && (144 >= 600000 || 600 >= 200000) ? run->threads : 1;
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
