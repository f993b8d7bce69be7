/* bench: lists of fixed work, timed. */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

/* Some work; `run` returns a check value computed from the results, which must be the same everywhere. */
struct bench {
    const char *name;
    uint32_t (*run)(void);
};

/*
 * Runs all of them and prints a line `bench NAME NANOSECONDS CHECK` for each; with names in `only`, a list that ends with
 * NULL, those of them. Returns the exit status.
 */
int bench_run(const struct bench *list, size_t count, char *const only[]);

/* A check value of `count` bytes, going on from `check`. */
uint32_t bench_check(uint32_t check, const void *data, size_t count);

/* The next of a sequence of numbers without a visible pattern; the state is not 0. */
static inline uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

#endif
