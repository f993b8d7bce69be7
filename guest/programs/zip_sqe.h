/*
 * zip_sqe: the accelerator's 128-byte command, its scatter lists, and requests built from ordinary pointers.
 *
 * Layout: HiSilicon ZIP submission queue element, types 0 and 3. Deliberately absent: ciphers, lz77 and lz4.
 */
#ifndef ZIP_SQE_H
#define ZIP_SQE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One command. Addresses are the process's own; results come back in the same memory. */
struct zip_sqe {
    uint32_t consumed;          /* out: input bytes used */
    uint32_t produced;          /* out: output bytes made */
    uint32_t comp_data_length;
    uint32_t status;            /* out: ZIP_STATUS_*, ZIP_LAST_BLOCK */
    uint32_t input_length;
    uint32_t lba_low, lba_high;
    uint32_t control;           /* input skip, ZIP_FINISH, ZIP_STATEFUL, ZIP_NEW, type */
    uint32_t output_skip;
    uint32_t request;           /* format, buffer type, window */
    uint32_t dif_control, dif_private, dif_verify;
    uint32_t tag_or_literals;
    uint32_t output_available;
    uint32_t context0;          /* in/out: stream state */
    uint32_t comp_head_low, comp_head_high;
    uint32_t source_low, source_high;
    uint32_t destination_low, destination_high;
    uint32_t context_low, context_high;
    uint32_t literals_low, literals_high;
    uint32_t tag_low, tag_high;
    uint32_t context1, context2;
    uint32_t total_length;      /* in/out: uncompressed length of the stream, modulo 2^32 */
    uint32_t checksum;          /* in/out: Adler-32, or the reflected CRC register */
};
_Static_assert(sizeof(struct zip_sqe) == 128, "a submission queue element has 128 bytes");

enum zip_format { ZIP_DEFLATE = 1, ZIP_ZLIB = 2, ZIP_GZIP = 3 };
enum zip_direction { ZIP_COMPRESS = 0, ZIP_DECOMPRESS = 1 };

#define ZIP_FINISH (1u << 25)
#define ZIP_STATEFUL (1u << 26)
#define ZIP_NEW (1u << 27)
#define ZIP_TYPE(n) ((uint32_t)(n) << 28)
#define ZIP_TYPE_USED 3
#define ZIP_BUFFER_SGL (1u << 8)
#define ZIP_WINDOW_32K (4u << 12)

#define ZIP_STATUS(sqe) ((sqe)->status & 0xff)
#define ZIP_LAST_BLOCK (1u << 8)
enum zip_status {
    ZIP_OK = 0x00,
    ZIP_GREW = 0x0d,            /* output larger than input; valid */
    ZIP_NO_SPACE = 0x0e,
    ZIP_BAD_CHECKSUM = 0x10,
    ZIP_STREAM_END = 0x13,
};

/* The device works in this part of the context buffer; software reserves all of it. */
#define ZIP_CONTEXT_BYTES 65536
#define ZIP_CONTEXT_OFFSET 64

/* Scatter list as the device reads it: header, then entries. */
struct zip_sge {
    uint64_t address;
    uint64_t reserved0;
    uint32_t length;
    uint32_t reserved1;
    uint64_t reserved2;
};
struct zip_sgl {
    uint64_t next;
    uint16_t entries_in_chain;
    uint16_t entries_here;
    uint16_t entries_capacity;
    uint8_t reserved[50];
    struct zip_sge entry[];
};
_Static_assert(sizeof(struct zip_sge) == 32, "a scatter list entry has 32 bytes");
_Static_assert(offsetof(struct zip_sgl, entry) == 64, "entries start at byte 64");

/* Both status codes that mean valid output. */
static inline bool zip_succeeded(const struct zip_sqe *sqe)
{
    return ZIP_STATUS(sqe) == ZIP_OK || ZIP_STATUS(sqe) == ZIP_GREW;
}

/* A stateless request: one whole stream. The pointers are to data, or to SGLs if `sgl`. */
struct zip_sqe zip_request(enum zip_format format, bool sgl, const void *source, uint32_t length, void *destination,
                           uint32_t available);

/*
 * Makes a request part of a stateful stream. `context` has ZIP_CONTEXT_BYTES and belongs to the stream; `previous` is
 * the stream's last completed request, or NULL for its first.
 */
void zip_continue(struct zip_sqe *sqe, void *context, const struct zip_sqe *previous, bool finish);

/* Describes `length` bytes at `data` as a chain of lists with entries of at most `piece` bytes. Free with zip_sgl_free. */
struct zip_sgl *zip_sgl_new(void *data, size_t length, size_t piece);
void zip_sgl_free(struct zip_sgl *list);

#endif
