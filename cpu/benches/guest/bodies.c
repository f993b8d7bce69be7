// Four bodies that attract one another, in double precision: products, sums, divisions, square roots, comparisons.
#include "kernel.h"

#define BODIES 4
#define STEPS 400000

struct body {
	double x, y, z, vx, vy, vz, mass;
};

// Apart from the code: a store to a page that holds code is slow.
static struct body bodies[BODIES] __attribute__((aligned(4096)));
static const struct body start[BODIES] = {
	{ 0, 0, 0, 0, 0, 0, 39.5 },
	{ 4.84, -1.16, -0.10, 0.61, 2.81, -0.02, 0.038 },
	{ 8.34, 4.12, -0.40, -1.01, 1.82, 0.008, 0.011 },
	{ 12.89, -15.11, -0.22, 1.08, 0.87, -0.01, 0.0017 },
};

static double root(double x)
{
	double y;

	__asm__("fsqrt %d0, %d1" : "=w"(y) : "w"(x));
	return y;
}

u64 kernel(void)
{
	const double dt = 0.001;
	double nearest = 1e300;

	for (int i = 0; i < BODIES; i++)
		bodies[i] = start[i];
	for (int step = 0; step < STEPS; step++) {
		for (int i = 0; i < BODIES; i++) {
			struct body *a = &bodies[i];

			for (int j = i + 1; j < BODIES; j++) {
				struct body *b = &bodies[j];
				double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
				double square = dx * dx + dy * dy + dz * dz;
				double force = dt / (square * root(square));

				if (square < nearest)
					nearest = square;
				a->vx -= dx * b->mass * force;
				a->vy -= dy * b->mass * force;
				a->vz -= dz * b->mass * force;
				b->vx += dx * a->mass * force;
				b->vy += dy * a->mass * force;
				b->vz += dz * a->mass * force;
			}
		}
		for (int i = 0; i < BODIES; i++) {
			bodies[i].x += dt * bodies[i].vx;
			bodies[i].y += dt * bodies[i].vy;
			bodies[i].z += dt * bodies[i].vz;
		}
	}
	union {
		double value;
		u64 bits;
	} sum = { bodies[0].x + bodies[1].y + bodies[2].z + bodies[3].vx + nearest };

	return sum.bits;
}
