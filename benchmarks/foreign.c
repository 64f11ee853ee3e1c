/* Runs a generated library in a process of its own: foreign LIBRARY REQUEST REPLY.
 *
 * All numbers are int64, a blob is its size and its bytes. REQUEST is one of
 *   0, threads, dims, weights, inputs, outputs     a model; of the outputs the sizes alone
 *   1, parts, dims, scratch, buffers               the kernels of one node; of scratch the size
 * where a list is its length and its items. REPLY is the status, an error as a blob, and the
 * outputs or buffers as a list of blobs.
 */
#include <dlfcn.h>
#include "tuili_abi.h"

enum { MOST = 4096, SLACK = 128, ERROR_BYTES = 1000 };

typedef struct { int64_t size; uint8_t *bytes; } blob;

static void stop(const char *what)
{
    fprintf(stderr, "foreign: %s\n", what);
    exit(2);
}

static int64_t read_number(FILE *from)
{
    int64_t value;
    if (fread(&value, sizeof value, 1, from) != 1)
        stop("the request ends early");
    return value;
}

/* What was never written is NaN. */
static blob make(int64_t size)
{
    blob made = {size, NULL};
    void *memory;
    if (size < 0 || posix_memalign(&memory, TL_ALIGNMENT, (size_t)size + SLACK))
        stop("out of memory");
    made.bytes = memset(memory, 0xFF, (size_t)size + SLACK);
    return made;
}

static blob read_blob(FILE *from)
{
    const blob made = make(read_number(from));
    if (fread(made.bytes, 1, (size_t)made.size, from) != (size_t)made.size)
        stop("the request ends early");
    return made;
}

static int64_t read_list(FILE *from, blob *items, int with_bytes)
{
    const int64_t count = read_number(from);
    if (count < 0 || count > MOST)
        stop("a list is too long");
    for (int64_t i = 0; i < count; i++)
        items[i] = with_bytes ? read_blob(from) : make(read_number(from));
    return count;
}

static void write_blob(FILE *to, blob item)
{
    fwrite(&item.size, sizeof item.size, 1, to);
    fwrite(item.bytes, 1, (size_t)item.size, to);
}

static void *need(void *library, const char *name)
{
    void *const found = dlsym(library, name);
    if (!found)
        stop(name);
    return found;
}

static blob inputs[MOST], outputs[MOST];
static void *in[MOST], *out[MOST];
static char error[ERROR_BYTES];

static int64_t run_model(void *library, FILE *request, int64_t *count)
{
    int64_t (*plan)(tl_run *) = (int64_t (*)(tl_run *))need(library, "tuili_plan");
    int64_t (*offsets)(void) = (int64_t (*)(void))need(library, "tuili_num_offsets");
    int32_t (*model)(tl_run *) = (int32_t (*)(tl_run *))need(library, "tuili_run");
    tl_pool *(*pool)(int32_t) = (tl_pool * (*)(int32_t)) need(library, "tuili_pool_create");
    const int32_t threads = (int32_t)read_number(request);
    const blob dims = read_blob(request), weights = read_blob(request);
    const int64_t given = read_list(request, inputs, 1);
    *count = read_list(request, outputs, 0);
    for (int64_t i = 0; i < given; i++)
        in[i] = inputs[i].bytes;
    for (int64_t i = 0; i < *count; i++)
        out[i] = outputs[i].bytes;
    tl_run run = {
        .inputs = (const void *const *)in, .outputs = out, .dims = (int64_t *)dims.bytes,
        .weights = weights.bytes, .offsets = (int64_t *)make(8 * offsets()).bytes,
        .pool = threads > 1 ? pool(threads) : NULL, .threads = threads,
        .error = error, .error_size = ERROR_BYTES,
    };
    const int64_t size = plan(&run);
    if (size < 0)
        return size;
    run.arena = make(size).bytes;
    return model(&run);
}

static int64_t run_kernels(void *library, FILE *request, int64_t *count)
{
    void (*kernels)(uint8_t **, int64_t *, uint8_t *, int64_t) =
        (void (*)(uint8_t **, int64_t *, uint8_t *, int64_t))need(library, "run");
    const int64_t parts = read_number(request);
    const blob dims = read_blob(request), scratch = make(read_number(request));
    *count = read_list(request, outputs, 1);
    for (int64_t i = 0; i < *count; i++)
        out[i] = outputs[i].bytes;
    kernels((uint8_t **)out, (int64_t *)dims.bytes, scratch.bytes, parts);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        stop("usage: foreign LIBRARY REQUEST REPLY");
    void *const library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        stop(dlerror());
    FILE *const request = fopen(argv[2], "rb"), *const reply = fopen(argv[3], "wb");
    if (!request || !reply)
        stop("cannot open the files");
    int64_t count = 0;
    const int is_model = read_number(request) == 0;
    const int64_t status = (is_model ? run_model : run_kernels)(library, request, &count);
    fwrite(&status, sizeof status, 1, reply);
    write_blob(reply, (blob){(int64_t)strlen(error), (uint8_t *)error});
    fwrite(&count, sizeof count, 1, reply);
    for (int64_t i = 0; i < count; i++)
        write_blob(reply, outputs[i]);
    return fclose(reply) != 0;
}
