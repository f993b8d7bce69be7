/* checksum: Adler-32 (RFC 1950) and CRC-32 (RFC 1952), of data and of two pieces put together. */
#ifndef CHECKSUM_H
#define CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Continue from `crc`, 0 at the start. */
uint32_t crc32_update(uint32_t crc, const void *data, size_t length);

/* The checksum of A followed by B, from those of A and of B and the length of B in bytes. */
uint32_t crc32_combine(uint32_t a, uint32_t b, uint64_t b_length);
uint32_t adler32_combine(uint32_t a, uint32_t b, uint64_t b_length);

#endif
