/* zip_test_process: several processes: isolation, death with commands under way, many at once, fork. */
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "zip_test.h"

/* Both processes of the isolation test have their data here. */
#define SHARED_ADDRESS ((void *)0x200000000000)
#define BYTES (1u << 20)

static void *at_address(void *address)
{
    void *at = mmap(address, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    return at == address ? at : NULL;
}

static bool isolated(uint32_t seed)
{
    struct pair pair;
    char *data = at_address(SHARED_ADDRESS);

    REQUIRE(data && pair_open(&pair), "cannot start");
    fill_text(data, BYTES, seed);
    for (int i = 0; i < 10; i++)
        REQUIRE(round_trip(&pair, ZIP_ZLIB, false, data, BYTES), "process %u, round %d", seed, i);
    pair_close(&pair);
    return true;
}

/* Uses the address where its brothers have data, and it has none. */
static bool outsider(uint32_t seed)
{
    struct pair pair;
    char *out = malloc(compressed_bound(BYTES));
    struct zip_sqe sqe = zip_request(ZIP_ZLIB, false, SHARED_ADDRESS, BYTES, out, (uint32_t)compressed_bound(BYTES));

    (void)seed;
    REQUIRE(out && pair_open(&pair), "cannot start");
    REQUIRE(wd_do(&pair.compress, &sqe, PATIENCE_MS) == 0, "the command did not complete");
    REQUIRE(!zip_succeeded(&sqe), "a process read memory that is not its own");
    return still_works(&pair);
}

static bool all_well(const pid_t *children, unsigned count)
{
    bool well = true;

    for (unsigned i = 0; i < count; i++) {
        int status;
        if (waitpid(children[i], &status, 0) != children[i] || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
            well = false;
    }
    return well;
}

/*
 * The PASID by which the device knows a queue's address space: the driver's debug file dumps the queue's context to the
 * kernel's log, as words in hexadecimal. 0 if that fails.
 */
static unsigned pasid_of(const struct wd_queue *queue)
{
    enum { READ_ALL = 3, LOG_BYTES = 16384 };
    char command[32], *log = malloc(LOG_BYTES + 1), *at = NULL;
    unsigned high, pasid = 0;
    glob_t found;

    if (!log || glob("/sys/kernel/debug/hisi_zip/*/qm/cmd", 0, NULL, &found) != 0)
        return 0;
    snprintf(command, sizeof command, "sqc %u", queue->id);
    int fd = open(found.gl_pathv[0], O_WRONLY | O_CLOEXEC);
    bool dumped = fd >= 0 && write(fd, command, strlen(command)) > 0;
    int bytes = klogctl(READ_ALL, log, LOG_BYTES);
    log[bytes > 0 ? bytes : 0] = '\0';
    /* The last dump is ours. */
    for (char *next = log; dumped && (next = strstr(next, "SQC DUMP")); next++)
        at = next;
    at = at ? strstr(at, "DW5: ") : NULL;
    if (!at || sscanf(at, "DW5: %x %x", &high, &pasid) != 2)
        pasid = 0;
    if (fd >= 0)
        close(fd);
    globfree(&found);
    free(log);
    return pasid;
}

static bool has_pasid_but(uint32_t other)
{
    struct pair pair;

    REQUIRE(pair_open(&pair), "cannot start");
    unsigned pasid = pasid_of(&pair.compress);
    REQUIRE(pasid >= 1 && pasid == pasid_of(&pair.decompress), "queues of one process with PASIDs %u and another", pasid);
    REQUIRE(pasid != other, "two processes with the PASID %u", pasid);
    return still_works(&pair);
}

bool test_pasid(void)
{
    struct pair pair;

    REQUIRE(pair_open(&pair), "cannot start");
    unsigned pasid = pasid_of(&pair.compress);
    REQUIRE(pasid >= 1, "no PASID");
    return in_child(has_pasid_but, pasid) && still_works(&pair);
}

static pid_t start_child(bool (*body)(uint32_t seed), uint32_t seed)
{
    pid_t child = fork();

    if (child == 0)
        _exit(body(seed) ? 0 : 1);
    return child;
}

bool test_isolation(void)
{
    pid_t children[3] = {start_child(isolated, 31), start_child(isolated, 32), start_child(outsider, 33)};

    return all_well(children, 3);
}

/* Fills the ring with large commands and never returns. */
static bool busy_for_ever(uint32_t seed)
{
    struct pair pair;
    size_t bytes = 4u << 20;
    char *data = malloc(bytes), *out = untouched(compressed_bound(bytes));

    REQUIRE(data && out && pair_open(&pair), "cannot start");
    fill_text(data, bytes, seed);
    struct zip_sqe sqe = zip_request(ZIP_GZIP, false, data, (uint32_t)bytes, out, (uint32_t)compressed_bound(bytes));
    for (int i = 0; i < 64; i++)
        wd_submit(&pair.compress, &sqe);
    /* The parent waits for this byte, then kills. */
    if (write(STDOUT_FILENO, "!", 1) != 1)
        return false;
    for (;;)
        pause();
}

static bool dies_when_busy(int signal_number)
{
    int channel[2];
    char byte;

    REQUIRE(pipe(channel) == 0, "no pipe");
    pid_t child = fork();
    if (child == 0) {
        dup2(channel[1], STDOUT_FILENO);
        _exit(busy_for_ever(41) ? 0 : 1);
    }
    close(channel[1]);
    bool ready = read(channel[0], &byte, 1) == 1;
    close(channel[0]);
    kill(child, signal_number);
    waitpid(child, NULL, 0);
    REQUIRE(ready, "the child did not start");
    return true;
}

bool test_killed(void)
{
    int before = free_queues();
    struct pair pair;

    for (unsigned i = 0; i < zip_test_rounds; i++)
        REQUIRE(dies_when_busy(SIGKILL), "round %u", i);
    REQUIRE(queues_come_back(before), "after killed processes");
    REQUIRE(pair_open(&pair) && still_works(&pair), "after killed processes");
    pair_close(&pair);
    return true;
}

/* Leaves by exit(), without closing anything, while commands run. */
static bool exits_when_busy(uint32_t seed)
{
    struct pair pair;
    size_t bytes = 4u << 20;
    char *data = malloc(bytes), *out = untouched(compressed_bound(bytes));

    REQUIRE(data && out && pair_open(&pair), "cannot start");
    fill_text(data, bytes, seed);
    struct zip_sqe sqe = zip_request(ZIP_GZIP, false, data, (uint32_t)bytes, out, (uint32_t)compressed_bound(bytes));
    for (int i = 0; i < 16; i++)
        REQUIRE(wd_submit(&pair.compress, &sqe) == 0, "cannot submit");
    return true;
}

bool test_exit_while_busy(void)
{
    int before = free_queues();
    struct pair pair;

    for (uint32_t i = 0; i < zip_test_rounds; i++)
        REQUIRE(in_child(exits_when_busy, i), "round %u", i);
    REQUIRE(queues_come_back(before), "after processes that left");
    REQUIRE(pair_open(&pair) && still_works(&pair), "after processes that left");
    pair_close(&pair);
    return true;
}

static bool one_of_many(uint32_t seed)
{
    struct wd_device device;
    struct wd_queue queue;
    size_t bytes = 200000 + seed * 1000, bound = compressed_bound(bytes);
    char *data = malloc(bytes), *packed = untouched(bound), *unpacked = untouched(bytes);

    REQUIRE(data && packed && unpacked && wd_find(&device, "zlib") == 0, "cannot start");
    fill_text(data, bytes, seed);
    for (unsigned i = 0; i < 3 && i < zip_test_rounds; i++) {
        /* One queue at a time, so that as many processes fit as the device has queues. */
        REQUIRE(wd_open(&queue, &device, ZIP_COMPRESS) == 0, "process %u: cannot open a queue", seed);
        struct zip_sqe sqe = zip_request(ZIP_ZLIB, false, data, (uint32_t)bytes, packed, (uint32_t)bound);
        REQUIRE(wd_do(&queue, &sqe, PATIENCE_MS) == 0 && zip_succeeded(&sqe), "process %u: compression: status %#x", seed,
                sqe.status);
        wd_close(&queue);
        REQUIRE(wd_open(&queue, &device, ZIP_DECOMPRESS) == 0, "process %u: cannot open a queue", seed);
        sqe = zip_request(ZIP_ZLIB, false, packed, sqe.produced, unpacked, (uint32_t)bytes);
        REQUIRE(wd_do(&queue, &sqe, PATIENCE_MS) == 0 && zip_succeeded(&sqe), "process %u: decompression: status %#x",
                seed, sqe.status);
        wd_close(&queue);
        REQUIRE(memcmp(data, unpacked, bytes) == 0, "process %u: decompressed data differ", seed);
    }
    return true;
}

bool test_many(void)
{
    enum { PROCESSES = 32 };
    pid_t children[PROCESSES];
    int before = free_queues();

    for (uint32_t i = 0; i < PROCESSES; i++)
        children[i] = start_child(one_of_many, i);
    REQUIRE(all_well(children, PROCESSES), "not every process succeeded");
    return queues_come_back(before);
}

bool test_fork(void)
{
    struct pair pair;
    size_t bytes = 4u << 20, bound = compressed_bound(bytes);
    char *data = malloc(bytes), *packed = malloc(bound), *unpacked = malloc(bytes);
    struct zip_sqe sqe;

    REQUIRE(data && packed && unpacked && pair_open(&pair), "cannot start");
    fill_text(data, bytes, 51);
    memset(packed, 0, bound);
    for (unsigned i = 0; i < zip_test_rounds; i++) {
        sqe = zip_request(ZIP_ZLIB, false, data, (uint32_t)bytes, packed, (uint32_t)bound);
        REQUIRE(wd_submit(&pair.compress, &sqe) == 0, "cannot submit");
        /* From here on parent and child share all pages, copied on write: also on the device's writes. */
        pid_t child = fork();
        if (child == 0) {
            memset(data, 0xee, bytes);
            memset(packed, 0xee, bound);
            _exit(0);
        }
        REQUIRE(child > 0, "cannot fork");
        REQUIRE(wd_wait(&pair.compress, &sqe, PATIENCE_MS) == 0 && zip_succeeded(&sqe), "compression: status %#x",
                sqe.status);
        waitpid(child, NULL, 0);
        sqe = zip_request(ZIP_ZLIB, false, packed, sqe.produced, unpacked, (uint32_t)bytes);
        REQUIRE(wd_do(&pair.decompress, &sqe, PATIENCE_MS) == 0 && zip_succeeded(&sqe), "decompression: status %#x",
                sqe.status);
        REQUIRE(memcmp(data, unpacked, bytes) == 0, "the parent's data changed in round %u", i);
    }
    pair_close(&pair);
    return true;
}
