/*
 * process-bench: work of which the kernel does a good part: processes, system calls, page faults, switches between
 * processes, and tools that read files.
 *
 * bench.h has the form of the output. Uses /bin/true, gzip and sha256sum of the initramfs, and /tmp.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "deflate.h"

#define DATA "/tmp/bench-data"
#define RESULT "/tmp/bench-result"

static void fail(const char *what)
{
    fprintf(stderr, "process-bench: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

/* Runs a program to its end, with its output in `output` if that is not NULL. */
static void run_program(char *const argv[], const char *output)
{
    int status;
    pid_t child = fork();

    if (child < 0)
        fail("fork");
    if (child == 0) {
        if (output) {
            int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
            if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0)
                _exit(126);
        }
        execv(argv[0], argv);
        _exit(127);
    }
    if (waitpid(child, &status, 0) != child)
        fail("waitpid");
    if (status != 0) {
        fprintf(stderr, "process-bench: %s ended with wait status %x\n", argv[0], (unsigned)status);
        exit(EXIT_FAILURE);
    }
}

static uint32_t fork_exec(void)
{
    enum { COUNT = 1000 };
    char *argv[] = {"/bin/true", NULL};

    for (int i = 0; i < COUNT; i++)
        run_program(argv, NULL);
    return COUNT;
}

static uint32_t system_calls(void)
{
    enum { COUNT = 300000 };
    uint32_t check = 0;

    for (int i = 0; i < COUNT; i++)
        check += syscall(SYS_getppid) == getppid();
    return check;
}

static uint32_t page_faults(void)
{
    enum { ROUNDS = 4, PAGES = 16000 };
    size_t page = 4096, bytes = PAGES * page;
    uint32_t check = 0;

    for (int round = 0; round < ROUNDS; round++) {
        uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (memory == MAP_FAILED)
            fail("mmap");
        /* One fault for each page, whatever the kernel's policy on large ones. */
        madvise(memory, bytes, MADV_NOHUGEPAGE);
        for (size_t at = 0; at < bytes; at += page)
            memory[at] = 1;
        for (size_t at = 0; at < bytes; at += page)
            check += memory[at];
        munmap(memory, bytes);
    }
    return check;
}

/* Two processes hand each other a byte. */
static uint32_t ping_pong(void)
{
    enum { COUNT = 30000 };
    int there[2], back[2];
    uint8_t byte = 0;

    if (pipe(there) != 0 || pipe(back) != 0)
        fail("pipe");
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1) {
            byte++;
            if (write(back[1], &byte, 1) != 1)
                _exit(EXIT_FAILURE);
        }
        _exit(EXIT_SUCCESS);
    }
    close(there[0]);
    for (int i = 0; i < COUNT; i++)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
            fail("the other process");
    close(there[1]);
    close(back[0]);
    close(back[1]);
    waitpid(child, NULL, 0);
    return byte;
}

/* Something like text: words of a vocabulary, some more frequent than others. */
static void write_text(uint8_t *text, size_t bytes)
{
    enum { WORDS = 4096 };
    static char words[WORDS][12];
    uint32_t state = 17;

    for (size_t i = 0; i < WORDS; i++) {
        size_t length = 2 + next_random(&state) % 9;
        for (size_t n = 0; n < length; n++)
            words[i][n] = (char)('a' + next_random(&state) % 26);
    }
    for (size_t at = 0; at < bytes;) {
        uint32_t random = next_random(&state);
        const char *word = words[(random & 0xffff) * (random >> 16) / (0x100000000ull / WORDS)];

        while (*word && at < bytes)
            text[at++] = (uint8_t)*word++;
        if (at < bytes)
            text[at++] = random & 0xf00 ? ' ' : '\n';
    }
}

static uint32_t deflate_6(void)
{
    enum { BYTES = 2 << 20 };
    static uint8_t text[BYTES], out[BYTES / 8 * 9 + 4];

    write_text(text, BYTES);
    return bench_check(0, out, deflate(out, text, BYTES));
}

enum { FILE_BYTES = 64 << 20 };

static void make_data(void)
{
    uint8_t *text = malloc(FILE_BYTES);
    FILE *file = fopen(DATA, "w");

    if (!text || !file)
        fail(DATA);
    write_text(text, FILE_BYTES);
    if (fwrite(text, 1, FILE_BYTES, file) != FILE_BYTES || fclose(file) != 0)
        fail(DATA);
    free(text);
}

static uint32_t check_result(void)
{
    static uint8_t part[1 << 16];
    uint32_t check = 0;
    FILE *file = fopen(RESULT, "r");

    if (!file)
        fail(RESULT);
    for (size_t n; (n = fread(part, 1, sizeof part, file)) > 0;)
        check = bench_check(check, part, n);
    fclose(file);
    unlink(RESULT);
    return check;
}

static uint32_t gzip(void)
{
    char *argv[] = {"/bin/gzip", "-c", DATA, NULL};

    run_program(argv, RESULT);
    return check_result();
}

static uint32_t sha256sum(void)
{
    char *argv[] = {"/bin/sha256sum", DATA, NULL};

    run_program(argv, RESULT);
    return check_result();
}

static const struct bench WORK[] = {
    {"fork-exec", fork_exec}, {"system-calls", system_calls}, {"page-faults", page_faults}, {"ping-pong", ping_pong},
    {"deflate-6", deflate_6}, {"gzip-64m", gzip},             {"sha256sum-64m", sha256sum},
};

int main(int argc, char *argv[])
{
    (void)argc;
    make_data();
    return bench_run(WORK, sizeof WORK / sizeof *WORK, argv + 1);
}
