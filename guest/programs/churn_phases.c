/*
 * churn_phases: what happens to memory while the device works on it.
 *
 * In a race the device may see the memory before or after the change. Either is right; wrong are other data, a command
 * that never completes, and one that fails though its memory was there all the time.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "churn.h"
#include "memory.h"
#include "zip_test.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define COMPRESSION(churn) (&(churn)->pumps[0])
#define DECOMPRESSION(churn) (&(churn)->pumps[1])

static void lock(struct churn *churn)
{
    pthread_mutex_lock(&churn->lock);
}

static void unlock(struct churn *churn)
{
    pthread_mutex_unlock(&churn->lock);
}

/* Nothing but what the pumps do by themselves: every command begins with a destination that has no pages. */
bool churn_discard(struct churn *churn, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++)
        REQUIRE(churn_wait_right(churn, 1), "round %u", i);
    return true;
}

/* All pages are shared with a child, copied on write: on the child's, and on the device's. */
bool churn_fork(struct churn *churn, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        pid_t child = fork();
        if (child == 0) {
            bool same = memcmp(churn->at[PLAIN], churn->text, CHURN_BYTES) == 0;
            for (enum piece piece = 0; piece < PIECES; piece++)
                memset(churn->at[piece], 0xee, CHURN_BYTES);
            _exit(same ? 0 : 1);
        }
        int status;
        REQUIRE(child > 0 && waitpid(child, &status, 0) == child, "cannot run a child");
        REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child has other text than its parent");
        REQUIRE(churn_wait_right(churn, 1), "round %u", i);
    }
    return true;
}

/* Gives the device a ring of work in an address space of its own, says so, and waits to be killed, or leaves. */
static void busy(const char *text, int channel, bool leave)
{
    enum { COMMANDS = 8 };
    struct wd_device device;
    struct wd_queue queue;
    char *out = untouched(COMMANDS * CHURN_BYTES);

    if (!out || wd_find(&device, "zlib") != 0 || wd_open(&queue, &device, ZIP_COMPRESS) != 0)
        _exit(1);
    for (size_t i = 0; i < COMMANDS; i++) {
        struct zip_sqe sqe = zip_request(ZIP_ZLIB, false, (void *)(uintptr_t)text, CHURN_BYTES, out + i * CHURN_BYTES,
                                         CHURN_BYTES);
        if (wd_submit(&queue, &sqe) != 0)
            _exit(1);
    }
    if (write(channel, "!", 1) != 1)
        _exit(1);
    while (!leave)
        pause();
    _exit(0);
}

bool churn_exit(struct churn *churn, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        int channel[2];
        char byte;
        bool leave = i % 2 == 1;

        REQUIRE(pipe(channel) == 0, "no pipe");
        pid_t child = fork();
        if (child == 0)
            busy(churn->text, channel[1], leave);
        close(channel[1]);
        bool is_busy = read(channel[0], &byte, 1) == 1;
        close(channel[0]);
        if (child > 0 && !leave)
            kill(child, SIGKILL);
        REQUIRE(child > 0 && waitpid(child, NULL, 0) == child && is_busy, "round %u: the child had no work", i);
        REQUIRE(churn_wait_right(churn, 1), "round %u", i);
    }
    return true;
}

static bool map_again(struct churn *churn, enum piece piece, int how)
{
    return mmap(churn->at[piece], CHURN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | how, churn->file,
                churn_offset(piece)) == churn->at[piece];
}

/* The memory goes, so that the device is refused, and comes back where it was. */
bool churn_munmap(struct churn *churn, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        struct pump *pump = &churn->pumps[i % 2];
        enum piece piece = i / 2 % 2 == 0 ? pump->source : pump->destination;

        lock(churn);
        bool gone = munmap(churn->at[piece], CHURN_BYTES) == 0;
        unlock(churn);
        REQUIRE(gone && churn_wait_refused(churn, pump), "round %u: without memory", i);
        lock(churn);
        bool back = map_again(churn, piece, MAP_FIXED_NOREPLACE);
        unlock(churn);
        REQUIRE(back && churn_wait_right(churn, 2), "round %u: with memory again", i);
    }
    return true;
}

