/* bench: see bench.h. */
#include "bench.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static bool is_wanted(const char *name, char *const only[])
{
    if (!*only)
        return true;
    for (; *only; only++)
        if (strcmp(name, *only) == 0)
            return true;
    return false;
}

int bench_run(const struct bench *list, size_t count, char *const only[])
{
    for (size_t i = 0; i < count; i++) {
        struct timespec start, end;

        if (!is_wanted(list[i].name, only))
            continue;
        clock_gettime(CLOCK_MONOTONIC, &start);
        uint32_t check = list[i].run();
        clock_gettime(CLOCK_MONOTONIC, &end);
        int64_t ns = (int64_t)(end.tv_sec - start.tv_sec) * 1000000000 + (end.tv_nsec - start.tv_nsec);
        printf("bench %s %" PRId64 " %08x\n", list[i].name, ns, check);
        fflush(stdout);
    }
    return 0;
}

uint32_t bench_check(uint32_t check, const void *data, size_t count)
{
    const uint8_t *at = data;

    while (count--)
        check = (check ^ *at++) * 0x01000193u;
    return check;
}
