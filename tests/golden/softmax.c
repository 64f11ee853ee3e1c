
static inline float tl_row_top(const float *p, int64_t n)
{
    vf a = v_set1(-INFINITY), b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * V <= n; i += 4 * V) {
        const vf x0 = v_load(p + i), x1 = v_load(p + i + V);
        const vf x2 = v_load(p + i + 2 * V), x3 = v_load(p + i + 3 * V);
        a = v_max(x0, a);
        b = v_max(x1, b);
        c = v_max(x2, c);
        d = v_max(x3, d);
    }
    for (; i + V <= n; i += V) {
        const vf x0 = v_load(p + i);
        a = v_max(x0, a);
    }
    if (i < n) {
        const vf x0 = v_select(v_head(n - i), v_loadn(p + i, n - i), v_set1(-INFINITY));
        b = v_max(x0, b);
    }
    const vf ab = v_max(a, b), cd = v_max(c, d);
    return v_hmax(v_max(ab, cd));
}

/* Softmax node 'y' */
TL_HIDDEN void k_softmax(int64_t begin, int64_t end, uint8_t *scratch, const float *restrict x, float *restrict y)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t LENGTH = 20;
    for (int64_t row = begin; row < end; row++) {
        const float *const from = x + row * LENGTH;
        float *const to = y + row * LENGTH;
        const vf top = v_set1(tl_row_top(from, LENGTH));
        vf total = v_set1(0.0f);
        int64_t i = 0;
        for (; i + V <= LENGTH; i += V) {
            const vf power = v_exp_below(v_load(from + i) - top);
            v_store(to + i, power);
            total += power;
        }
        if (i < LENGTH) {
            const vf power = v_exp_below(v_loadn(from + i, LENGTH - i) - top);
            v_storen(to + i, power, LENGTH - i);
            total += v_select(v_head(LENGTH - i), power, v_set1(0.0f));
        }
        const vf scale = v_set1(1.0f / v_sum(total));
        for (i = 0; i + V <= LENGTH; i += V)
            v_store(to + i, v_load(to + i) * scale);
        if (i < LENGTH)
            v_storen(to + i, v_loadn(to + i, LENGTH - i) * scale, LENGTH - i);
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
    const int64_t e0 = 500 * d_N;
    const int64_t e1 = 160 * d_N;
    /* Softmax node 'y' */
    {
        tl_claim c = tl_claim_start(shared->shares, ++turn, d_N, e0 >= 600000 || e1 >= 200000 ? 4 : 0, tid, n);
        while (tl_claim_next(&c)) k_softmax(c.begin, c.end, scratch, (const float *)((const uint8_t *)run->inputs[0]), (float *)((uint8_t *)run->outputs[0]));
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
    const int32_t threads = run->threads > 1 && (500 * d_N >= 600000 || 160 * d_N >= 200000) ? run->threads : 1;
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