/* A mapping is replaced by one of the same file in one step: there is always memory. */
bool churn_remap(struct churn *churn, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        for (enum piece piece = 0; piece < PIECES; piece++)
            REQUIRE(map_again(churn, piece, MAP_FIXED), "cannot map");
        REQUIRE(churn_wait_right(churn, 1), "round %u", i);
    }
    return true;
}

/* The pages go elsewhere; what is under way with the old addresses may fail. */
bool churn_mremap(struct churn *churn, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        char *target[PIECES];
        bool moved = true;

        lock(churn);
        /* All targets first: none may be where another piece was when the device's commands began. */
        for (enum piece piece = 0; piece < PIECES; piece++)
            target[piece] = untouched(CHURN_BYTES);
        for (enum piece piece = 0; piece < PIECES; piece++) {
            void *at = target[piece] ? mremap(churn->at[piece], CHURN_BYTES, CHURN_BYTES,
                                              MREMAP_MAYMOVE | MREMAP_FIXED, target[piece])
                                     : MAP_FAILED;
            if (at == MAP_FAILED)
                moved = false;
            else
                churn->at[piece] = churn->view[piece] = at;
        }
        unlock(churn);
        REQUIRE(moved && churn_wait_right(churn, 2), "round %u", i);
    }
    return true;
}

bool churn_swap(struct churn *churn, unsigned rounds)
{
    enum { ATTEMPTS = 10 };
    long most = 0;

    /* The kernel leaves pages alone that somebody works on just then: with few rounds, more until it has taken some. */
    for (unsigned i = 0; i < rounds || (most == 0 && i < ATTEMPTS); i++) {
        for (enum piece piece = 0; piece < PIECES; piece++)
            REQUIRE(madvise(churn->at[piece], CHURN_BYTES, MADV_PAGEOUT) == 0, "madvise failed");
        long swapped = memory_bytes("Swap");
        if (swapped > most)
            most = swapped;
        REQUIRE(churn_wait_right(churn, 1), "round %u", i);
    }
    REQUIRE(most > 0, "nothing was ever swapped out");
    return true;
}

/* Puts the pieces into one huge page. The kernel gives way to whoever works on the pages just then, so more than once. */
static bool collapse(struct churn *churn)
{
    enum { ATTEMPTS = 1000 };

    for (unsigned i = 0; i < ATTEMPTS; i++) {
        lock(churn);
        bool is_whole = madvise(churn->at[0], PIECES * CHURN_BYTES, MADV_COLLAPSE) == 0 &&
                        memory_bytes("AnonHugePages") == PIECES * CHURN_BYTES;
        unlock(churn);
        if (is_whole)
            return true;
        /* The pump that waits for the lock is to have it. */
        usleep(1000);
    }
    return false;
}

/* A huge page is split into small ones, whose content is then copied into a new huge page. */
bool churn_split(struct churn *churn, unsigned rounds)
{
    size_t page = page_size();

    for (unsigned i = 0; i < rounds; i++) {
        REQUIRE(collapse(churn), "round %u: no huge page", i);
        REQUIRE(churn_wait_right(churn, 1), "round %u: whole", i);

        lock(churn);
        bool split = mprotect(churn->at[PLAIN] + page, page, PROT_READ) == 0 && memory_bytes("AnonHugePages") == 0 &&
                     mprotect(churn->at[PLAIN] + page, page, PROT_READ | PROT_WRITE) == 0;
        unlock(churn);
        REQUIRE(split, "round %u: still a huge page", i);
    }
    return true;
}

