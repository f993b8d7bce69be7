/*
 * zip_test_memory: memory that the kernel moves, takes away or gives back while the device uses it.
 *
 * In a race the device may see the memory before or after the change. Either is right; wrong are other data than the
 * two possible ones, a command that never completes, and a queue that doesn't work afterwards.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory.h"
#include "zip_test.h"

#define BYTES (4u << 20)

struct case_state {
    struct pair pair;
    char *data, *packed, *unpacked;
    size_t bound;
    struct zip_sqe sqe;
};

/* Text in memory of its own mapping, and a compression command for it under way. */
static bool start(struct case_state *state)
{
    state->bound = compressed_bound(BYTES);
    state->data = untouched(BYTES);
    state->packed = malloc(state->bound);
    state->unpacked = malloc(BYTES);
    REQUIRE(state->data && state->packed && state->unpacked && pair_open(&state->pair), "cannot start");
    fill_text(state->data, BYTES, 61);
    return true;
}

static bool submit(struct case_state *state)
{
    state->sqe =
        zip_request(ZIP_ZLIB, false, state->data, BYTES, state->packed, (uint32_t)state->bound);
    REQUIRE(wd_submit(&state->pair.compress, &state->sqe) == 0, "cannot submit");
    return true;
}

static bool wait_for(struct case_state *state)
{
    REQUIRE(wd_wait(&state->pair.compress, &state->sqe, PATIENCE_MS) == 0, "the command did not complete");
    return true;
}

/* Decompresses what a successful command made. */
static bool unpack(struct case_state *state)
{
    struct zip_sqe sqe = zip_request(ZIP_ZLIB, false, state->packed, state->sqe.produced, state->unpacked, BYTES);

    REQUIRE(wd_do(&state->pair.decompress, &sqe, PATIENCE_MS) == 0 && zip_succeeded(&sqe) && sqe.produced == BYTES,
            "decompression: status %#x", sqe.status);
    return true;
}

/* One command writes to fresh memory of TOUCHED_PAGES pages, and to nothing else that is not there. */
bool test_touch(void)
{
    enum { TOUCHED_PAGES = 64 };
    struct pair pair;
    size_t bytes = TOUCHED_PAGES * page_size(), bound = compressed_bound(bytes);
    char *data = malloc(bytes), *packed = malloc(bound), *fresh = untouched(bytes);

    REQUIRE(data && packed && fresh && pair_open(&pair), "cannot start");
    fill_text(data, bytes, 62);
    memset(packed, 0x55, bound);
    struct zip_sqe sqe = zip_request(ZIP_ZLIB, false, data, (uint32_t)bytes, packed, (uint32_t)bound);
    REQUIRE(wd_do(&pair.compress, &sqe, PATIENCE_MS) == 0 && zip_succeeded(&sqe), "compression: status %#x", sqe.status);
    REQUIRE(present_pages(fresh, bytes) == 0, "the fresh memory has pages");
    sqe = zip_request(ZIP_ZLIB, false, packed, sqe.produced, fresh, (uint32_t)bytes);
    REQUIRE(wd_do(&pair.decompress, &sqe, PATIENCE_MS) == 0 && zip_succeeded(&sqe), "decompression: status %#x", sqe.status);
    REQUIRE(present_pages(fresh, bytes) == TOUCHED_PAGES, "the device wrote to pages that are not there");
    REQUIRE(memcmp(fresh, data, bytes) == 0, "wrong data");
    pair_close(&pair);
    return true;
}

bool test_munmap(void)
{
    struct case_state state;

    for (unsigned i = 0; i < zip_test_rounds; i++) {
        REQUIRE(start(&state) && submit(&state), "cannot start");
        munmap(state.data, BYTES);
        REQUIRE(wait_for(&state), "round %u", i);
        if (zip_succeeded(&state.sqe))
            REQUIRE(unpack(&state) && is_text(state.unpacked, BYTES, 61), "a finished command has wrong data");
        REQUIRE(still_works(&state.pair), "round %u", i);
        pair_close(&state.pair);
    }
    return true;
}

bool test_mprotect(void)
{
    struct case_state state;

    REQUIRE(start(&state), "cannot start");
    for (unsigned i = 0; i < zip_test_rounds; i++) {
        REQUIRE(submit(&state), "cannot start");
        REQUIRE(mprotect(state.data, BYTES, PROT_NONE) == 0, "mprotect failed");
        REQUIRE(wait_for(&state), "round %u", i);
        if (zip_succeeded(&state.sqe))
            REQUIRE(unpack(&state) && is_text(state.unpacked, BYTES, 61), "a finished command has wrong data");
        /* Now it must fail, and after giving the memory back it must work. */
        REQUIRE(submit(&state) && wait_for(&state), "cannot submit");
        REQUIRE(!zip_succeeded(&state.sqe), "the device read memory that is protected");
        REQUIRE(mprotect(state.data, BYTES, PROT_READ | PROT_WRITE) == 0, "mprotect failed");
        REQUIRE(submit(&state) && wait_for(&state) && zip_succeeded(&state.sqe) && unpack(&state), "status %#x",
                state.sqe.status);
        REQUIRE(is_text(state.unpacked, BYTES, 61), "wrong data");
    }
    pair_close(&state.pair);
    return true;
}

