/*
 * zip_test: what the cases of zip-test share: data, queues, round trips, and how a case says that it failed.
 *
 * A case returns true if the accelerator and the kernel did what they should. It says what was wrong with FAIL, once,
 * and leaves the rest to the exit of its process: every case runs in a process of its own.
 */
#ifndef ZIP_TEST_H
#define ZIP_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "wd_queue.h"

#define PATIENCE_MS 60000

/* How often cases repeat what may go one way or the other. */
extern unsigned zip_test_rounds;

/* Leaves the case with a message. */
#define FAIL(...) return (fprintf(stderr, "  " __VA_ARGS__), fputc('\n', stderr), false)
#define REQUIRE(condition, ...)      \
    do {                             \
        if (!(condition))            \
            FAIL(__VA_ARGS__);       \
    } while (0)

/* A queue for each direction. */
struct pair {
    struct wd_queue compress, decompress;
};
bool pair_open(struct pair *pair);
void pair_close(struct pair *pair);

/* Fresh memory that nobody has touched, page aligned; NULL if there is none. Never freed: cases are short. */
void *untouched(size_t bytes);

/* Text that compresses well, different for each seed, and equal for equal seeds. */
void fill_text(void *data, size_t bytes, uint32_t seed);
bool is_text(const void *data, size_t bytes, uint32_t seed);

/* Room that is always enough for the output of compressing `bytes`. */
size_t compressed_bound(size_t bytes);

/* Compresses, decompresses and compares, with commands that are a whole stream each. */
bool round_trip(struct pair *pair, enum zip_format format, bool sgl, const void *data, size_t bytes);

/* Compresses untagged junk of the case's own and checks it: proof that a queue and its process still work. */
bool still_works(struct pair *pair);

/* Queues of the device that are free now; negative on failure. */
int free_queues(void);

/* Waits until at least `before` queues are free: they come back when the last reference to the file goes, a little
 * after the process has gone. */
bool queues_come_back(int before);

/* Runs `body` in a child process; true if it returned true there. */
bool in_child(bool (*body)(uint32_t seed), uint32_t seed);

/* The cases, in the file of the same subject. */
bool test_formats(void);
bool test_sizes(void);
bool test_file(void);
bool test_stream(void);
bool test_ring(void);

bool test_unmapped_source(void);
bool test_unmapped_destination(void);
bool test_readonly_destination(void);
bool test_bad_type(void);
bool test_bad_format(void);
bool test_small_destination(void);
bool test_damaged_input(void);
bool test_bad_sgl(void);

bool test_pasid(void);
bool test_isolation(void);
bool test_killed(void);
bool test_many(void);
bool test_fork(void);
bool test_exit_while_busy(void);

bool test_touch(void);
bool test_munmap(void);
bool test_mprotect(void);
bool test_dontneed(void);
bool test_pageout(void);
bool test_mremap(void);
bool test_huge(void);

#endif
