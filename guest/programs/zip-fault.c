/*
 * zip-fault: commands one after the other on an accelerator in whose way something goes wrong, and what came of each.
 *
 *     zip-fault [-p MS] [-s BYTES] COUNT
 *
 * Compresses COUNT times on fresh memory that nobody has touched, waits at most MS milliseconds (500) for each, and
 * decompresses what came out. Prints one line for each command: `ok`, `status 0xNN`, `no completion`, `queue stopped`,
 * `wrong data`, or `wrong tag`. After a command without a completion the queues are closed and opened again, as a
 * library would. The exit status is 0 if a last command, after all those, is `ok` and no queue has been lost.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "zip_test.h"

static int patience_ms = 500;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* What came of one command; `*lost` if its queue has to be given up. */
static const char *command(struct pair *pair, size_t bytes, uint32_t number, bool *lost)
{
    static char text[32];
    size_t bound = compressed_bound(bytes);
    char *data = untouched(bytes), *packed = untouched(bound), *unpacked = untouched(bytes);
    struct zip_sqe sqe;

    if (!data || !packed || !unpacked)
        return "no memory";
    fill_text(data, bytes, number);
    sqe = zip_request(ZIP_GZIP, false, data, (uint32_t)bytes, packed, (uint32_t)bound);
    sqe.tag_low = number;
    int error = wd_do(&pair->compress, &sqe, patience_ms);
    *lost = error != 0;
    if (error)
        return error == -ETIMEDOUT ? "no completion" : "queue stopped";
    if (sqe.tag_low != number)
        return "wrong tag";
    if (!zip_succeeded(&sqe)) {
        snprintf(text, sizeof text, "status %#x", ZIP_STATUS(&sqe));
        return text;
    }
    sqe = zip_request(ZIP_GZIP, false, packed, sqe.produced, unpacked, (uint32_t)bytes);
    error = wd_do(&pair->decompress, &sqe, patience_ms);
    *lost = error != 0;
    if (error || !zip_succeeded(&sqe) || sqe.produced != bytes || !is_text(unpacked, bytes, number))
        return "wrong data";
    return "ok";
}

static bool run(size_t bytes, uint32_t number)
{
    static struct pair pair;
    static bool is_open;
    bool lost = false;

    if (!is_open && !pair_open(&pair))
        return false;
    is_open = true;
    double start = now();
    const char *outcome = command(&pair, bytes, number, &lost);
    printf("command %u: %s (%.0f ms)\n", number, outcome, (now() - start) * 1e3);
    bool is_ok = strcmp(outcome, "ok") == 0;
    if (lost) {
        pair_close(&pair);
        is_open = false;
    }
    return is_ok;
}

int main(int argc, char **argv)
{
    size_t bytes = 20000;
    int option, before = free_queues();

    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((option = getopt(argc, argv, "p:s:")) != -1) {
        if (option == 'p')
            patience_ms = atoi(optarg);
        else if (option == 's')
            bytes = (size_t)strtoul(optarg, NULL, 0);
        else
            return 2;
    }
    if (optind + 1 != argc || patience_ms <= 0 || bytes == 0) {
        fprintf(stderr, "usage: zip-fault [-p MS] [-s BYTES] COUNT\n");
        return 2;
    }
    uint32_t count = (uint32_t)strtoul(argv[optind], NULL, 0);
    for (uint32_t number = 0; number < count; number++)
        run(bytes, number);
    bool works = run(bytes, count);
    /* Ours are still open. */
    int after = free_queues() + 2;
    printf("queues: %d before, %d after\n", before, after);
    return works && before == after ? 0 : 1;
}
