/*
 * zip-test: tests of the accelerator and its shared virtual addresses, one case or all of them.
 *
 *     zip-test                        lists the cases
 *     zip-test [-n ROUNDS] CASE...    runs them, in this order
 *     zip-test [-n ROUNDS] all        runs all
 *
 * What may go one way or the other is repeated ROUNDS times in its case (5). Prints a line `ok CASE` or `FAILED CASE` for
 * each, with the time it took; the exit status is 0 if none failed.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "zip_test.h"

static const struct {
    const char *name;
    bool (*run)(void);
    const char *what;
} CASES[] = {
    {"formats", test_formats, "deflate, zlib and gzip, flat and with scatter lists, in malloc memory"},
    {"sizes", test_sizes, "1 byte to 4 MiB at odd addresses"},
    {"file", test_file, "mapped files that nobody has touched, as source and destination"},
    {"stream", test_stream, "stateful streams in odd pieces"},
    {"ring", test_ring, "rings that are full and wrap"},
    {"unmapped-source", test_unmapped_source, "source address without memory"},
    {"unmapped-destination", test_unmapped_destination, "destination address without memory"},
    {"readonly-destination", test_readonly_destination, "destination that the process may only read"},
    {"bad-type", test_bad_type, "command type that does not exist"},
    {"bad-format", test_bad_format, "request and buffer types that do not exist"},
    {"small-destination", test_small_destination, "output larger than its destination"},
    {"damaged-input", test_damaged_input, "wrong checksum, damaged and truncated data"},
    {"bad-sgl", test_bad_sgl, "scatter lists that are short, endless, or not there"},
    {"pasid", test_pasid, "one PASID for each process, and never 0"},
    {"isolation", test_isolation, "processes with different data at the same address"},
    {"killed", test_killed, "processes killed with commands under way"},
    {"exit-while-busy", test_exit_while_busy, "processes that leave with commands under way"},
    {"many", test_many, "32 processes at once"},
    {"fork", test_fork, "fork while commands run"},
    {"touch", test_touch, "64 pages that the device is the first to touch"},
    {"munmap", test_munmap, "memory unmapped while commands run"},
    {"mprotect", test_mprotect, "memory protected while commands run"},
    {"dontneed", test_dontneed, "memory discarded while commands run"},
    {"pageout", test_pageout, "memory swapped out before and while commands run"},
    {"mremap", test_mremap, "memory moved while commands run"},
    {"huge", test_huge, "transparent huge pages, whole and split"},
};
#define CASE_COUNT (sizeof CASES / sizeof *CASES)

/* Each case has a process of its own, so that it starts with a fresh address space and leaves nothing. */
static bool run(size_t index)
{
    struct timespec start, end;
    int status = 0;

    printf("run %s\n", CASES[index].name);
    fflush(stdout);
    clock_gettime(CLOCK_MONOTONIC, &start);
    pid_t child = fork();
    if (child == 0) {
        bool passed = CASES[index].run();
        fflush(NULL);
        _exit(passed ? 0 : 1);
    }
    bool passed = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (WIFSIGNALED(status))
        fprintf(stderr, "  ended by signal %d\n", WTERMSIG(status));
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%s %s (%.1f s)\n", passed ? "ok" : "FAILED", CASES[index].name,
           (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
    return passed;
}

int main(int argc, char **argv)
{
    size_t failed = 0;
    int option;

    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((option = getopt(argc, argv, "n:")) != -1) {
        unsigned long value = optarg ? strtoul(optarg, NULL, 10) : 0;
        if (option != 'n' || value == 0 || value > 1000000) {
            fprintf(stderr, "usage: zip-test [-n ROUNDS] CASE...|all\n");
            return 2;
        }
        zip_test_rounds = (unsigned)value;
    }
    if (optind == argc) {
        for (size_t i = 0; i < CASE_COUNT; i++)
            printf("%-22s %s\n", CASES[i].name, CASES[i].what);
        return 2;
    }
    for (int argument = optind; argument < argc; argument++) {
        bool all = strcmp(argv[argument], "all") == 0, found = false;
        for (size_t i = 0; i < CASE_COUNT; i++) {
            if (!all && strcmp(argv[argument], CASES[i].name) != 0)
                continue;
            found = true;
            failed += !run(i);
        }
        if (!found) {
            fprintf(stderr, "zip-test: no case %s\n", argv[argument]);
            return 2;
        }
    }
    if (failed > 0)
        fprintf(stderr, "zip-test: %zu failed\n", failed);
    return failed > 0;
}
