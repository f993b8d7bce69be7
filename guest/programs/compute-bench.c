/*
 * compute-bench: integer work of five kinds, to compare processors with.
 *
 * Prints a line `bench NAME NANOSECONDS CHECK` for each. The work is fixed; CHECK is computed from its results and must be
 * the same everywhere. Deliberately absent: system calls and floating point.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* --- Branches that nobody can predict ------------------------------------------------------------------------------ */

static void quicksort(uint32_t *from, uint32_t *to)
{
    while (to - from > 1) {
        uint32_t pivot = from[(to - from) / 2], *left = from, *right = to - 1;

        while (left <= right) {
            while (*left < pivot)
                left++;
            while (*right > pivot)
                right--;
            if (left <= right) {
                uint32_t swap = *left;
                *left++ = *right;
                *right-- = swap;
            }
        }
        /* The smaller part by recursion, the larger one in the loop: the stack stays small. */
        if (right + 1 - from < to - left) {
            quicksort(from, right + 1);
            from = left;
        } else {
            quicksort(left, to);
            to = right + 1;
        }
    }
}

static uint32_t sort(void)
{
    enum { COUNT = 400000 };
    static uint32_t values[COUNT];
    uint32_t state = 1, check = 0;

    for (size_t i = 0; i < COUNT; i++)
        values[i] = next_random(&state);
    quicksort(values, values + COUNT);
    for (size_t i = 0; i < COUNT; i++)
        check = check * 31 + values[i];
    return check;
}

/* --- Bytes with a stride ------------------------------------------------------------------------------------------- */

static uint32_t sieve(void)
{
    enum { LIMIT = 4000000 };
    static uint8_t composite[LIMIT];
    uint32_t primes = 0;

    for (uint32_t i = 2; i < LIMIT; i++) {
        if (composite[i])
            continue;
        primes++;
        for (uint64_t multiple = (uint64_t)i * i; multiple < LIMIT; multiple += i)
            composite[multiple] = 1;
    }
    return primes;
}

/* --- Memory -------------------------------------------------------------------------------------------------------- */

static uint32_t copy(void)
{
    enum { BYTES = 1 << 20, ROUNDS = 300 };
    static uint8_t source[BYTES], destination[BYTES];
    uint32_t state = 2, check = 0;

    for (size_t i = 0; i < BYTES; i++)
        source[i] = (uint8_t)next_random(&state);
    for (unsigned i = 0; i < ROUNDS; i++) {
        source[i] ^= (uint8_t)i;
        memcpy(destination, source, BYTES);
        /* The compiler may not leave out a copy whose result is looked at. */
        __asm__ volatile("" ::: "memory");
        check = check * 31 + destination[i * 1009 % BYTES];
    }
    return check;
}

/* --- Loads that depend on one another ------------------------------------------------------------------------------ */

static uint32_t table_crc(void)
{
    enum { BYTES = 1 << 20, ROUNDS = 20 };
    static uint8_t data[BYTES];
    uint32_t table[256], state = 3, crc = ~0u;

    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
        table[i] = value;
    }
    for (size_t i = 0; i < BYTES; i++)
        data[i] = (uint8_t)next_random(&state);
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < BYTES; i++)
            crc = crc >> 8 ^ table[(crc ^ data[i]) & 0xff];
    return ~crc;
}

/* --- Indirect jumps ------------------------------------------------------------------------------------------------ */

enum operation { LOAD, MULTIPLY_3_ADD_1, HALVE, JUMP_IF_ODD, JUMP_IF_ONE, COUNT_STEP, JUMP, NEXT, END };
struct instruction {
    enum operation operation;
    uint32_t operand;
};

/* Collatz sequences of all numbers below a limit, in an interpreter of a small accumulator machine. */
static uint32_t interpreter(void)
{
    static const struct instruction PROGRAM[] = {
        {LOAD, 0},             /*  0: a = n */
        {JUMP_IF_ONE, 7},      /*  1 */
        {COUNT_STEP, 0},       /*  2 */
        {JUMP_IF_ODD, 5},      /*  3 */
        {HALVE, 1},            /*  4: and jump */
        {MULTIPLY_3_ADD_1, 0}, /*  5 */
        {JUMP, 1},             /*  6 */
        {NEXT, 0},             /*  7: next n, or end */
        {END, 0},              /*  8 */
    };
    enum { LIMIT = 60000 };
    uint64_t accumulator = 0;
    uint32_t n = 1, steps = 0;
    const struct instruction *at = PROGRAM;

    for (;;) {
        const struct instruction *now = at++;
        switch (now->operation) {
        case LOAD:
            accumulator = n;
            break;
        case MULTIPLY_3_ADD_1:
            accumulator = 3 * accumulator + 1;
            break;
        case HALVE:
            accumulator /= 2;
            at = PROGRAM + now->operand;
            break;
        case JUMP_IF_ODD:
            if (accumulator & 1)
                at = PROGRAM + now->operand;
            break;
        case JUMP_IF_ONE:
            if (accumulator == 1)
                at = PROGRAM + now->operand;
            break;
        case COUNT_STEP:
            steps++;
            break;
        case JUMP:
            at = PROGRAM + now->operand;
            break;
        case NEXT:
            if (++n < LIMIT)
                at = PROGRAM + now->operand;
            break;
        case END:
            return steps;
        }
    }
}

static const struct {
    const char *name;
    uint32_t (*run)(void);
} WORK[] = {
    {"sort", sort}, {"sieve", sieve}, {"copy", copy}, {"table-crc", table_crc}, {"interpreter", interpreter},
};

int main(void)
{
    for (size_t i = 0; i < sizeof WORK / sizeof *WORK; i++) {
        struct timespec start, end;

        clock_gettime(CLOCK_MONOTONIC, &start);
        uint32_t check = WORK[i].run();
        clock_gettime(CLOCK_MONOTONIC, &end);
        int64_t ns = (int64_t)(end.tv_sec - start.tv_sec) * 1000000000 + (end.tv_nsec - start.tv_nsec);
        printf("bench %s %" PRId64 " %08x\n", WORK[i].name, ns, check);
    }
    return 0;
}
