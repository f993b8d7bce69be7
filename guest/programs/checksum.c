/* checksum: see checksum.h. */
#include "checksum.h"

#define CRC_POLYNOMIAL 0xedb88320u      /* reflected: x^31 is bit 0 */
#define ADLER_BASE 65521u

uint32_t crc32_update(uint32_t crc, const void *data, size_t length)
{
    static uint32_t table[256];
    const uint8_t *at = data;

    if (table[1] == 0) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value & 1 ? value >> 1 ^ CRC_POLYNOMIAL : value >> 1;
            table[i] = value;
        }
    }
    crc = ~crc;
    while (length--)
        crc = crc >> 8 ^ table[(crc ^ *at++) & 0xff];
    return ~crc;
}

/* a * b modulo the polynomial; bit 31 is x^0. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;

    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = b & 1 ? b >> 1 ^ CRC_POLYNOMIAL : b >> 1;
    }
    return product;
}

uint32_t crc32_combine(uint32_t a, uint32_t b, uint64_t b_length)
{
    uint32_t shift = 1u << 31;          /* 1 */
    uint32_t square = 1u << 23;         /* x^8: one byte further */

    for (; b_length; b_length >>= 1) {
        if (b_length & 1)
            shift = multiply(shift, square);
        square = multiply(square, square);
    }
    return multiply(shift, a) ^ b;
}

uint32_t adler32_combine(uint32_t a, uint32_t b, uint64_t b_length)
{
    uint64_t length = b_length % ADLER_BASE;
    uint64_t a1 = a & 0xffff, a2 = a >> 16, b1 = b & 0xffff, b2 = b >> 16;
    /* The first sum starts at 1 in both pieces; each byte of B adds A's first sum to the second one. */
    uint64_t sum1 = (a1 + b1 + ADLER_BASE - 1) % ADLER_BASE;
    uint64_t sum2 = (a2 + b2 + length * (a1 + ADLER_BASE - 1)) % ADLER_BASE;

    return (uint32_t)(sum2 << 16 | sum1);
}
