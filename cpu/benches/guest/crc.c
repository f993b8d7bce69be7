// CRC-32 by a table of 256 words, over 64 KiB, a thousand times.
#include "kernel.h"

#define N 65536
static u32 table[256];
static u8 data[N];

u64 kernel(void)
{
	u32 seed = 1, crc = ~0u;

	for (u32 i = 0; i < 256; i++) {
		u32 c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
		table[i] = c;
	}
	for (u32 i = 0; i < N; i++)
		data[i] = next(&seed) >> 24;
	for (int round = 0; round < 1000; round++)
		for (u32 i = 0; i < N; i++)
			crc = table[(crc ^ data[i]) & 255] ^ crc >> 8;
	return ~crc;
}
