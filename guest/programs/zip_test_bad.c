/* zip_test_bad: commands that must fail with a status, and leave the queue working. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "zip_test.h"

#define BYTES 100000u

struct case_state {
    struct pair pair;
    char *data, *out;
};

static bool start(struct case_state *state)
{
    state->data = malloc(BYTES);
    state->out = malloc(compressed_bound(BYTES));
    REQUIRE(state->data && state->out && pair_open(&state->pair), "cannot start");
    fill_text(state->data, BYTES, 21);
    return true;
}

/* Submits; wants an error status, and a queue that works afterwards. */
static bool fails(struct case_state *state, struct wd_queue *queue, struct zip_sqe sqe)
{
    REQUIRE(wd_do(queue, &sqe, PATIENCE_MS) == 0, "the command did not complete");
    REQUIRE(!zip_succeeded(&sqe), "the command succeeded");
    printf("  status %#x\n", ZIP_STATUS(&sqe));
    return still_works(&state->pair);
}

/* An address range that is certainly not mapped. */
static void *hole(size_t bytes)
{
    void *at = untouched(bytes);

    munmap(at, bytes);
    return at;
}

bool test_unmapped_source(void)
{
    struct case_state state;

    REQUIRE(start(&state), "cannot start");
    return fails(&state, &state.pair.compress,
                 zip_request(ZIP_ZLIB, false, hole(BYTES), BYTES, state.out, (uint32_t)compressed_bound(BYTES)));
}

bool test_unmapped_destination(void)
{
    struct case_state state;

    REQUIRE(start(&state), "cannot start");
    return fails(&state, &state.pair.compress,
                 zip_request(ZIP_ZLIB, false, state.data, BYTES, hole(2 * BYTES), 2 * BYTES));
}

bool test_readonly_destination(void)
{
    struct case_state state;
    char *destination = untouched(2 * BYTES);

    REQUIRE(start(&state) && destination, "cannot start");
    memset(destination, 0x55, 2 * BYTES);
    REQUIRE(mprotect(destination, 2 * BYTES, PROT_READ) == 0, "mprotect failed");
    REQUIRE(fails(&state, &state.pair.compress,
                  zip_request(ZIP_ZLIB, false, state.data, BYTES, destination, 2 * BYTES)),
            "read-only destination");
    for (size_t i = 0; i < 2 * BYTES; i++)
        REQUIRE(destination[i] == 0x55, "the device wrote to read-only memory at offset %zu", i);
    return true;
}

bool test_bad_type(void)
{
    struct case_state state;
    struct zip_sqe sqe;

    REQUIRE(start(&state), "cannot start");
    sqe = zip_request(ZIP_ZLIB, false, state.data, BYTES, state.out, (uint32_t)compressed_bound(BYTES));
    sqe.control = (sqe.control & ~ZIP_TYPE(15)) | ZIP_TYPE(15);
    return fails(&state, &state.pair.compress, sqe);
}

bool test_bad_format(void)
{
    struct case_state state;
    struct zip_sqe sqe;

    REQUIRE(start(&state), "cannot start");
    sqe = zip_request(ZIP_ZLIB, false, state.data, BYTES, state.out, (uint32_t)compressed_bound(BYTES));
    sqe.request = (sqe.request & ~0xffu) | 0xee;
    REQUIRE(fails(&state, &state.pair.compress, sqe), "unknown request type");
    sqe = zip_request(ZIP_ZLIB, false, state.data, BYTES, state.out, (uint32_t)compressed_bound(BYTES));
    sqe.request |= 0xf00;
    REQUIRE(fails(&state, &state.pair.compress, sqe), "unknown buffer type");
    return true;
}

bool test_small_destination(void)
{
    struct case_state state;
    struct zip_sqe sqe;
    enum { ROOM = 1000 };

    REQUIRE(start(&state), "cannot start");
    memset(state.out, 0x55, compressed_bound(BYTES));
    sqe = zip_request(ZIP_GZIP, false, state.data, BYTES, state.out, ROOM);
    REQUIRE(wd_do(&state.pair.compress, &sqe, PATIENCE_MS) == 0, "the command did not complete");
    REQUIRE(ZIP_STATUS(&sqe) == ZIP_NO_SPACE, "status %#x instead of %#x", ZIP_STATUS(&sqe), ZIP_NO_SPACE);
    for (size_t i = ROOM; i < compressed_bound(BYTES); i++)
        REQUIRE(state.out[i] == 0x55, "the device wrote beyond the destination, at offset %zu", i);
    return still_works(&state.pair);
}

bool test_damaged_input(void)
{
    struct case_state state;
    struct zip_sqe sqe;
    char *unpacked = malloc(BYTES);

    REQUIRE(start(&state) && unpacked, "cannot start");
    sqe = zip_request(ZIP_GZIP, false, state.data, BYTES, state.out, (uint32_t)compressed_bound(BYTES));
    REQUIRE(wd_do(&state.pair.compress, &sqe, PATIENCE_MS) == 0 && zip_succeeded(&sqe), "compression failed");
    uint32_t produced = sqe.produced;

    /* The last-but-one trailer word is the CRC. */
    state.out[produced - 6] ^= 1;
    sqe = zip_request(ZIP_GZIP, false, state.out, produced, unpacked, BYTES);
    REQUIRE(wd_do(&state.pair.decompress, &sqe, PATIENCE_MS) == 0, "the command did not complete");
    REQUIRE(ZIP_STATUS(&sqe) == ZIP_BAD_CHECKSUM, "wrong CRC: status %#x", ZIP_STATUS(&sqe));

    memset(state.out + produced / 2, 0xff, 64);
    REQUIRE(fails(&state, &state.pair.decompress, zip_request(ZIP_GZIP, false, state.out, produced, unpacked, BYTES)),
            "damaged body");
    REQUIRE(fails(&state, &state.pair.decompress, zip_request(ZIP_GZIP, false, state.out, 20, unpacked, BYTES)),
            "truncated body");
    return true;
}

bool test_bad_sgl(void)
{
    struct case_state state;
    struct zip_sgl *list, *out;
    uint32_t bound = (uint32_t)compressed_bound(BYTES);

    REQUIRE(start(&state), "cannot start");
    list = zip_sgl_new(state.data, BYTES, 4096);
    out = zip_sgl_new(state.out, bound, 4096);
    REQUIRE(list && out, "no memory");

    /* Shorter than the length that the command gives. */
    list->entries_here = 2;
    REQUIRE(fails(&state, &state.pair.compress, zip_request(ZIP_ZLIB, true, list, BYTES, out, bound)),
            "list shorter than the input");
    /* A ring of empty lists has no end. */
    list->entries_here = 0;
    list->next = (uintptr_t)list;
    REQUIRE(fails(&state, &state.pair.compress, zip_request(ZIP_ZLIB, true, list, BYTES, out, bound)),
            "list that points at itself");
    /* A list that is not there. */
    REQUIRE(fails(&state, &state.pair.compress, zip_request(ZIP_ZLIB, true, hole(8192), BYTES, out, bound)),
            "unmapped list");
    return true;
}
