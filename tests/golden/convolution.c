
/* Conv node 'y_plain' */
TL_HIDDEN void k_conv1x1s1_2x1x16x2(int64_t begin, int64_t end, uint8_t *scratch, const float *restrict x, float *restrict y, const float *restrict w)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t H = 1;
    const int64_t W = 16;
    const int64_t OH = 1;
    const int64_t OW = 16;
    const int64_t FH = 1;
    const int64_t FW = 16;
    const int64_t PT = 0;
    const int64_t PL = 0;
    const int64_t BAND = 1;
    const int64_t TOGETHER = 1;
    const int64_t GROUPS = 1;
    const int64_t CB = 2;
    const int64_t NB = 2;
    const int64_t PANELS = 1;
    (void)H, (void)OH, (void)PT, (void)PL, (void)CB;
    for (int64_t item = begin, take; item < end; item += take) {
        const int64_t panel = item / TOGETHER % PANELS;
        const int64_t group = item / (TOGETHER * PANELS), n = group / GROUPS;
        const int64_t band = group % GROUPS * TOGETHER + item % TOGETHER;
        take = tl_min(TOGETHER - item % TOGETHER, end - item);
        const int64_t first = 0;
        const float *const xn = x + (n * CB + first) * H * W * 1;
        const float *const wn = w + panel * 32;
        const int64_t oc = panel * 16;
        for (int64_t block = 0; block < NB; block += 2) {
            const int64_t stop = tl_min(block + 2, NB);
            const int64_t oh = 0;
            const int64_t h = oh * 1 - PT;
            const int64_t kh0 = 0, kh1 = 1;
            const int64_t left = tl_min((band * BAND) * 16, 16);
            const int64_t right = tl_min(((band + take) * BAND) * 16, 16);
            for (int64_t ow = tl_max(0, left); ow < tl_min(16, right); ow += 16) {
                const int64_t at = (((n * 1 + oc / V) * FH + oh) * FW + ow) * V;
                float *const out = y + at;
                vf acc0_0, acc1_0, acc2_0, acc3_0, acc4_0, acc5_0, acc6_0, acc7_0, acc8_0, acc9_0, acc10_0, acc11_0, acc12_0, acc13_0, acc14_0, acc15_0;
                acc0_0 = acc1_0 = acc2_0 = acc3_0 = acc4_0 = acc5_0 = acc6_0 = acc7_0 = acc8_0 = acc9_0 = acc10_0 = acc11_0 = acc12_0 = acc13_0 = acc14_0 = acc15_0 = (vf){0};
                const float *const xs = xn + (h * W + ow * 1 - PL) * 1;
                const int64_t XR = 1 * W * 1, XB = H * W * 1;
                for (int64_t cb = block; cb < stop; cb++) {
                    for (int64_t kh = kh0; kh < kh1; kh++) {
                        const float *const xr = xs + cb * XB + kh * XR;
                        const float *const wr = wn + (cb * 1 + kh) * 16;
                        {
                            const float *const xt = xr + 0;
                            const float *const wt = wr + 0 * V;
                            const int64_t c = 0;
                            const vf w0 = v_load(wt + (c * 1 + 0) * V);
                            { const vf a = v_set1(xt[c + 0]); acc0_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 1]); acc1_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 2]); acc2_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 3]); acc3_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 4]); acc4_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 5]); acc5_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 6]); acc6_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 7]); acc7_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 8]); acc8_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 9]); acc9_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 10]); acc10_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 11]); acc11_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 12]); acc12_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 13]); acc13_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 14]); acc14_0 += a * w0; }
                            { const vf a = v_set1(xt[c + 15]); acc15_0 += a * w0; }
                        }
                    }
                }
                { const vf e1_x = acc0_0; const vf e1_0 = v_max(v_set1(0.0f), e1_x); v_store(out + 0 * FH * FW * V + 0 * V, e1_0); }
                { const vf e2_x = acc1_0; const vf e2_0 = v_max(v_set1(0.0f), e2_x); v_store(out + 0 * FH * FW * V + 1 * V, e2_0); }
                { const vf e3_x = acc2_0; const vf e3_0 = v_max(v_set1(0.0f), e3_x); v_store(out + 0 * FH * FW * V + 2 * V, e3_0); }
                { const vf e4_x = acc3_0; const vf e4_0 = v_max(v_set1(0.0f), e4_x); v_store(out + 0 * FH * FW * V + 3 * V, e4_0); }
                { const vf e5_x = acc4_0; const vf e5_0 = v_max(v_set1(0.0f), e5_x); v_store(out + 0 * FH * FW * V + 4 * V, e5_0); }
                { const vf e6_x = acc5_0; const vf e6_0 = v_max(v_set1(0.0f), e6_x); v_store(out + 0 * FH * FW * V + 5 * V, e6_0); }
                { const vf e7_x = acc6_0; const vf e7_0 = v_max(v_set1(0.0f), e7_x); v_store(out + 0 * FH * FW * V + 6 * V, e7_0); }
                { const vf e8_x = acc7_0; const vf e8_0 = v_max(v_set1(0.0f), e8_x); v_store(out + 0 * FH * FW * V + 7 * V, e8_0); }
                { const vf e9_x = acc8_0; const vf e9_0 = v_max(v_set1(0.0f), e9_x); v_store(out + 0 * FH * FW * V + 8 * V, e9_0); }
                { const vf e10_x = acc9_0; const vf e10_0 = v_max(v_set1(0.0f), e10_x); v_store(out + 0 * FH * FW * V + 9 * V, e10_0); }
                { const vf e11_x = acc10_0; const vf e11_0 = v_max(v_set1(0.0f), e11_x); v_store(out + 0 * FH * FW * V + 10 * V, e11_0); }
                { const vf e12_x = acc11_0; const vf e12_0 = v_max(v_set1(0.0f), e12_x); v_store(out + 0 * FH * FW * V + 11 * V, e12_0); }
                { const vf e13_x = acc12_0; const vf e13_0 = v_max(v_set1(0.0f), e13_x); v_store(out + 0 * FH * FW * V + 12 * V, e13_0); }
                { const vf e14_x = acc13_0; const vf e14_0 = v_max(v_set1(0.0f), e14_x); v_store(out + 0 * FH * FW * V + 13 * V, e14_0); }
                { const vf e15_x = acc14_0; const vf e15_0 = v_max(v_set1(0.0f), e15_x); v_store(out + 0 * FH * FW * V + 14 * V, e15_0); }
                { const vf e16_x = acc15_0; const vf e16_0 = v_max(v_set1(0.0f), e16_x); v_store(out + 0 * FH * FW * V + 15 * V, e16_0); }
            }
        }
    }
}

