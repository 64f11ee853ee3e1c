
/* Loops around the steps, from the outside in: how often, and how far in bytes. */
typedef struct { int64_t count[3], step[3]; } tl_walk;
typedef struct { int fast; int64_t rows[2]; } tl_tiles;
#if defined(__AMX_TILE__) && defined(__linux__) && !defined(TL_PORTABLE)
#define TL_TILE_LOAD(tile, from, stride) __asm__ volatile( \
    "tileloadd (%0,%1,1), %%tmm" #tile :: "r"(from), "r"((int64_t)(stride)) : "memory")
#define TL_TILE_STORE(tile, to) __asm__ volatile( \
    "tilestored %%tmm" #tile ", (%0,%1,1)" :: "r"(to), "r"((int64_t)64) : "memory")
#define TL_TILE_ADD(sum, rows, columns) __asm__ volatile( \
    "tdpbusd %%tmm" #columns ", %%tmm" #rows ", %%tmm" #sum :::)

/* Whether this process may use tile registers: arch_prctl(ARCH_REQ_XCOMP_PERM, 18), asked once. */
static int tl_may_use_tiles(void)
{
    static int answer; /* 1: yes, 2: no */
    int known = __atomic_load_n(&answer, __ATOMIC_RELAXED);
    if (!known) {
        int64_t refused;
        __asm__ volatile("syscall" : "=a"(refused) : "0"(158L), "D"(0x1023L), "S"(18L)
                         : "rcx", "r11", "memory");
        known = refused ? 2 : 1;
        __atomic_store_n(&answer, known, __ATOMIC_RELAXED);
    }
    return known == 1;
}
static void tl_tiles_rows(tl_tiles *tiles, int64_t rows)
{
    const int64_t low = rows < 16 ? rows : 16, high = rows > 16 ? rows - 16 : 1;
    if (tiles->rows[0] == low && tiles->rows[1] == high)
        return;
    tiles->rows[0] = low, tiles->rows[1] = high;
    if (!tiles->fast)
        return;
    struct { uint8_t palette, start, zero[14]; uint16_t bytes[16]; uint8_t rows[16]; } shape = {1};
    for (int tile = 0; tile < 8; tile++)
        shape.bytes[tile] = 64, shape.rows[tile] = 16;
    /* Sums 0 and 1 and rows 4 are of the first half, sums 2 and 3 and rows 5 of the other. */
    shape.rows[0] = shape.rows[1] = shape.rows[4] = (uint8_t)low;
    shape.rows[2] = shape.rows[3] = shape.rows[5] = (uint8_t)high;
    __asm__ volatile("ldtilecfg %0" :: "m"(shape));
}
static tl_tiles tl_tiles_begin(void)
{
    tl_tiles tiles = {tl_may_use_tiles(), {0, 0}};
    tl_tiles_rows(&tiles, 32);
    return tiles;
}
static void tl_tiles_end(const tl_tiles *tiles)
{
    if (tiles->fast)
        __asm__ volatile("tilerelease");
}
static void tl_block_fast(int32_t *sums, const int32_t *starts, const void *a, const void *b,
                          int64_t stride, const void *weights, const tl_walk *walk)
{
    const char *w = weights;
    TL_TILE_LOAD(0, starts, 0);
    TL_TILE_LOAD(1, starts + 16, 0);
    TL_TILE_LOAD(2, starts, 0);
    TL_TILE_LOAD(3, starts + 16, 0);
    for (int64_t i = 0; i < walk->count[0]; i++)
        for (int64_t j = 0; j < walk->count[1]; j++)
            for (int64_t k = 0; k < walk->count[2]; k++, w += 2048) {
                const int64_t at = i * walk->step[0] + j * walk->step[1] + k * walk->step[2];
                /* Weights of few rows come from memory: nothing runs ahead of tile loads. */
                for (int line = 0; line < 2048; line += 64)
                    __builtin_prefetch(w + 4096 + line);
                TL_TILE_LOAD(4, (const char *)a + at, stride);
                TL_TILE_LOAD(6, w, 64);
                TL_TILE_ADD(0, 4, 6);
                TL_TILE_LOAD(7, w + 1024, 64);
                TL_TILE_ADD(1, 4, 7);
                TL_TILE_LOAD(5, (const char *)b + at, stride);
                TL_TILE_ADD(2, 5, 6);
                TL_TILE_ADD(3, 5, 7);
            }
    TL_TILE_STORE(0, sums);
    TL_TILE_STORE(1, sums + 256);
    TL_TILE_STORE(2, sums + 512);
    TL_TILE_STORE(3, sums + 768);
}
#else
static void tl_tiles_rows(tl_tiles *tiles, int64_t rows)
{
    tiles->rows[0] = rows < 16 ? rows : 16, tiles->rows[1] = rows > 16 ? rows - 16 : 1;
}
static tl_tiles tl_tiles_begin(void) { return (tl_tiles){0, {16, 16}}; }
static void tl_tiles_end(const tl_tiles *tiles) { (void)tiles; }
#endif
#define ADD(sum, x, w) (int32_t)((uint32_t)(sum) + (uint32_t)((int32_t)(x) * (int32_t)(w)))
static void tl_block_plain(const tl_tiles *tiles, int32_t *sums, const int32_t *starts, const void *a,
                           const void *b, int64_t stride, const void *weights,
                           const tl_walk *walk)
{
    for (int64_t half = 0; half < 2; half++)
        for (int64_t row = 0; row < tiles->rows[half]; row++)
            for (int64_t column = 0; column < 32; column++) {
                const char *const x = (const char *)(half ? b : a) + row * stride;
                const int8_t *w = (const int8_t *)weights
                                  + (column / 16 * 256 + column % 16) * 4;
                int32_t sum = starts[column];
                for (int64_t i = 0; i < walk->count[0]; i++)
                    for (int64_t j = 0; j < walk->count[1]; j++)
                        for (int64_t k = 0; k < walk->count[2]; k++, w += 512 * 4) {
                            const uint8_t *const p = (const void *)(x + i * walk->step[0]
                                + j * walk->step[1] + k * walk->step[2]);
                            for (int64_t n = 0; n < 16 * 4; n++)
                                sum = ADD(sum, p[n], w[n / 4 * 16 * 4 + n % 4]);
                        }
                sums[half * 512 + column / 16 * 256 + row * 16 + column % 16] = sum;
            }
}
static inline void tl_block(const tl_tiles *tiles, int32_t *sums, const int32_t *starts, const void *a,
                            const void *b, int64_t stride, const void *weights,
                            const tl_walk *walk)
{
#ifdef TL_TILE_LOAD
    if (tiles->fast) {
        tl_block_fast(sums, starts, a, b, stride, weights, walk);
        return;
    }
#endif
    tl_block_plain(tiles, sums, starts, a, b, stride, weights, walk);
}

