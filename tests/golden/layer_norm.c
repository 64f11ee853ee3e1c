
static inline float tl_row_sum(const float *p, int64_t n)
{
    vf a = v_set1(0.0f), b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * V <= n; i += 4 * V) {
        const vf x0 = v_load(p + i), x1 = v_load(p + i + V);
        const vf x2 = v_load(p + i + 2 * V), x3 = v_load(p + i + 3 * V);
        a = a + x0;
        b = b + x1;
        c = c + x2;
        d = d + x3;
    }
    for (; i + V <= n; i += V) {
        const vf x0 = v_load(p + i);
        a = a + x0;
    }
    if (i < n) {
        const vf x0 = v_select(v_head(n - i), v_loadn(p + i, n - i), v_set1(0.0f));
        b = b + x0;
    }
    const vf ab = a + b, cd = c + d;
    return v_sum(ab + cd);
}


static inline float tl_row_variance(const float *p, int64_t n, float mean)
{
    vf a = v_set1(0.0f), b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * V <= n; i += 4 * V) {
        const vf x0 = v_load(p + i), x1 = v_load(p + i + V);
        const vf x2 = v_load(p + i + 2 * V), x3 = v_load(p + i + 3 * V);
        a = (x0 - v_set1(mean)) * (x0 - v_set1(mean)) + a;
        b = (x1 - v_set1(mean)) * (x1 - v_set1(mean)) + b;
        c = (x2 - v_set1(mean)) * (x2 - v_set1(mean)) + c;
        d = (x3 - v_set1(mean)) * (x3 - v_set1(mean)) + d;
    }
    for (; i + V <= n; i += V) {
        const vf x0 = v_load(p + i);
        a = (x0 - v_set1(mean)) * (x0 - v_set1(mean)) + a;
    }
    if (i < n) {
        const vf x0 = v_select(v_head(n - i), v_loadn(p + i, n - i), v_set1(mean));
        b = (x0 - v_set1(mean)) * (x0 - v_set1(mean)) + b;
    }
    const vf ab = a + b, cd = c + d;
    return v_sum(ab + cd);
}

/* LayerNormalization node 'y' */
TL_HIDDEN void k_layer_norm(int64_t begin, int64_t end, uint8_t *scratch, const float *restrict x, const float *restrict scale, const float *restrict bias, float *restrict y)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t LENGTH = 24;
    for (int64_t row = begin; row < end; row++) {
        const float *const from = x + row * LENGTH;
        float *const to = y + row * LENGTH;
        const float mean = tl_row_sum(from, LENGTH) / (float)LENGTH;
        const float variance = tl_row_variance(from, LENGTH, mean) / (float)LENGTH;
        const float inverse = 1.0f / s_sqrt(variance + 1e-05f);
        const vf gain = v_set1(inverse);
        int64_t i = 0;
        for (; i + V <= LENGTH; i += V)
            v_store(to + i, (v_load(from + i) - v_set1(mean)) * gain * v_load(scale + i) + v_load(bias + i));
        if (i < LENGTH)
            v_storen(to + i, (v_loadn(from + i, LENGTH - i) - v_set1(mean)) * gain * v_loadn(scale + i, LENGTH - i) + v_loadn(bias + i, LENGTH - i), LENGTH - i);
    }
}
static void tl_body(void *arg, int32_t tid, int32_t n)
{
    tl_shared *shared = arg;
    tl_run *run = shared->run;
    const int64_t d_N = run->dims[0];
    uint8_t *const scratch = run->arena + run->offsets[0] + tid * run->offsets[1];
    uint32_t turn = 0;      /* shared steps so far */
    uint32_t before = 0;    /* how results are rounded outside sums of products */
    (void)scratch, (void)n, (void)turn, (void)before;
    const int64_t e0 = 192 * d_N;
    /* LayerNormalization node 'y' */
    {
        tl_claim c = tl_claim_start(shared->shares, ++turn, d_N, e0 >= 600000 || e0 >= 200000 ? 4 : 0, tid, n);
        while (tl_claim_next(&c)) k_layer_norm(c.begin, c.end, scratch, (const float *)((const uint8_t *)run->inputs[0]), (const float *)((const uint8_t *)run->inputs[1]), (const float *)((const uint8_t *)run->inputs[2]), (float *)((uint8_t *)run->outputs[0]));
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
    const int64_t d_N = run->dims[0];
    tl_shared shared = {.run = run};
    const int32_t threads = run->threads > 1 && (192 * d_N >= 600000 || 192 * d_N >= 200000) ? run->threads : 1;
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
