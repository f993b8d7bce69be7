/* zip_test_common: see zip_test.h. */
#include "zip_test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checksum.h"

unsigned zip_test_rounds = 5;

bool pair_open(struct pair *pair)
{
    struct wd_device device;
    int error = wd_find(&device, "deflate");

    pair->compress.fd = pair->decompress.fd = -1;
    REQUIRE(error == 0, "no accelerator below /sys/class/uacce");
    error = wd_open(&pair->compress, &device, ZIP_COMPRESS);
    REQUIRE(error == 0, "cannot open a compression queue: %s", strerror(-error));
    error = wd_open(&pair->decompress, &device, ZIP_DECOMPRESS);
    REQUIRE(error == 0, "cannot open a decompression queue: %s", strerror(-error));
    return true;
}

void pair_close(struct pair *pair)
{
    wd_close(&pair->compress);
    wd_close(&pair->decompress);
}

void *untouched(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return at == MAP_FAILED ? NULL : at;
}

/* One step of a 32-bit xorshift generator. */
static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

void fill_text(void *data, size_t bytes, uint32_t seed)
{
    static const char *const WORDS[] = {"queue ",  "doorbell ", "of ",       "the ",   "stream ", "table ", "walks ",
                                        "a ",      "page ",     "that ",     "nobody", " has ",   "touched", ", and ",
                                        "waits.\n", "process "};
    uint32_t state = seed * 2654435761u | 1;
    char *at = data, *end = at + bytes;

    while (at < end) {
        uint32_t random = next_random(&state);
        char number[16];
        /* Every eighth word is a number, so that no two stretches are equal. */
        const char *word = WORDS[random >> 8 & 15];
        if ((random & 7) == 0) {
            snprintf(number, sizeof number, "%u ", random >> 12);
            word = number;
        }
        while (*word && at < end)
            *at++ = *word++;
    }
}

bool is_text(const void *data, size_t bytes, uint32_t seed)
{
    char *expected = malloc(bytes + 1);
    bool equal;

    if (!expected)
        return false;
    fill_text(expected, bytes, seed);
    equal = memcmp(data, expected, bytes) == 0;
    free(expected);
    return equal;
}

size_t compressed_bound(size_t bytes)
{
    return bytes + bytes / 8 + 1024;
}

static uint32_t little_endian(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

bool round_trip(struct pair *pair, enum zip_format format, bool sgl, const void *data, size_t bytes)
{
    size_t bound = compressed_bound(bytes);
    uint8_t *packed = malloc(bound), *unpacked = malloc(bytes + 1);
    /* An odd size of the pieces, so that they cross pages in every way. */
    size_t piece = 5003;
    void *source = (void *)(uintptr_t)data, *middle = packed, *destination = unpacked;
    struct zip_sqe sqe;

    REQUIRE(packed && unpacked, "no memory for %zu bytes", bytes);
    if (sgl) {
        source = zip_sgl_new(source, bytes, piece);
        middle = zip_sgl_new(middle, bound, piece);
        destination = zip_sgl_new(destination, bytes + 1, piece);
        REQUIRE(source && middle && destination, "no memory for scatter lists");
    }

    sqe = zip_request(format, sgl, source, (uint32_t)bytes, middle, (uint32_t)bound);
    sqe.tag_low = 0x5eed1234;
    REQUIRE(wd_do(&pair->compress, &sqe, PATIENCE_MS) == 0, "compression did not complete");
    REQUIRE(ZIP_STATUS(&sqe) == ZIP_OK || ZIP_STATUS(&sqe) == ZIP_GREW, "compression: status %#x", sqe.status);
    REQUIRE(sqe.consumed == bytes, "compression consumed %u of %zu bytes", sqe.consumed, bytes);
    REQUIRE(sqe.produced <= bound, "compression produced %u bytes in %zu", sqe.produced, bound);
    REQUIRE(sqe.tag_low == 0x5eed1234, "the tag came back as %#x", sqe.tag_low);
    uint32_t produced = sqe.produced;
    if (format == ZIP_GZIP) {
        REQUIRE(produced >= 8, "a gzip body of %u bytes", produced);
        REQUIRE(little_endian(packed + produced - 8) == crc32_update(0, data, bytes), "wrong CRC-32 in the trailer");
        REQUIRE(little_endian(packed + produced - 4) == (uint32_t)bytes, "wrong length in the trailer");
    }

    sqe = zip_request(format, sgl, middle, produced, destination, (uint32_t)bytes + 1);
    REQUIRE(wd_do(&pair->decompress, &sqe, PATIENCE_MS) == 0, "decompression did not complete");
    REQUIRE(ZIP_STATUS(&sqe) == ZIP_OK, "decompression: status %#x", sqe.status);
    REQUIRE(sqe.produced == bytes, "decompression produced %u of %zu bytes", sqe.produced, bytes);
    REQUIRE(memcmp(unpacked, data, bytes) == 0, "decompressed data differ");

    if (sgl) {
        zip_sgl_free(source);
        zip_sgl_free(middle);
        zip_sgl_free(destination);
    }
    free(packed);
    free(unpacked);
    return true;
}

bool still_works(struct pair *pair)
{
    size_t bytes = 100000;
    char *data = malloc(bytes);

    REQUIRE(data, "no memory");
    fill_text(data, bytes, 77);
    bool works = round_trip(pair, ZIP_ZLIB, false, data, bytes);
    free(data);
    REQUIRE(works, "the queue does not work any more");
    return true;
}

int free_queues(void)
{
    struct wd_device device;
    int error = wd_find(&device, "deflate");

    return error ? error : device.available;
}

bool queues_come_back(int before)
{
    int now = -1;

    for (int i = 0; i < 300; i++) {
        now = free_queues();
        /* More than before is no leak: the kernel's own self-tests may still have held two at the start. */
        if (now >= before)
            return true;
        usleep(100000);
    }
    FAIL("%d queues are free, there were %d", now, before);
}

bool in_child(bool (*body)(uint32_t seed), uint32_t seed)
{
    pid_t child = fork();
    int status;

    if (child == 0)
        _exit(body(seed) ? 0 : 1);
    REQUIRE(child > 0 && waitpid(child, &status, 0) == child, "cannot run a child process");
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
