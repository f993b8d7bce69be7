/*
 * float-bench: scalar floating point of four kinds, each in double and single precision.
 *
 * bench.h has the form of the output. IEEE 754 defines every bit of the results, so the check values are the same everywhere.
 * Deliberately absent: vectors, and functions whose last bit is the library's choice.
 */
#include <math.h>
#include <string.h>

#include "bench.h"

/* The same source for both precisions: the type, and the library's functions for it. */
#define DEFINE(SUFFIX, REAL, SQRT, FMA)                                                                             \
                                                                                                                     \
    /* Multiplications, additions and comparisons in registers. */                                                   \
    static uint32_t mandelbrot_##SUFFIX(void)                                                                        \
    {                                                                                                                \
        enum { WIDTH = 240, HEIGHT = 160, LIMIT = 480 };                                                             \
        uint32_t check = 0;                                                                                          \
                                                                                                                     \
        for (int row = 0; row < HEIGHT; row++)                                                                       \
            for (int column = 0; column < WIDTH; column++) {                                                         \
                REAL cx = (REAL)column * 3 / WIDTH - 2, cy = (REAL)row * 2 / HEIGHT - 1;                             \
                REAL x = 0, y = 0;                                                                                   \
                uint32_t n = 0;                                                                                      \
                                                                                                                     \
                while (n < LIMIT && x * x + y * y < 4) {                                                             \
                    REAL next = x * x - y * y + cx;                                                                  \
                    y = 2 * x * y + cy;                                                                              \
                    x = next;                                                                                        \
                    n++;                                                                                             \
                }                                                                                                    \
                check = check * 31 + n;                                                                              \
            }                                                                                                        \
        return check;                                                                                                \
    }                                                                                                                \
                                                                                                                     \
    /* Divisions and square roots, with bodies in memory. */                                                         \
    static uint32_t nbody_##SUFFIX(void)                                                                             \
    {                                                                                                                \
        enum { BODIES = 6, STEPS = 90000 };                                                                          \
        static struct {                                                                                              \
            REAL position[3], velocity[3], mass;                                                                     \
        } bodies[BODIES];                                                                                            \
        const REAL step = (REAL)0.001;                                                                               \
        uint32_t state = 9;                                                                                          \
                                                                                                                     \
        for (int i = 0; i < BODIES; i++) {                                                                           \
            for (int axis = 0; axis < 3; axis++)                                                                     \
                bodies[i].position[axis] = (REAL)(next_random(&state) >> 8) / (REAL)(1 << 22);                       \
            bodies[i].mass = (REAL)(1 + i) / BODIES;                                                                 \
        }                                                                                                            \
        for (int n = 0; n < STEPS; n++) {                                                                            \
            for (int i = 0; i < BODIES; i++)                                                                         \
                for (int j = i + 1; j < BODIES; j++) {                                                               \
                    REAL d[3], square = (REAL)0.01;                                                                  \
                                                                                                                     \
                    for (int axis = 0; axis < 3; axis++) {                                                           \
                        d[axis] = bodies[i].position[axis] - bodies[j].position[axis];                               \
                        square += d[axis] * d[axis];                                                                 \
                    }                                                                                                \
                    REAL force = step / (square * SQRT(square));                                                     \
                    for (int axis = 0; axis < 3; axis++) {                                                           \
                        bodies[i].velocity[axis] -= d[axis] * bodies[j].mass * force;                                \
                        bodies[j].velocity[axis] += d[axis] * bodies[i].mass * force;                                \
                    }                                                                                                \
                }                                                                                                    \
            for (int i = 0; i < BODIES; i++)                                                                         \
                for (int axis = 0; axis < 3; axis++)                                                                 \
                    bodies[i].position[axis] += step * bodies[i].velocity[axis];                                     \
        }                                                                                                            \
        return bench_check(0, bodies, sizeof bodies);                                                                \
    }                                                                                                                \
                                                                                                                     \
    /* Fused multiply-add: a polynomial at many points, by Horner's rule. */                                         \
    static uint32_t polynomial_##SUFFIX(void)                                                                        \
    {                                                                                                                \
        enum { POINTS = 800000, DEGREE = 24 };                                                                       \
        REAL coefficients[DEGREE + 1], sum = 0;                                                                      \
        uint32_t state = 10;                                                                                         \
                                                                                                                     \
        for (int i = 0; i <= DEGREE; i++)                                                                            \
            coefficients[i] = (REAL)(int32_t)next_random(&state) / (REAL)(1 << 28);                                  \
        for (int n = 0; n < POINTS; n++) {                                                                           \
            REAL x = (REAL)n / POINTS, value = coefficients[0];                                                      \
                                                                                                                     \
            for (int i = 1; i <= DEGREE; i++)                                                                        \
                value = FMA(value, x, coefficients[i]);                                                              \
            sum += value;                                                                                            \
        }                                                                                                            \
        return bench_check(0, &sum, sizeof sum);                                                                     \
    }                                                                                                                \
                                                                                                                     \
    /* Conversions: a generator of numbers whose products are kept below 1. */                                       \
    static uint32_t convert_##SUFFIX(void)                                                                           \
    {                                                                                                                \
        enum { ROUNDS = 4500000 };                                                                                   \
        REAL value = (REAL)0.5;                                                                                      \
        int64_t check = 0;                                                                                           \
                                                                                                                     \
        for (int n = 1; n <= ROUNDS; n++) {                                                                          \
            value = value * 3677 + (REAL)n * (REAL)0.0137;                                                           \
            value -= (REAL)(int64_t)value;                                                                           \
            check = check * 31 + (int64_t)(value * 65536);                                                           \
        }                                                                                                            \
        return (uint32_t)check;                                                                                      \
    }

DEFINE(double, double, sqrt, fma)
DEFINE(single, float, sqrtf, fmaf)

static const struct bench WORK[] = {
    {"mandelbrot-double", mandelbrot_double}, {"mandelbrot-single", mandelbrot_single},
    {"nbody-double", nbody_double},           {"nbody-single", nbody_single},
    {"polynomial-double", polynomial_double}, {"polynomial-single", polynomial_single},
    {"convert-double", convert_double},       {"convert-single", convert_single},
};

int main(int argc, char *argv[])
{
    (void)argc;
    return bench_run(WORK, sizeof WORK / sizeof *WORK, argv + 1);
}
