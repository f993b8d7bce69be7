/*
 * zip-bench: throughput of the accelerator as a process sees it.
 *
 * Compresses the disk /dev/vda in requests of 1 MiB, several times over, with two commands under way on one queue, so that
 * the device always has the next one. Prints `bench zip-compress BYTES NANOSECONDS COMPRESSED`, counted after a
 * first round that brings all memory in.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "wd_queue.h"

#define REQUEST_BYTES (1u << 20)
#define ROOM_BYTES (REQUEST_BYTES + REQUEST_BYTES / 8 + 4096)
#define INPUT_MAX (64u << 20)
#define UNDER_WAY 2
#define PATIENCE_MS 60000

static int fail(const char *what, int error)
{
    fprintf(stderr, "zip-bench: %s%s%s\n", what, error ? ": " : "", error ? strerror(-error) : "");
    return 1;
}

/* Compresses everything once; returns the bytes produced, or 0. */
static uint64_t once(struct wd_queue *queue, char *data, size_t bytes, char *const room[UNDER_WAY])
{
    size_t requests = bytes / REQUEST_BYTES, submitted = 0;
    uint64_t produced = 0;

    for (size_t done = 0; done < requests; done++) {
        struct zip_sqe sqe;
        for (; submitted < requests && submitted - done < UNDER_WAY; submitted++) {
            sqe = zip_request(ZIP_ZLIB, false, data + submitted * REQUEST_BYTES, REQUEST_BYTES,
                              room[submitted % UNDER_WAY], ROOM_BYTES);
            if (wd_submit(queue, &sqe) != 0)
                return 0;
        }
        if (wd_wait(queue, &sqe, PATIENCE_MS) != 0 || !zip_succeeded(&sqe))
            return 0;
        produced += sqe.produced;
    }
    return produced;
}

int main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 5;
    char *data = mmap(NULL, INPUT_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *room[UNDER_WAY];
    struct wd_device device;
    struct wd_queue queue;
    size_t bytes = 0;
    ssize_t n;

    int fd = open("/dev/vda", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || data == MAP_FAILED || rounds == 0)
        return fail("no disk /dev/vda, no memory, or no rounds", 0);
    while (bytes < INPUT_MAX && (n = read(fd, data + bytes, INPUT_MAX - bytes)) > 0)
        bytes += (size_t)n;
    close(fd);
    bytes -= bytes % REQUEST_BYTES;
    if (bytes == 0)
        return fail("the disk has less than 1 MiB", 0);
    for (int i = 0; i < UNDER_WAY; i++)
        if (!(room[i] = malloc(ROOM_BYTES)))
            return fail("no memory", 0);
    int error = wd_find(&device, "zlib");
    if (error == 0)
        error = wd_open(&queue, &device, ZIP_COMPRESS);
    if (error)
        return fail("cannot open a queue", error);

    struct timespec start, end;
    uint64_t produced = once(&queue, data, bytes, room);
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (unsigned long i = 0; i < rounds && produced; i++)
        produced = once(&queue, data, bytes, room);
    clock_gettime(CLOCK_MONOTONIC, &end);
    wd_close(&queue);
    if (!produced)
        return fail("a command failed", 0);
    int64_t ns = (int64_t)(end.tv_sec - start.tv_sec) * 1000000000 + (end.tv_nsec - start.tv_nsec);
    printf("bench zip-compress %" PRIu64 " %" PRId64 " %" PRIu64 "\n", (uint64_t)bytes * rounds, ns, produced);
    return 0;
}
