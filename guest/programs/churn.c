/* churn: see churn.h. */
#include "churn.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "zip_test.h"

/* What wiped memory holds, so that output of an earlier command is not taken for that of this one. */
#define WIPED 0xa5

/* Says what was wrong, once for each pump, and lets everybody know. */
#define WRONG(pump, ...)                              \
    do {                                              \
        fprintf(stderr, "  " __VA_ARGS__);            \
        fputc('\n', stderr);                          \
        (pump)->churn->failed = true;                 \
    } while (0)

long churn_offset(enum piece piece)
{
    return (long)piece * CHURN_BYTES;
}

static bool is_compression(const struct pump *pump)
{
    return pump->source == PLAIN;
}

/* The destination loses its content and its pages: the device has to ask for every one of them. */
static void wipe(const struct pump *pump)
{
    const struct churn *churn = pump->churn;
    char *at = churn->at[pump->destination], *view = churn->view[pump->destination];

    if (pump->frozen)
        return;
    /* Private pages are zero from then on; those of a file keep their content, and only the device's view is gone. */
    if (view != at)
        memset(view, WIPED, CHURN_BYTES);
    madvise(at, CHURN_BYTES, MADV_DONTNEED);
}

static void check(struct pump *pump, const struct zip_sqe *sqe)
{
    const struct churn *churn = pump->churn;
    const char *name = is_compression(pump) ? "compression" : "decompression";
    const char *output = churn->view[pump->destination];

    if (!zip_succeeded(sqe)) {
        pump->refused++;
        if (!churn->may_refuse)
            WRONG(pump, "%s: status %#x", name, sqe->status);
        return;
    }
    if (sqe->consumed != pump->bytes_in || sqe->produced != pump->bytes_out) {
        WRONG(pump, "%s: %u of %u bytes in, %u of %u bytes out", name, sqe->consumed, pump->bytes_in, sqe->produced,
              pump->bytes_out);
        return;
    }
    if (memcmp(output, pump->expected, pump->bytes_out) != 0) {
        uint32_t i = 0;
        while (output[i] == pump->expected[i])
            i++;
        WRONG(pump, "%s: byte %u is %#x instead of %#x", name, i, (uint8_t)output[i], (uint8_t)pump->expected[i]);
        return;
    }
    pump->right++;
}

static void *pump_run(void *argument)
{
    struct pump *pump = argument;
    struct churn *churn = pump->churn;

    pthread_mutex_lock(&churn->lock);
    while (!churn->stop && !churn->failed) {
        wipe(pump);
        struct zip_sqe sqe = zip_request(ZIP_ZLIB, false, churn->at[pump->source], pump->bytes_in,
                                         churn->at[pump->destination], CHURN_BYTES);
        int error = wd_submit(&pump->queue, &sqe);
        pthread_mutex_unlock(&churn->lock);
        if (!error)
            error = wd_wait(&pump->queue, &sqe, PATIENCE_MS);
        pthread_mutex_lock(&churn->lock);
        if (error)
            WRONG(pump, "a command did not complete: %s", strerror(-error));
        else
            check(pump, &sqe);
        pthread_cond_broadcast(&churn->progress);
    }
    pthread_mutex_unlock(&churn->lock);
    return NULL;
}

/* Waits, with the lock held, for the next completion of either pump. */
static bool wait_progress(struct churn *churn, const struct timespec *deadline)
{
    if (pthread_cond_timedwait(&churn->progress, &churn->lock, deadline) != 0) {
        fprintf(stderr, "  no progress: %lu, %lu commands right, %lu, %lu refused\n", churn->pumps[0].right,
                churn->pumps[1].right, churn->pumps[0].refused, churn->pumps[1].refused);
        churn->failed = true;
    }
    return !churn->failed;
}

static struct timespec deadline(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += 2 * PATIENCE_MS / 1000;
    return at;
}

bool churn_wait_right(struct churn *churn, unsigned long count)
{
    struct timespec until = deadline();
    struct pump *pumps = churn->pumps;
    bool well = true;

    pthread_mutex_lock(&churn->lock);
    unsigned long goal[2] = {pumps[0].right + count, pumps[1].right + count};
    while (well && (pumps[0].right < goal[0] || pumps[1].right < goal[1]))
        well = wait_progress(churn, &until);
    pthread_mutex_unlock(&churn->lock);
    return well;
}

bool churn_wait_refused(struct churn *churn, struct pump *pump)
{
    struct timespec until = deadline();
    bool well = true;

    pthread_mutex_lock(&churn->lock);
    for (unsigned long before = pump->refused; well && pump->refused == before;)
        well = wait_progress(churn, &until);
    pthread_mutex_unlock(&churn->lock);
    return well;
}

