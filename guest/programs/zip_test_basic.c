/* zip_test_basic: good commands: every format, buffer type and size, memory that nobody has touched, streams, full rings. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "zip_test.h"

static const enum zip_format FORMATS[] = {ZIP_DEFLATE, ZIP_ZLIB, ZIP_GZIP};
#define FORMAT_COUNT (sizeof FORMATS / sizeof *FORMATS)

bool test_formats(void)
{
    struct pair pair;
    size_t bytes = 300000;
    char *data = malloc(bytes);

    REQUIRE(data && pair_open(&pair), "cannot start");
    fill_text(data, bytes, 1);
    for (size_t i = 0; i < FORMAT_COUNT; i++)
        for (int sgl = 0; sgl <= 1; sgl++)
            REQUIRE(round_trip(&pair, FORMATS[i], sgl, data, bytes), "format %d, %s", FORMATS[i],
                    sgl ? "scatter list" : "flat");
    pair_close(&pair);
    return true;
}

bool test_sizes(void)
{
    static const size_t SIZES[] = {1, 2, 63, 64, 4095, 4096, 4097, 65535, 65536, 1 << 20, (4 << 20) + 17};
    struct pair pair;
    char *data = malloc(8 << 20);

    REQUIRE(data && pair_open(&pair), "cannot start");
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        /* At an odd address: the device has no alignment to ask for. */
        fill_text(data + 3, SIZES[i], (uint32_t)i);
        REQUIRE(round_trip(&pair, FORMATS[i % FORMAT_COUNT], false, data + 3, SIZES[i]), "%zu bytes", SIZES[i]);
    }
    pair_close(&pair);
    return true;
}

/* A file with text in it, mapped and never touched through the mapping. */
static char *map_file(const char *path, size_t bytes, uint32_t seed)
{
    char *data = malloc(bytes), *map;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || !data)
        return NULL;
    fill_text(data, bytes, seed);
    if (write(fd, data, bytes) != (ssize_t)bytes)
        return NULL;
    free(data);
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return map == MAP_FAILED ? NULL : map;
}

bool test_file(void)
{
    struct pair pair;
    size_t bytes = 2 << 20;
    char *source = map_file("/tmp/zip-test.in", bytes, 5);
    char *packed = untouched(compressed_bound(bytes));
    char *unpacked = map_file("/tmp/zip-test.out", bytes, 6);
    struct zip_sqe sqe;

    REQUIRE(source && packed && unpacked && pair_open(&pair), "cannot start");
    sqe = zip_request(ZIP_GZIP, false, source, (uint32_t)bytes, packed, (uint32_t)compressed_bound(bytes));
    REQUIRE(wd_do(&pair.compress, &sqe, PATIENCE_MS) == 0 && zip_succeeded(&sqe), "compression: status %#x", sqe.status);
    sqe = zip_request(ZIP_GZIP, false, packed, sqe.produced, unpacked, (uint32_t)bytes);
    REQUIRE(wd_do(&pair.decompress, &sqe, PATIENCE_MS) == 0 && zip_succeeded(&sqe), "decompression: status %#x",
            sqe.status);

    /* What the device wrote through the mapping is in the file. */
    int fd = open("/tmp/zip-test.out", O_RDONLY | O_CLOEXEC);
    char *content = malloc(bytes);
    REQUIRE(fd >= 0 && content && read(fd, content, bytes) == (ssize_t)bytes, "cannot read the file");
    REQUIRE(is_text(content, bytes, 5), "the file has other data");
    close(fd);
    unlink("/tmp/zip-test.in");
    unlink("/tmp/zip-test.out");
    pair_close(&pair);
    return true;
}

/* Compresses in pieces of odd sizes, each ended by a sync flush; returns the size of the whole, or 0. */
static size_t stream_compress(struct wd_queue *queue, enum zip_format format, char *data, size_t bytes, char *packed,
                              size_t bound)
{
    void *context = untouched(ZIP_CONTEXT_BYTES);
    struct zip_sqe sqe, previous;
    size_t used = 0, made = 0, piece = 1001;
    bool first = true;

    if (!context)
        return 0;
    while (used < bytes) {
        size_t here = bytes - used < piece ? bytes - used : piece;
        sqe = zip_request(format, false, data + used, (uint32_t)here, packed + made, (uint32_t)(bound - made));
        zip_continue(&sqe, context, first ? NULL : &previous, used + here == bytes);
        if (wd_do(queue, &sqe, PATIENCE_MS) != 0 || !zip_succeeded(&sqe) || sqe.consumed > here) {
            fprintf(stderr, "  stream compression: status %#x\n", sqe.status);
            return 0;
        }
        used += sqe.consumed;
        made += sqe.produced;
        piece = piece * 3 % 40009 + 200;
        previous = sqe;
        first = false;
    }
    return made;
}