/* QMatMul node 'y' */
TL_HIDDEN void k_qmatmul_amx_40x32x16(int64_t begin, int64_t end, uint8_t *scratch, const uint8_t *restrict x, float *restrict y, const int8_t *restrict w, const int32_t *restrict begin_of)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t M = 40;
    const int64_t N = 16;
    const int64_t K = 64;
    const int64_t PANELS = 1;
    const int64_t BAND = 32;
    const int64_t BANDS = 2;
    const int64_t PANEL = 2048;
    (void)BANDS;
    tl_tiles tiles = tl_tiles_begin();
    const tl_walk walk = {{1, 1, K / 64}, {0, 0, 64}};
    int32_t sums[4 * 256] __attribute__((aligned(64)));
    int32_t starts[32] __attribute__((aligned(64)));
    for (int64_t item = begin; item < end; item++) {
        const int64_t panel = item % PANELS, band = item / PANELS;
        const int64_t oc = panel * 32, stop = tl_min((band + 1) * BAND, M);
        const vi start0 = *(const vi_any *)(begin_of + oc + 0 * V);
        const vi start1 = *(const vi_any *)(begin_of + oc + 1 * V);
        memcpy(starts + 0 * V, &start0, sizeof start0);
        memcpy(starts + 1 * V, &start1, sizeof start1);
        for (int64_t row = band * BAND; row < stop; row += 32) {
            const int64_t rows = tl_min(32, stop - row);
            const uint8_t *const x0 = x + row * K;
            tl_tiles_rows(&tiles, rows);
            tl_block(&tiles, sums, starts, x0, rows > 16 ? x0 + 16 * K : x0,
                     K * 1, w + panel * PANEL, &walk);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t v = 0; v < 2 && oc + v * V < N; v++) {
                    const int32_t *const from = sums + v * 256 + (r + r / 16 * 16) * V;
                    const int64_t at = (row + r) * N + oc + v * V;
                    { v_store(y + at + 0 * V, v_to_float(*(const vi_any *)from)); }
                }
        }
    }
    tl_tiles_end(&tiles);
}

/* QMatMul node 'y' */
TL_HIDDEN void k_rows_32(int64_t begin, int64_t end, uint8_t *scratch, const uint8_t *restrict x, uint8_t *restrict y)
{
    (void)begin, (void)end, (void)scratch;
    const int64_t K = 32;
    const int64_t KP = 64;
    for (int64_t row = begin; row < end; row++) {
        for (int64_t i = 0; i < K; i++)
            y[row * KP + i] = (uint8_t)(x[row * K + i] + 0);
        for (int64_t i = K; i < KP; i++)
            y[row * KP + i] = 0;
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
    /* QMatMul node 'y' */
    if (tid == 0) k_rows_32(0, 40, scratch, (const uint8_t *)((const uint8_t *)run->inputs[0]), (uint8_t *)(run->arena + 0));
    /* QMatMul node 'y' */
    if (tid == 0) k_qmatmul_amx_40x32x16(0, 2, scratch, (const uint8_t *)(run->arena + 0), (float *)((uint8_t *)run->outputs[0]), (const int8_t *)(run->weights + 0), (const int32_t *)(run->weights + 2048));
}

TL_EXPORT int64_t tuili_num_offsets(void)
{
    return 2;
}

TL_EXPORT int64_t tuili_plan(tl_run *run)
{
    const int64_t stride = (0 + 63) / 64 * 64;
    const int64_t size = 2560;
    run->offsets[0] = size;
    run->offsets[1] = stride;
    return size + stride * run->threads;
}

TL_EXPORT int32_t tuili_run(tl_run *run)
{
    tl_shared shared = {.run = run};
    const int32_t threads = run->threads > 1 && (40960 >= 600000 || 11008 >= 200000) ? run->threads : 1;
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