bool test_dontneed(void)
{
    struct case_state state;

    REQUIRE(start(&state), "cannot start");
    char *text = malloc(BYTES), *zeros = calloc(1, BYTES);
    REQUIRE(text && zeros, "no memory");
    fill_text(text, BYTES, 61);
    for (unsigned i = 0; i < zip_test_rounds; i++) {
        fill_text(state.data, BYTES, 61);
        REQUIRE(submit(&state), "cannot start");
        REQUIRE(madvise(state.data, BYTES, MADV_DONTNEED) == 0, "madvise failed");
        REQUIRE(wait_for(&state) && zip_succeeded(&state.sqe) && unpack(&state), "status %#x", state.sqe.status);
        /* The output may even mix both within a page, at the device's access size; any other byte is wrong. */
        for (size_t at = 0; at < BYTES; at++)
            REQUIRE(state.unpacked[at] == text[at] || state.unpacked[at] == 0, "foreign data at offset %zu", at);
        REQUIRE(submit(&state) && wait_for(&state) && zip_succeeded(&state.sqe) && unpack(&state), "status %#x",
                state.sqe.status);
        REQUIRE(memcmp(state.unpacked, zeros, BYTES) == 0, "old data");
    }
    pair_close(&state.pair);
    return true;
}

bool test_pageout(void)
{
    struct case_state state;
    size_t page = page_size();

    REQUIRE(start(&state) && swap_on(), "cannot start");
    for (unsigned i = 0; i < zip_test_rounds; i++) {
        /* Out before the command: every page comes back through a fault of the device. */
        REQUIRE(madvise(state.data, BYTES, MADV_PAGEOUT) == 0, "madvise failed");
        long swapped = memory_bytes("Swap");
        REQUIRE(swapped >= (long)BYTES / 2, "only %ld bytes are swapped out", swapped);
        REQUIRE(submit(&state), "cannot submit");
        /* And out again while it runs, source and destination. */
        madvise(state.data, BYTES, MADV_PAGEOUT);
        madvise((void *)(((uintptr_t)state.packed + page - 1) & ~(uintptr_t)(page - 1)), BYTES, MADV_PAGEOUT);
        REQUIRE(wait_for(&state) && zip_succeeded(&state.sqe) && unpack(&state), "status %#x", state.sqe.status);
        REQUIRE(is_text(state.unpacked, BYTES, 61), "wrong data in round %u", i);
    }
    pair_close(&state.pair);
    REQUIRE(swap_off(), "cannot stop swapping");
    return true;
}

bool test_mremap(void)
{
    struct case_state state;

    REQUIRE(start(&state), "cannot start");
    for (unsigned i = 0; i < zip_test_rounds; i++) {
        char *target = untouched(BYTES);
        REQUIRE(target && submit(&state), "cannot start");
        char *moved = mremap(state.data, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, target);
        REQUIRE(moved == target, "mremap failed");
        REQUIRE(wait_for(&state), "round %u", i);
        if (zip_succeeded(&state.sqe))
            REQUIRE(unpack(&state) && is_text(state.unpacked, BYTES, 61), "a finished command has wrong data");
        state.data = moved;
        REQUIRE(submit(&state) && wait_for(&state) && zip_succeeded(&state.sqe) && unpack(&state), "at the new place: %#x",
                state.sqe.status);
        REQUIRE(is_text(state.unpacked, BYTES, 61), "wrong data at the new place");
    }
    pair_close(&state.pair);
    return true;
}

bool test_huge(void)
{
    enum { HUGE_PAGE = 2u << 20 };
    struct case_state state;

    REQUIRE(start(&state), "cannot start");
    /* Aligned for blocks of 2 MiB: the table walk then ends one level earlier. */
    char *area = untouched(BYTES + HUGE_PAGE);
    REQUIRE(area, "no memory");
    state.data = (char *)(((uintptr_t)area + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
    REQUIRE(madvise(state.data, BYTES, MADV_HUGEPAGE) == 0, "madvise failed");
    fill_text(state.data, BYTES, 61);
    REQUIRE(submit(&state) && wait_for(&state) && zip_succeeded(&state.sqe) && unpack(&state), "status %#x",
            state.sqe.status);
    REQUIRE(is_text(state.unpacked, BYTES, 61), "wrong data");
    /* Split a block into pages under the device. */
    REQUIRE(submit(&state), "cannot submit");
    REQUIRE(mprotect(state.data + page_size(), page_size(), PROT_READ) == 0, "mprotect failed");
    REQUIRE(wait_for(&state) && zip_succeeded(&state.sqe) && unpack(&state), "status %#x", state.sqe.status);
    REQUIRE(is_text(state.unpacked, BYTES, 61), "wrong data after the split");
    pair_close(&state.pair);
    return true;
}
