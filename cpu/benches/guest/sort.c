// Quicksort of 64 Ki words, with insertion sort below 16, ten times.
#include "kernel.h"

#define N 65536
static u32 a[N];

static void sort(u32 *v, long n)
{
	while (n > 16) {
		u32 pivot = v[n / 2];
		long i = 0, j = n - 1;

		while (i <= j) {
			while (v[i] < pivot)
				i++;
			while (v[j] > pivot)
				j--;
			if (i <= j) {
				u32 t = v[i];

				v[i++] = v[j];
				v[j--] = t;
			}
		}
		sort(v, j + 1);
		v += i;
		n -= i;
	}
	for (long i = 1; i < n; i++) {
		u32 x = v[i];
		long j = i;

		for (; j > 0 && v[j - 1] > x; j--)
			v[j] = v[j - 1];
		v[j] = x;
	}
}

u64 kernel(void)
{
	u64 sum = 0;
	u32 seed = 1;

	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < N; i++)
			a[i] = next(&seed);
		sort(a, N);
		for (int i = 0; i < N; i++)
			sum = sum * 31 + a[i];
	}
	return sum;
}
