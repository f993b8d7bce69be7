/* deflate: a compressor for benchmarks. */
#ifndef DEFLATE_H
#define DEFLATE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Compresses `length` bytes to one block of RFC 1951 with fixed codes. `out` has room for 9 bits per byte and 4 bytes more.
 * Returns the number of bytes written.
 */
size_t deflate(uint8_t *out, const uint8_t *data, size_t length);

#endif