/* Reorder node 'y' */
TL_HIDDEN void k_reorder_to_plain(int64_t begin, int64_t end, uint8_t *scratch, const float *restrict x, float *restrict y)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t C = 2;
    const int64_t GROUPS = 1;
    const int64_t HW = 16;
    for (int64_t item = begin; item < end; item++) {
        const int64_t n = item / GROUPS, first = item % GROUPS * V, used = tl_min(V, C - first);
        const float *const from = x + item * HW * V;
        float *const to = y + (n * C + first) * HW;
        int64_t p = 0;
        if (used == V)
            for (; p + V <= HW; p += V)
                tl_transpose(from + p * V, V, to + p, HW);
        for (; p + V <= HW; p += V)
            tl_transpose_part(from + p * V, V, V, used, to + p, HW, V);
        if (p < HW)
            tl_transpose_part(from + p * V, V, HW - p, used, to + p, HW, HW - p);
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
    /* Conv node 'y_plain' */
    if (tid == 0) k_conv1x1s1_2x1x16x2(0, 1, scratch, (const float *)((const uint8_t *)run->inputs[0]), (float *)(run->arena + 0), (const float *)(run->weights + 0));
    tl_results_as(before);
    /* Reorder node 'y' */
    if (tid == 0) k_reorder_to_plain(0, 1, scratch, (const float *)(run->arena + 0), (float *)((uint8_t *)run->outputs[0]));
}

TL_EXPORT int64_t tuili_num_offsets(void)
{
    return 2;
}

TL_EXPORT int64_t tuili_plan(tl_run *run)
{
    const int64_t stride = (0 + 63) / 64 * 64;
    const int64_t size = 1024;
    run->offsets[0] = size;
    run->offsets[1] = stride;
    return size + stride * run->threads;
}

TL_EXPORT int32_t tuili_run(tl_run *run)
{
    tl_shared shared = {.run = run};
    const int32_t threads = run->threads > 1 && (128 >= 600000 || 1536 >= 200000) ? run->threads : 1;
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
