
#if defined(TL_GCC_X86)
static inline void d_add(vi *a, vi *b, vi w, vi u, const int8_t *p)
{
    vi x, t;
    __asm__("vpbroadcastd %[p], %[x]\n\t"
            "vpmaddubsw %[x], %[w], %[t]\n\t"
            "vpmaddubsw %[x], %[u], %[x]\n\t"
            "vpaddw %[t], %[a], %[a]\n\t"
            "vpaddw %[x], %[b], %[b]"
            : [a] "+v"(*a), [b] "+v"(*b), [x] "=&v"(x), [t] "=&v"(t)
            : [w] "v"(w), [u] "v"(u), [p] "m"(*(const int32_t *)p));
}

typedef short tl_shorts __attribute__((vector_size(64)));
static inline vi d_sum(vi a)
{
    const tl_shorts ones = (tl_shorts)v_iset1(0x00010001);
    return (vi)__builtin_ia32_pmaddwd512_mask((tl_shorts)a, ones, a, -1);
}
#else
static inline vi d_dot(vi acc, vi w, vi x)
{
    for (int i = 0; i < 32; i += 8)
        acc += (w >> i & 255) * ((x << (24 - i)) >> 24);
    return acc;
}

static inline vi d_sum(vi a) { return a; }

static inline void d_add(vi *a, vi *b, vi w, vi u, const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    const vi x = v_iset1(four);
    *a = d_dot(*a, w, x), *b = d_dot(*b, u, x);
}
#endif

/* com.microsoft::MatMulNBits node 'y' */
TL_HIDDEN void k_matmul_dots_4_16x1(int64_t begin, int64_t end, uint8_t *scratch, const int8_t *restrict x, const float *restrict factors, float *restrict y, const uint8_t *restrict w, const float *restrict scale)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t M = 1;
    const int64_t N = 1;
    const int64_t PANELS = 1;
    const int64_t ROWS = 1;
    const int64_t CHUNKS = 1;
    float *const out = y;
    const int64_t at = 0;
    (void)at;
    for (int64_t item = begin; item < end; item++) {
        const int64_t block = item / PANELS, panel = item % PANELS;
        const int64_t last = tl_min((block + 1) * ROWS, M);
        const int64_t col = panel * 32;
        const uint8_t *const codes = w + panel * 256;
        const float *const scales = scale + panel * 32;
        for (int64_t row = block * ROWS; row < last;) {
            const int64_t left = last - row, tiles = (left + 7) / 8;
            const int64_t height = (left + tiles - 1) / tiles;
            switch (height) {
            case 1: {
                vf acc0_0 = {0}, acc0_1 = {0};
                const int8_t *const x0 = x + (row + 0) * 16;
                const float *const f0 = factors + (row + 0) * (2 * CHUNKS);
                const uint8_t *p = codes;
                for (int64_t chunk = 0; chunk < CHUNKS; chunk++) {
                    vi dot0_0 = {0}, dot0_1 = {0};
                    const int64_t k0 = chunk * 16;
                    for (int64_t k = k0; k < k0 + 16; k += 4) {
                        const vi q = *(const vi_any *)p;
                        p += 4 * V;
                        const vi w0_0 = (q) & 0xf0f0f0f;
                        const vi w0_1 = (q >> 4) & 0xf0f0f0f;
                        d_add(&dot0_0, &dot0_1, w0_0, w0_1, x0 + k + 0);
                    }
                    const vf s0 = v_load(scales + chunk / 1 * 32 + 0 * V);
                    const vf s1 = v_load(scales + chunk / 1 * 32 + 1 * V);
                    const float sx0 = f0[2 * chunk], sum0 = f0[2 * chunk + 1];
                    acc0_0 += (v_to_float(d_sum(dot0_0)) - sum0) * (s0 * sx0);
                    acc0_1 += (v_to_float(d_sum(dot0_1)) - sum0) * (s1 * sx0);
                }
                float sums[1][32];
                v_store(&sums[0][0 * V], acc0_0);
                v_store(&sums[0][1 * V], acc0_1);
                for (int64_t r = 0; r < 1; r++)
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

/* com.microsoft::MatMulNBits node 'y' */
TL_HIDDEN void k_round_rows_16(int64_t begin, int64_t end, uint8_t *scratch, const float *restrict x, int8_t *restrict codes, float *restrict factors)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t K = 16;
    const int64_t CHUNK = 16;
    const int64_t CHUNKS = 1;
    for (int64_t item = begin; item < end; item++) {
        const int64_t at = item % CHUNKS * CHUNK, left = K - at;
        const float *const from = x + item / CHUNKS * K + at;
        vf part[CHUNK / V], most = {0}, odd = {0}, sum = {0};
        for (int64_t i = 0; i < CHUNK / V; i++) {
            const int64_t rest = left - i * V;
            part[i] = rest >= V ? v_load(from + i * V) : rest > 0 ? v_loadn(from + i * V, rest) : sum;
            most = v_max(v_abs(part[i]), most);
            odd += part[i] * 0.0f;
        }
        const float top = v_hmax(most);
        const float factor = top > 1e-30f ? 127.0f / top : 0.0f;
        for (int64_t i = 0; i < CHUNK / V; i++) {
            const vf code = v_round(part[i] * factor);
            v_store_i8(codes + item * CHUNK + i * V, code);
            sum += code;
        }
        factors[2 * item] = (top > 1e-30f ? top / 127.0f : 0.0f) + v_sum(odd);
        factors[2 * item + 1] = v_sum(sum) * 8.0f;
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
    if (tid == 0) k_round_rows_16(0, 1, scratch, (const float *)((const uint8_t *)run->inputs[0]), (int8_t *)(run->arena + 0), (float *)(run->arena + 64));
    /* com.microsoft::MatMulNBits node 'y' */
    if (tid == 0) k_matmul_dots_4_16x1(0, 1, scratch, (const int8_t *)(run->arena + 0), (const float *)(run->arena + 64), (float *)((uint8_t *)run->outputs[0]), (const uint8_t *)(run->weights + 0), (const float *)(run->weights + 256));
    tl_results_as(before);
}

TL_EXPORT int64_t tuili_num_offsets(void)
{
    return 2;
}

TL_EXPORT int64_t tuili_plan(tl_run *run)
{
    const int64_t stride = (0 + 63) / 64 * 64;
    const int64_t size = 128;
    run->offsets[0] = size;
    run->offsets[1] = stride;
    return size + stride * run->threads;
}

TL_EXPORT int32_t tuili_run(tl_run *run)
{
    tl_shared shared = {.run = run};
    const int32_t threads = run->threads > 1 && (32 >= 600000 || 484 >= 200000) ? run->threads : 1;
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
