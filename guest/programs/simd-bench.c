/*
 * simd-bench: vector registers: copies, cryptography by its instructions, look-ups in tables, a matrix product.
 *
 * bench.h has the form of the output. SHA-256 and AES are checked against an example of their standards first.
 */
#pragma GCC target("+crypto")

#include <arm_neon.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static void fill(void *data, size_t bytes, uint32_t state)
{
    for (uint8_t *at = data; bytes--; at++)
        *at = (uint8_t)(next_random(&state) >> 8);
}

/* --- Copies of all sizes, by the C library -------------------------------------------------------------------------- */

static uint32_t copies(void)
{
    enum { BYTES = 1 << 16, TOTAL = 800 << 20 };
    static uint8_t source[BYTES + 64], destination[BYTES + 64];
    uint32_t state = 11;

    fill(source, sizeof source, 12);
    for (size_t done = 0; done < TOTAL;) {
        uint32_t random = next_random(&state);
        size_t size = (size_t)16 << (random & 15) % 13, from = random >> 8 & 63, to = random >> 16 & 63;

        memcpy(destination + to, source + from, size);
        /* The compiler may not leave out a copy whose result is looked at. */
        __asm__ volatile("" ::: "memory");
        /* Short copies count for more than their bytes. */
        done += size + 256;
    }
    return bench_check(0, destination, sizeof destination);
}

/* --- SHA-256 (FIPS 180-4) ------------------------------------------------------------------------------------------- */

