// Products of matrices of singles, by vectors.
#include "kernel.h"

#define N 128
#define ROUNDS 40
static float a[N][N], b[N][N], c[N][N];

u64 kernel(void)
{
	u64 sum = 0;
	u32 seed = 1;

	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			a[i][j] = (float)(next(&seed) >> 8) * 0x1p-24f;
			b[i][j] = (float)(next(&seed) >> 8) * 0x1p-24f;
		}
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < N; i++)
			for (int k = 0; k < N; k++) {
				float factor = a[i][k];

				for (int j = 0; j < N; j++)
					c[i][j] += factor * b[k][j];
			}
	}
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++)
			sum = sum * 31 + (u64)(c[i][j] * 1024.0f);
	return sum;
}
