/* framing: see framing.h. */
#include "framing.h"

#include <string.h>

#include "checksum.h"

static const uint8_t GZIP_HEADER[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};   /* deflate, no fields, no time, Unix */
static const uint8_t ZLIB_HEADER[] = {0x78, 0x9c};                           /* deflate, 32 KiB window */
static const uint8_t EMPTY_FINAL_BLOCK[] = {0x03, 0x00};                     /* fixed codes, end of block */

size_t frame_header(enum zip_format format, uint8_t out[FRAME_BYTES_MAX])
{
    switch (format) {
    case ZIP_GZIP:
        memcpy(out, GZIP_HEADER, sizeof GZIP_HEADER);
        return sizeof GZIP_HEADER;
    case ZIP_ZLIB:
        memcpy(out, ZLIB_HEADER, sizeof ZLIB_HEADER);
        return sizeof ZLIB_HEADER;
    case ZIP_DEFLATE:
        break;
    }
    return 0;
}

size_t frame_end(enum zip_format format, uint32_t checksum, uint64_t length, uint8_t out[FRAME_BYTES_MAX])
{
    size_t at = sizeof EMPTY_FINAL_BLOCK;

    memcpy(out, EMPTY_FINAL_BLOCK, at);
    if (format == ZIP_GZIP) {
        for (int shift = 0; shift < 32; shift += 8)
            out[at++] = (uint8_t)(checksum >> shift);
        for (int shift = 0; shift < 32; shift += 8)
            out[at++] = (uint8_t)(length >> shift);
    } else if (format == ZIP_ZLIB) {
        for (int shift = 24; shift >= 0; shift -= 8)
            out[at++] = (uint8_t)(checksum >> shift);
    }
    return at;
}

static uint32_t reverse_bits(uint32_t value)
{
    uint32_t reversed = 0;

    for (int i = 0; i < 32; i++, value >>= 1)
        reversed = reversed << 1 | (value & 1);
    return reversed;
}

uint32_t frame_checksum_start(enum zip_format format)
{
    return format == ZIP_ZLIB ? 1 : 0;
}

uint32_t frame_checksum_add(enum zip_format format, uint32_t sum, uint32_t device_word, uint64_t length)
{
    switch (format) {
    case ZIP_GZIP:
        /* The device shows its CRC register: bits the other way round, and not inverted. */
        return crc32_combine(sum, reverse_bits(~device_word), length);
    case ZIP_ZLIB:
        return adler32_combine(sum, device_word, length);
    case ZIP_DEFLATE:
        break;
    }
    return 0;
}

enum { FTEXT = 1, FHCRC = 2, FEXTRA = 4, FNAME = 8, FCOMMENT = 16, FLAGS_KNOWN = 31 };

static const char ENDS_EARLY[] = "the input ends inside a header";

/* Takes the next byte, and the CRC of the header up to it. */
static int take(next_byte *next, void *source, uint32_t *crc)
{
    int byte = next(source);

    if (byte >= 0) {
        uint8_t value = (uint8_t)byte;
        *crc = crc32_update(*crc, &value, 1);
    }
    return byte;
}

static const char *read_gzip(next_byte *next, void *source)
{
    uint32_t crc = 0;
    int head[10], byte;

    for (size_t i = 0; i < 10; i++) {
        head[i] = take(next, source, &crc);
        if (head[i] < 0)
            return ENDS_EARLY;
        if (i < 2 && head[i] != GZIP_HEADER[i])
            return "not in gzip format";
        if (i == 2 && head[i] != 8)
            return "gzip with a method other than deflate";
        if (i == 3 && (head[i] & ~FLAGS_KNOWN))
            return "gzip header with reserved flags";
    }
    if (head[3] & FEXTRA) {
        int low = take(next, source, &crc), high = take(next, source, &crc);
        if (low < 0 || high < 0)
            return ENDS_EARLY;
        for (int left = low | high << 8; left > 0; left--)
            if (take(next, source, &crc) < 0)
                return ENDS_EARLY;
    }
    for (int field = FNAME; field <= FCOMMENT; field <<= 1) {
        if (!(head[3] & field))
            continue;
        while ((byte = take(next, source, &crc)) != 0)
            if (byte < 0)
                return ENDS_EARLY;
    }
    if (head[3] & FHCRC) {
        uint32_t expected = crc & 0xffff;
        int low = take(next, source, &crc), high = take(next, source, &crc);
        if (low < 0 || high < 0)
            return ENDS_EARLY;
        if ((uint32_t)(low | high << 8) != expected)
            return "gzip header with a wrong checksum";
    }
    return NULL;
}

static const char *read_zlib(next_byte *next, void *source)
{
    int method = next(source);
    int flags = method < 0 ? -1 : next(source);

    if (flags < 0)
        return ENDS_EARLY;
    if ((method & 15) != 8 || method >> 4 > 7 || (method << 8 | flags) % 31 != 0)
        return "not in zlib format";
    if (flags & 0x20)
        return "zlib stream that needs a preset dictionary";
    return NULL;
}

const char *frame_read_header(enum zip_format format, next_byte *next, void *source)
{
    switch (format) {
    case ZIP_GZIP:
        return read_gzip(next, source);
    case ZIP_ZLIB:
        return read_zlib(next, source);
    case ZIP_DEFLATE:
        break;
    }
    return NULL;
}
