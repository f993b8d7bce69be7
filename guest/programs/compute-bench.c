/*
 * compute-bench: integer work of ten kinds, to compare processors with.
 *
 * The work is fixed; bench.h has the form of the output. Arguments are names of kinds, all by default. Deliberately absent:
 * system calls and floating point.
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

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
    enum { COUNT = 800000 };
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
    enum { LIMIT = 8000000 };
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

/* --- Multiplications ----------------------------------------------------------------------------------------------- */

static uint32_t matrix(void)
{
    enum { N = 160, ROUNDS = 16 };
    static int64_t a[N][N], b[N][N], product[N][N];
    uint32_t state = 4;

    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++) {
            a[i][j] = next_random(&state);
            b[i][j] = next_random(&state);
        }
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < N; i++)
            for (size_t j = 0; j < N; j++) {
                uint64_t sum = 0;
                for (size_t k = 0; k < N; k++)
                    sum += (uint64_t)a[i][k] * (uint64_t)b[k][j];
                product[i][j] = (int64_t)(sum >> 3);
            }
        memcpy(a, product, sizeof a);
    }
    return bench_check(0, product, sizeof product);
}

/* --- Look-ups, with few places in a cache --------------------------------------------------------------------------- */

/* Counts numbers in a table with open addressing. */
static uint32_t hash_table(void)
{
    enum { SLOTS = 1 << 16, COUNT = 16000000, KINDS = 40000 };
    static struct {
        uint32_t key, count;
    } table[SLOTS];
    uint32_t state = 5;

    for (unsigned i = 0; i < COUNT; i++) {
        uint32_t key = next_random(&state) % KINDS + 1, at = key * 0x9e3779b1u >> 16;

        while (table[at].key != key && table[at].key != 0)
            at = (at + 1) % SLOTS;
        table[at].key = key;
        table[at].count++;
    }
    return bench_check(0, table, sizeof table);
}

/* --- Pointers ------------------------------------------------------------------------------------------------------ */

struct node {
    struct node *left, *right;
    uint32_t key;
};

/* A search tree, built and searched. */
static uint32_t tree(void)
{
    enum { NODES = 30000, SEARCHES = 600000 };
    static struct node nodes[NODES];
    struct node *root = NULL;
    uint32_t state = 6, check = 0;

    for (size_t i = 0; i < NODES; i++) {
        struct node **at = &root;

        nodes[i].key = next_random(&state);
        while (*at)
            at = nodes[i].key < (*at)->key ? &(*at)->left : &(*at)->right;
        *at = &nodes[i];
    }
    for (unsigned i = 0; i < SEARCHES; i++) {
        uint32_t key = next_random(&state), depth = 0;

        for (const struct node *at = root; at && at->key != key; depth++)
            at = key < at->key ? at->left : at->right;
        check = check * 31 + depth;
    }
    return check;
}

/* --- Bytes and short loops ----------------------------------------------------------------------------------------- */

/* Occurrences of words in a text, by the rule of Horspool. */
static uint32_t search(void)
{
    enum { BYTES = 1 << 20, ROUNDS = 60, LONGEST = 8 };
    static char text[BYTES];
    uint32_t state = 7, found = 0;

    for (size_t i = 0; i < BYTES; i++)
        text[i] = "etaoin shrdlu"[next_random(&state) % 13];
    for (size_t round = 0; round < ROUNDS; round++) {
        size_t length = 3 + round % (LONGEST - 2), skip[256];
        char word[LONGEST];

        memcpy(word, text + 1009 * round, length);
        for (size_t i = 0; i < 256; i++)
            skip[i] = length;
        for (size_t i = 0; i + 1 < length; i++)
            skip[(uint8_t)word[i]] = length - 1 - i;
        for (size_t at = 0; at + length <= BYTES; at += skip[(uint8_t)text[at + length - 1]]) {
            size_t i = length;
            while (i > 0 && text[at + i - 1] == word[i - 1])
                i--;
            found += i == 0;
        }
    }
    return found;
}

/* --- Calls --------------------------------------------------------------------------------------------------------- */

/* Places for queens on a board, with `columns` and both diagonals taken as bits. */
static uint32_t place_queens(uint32_t all, uint32_t columns, uint32_t left, uint32_t right)
{
    uint32_t found = 0;

    if (columns == all)
        return 1;
    for (uint32_t free = all & ~(columns | left | right); free; free &= free - 1) {
        uint32_t queen = free & -free;
        found += place_queens(all, columns | queen, (left | queen) << 1, (right | queen) >> 1);
    }
    return found;
}

static uint32_t queens(void)
{
    return place_queens((1u << 13) - 1, 0, 0, 0);
}

static const struct bench WORK[] = {
    {"sort", sort},
    {"sieve", sieve},
    {"copy", copy},
    {"table-crc", table_crc},
    {"interpreter", interpreter},
    {"matrix", matrix},
    {"hash-table", hash_table},
    {"tree", tree},
    {"search", search},
    {"queens", queens},
};

int main(int argc, char *argv[])
{
    (void)argc;
    return bench_run(WORK, sizeof WORK / sizeof *WORK, argv + 1);
}