bool test_stream(void)
{
    struct pair pair;
    size_t bytes = 400000, bound = compressed_bound(bytes) * 2;
    char *data = malloc(bytes), *packed = malloc(bound), *unpacked = malloc(bytes);
    void *context = untouched(ZIP_CONTEXT_BYTES);

    REQUIRE(data && packed && unpacked && context && pair_open(&pair), "cannot start");
    fill_text(data, bytes, 8);
    for (size_t i = 0; i < FORMAT_COUNT; i++) {
        size_t packed_bytes = stream_compress(&pair.compress, FORMATS[i], data, bytes, packed, bound);
        REQUIRE(packed_bytes > 0, "format %d", FORMATS[i]);

        struct zip_sqe sqe, previous;
        size_t used = 0, made = 0, offer = 500, room = 300;
        memset(unpacked, 0, bytes);
        for (bool first = true;; first = false) {
            size_t in = packed_bytes - used < offer ? packed_bytes - used : offer;
            size_t out = bytes - made < room ? bytes - made : room;
            sqe = zip_request(FORMATS[i], false, packed + used, (uint32_t)in, unpacked + made, (uint32_t)out);
            zip_continue(&sqe, context, first ? NULL : &previous, used + in == packed_bytes);
            REQUIRE(wd_do(&pair.decompress, &sqe, PATIENCE_MS) == 0, "stream decompression did not complete");
            REQUIRE(ZIP_STATUS(&sqe) == ZIP_OK || ZIP_STATUS(&sqe) == ZIP_STREAM_END, "stream decompression: status %#x",
                    sqe.status);
            used += sqe.consumed;
            made += sqe.produced;
            if (ZIP_STATUS(&sqe) == ZIP_STREAM_END && (sqe.status & ZIP_LAST_BLOCK))
                break;
            REQUIRE(sqe.consumed + sqe.produced > 0, "no progress at %zu of %zu, %zu bytes out", used, packed_bytes, made);
            offer = offer * 5 % 3001 + 1;
            room = room * 7 % 9001 + 201;
            previous = sqe;
        }
        REQUIRE(used == packed_bytes && made == bytes, "%zu of %zu bytes in, %zu of %zu out", used, packed_bytes, made,
                bytes);
        REQUIRE(memcmp(data, unpacked, bytes) == 0, "decompressed data differ");
    }
    pair_close(&pair);
    return true;
}

bool test_ring(void)
{
    struct pair pair;
    size_t bytes = 600, commands = 0, taken = 0, bound = compressed_bound(bytes);
    char *data = malloc(bytes);

    REQUIRE(data && pair_open(&pair), "cannot start");
    fill_text(data, bytes, 9);
    /* Two and a half times around the rings, as full as they get. */
    size_t depth = pair.compress.sq_depth, goal = depth * 5 / 2;
    char *packed = malloc(depth * bound);
    REQUIRE(packed, "no memory");
    while (taken < goal) {
        struct zip_sqe sqe;
        while (commands < goal) {
            sqe = zip_request(ZIP_ZLIB, false, data, (uint32_t)bytes, packed + commands % depth * bound, (uint32_t)bound);
            sqe.tag_low = (uint32_t)commands;
            int error = wd_submit(&pair.compress, &sqe);
            if (error == -EAGAIN)
                break;
            REQUIRE(error == 0, "submit: %s", strerror(-error));
            commands++;
        }
        REQUIRE(wd_wait(&pair.compress, &sqe, PATIENCE_MS) == 0, "command %zu of %zu did not complete", taken, goal);
        REQUIRE(zip_succeeded(&sqe) && sqe.tag_low == taken, "completion %zu has tag %u, status %#x", taken, sqe.tag_low,
                sqe.status);
        taken++;
    }
    REQUIRE(still_works(&pair), "after going around the rings");
    pair_close(&pair);
    return true;
}
