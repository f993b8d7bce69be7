/*
 * framing_test: checksums put together, headers written and read. Runs on the host.
 *
 * Prints each failed claim and returns their number.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../checksum.h"
#include "../framing.h"

static int failures;

#define CLAIM(claim)                                                    \
    do {                                                                \
        if (!(claim)) {                                                 \
            failures++;                                                 \
            printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #claim); \
        }                                                               \
    } while (0)

static uint32_t adler32(const uint8_t *at, size_t length)
{
    uint32_t a = 1, b = 0;

    while (length--) {
        a = (a + *at++) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

/* Values of RFC 1952 and RFC 1950's algorithms for the usual check string. */
static void checksums_of_the_check_string(void)
{
    CLAIM(crc32_update(0, "123456789", 9) == 0xcbf43926);
    CLAIM(adler32((const uint8_t *)"123456789", 9) == 0x091e01de);
}

static void combined_checksum_equals_that_of_the_whole(void)
{
    static uint8_t data[300000];
    size_t length = sizeof data;

    for (size_t i = 0; i < length; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    for (size_t cut = 0; cut <= length; cut += 29999) {
        size_t rest = length - cut;
        CLAIM(crc32_combine(crc32_update(0, data, cut), crc32_update(0, data + cut, rest), rest) ==
              crc32_update(0, data, length));
        CLAIM(adler32_combine(adler32(data, cut), adler32(data + cut, rest), rest) == adler32(data, length));
    }
}

static void devices_crc_register_becomes_the_files_crc(void)
{
    CLAIM(frame_checksum_add(ZIP_GZIP, frame_checksum_start(ZIP_GZIP), 0x9b63d02c, 9) == 0xcbf43926);
}

static void end_of_a_stream_has_an_empty_block_and_the_trailer(void)
{
    uint8_t out[FRAME_BYTES_MAX];

    CLAIM(frame_end(ZIP_GZIP, 0x11223344, 0x1000000005, out) == 10);
    CLAIM(memcmp(out, "\x03\x00\x44\x33\x22\x11\x05\x00\x00\x00", 10) == 0);
    CLAIM(frame_end(ZIP_ZLIB, 0x11223344, 5, out) == 6);
    CLAIM(memcmp(out, "\x03\x00\x11\x22\x33\x44", 6) == 0);
    CLAIM(frame_end(ZIP_DEFLATE, 0, 5, out) == 2);
}

struct bytes {
    const uint8_t *at, *end;
};

static int next(void *source)
{
    struct bytes *bytes = source;

    return bytes->at < bytes->end ? *bytes->at++ : -1;
}

/* Whether a header of this many bytes is read as good, and to its end. */
static bool reads(enum zip_format format, const void *header, size_t length)
{
    struct bytes bytes = {header, (const uint8_t *)header + length};

    return frame_read_header(format, next, &bytes) == NULL && bytes.at == bytes.end;
}

static void written_headers_can_be_read(void)
{
    uint8_t out[FRAME_BYTES_MAX];

    for (enum zip_format format = ZIP_DEFLATE; format <= ZIP_GZIP; format++)
        CLAIM(reads(format, out, frame_header(format, out)));
}

/* The number of bytes that a row of hexadecimal digits stands for. */
static size_t from_digits(const char *digits, uint8_t *out)
{
    size_t length = strlen(digits) / 2;

    for (size_t i = 0; i < length; i++)
        sscanf(digits + 2 * i, "%2hhx", &out[i]);
    return length;
}

/* Whether this much of a header is read, and then found wrong in this way; "" is not at all. */
static bool reads_as(enum zip_format format, const char *digits, size_t taken, const char *wrong)
{
    uint8_t header[64];
    struct bytes bytes = {header, header + from_digits(digits, header)};
    const char *found = frame_read_header(format, next, &bytes);

    return bytes.at == header + taken && strcmp(found ? found : "", wrong) == 0;
}

/* The same table is read by the unit test of the monitor's reader. */
static void headers_are_read_by_the_rules_that_the_monitor_has(void)
{
    enum { deflate = ZIP_DEFLATE, zlib = ZIP_ZLIB, gzip = ZIP_GZIP };

#define HEADER(format, digits, taken, wrong) CLAIM(reads_as((enum zip_format)format, digits, taken, wrong));
#include "headers.def"
#undef HEADER
}

static void gzip_header_with_every_field_is_read_to_its_end(void)
{
    uint8_t header[] = "\x1f\x8b\x08\x1f\0\0\0\0\0\x03" "\x03\0abc" "name\0" "comment\0" "??";
    size_t length = sizeof header - 1;
    uint32_t crc = crc32_update(0, header, length - 2);

    header[length - 2] = (uint8_t)crc;
    header[length - 1] = (uint8_t)(crc >> 8);
    CLAIM(reads(ZIP_GZIP, header, length));
    header[length - 1] ^= 1;
    CLAIM(!reads(ZIP_GZIP, header, length));
    for (size_t cut = 0; cut < length; cut++)
        CLAIM(!reads(ZIP_GZIP, header, cut));
}

int main(void)
{
    checksums_of_the_check_string();
    combined_checksum_equals_that_of_the_whole();
    devices_crc_register_becomes_the_files_crc();
    end_of_a_stream_has_an_empty_block_and_the_trailer();
    written_headers_can_be_read();
    gzip_header_with_every_field_is_read_to_its_end();
    headers_are_read_by_the_rules_that_the_monitor_has();
    printf("framing: %d failed\n", failures);
    return failures > 0;
}
