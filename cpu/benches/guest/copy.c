// Copies 1 MiB, eight bytes at a time, back and forth.
#include "kernel.h"

#define N (1 << 17)
static u64 a[N], b[N];

static void copy(volatile u64 *to, const u64 *from)
{
	for (long i = 0; i < N; i++)
		to[i] = from[i];
}

u64 kernel(void)
{
	u64 sum = 0;
	u32 seed = 1;

	for (long i = 0; i < N; i++)
		a[i] = next(&seed);
	for (int round = 0; round < 250; round++) {
		copy(b, a);
		a[round] += b[N - 1 - round];
		copy(a, b);
		a[round]++;
	}
	for (long i = 0; i < N; i++)
		sum = sum * 31 + a[i];
	return sum;
}
