/* framing: what stands around deflate data in gzip (RFC 1952) and zlib (RFC 1950) files; the device does only trailers. */
#ifndef FRAMING_H
#define FRAMING_H

#include <stddef.h>
#include <stdint.h>

#include "zip_sqe.h"

#define FRAME_BYTES_MAX 18

/* Writes the header and returns its size. */
size_t frame_header(enum zip_format format, uint8_t out[FRAME_BYTES_MAX]);

/* Writes an empty final block and the trailer for `length` bytes with this checksum, and returns their size. */
size_t frame_end(enum zip_format format, uint32_t checksum, uint64_t length, uint8_t out[FRAME_BYTES_MAX]);

/* The checksum of no data, and of the next piece after `sum`, given the device's word for that piece. */
uint32_t frame_checksum_start(enum zip_format format);
uint32_t frame_checksum_add(enum zip_format format, uint32_t sum, uint32_t device_word, uint64_t length);

/* Gives the next byte of the input, or -1 at its end or after a failure that the source has reported. */
typedef int next_byte(void *source);

/* Reads a header with all optional fields. Returns NULL, or what is wrong with the byte read last. */
const char *frame_read_header(enum zip_format format, next_byte *next, void *source);

#endif