static bool map_pieces(struct churn *churn, enum backing backing)
{
    char *all = NULL, *second = NULL;

    switch (backing) {
    case ANONYMOUS:
        break;
    case SHARED:
        churn->file = memfd_create("churn", MFD_CLOEXEC);
        REQUIRE(churn->file >= 0 && ftruncate(churn->file, PIECES * CHURN_BYTES) == 0, "no file in memory");
        all = mmap(NULL, PIECES * CHURN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, churn->file, 0);
        second = mmap(NULL, PIECES * CHURN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, churn->file, 0);
        REQUIRE(all != MAP_FAILED && second != MAP_FAILED, "cannot map a file in memory");
        break;
    case HUGE:
        all = untouched(2 * PIECES * CHURN_BYTES);
        REQUIRE(all, "no memory");
        all += -(uintptr_t)all & (PIECES * CHURN_BYTES - 1);
        REQUIRE(madvise(all, PIECES * CHURN_BYTES, MADV_HUGEPAGE) == 0, "the kernel has no huge pages");
        break;
    }
    for (enum piece piece = 0; piece < PIECES; piece++) {
        churn->at[piece] = all ? all + churn_offset(piece) : untouched(CHURN_BYTES);
        REQUIRE(churn->at[piece], "no memory");
        churn->view[piece] = second ? second + churn_offset(piece) : churn->at[piece];
    }
    return true;
}

bool churn_start(struct churn *churn, enum backing backing, bool may_refuse, uint32_t seed)
{
    struct wd_device device;
    pthread_condattr_t clock;

    memset(churn, 0, sizeof *churn);
    churn->may_refuse = may_refuse;
    churn->file = -1;
    pthread_mutex_init(&churn->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&churn->progress, &clock);

    churn->text = malloc(CHURN_BYTES);
    churn->reference = malloc(CHURN_BYTES);
    REQUIRE(churn->text && churn->reference && map_pieces(churn, backing), "no memory");
    fill_text(churn->text, CHURN_BYTES, seed);

    REQUIRE(wd_find(&device, "zlib") == 0, "no accelerator below /sys/class/uacce");
    for (int i = 0; i < 2; i++) {
        int error = wd_open(&churn->pumps[i].queue, &device, i == 0 ? ZIP_COMPRESS : ZIP_DECOMPRESS);
        REQUIRE(error == 0, "cannot open a queue: %s", strerror(-error));
    }
    /* The device is as good a compressor as any, while nobody disturbs it; its own inflate and the text prove it. */
    struct zip_sqe sqe = zip_request(ZIP_ZLIB, false, churn->text, CHURN_BYTES, churn->reference, CHURN_BYTES);
    REQUIRE(wd_do(&churn->pumps[0].queue, &sqe, PATIENCE_MS) == 0 && zip_succeeded(&sqe), "compression: status %#x",
            sqe.status);
    churn->reference_bytes = sqe.produced;
    memcpy(churn->view[PLAIN], churn->text, CHURN_BYTES);
    memcpy(churn->view[PACKED], churn->reference, churn->reference_bytes);

    churn->pumps[0] = (struct pump){
        .churn = churn, .queue = churn->pumps[0].queue, .source = PLAIN, .destination = SQUEEZED,
        .bytes_in = CHURN_BYTES, .bytes_out = churn->reference_bytes, .expected = churn->reference,
    };
    churn->pumps[1] = (struct pump){
        .churn = churn, .queue = churn->pumps[1].queue, .source = PACKED, .destination = UNPACKED,
        .bytes_in = churn->reference_bytes, .bytes_out = CHURN_BYTES, .expected = churn->text,
    };
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_create(&churn->pumps[i].thread, NULL, pump_run, &churn->pumps[i]) == 0, "no thread");
    return true;
}

bool churn_stop(struct churn *churn)
{
    pthread_mutex_lock(&churn->lock);
    churn->stop = true;
    pthread_mutex_unlock(&churn->lock);
    for (int i = 0; i < 2; i++) {
        pthread_join(churn->pumps[i].thread, NULL);
        wd_close(&churn->pumps[i].queue);
    }
    REQUIRE(memcmp(churn->view[PLAIN], churn->text, CHURN_BYTES) == 0, "the source of compressions has changed");
    REQUIRE(memcmp(churn->view[PACKED], churn->reference, churn->reference_bytes) == 0,
            "the source of decompressions has changed");
    return !churn->failed;
}
