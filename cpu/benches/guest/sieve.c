// Sieve of Eratosthenes over 1 MiB of bytes, twenty times.
#include "kernel.h"

#define N (1 << 20)
static u8 composite[N];

u64 kernel(void)
{
	u64 count = 0;

	for (int round = 0; round < 20; round++) {
		for (u32 i = 0; i < N; i++)
			composite[i] = 0;
		for (u32 i = 2; i * i < N; i++)
			if (!composite[i])
				for (u32 j = i * i; j < N; j += i)
					composite[j] = 1;
		for (u32 i = 2; i < N; i++)
			count += !composite[i];
	}
	return count;
}