/* Memory is protected, which refuses the device and leaves the memory alone, and released. */
bool churn_mprotect(struct churn *churn, unsigned rounds)
{
    struct pump *writer = DECOMPRESSION(churn);
    char *written = churn->at[writer->destination];
    char *before = malloc(CHURN_BYTES);

    REQUIRE(before, "no memory");
    for (unsigned i = 0; i < rounds; i++) {
        lock(churn);
        writer->frozen = true;
        bool set = mprotect(written, CHURN_BYTES, PROT_READ) == 0;
        /* A command is in the middle of this memory: not one byte may come any more. */
        memcpy(before, written, CHURN_BYTES);
        unlock(churn);
        REQUIRE(set && churn_wait_refused(churn, writer), "round %u: read-only destination", i);
        lock(churn);
        bool same = memcmp(before, written, CHURN_BYTES) == 0;
        set = mprotect(written, CHURN_BYTES, PROT_READ | PROT_WRITE) == 0;
        writer->frozen = false;
        unlock(churn);
        REQUIRE(same, "round %u: the device wrote to read-only memory", i);
        REQUIRE(set && churn_wait_right(churn, 2), "round %u: writable again", i);

        REQUIRE(mprotect(churn->at[PLAIN], CHURN_BYTES, PROT_NONE) == 0, "mprotect failed");
        REQUIRE(churn_wait_refused(churn, COMPRESSION(churn)), "round %u: unreadable source", i);
        REQUIRE(mprotect(churn->at[PLAIN], CHURN_BYTES, PROT_READ | PROT_WRITE) == 0, "mprotect failed");
        REQUIRE(churn_wait_right(churn, 2), "round %u: readable again", i);
    }
    free(before);
    return true;
}

/* One command on memory whose pages a process supplies: refused before it has, and right afterwards. */
static bool supplied(struct churn *churn, struct wd_queue *queue, int faults)
{
    char *source = untouched(CHURN_BYTES), *packed = untouched(CHURN_BYTES);
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)source, .len = CHURN_BYTES}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    struct uffdio_copy copy = {.dst = (uintptr_t)source, .src = (uintptr_t)churn->text, .len = CHURN_BYTES};
    struct zip_sqe sqe = zip_request(ZIP_ZLIB, false, source, CHURN_BYTES, packed, CHURN_BYTES), again = sqe;

    REQUIRE(source && packed && ioctl(faults, UFFDIO_REGISTER, &range) == 0, "cannot register memory");
    /* The kernel does not hand faults of devices to processes (it has no way to try again). */
    REQUIRE(wd_do(queue, &sqe, PATIENCE_MS) == 0 && !zip_succeeded(&sqe), "without pages: status %#x", sqe.status);
    REQUIRE(ioctl(faults, UFFDIO_COPY, &copy) == 0 && copy.copy == CHURN_BYTES, "cannot supply pages");
    REQUIRE(wd_do(queue, &again, PATIENCE_MS) == 0 && zip_succeeded(&again), "with pages: status %#x", again.status);
    REQUIRE(again.produced == churn->reference_bytes && memcmp(packed, churn->reference, again.produced) == 0,
            "wrong data");
    munmap(source, CHURN_BYTES);
    munmap(packed, CHURN_BYTES);
    return true;
}

bool churn_userfault(struct churn *churn, unsigned rounds)
{
    struct wd_device device;
    struct wd_queue queue;
    struct uffdio_api api = {.api = UFFD_API};
    int faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

    REQUIRE(faults >= 0 && ioctl(faults, UFFDIO_API, &api) == 0, "no userfaultfd");
    REQUIRE(wd_find(&device, "zlib") == 0 && wd_open(&queue, &device, ZIP_COMPRESS) == 0, "no queue");
    for (unsigned i = 0; i < rounds; i++)
        REQUIRE(supplied(churn, &queue, faults), "round %u", i);
    wd_close(&queue);
    close(faults);
    return churn_wait_right(churn, 1);
}
