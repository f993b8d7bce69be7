/*
 * deflate: see deflate.h. Searches as zlib does at its level 6: chains of places with the same three bytes, and a match is
 * taken only if there is no longer one at the next byte. Deliberately absent: codes made for the data.
 */
#include "deflate.h"

#include <string.h>

enum {
    WINDOW = 1 << 15,
    HASH_SIZE = 1 << 15,
    SHORTEST = 3,
    LONGEST = 258,
    /* The parameters of level 6. */
    GOOD_LENGTH = 8,
    LAZY_LENGTH = 16,
    NICE_LENGTH = 128,
    CHAIN_LENGTH = 128,
};

struct bits {
    uint8_t *out;
    uint64_t value;
    unsigned count;
};

static void put(struct bits *bits, uint32_t value, unsigned count)
{
    bits->value |= (uint64_t)value << bits->count;
    for (bits->count += count; bits->count >= 8; bits->count -= 8) {
        *bits->out++ = (uint8_t)bits->value;
        bits->value >>= 8;
    }
}

/* Codes are sent with their first bit first (3.1.1). */
static void put_code(struct bits *bits, uint32_t code, unsigned count)
{
    uint32_t reversed = 0;

    for (unsigned i = 0; i < count; i++)
        reversed |= (code >> i & 1) << (count - 1 - i);
    put(bits, reversed, count);
}

/* A literal or a length by its fixed code (3.2.6). */
static void put_symbol(struct bits *bits, unsigned symbol)
{
    if (symbol < 144)
        put_code(bits, 0x30 + symbol, 8);
    else if (symbol < 256)
        put_code(bits, 0x190 + symbol - 144, 9);
    else if (symbol < 280)
        put_code(bits, symbol - 256, 7);
    else
        put_code(bits, 0xc0 + symbol - 280, 8);
}

static unsigned log2_of(unsigned value)
{
    return 31 - (unsigned)__builtin_clz(value);
}

/* A length and a distance with their extra bits (3.2.5). */
static void put_match(struct bits *bits, unsigned length, unsigned distance)
{
    if (length == LONGEST) {
        put_symbol(bits, 285);
    } else if (length < 11) {
        put_symbol(bits, 254 + length);
    } else {
        unsigned extra = log2_of(length - 3) - 2;
        put_symbol(bits, 257 + 4 * extra + ((length - 3) >> extra));
        put(bits, (length - 3) & ((1u << extra) - 1), extra);
    }
    if (distance < 5) {
        put_code(bits, distance - 1, 5);
    } else {
        unsigned extra = log2_of(distance - 1) - 1;
        put_code(bits, 2 * extra + ((distance - 1) >> extra), 5);
        put(bits, (distance - 1) & ((1u << extra) - 1), extra);
    }
}

struct chains {
    /* Place plus 1 of the newest of a hash, and of the one before it. */
    uint32_t head[HASH_SIZE], before[WINDOW];
};

static uint32_t hash_of(const uint8_t *at)
{
    uint32_t three = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
    return three * 0x9e3779b1u >> 17;
}

static void insert(struct chains *chains, const uint8_t *data, size_t at)
{
    uint32_t *head = &chains->head[hash_of(data + at)];

    chains->before[at % WINDOW] = *head;
    *head = (uint32_t)at + 1;
}

/* The longest match at `at` that is longer than `best`; its length, or `best`. */
static unsigned find(const struct chains *chains, const uint8_t *data, size_t at, size_t length, unsigned best,
                     unsigned *distance)
{
    unsigned most = length - at < LONGEST ? (unsigned)(length - at) : LONGEST;
    unsigned chain = best >= GOOD_LENGTH ? CHAIN_LENGTH / 4 : CHAIN_LENGTH;
    uint32_t candidate = chains->head[hash_of(data + at)];

    for (; candidate != 0 && chain > 0 && best < most; chain--) {
        size_t from = candidate - 1;

        if (at - from > WINDOW)
            break;
        if (data[from + best] == data[at + best]) {
            unsigned n = 0;
            while (n < most && data[from + n] == data[at + n])
                n++;
            if (n > best) {
                best = n;
                *distance = (unsigned)(at - from);
                if (n >= NICE_LENGTH)
                    break;
            }
        }
        candidate = chains->before[from % WINDOW];
    }
    return best;
}

size_t deflate(uint8_t *out, const uint8_t *data, size_t length)
{
    static struct chains chains;
    struct bits bits = {.out = out};
    unsigned previous = SHORTEST - 1, previous_distance = 0;
    int has_literal = 0;

    memset(&chains, 0, sizeof chains);
    put(&bits, 1, 1);           /* the last block */
    put(&bits, 1, 2);           /* fixed codes */
    for (size_t at = 0; at < length;) {
        unsigned found = SHORTEST - 1, distance = 0;

        if (length - at >= SHORTEST) {
            if (previous < LAZY_LENGTH) {
                unsigned best = previous < SHORTEST ? SHORTEST - 1 : previous;
                unsigned longest = find(&chains, data, at, length, best, &distance);
                found = longest > best ? longest : SHORTEST - 1;
            }
            insert(&chains, data, at);
        }
        if (previous >= SHORTEST && found <= previous) {
            /* The match at the byte before is the better one. */
            size_t end = at - 1 + previous;
            put_match(&bits, previous, previous_distance);
            for (at++; at < end; at++)
                if (length - at >= SHORTEST)
                    insert(&chains, data, at);
            has_literal = 0;
            previous = SHORTEST - 1;
            continue;
        }
        if (has_literal)
            put_symbol(&bits, data[at - 1]);
        has_literal = 1;
        previous = found;
        previous_distance = distance;
        at++;
    }
    /* The last byte begins no match. */
    if (has_literal)
        put_symbol(&bits, data[length - 1]);
    put_symbol(&bits, 256);
    put(&bits, 0, 7);           /* up to the border of a byte */
    return (size_t)(bits.out - out);
}