static const uint32_t SHA256_START[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static const uint32_t SHA256_K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static void sha256_blocks(uint32_t digest[8], const uint8_t *data, size_t blocks)
{
    uint32x4_t low = vld1q_u32(digest), high = vld1q_u32(digest + 4);

    for (; blocks--; data += 64) {
        uint32x4_t words[4], abcd = low, efgh = high;

        for (int i = 0; i < 4; i++)
            words[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
#pragma GCC unroll 16
        for (int round = 0; round < 16; round++) {
            uint32x4_t sum = vaddq_u32(words[round & 3], vld1q_u32(SHA256_K + 4 * round)), before = abcd;

            if (round < 12)
                words[round & 3] = vsha256su1q_u32(vsha256su0q_u32(words[round & 3], words[(round + 1) & 3]),
                                                   words[(round + 2) & 3], words[(round + 3) & 3]);
            abcd = vsha256hq_u32(abcd, efgh, sum);
            efgh = vsha256h2q_u32(efgh, before, sum);
        }
        low = vaddq_u32(low, abcd);
        high = vaddq_u32(high, efgh);
    }
    vst1q_u32(digest, low);
    vst1q_u32(digest + 4, high);
}

/* The digest of "abc", whose padding is one block. */
static int sha256_is_right(void)
{
    static const uint32_t EXPECTED[8] = {
        0xba7816bf, 0x8f01cfea, 0x414140de, 0x5dae2223, 0xb00361a3, 0x96177a9c, 0xb410ff61, 0xf20015ad,
    };
    uint8_t block[64] = {'a', 'b', 'c', 0x80, [63] = 24};
    uint32_t digest[8];

    memcpy(digest, SHA256_START, sizeof digest);
    sha256_blocks(digest, block, 1);
    return memcmp(digest, EXPECTED, sizeof digest) == 0;
}

static uint32_t sha256(void)
{
    enum { BYTES = 1 << 20, ROUNDS = 24 };
    static uint8_t data[BYTES];
    uint32_t digest[8];

    fill(data, sizeof data, 13);
    memcpy(digest, SHA256_START, sizeof digest);
    for (int i = 0; i < ROUNDS; i++)
        sha256_blocks(digest, data, BYTES / 64);
    return bench_check(0, digest, sizeof digest);
}

/* --- AES-128 (FIPS 197), counter mode ------------------------------------------------------------------------------- */

static void aes_expand(uint8x16_t keys[11], const uint8_t key[16])
{
    uint8_t constant = 1;

    keys[0] = vld1q_u8(key);
    for (int round = 1; round < 11; round++) {
        /* A round without its key, of a state whose columns are all the same: SubBytes alone. */
        uint32x4_t before = vreinterpretq_u32_u8(keys[round - 1]);
        uint8x16_t last = vreinterpretq_u8_u32(vdupq_laneq_u32(before, 3));
        uint32_t word = vgetq_lane_u32(vreinterpretq_u32_u8(vaeseq_u8(last, vdupq_n_u8(0))), 0);
        uint32_t words[4];

        vst1q_u32(words, before);
        word = (word >> 8 | word << 24) ^ constant;
        for (int i = 0; i < 4; i++)
            word = words[i] ^= word;
        keys[round] = vreinterpretq_u8_u32(vld1q_u32(words));
        constant = (uint8_t)(constant << 1 ^ (constant >> 7) * 0x1b);
    }
}

static inline uint8x16_t aes_encrypt(const uint8x16_t keys[11], uint8x16_t block)
{
#pragma GCC unroll 9
    for (int round = 0; round < 9; round++)
        block = vaesmcq_u8(vaeseq_u8(block, keys[round]));
    return veorq_u8(vaeseq_u8(block, keys[9]), keys[10]);
}

/* The example of appendix C.1. */
static int aes_is_right(void)
{
    static const uint8_t EXPECTED[16] = {
        0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30, 0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a,
    };
    uint8_t key[16], block[16];
    uint8x16_t keys[11];

    for (int i = 0; i < 16; i++) {
        key[i] = (uint8_t)i;
        block[i] = (uint8_t)(i * 0x11);
    }
    aes_expand(keys, key);
    vst1q_u8(block, aes_encrypt(keys, vld1q_u8(block)));
    return memcmp(block, EXPECTED, sizeof block) == 0;
}

static uint32_t aes(void)
{
    enum { BYTES = 1 << 18, ROUNDS = 64 };
    static uint8_t data[BYTES];
    uint8x16_t keys[11];
    uint64_t counter = 0;

    fill(data, sizeof data, 14);
    aes_expand(keys, data);
    for (int i = 0; i < ROUNDS; i++)
        for (size_t at = 0; at < BYTES; at += 64)
#pragma GCC unroll 4
            for (size_t part = 0; part < 64; part += 16) {
                uint64x2_t block = vsetq_lane_u64(counter++, vdupq_n_u64(0), 1);
                uint8x16_t stream = aes_encrypt(keys, vreinterpretq_u8_u64(block));
                vst1q_u8(data + at + part, veorq_u8(vld1q_u8(data + at + part), stream));
            }
    return bench_check(0, data, sizeof data);
}

/* --- Base64 (RFC 4648), both ways ----------------------------------------------------------------------------------- */

static const uint8_t BASE64[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static uint32_t base64(void)
{
    enum { GROUPS = 8192, ROUNDS = 40 };
    static uint8_t data[48 * GROUPS], text[64 * GROUPS], reverse[128];
    uint8x16x4_t alphabet = vld1q_u8_x4(BASE64);
    uint8x16_t six = vdupq_n_u8(63);

    fill(data, sizeof data, 15);
    for (uint8_t i = 0; i < 64; i++)
        reverse[BASE64[i]] = i;
    uint8x16x4_t lower = vld1q_u8_x4(reverse), upper = vld1q_u8_x4(reverse + 64);

    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < GROUPS; i++) {
            uint8x16x3_t in = vld3q_u8(data + 48 * i);
            uint8x16x4_t out;

            out.val[0] = vshrq_n_u8(in.val[0], 2);
            out.val[1] = vandq_u8(vorrq_u8(vshlq_n_u8(in.val[0], 4), vshrq_n_u8(in.val[1], 4)), six);
            out.val[2] = vandq_u8(vorrq_u8(vshlq_n_u8(in.val[1], 2), vshrq_n_u8(in.val[2], 6)), six);
            out.val[3] = vandq_u8(in.val[2], six);
            for (int part = 0; part < 4; part++)
                out.val[part] = vqtbl4q_u8(alphabet, out.val[part]);
            vst4q_u8(text + 64 * i, out);
        }
        for (size_t i = 0; i < GROUPS; i++) {
            uint8x16x4_t in = vld4q_u8(text + 64 * i);
            uint8x16x3_t out;

            for (int part = 0; part < 4; part++) {
                uint8x16_t low = vqtbl4q_u8(lower, in.val[part]);
                in.val[part] = vqtbx4q_u8(low, upper, vsubq_u8(in.val[part], vdupq_n_u8(64)));
            }
            out.val[0] = vorrq_u8(vshlq_n_u8(in.val[0], 2), vshrq_n_u8(in.val[1], 4));
            out.val[1] = vorrq_u8(vshlq_n_u8(in.val[1], 4), vshrq_n_u8(in.val[2], 2));
            out.val[2] = vorrq_u8(vshlq_n_u8(in.val[2], 6), in.val[3]);
            /* Other data in the next round. */
            out.val[0] = vaddq_u8(out.val[0], vdupq_n_u8(1));
            vst3q_u8(data + 48 * i, out);
        }
    }
    return bench_check(bench_check(0, text, sizeof text), data, sizeof data);
}

/* --- Product of matrices of single-precision numbers ----------------------------------------------------------------- */

static uint32_t matrix_neon(void)
{
    enum { N = 128, ROUNDS = 12 };
    static float a[N][N], b[N][N], product[N][N];
    uint32_t state = 16;

    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++) {
            a[i][j] = (float)(next_random(&state) >> 8) / (float)(1 << 29);
            b[i][j] = (float)(next_random(&state) >> 8) / (float)(1 << 29);
        }
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < N; i += 4)
            for (size_t j = 0; j < N; j += 4) {
                float32x4_t sums[4] = {0};

                for (size_t k = 0; k < N; k += 4) {
                    float32x4_t rows[4];

                    for (size_t n = 0; n < 4; n++)
                        rows[n] = vld1q_f32(&b[k + n][j]);
#pragma GCC unroll 4
                    for (size_t n = 0; n < 4; n++) {
                        float32x4_t left = vld1q_f32(&a[i + n][k]);
                        sums[n] = vfmaq_laneq_f32(sums[n], rows[0], left, 0);
                        sums[n] = vfmaq_laneq_f32(sums[n], rows[1], left, 1);
                        sums[n] = vfmaq_laneq_f32(sums[n], rows[2], left, 2);
                        sums[n] = vfmaq_laneq_f32(sums[n], rows[3], left, 3);
                    }
                }
                for (size_t n = 0; n < 4; n++)
                    vst1q_f32(&product[i + n][j], sums[n]);
            }
        memcpy(a, product, sizeof a);
    }
    return bench_check(0, product, sizeof product);
}

static const struct bench WORK[] = {
    {"memcpy", copies}, {"sha256", sha256}, {"aes", aes}, {"base64", base64}, {"matrix-neon", matrix_neon},
};

int main(int argc, char *argv[])
{
    (void)argc;
    if (!sha256_is_right() || !aes_is_right()) {
        fprintf(stderr, "simd-bench: wrong results\n");
        return EXIT_FAILURE;
    }
    return bench_run(WORK, sizeof WORK / sizeof *WORK, argv + 1);
}
