/*
 * zip-churn: the accelerator at work on memory that processes give up, share, move, swap out, split and protect.
 *
 *     zip-churn                                     lists the phases
 *     zip-churn [-n ROUNDS] [-p PROCESSES] PHASE... runs them
 *     zip-churn [-n ROUNDS] [-p PROCESSES] all      runs all
 *
 * Each phase runs in PROCESSES processes at once (1 unless told otherwise), ROUNDS times in each (10). A line for each
 * phase tells how many commands were right, byte by byte, how many the device refused, and how often the SMMU
 * interrupted for stalls (evtq) and page requests (priq), which are the device's page faults: a phase without any has
 * failed. The exit status is 0 if no phase failed.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "churn.h"
#include "memory.h"
#include "zip_test.h"

#define MOST_PROCESSES 16

static const struct phase {
    const char *name;
    bool (*run)(struct churn *churn, unsigned rounds);
    enum backing backing;
    bool may_refuse;
    const char *what;
} PHASES[] = {
    {"discard", churn_discard, ANONYMOUS, false, "destinations without pages"},
    {"fork", churn_fork, ANONYMOUS, false, "fork, and copies on write"},
    {"exit", churn_exit, ANONYMOUS, false, "processes that leave or are killed with commands under way"},
    {"munmap", churn_munmap, SHARED, true, "memory that goes and comes back"},
    {"remap", churn_remap, SHARED, false, "mappings replaced in one step"},
    {"mremap", churn_mremap, ANONYMOUS, true, "pages that move to other addresses"},
    {"swap", churn_swap, ANONYMOUS, false, "pages that are swapped out"},
    {"split", churn_split, HUGE, false, "huge pages, split and put together again"},
    {"mprotect", churn_mprotect, ANONYMOUS, true, "protected and released memory"},
    {"userfault", churn_userfault, ANONYMOUS, false, "pages that a process supplies"},
};
#define PHASE_COUNT (sizeof PHASES / sizeof *PHASES)

/* What all processes of a phase did, in memory that they share. */
struct totals {
    unsigned long right, refused;
};

/* Interrupts so far of a line of /proc/interrupts, on all processors. */
static unsigned long interrupts(const char *name)
{
    char line[1024];
    unsigned long count = 0;
    FILE *file = fopen("/proc/interrupts", "re");

    while (file && fgets(line, sizeof line, file)) {
        char *at = strchr(line, ':');
        line[strcspn(line, "\n")] = '\0';
        if (!at || strlen(line) < strlen(name) || strcmp(line + strlen(line) - strlen(name), name) != 0)
            continue;
        /* A count for each processor, then words. */
        for (char *from = NULL, *end = at + 1; from != end;) {
            from = end;
            count += strtoul(from, &end, 10);
        }
    }
    if (file)
        fclose(file);
    return count;
}

static bool one_process(const struct phase *phase, unsigned rounds, uint32_t seed, struct totals *totals)
{
    struct churn churn;

    if (!churn_start(&churn, phase->backing, phase->may_refuse, seed))
        return false;
    bool well = phase->run(&churn, rounds);
    well &= churn_stop(&churn);
    for (int i = 0; i < 2; i++) {
        __atomic_add_fetch(&totals->right, churn.pumps[i].right, __ATOMIC_RELAXED);
        __atomic_add_fetch(&totals->refused, churn.pumps[i].refused, __ATOMIC_RELAXED);
    }
    return well;
}

static bool run(const struct phase *phase, unsigned rounds, unsigned processes, struct totals *totals)
{
    pid_t children[MOST_PROCESSES];
    unsigned long evtq = interrupts("arm-smmu-v3-evtq"), priq = interrupts("arm-smmu-v3-priq");
    int queues = free_queues();
    bool well = true;

    memset(totals, 0, sizeof *totals);
    for (unsigned i = 0; i < processes; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            bool passed = one_process(phase, rounds, i, totals);
            fflush(NULL);
            _exit(passed ? 0 : 1);
        }
    }
    for (unsigned i = 0; i < processes; i++) {
        int status;
        well &= children[i] > 0 && waitpid(children[i], &status, 0) == children[i] && WIFEXITED(status) &&
                WEXITSTATUS(status) == 0;
    }
    well = well && queues_come_back(queues);
    evtq = interrupts("arm-smmu-v3-evtq") - evtq;
    priq = interrupts("arm-smmu-v3-priq") - priq;
    if (well && evtq + priq == 0) {
        fprintf(stderr, "  the device never missed a page\n");
        well = false;
    }
    printf("%s %s: %u rounds in %u processes, %lu commands right, %lu refused, evtq %lu, priq %lu\n",
           well ? "ok" : "FAILED", phase->name, rounds, processes, totals->right, totals->refused, evtq, priq);
    return well;
}

/* Whether the pieces fill one huge page of this kernel. */
static bool has_small_huge_pages(void)
{
    char text[32] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "re");

    if (file) {
        if (!fgets(text, sizeof text, file))
            text[0] = '\0';
        fclose(file);
    }
    return strtoul(text, NULL, 10) == PIECES * CHURN_BYTES;
}

static int usage(void)
{
    fprintf(stderr, "usage: zip-churn [-n ROUNDS] [-p PROCESSES] PHASE...|all; phases:\n");
    for (size_t i = 0; i < PHASE_COUNT; i++)
        fprintf(stderr, "  %-10s %s\n", PHASES[i].name, PHASES[i].what);
    return 2;
}

static bool is_wanted(const struct phase *phase, char *const *names)
{
    for (; *names; names++)
        if (strcmp(*names, "all") == 0 || strcmp(*names, phase->name) == 0)
            return true;
    return false;
}

static bool is_phase(const char *name)
{
    for (size_t i = 0; i < PHASE_COUNT; i++)
        if (strcmp(name, PHASES[i].name) == 0)
            return true;
    return strcmp(name, "all") == 0;
}

int main(int argc, char **argv)
{
    unsigned long rounds = 10, processes = 1;
    unsigned failed = 0;
    int option;

    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((option = getopt(argc, argv, "n:p:")) != -1) {
        unsigned long value = optarg ? strtoul(optarg, NULL, 10) : 0;
        if (option == 'n' && value > 0 && value <= 1000000)
            rounds = value;
        else if (option == 'p' && value > 0 && value <= MOST_PROCESSES)
            processes = value;
        else
            return usage();
    }
    if (optind == argc)
        return usage();
    for (int i = optind; i < argc; i++)
        if (!is_phase(argv[i]))
            return usage();

    struct totals *totals =
        mmap(NULL, sizeof *totals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (totals == MAP_FAILED || !swap_on())
        return 1;
    for (size_t i = 0; i < PHASE_COUNT; i++) {
        const struct phase *phase = &PHASES[i];
        if (!is_wanted(phase, argv + optind))
            continue;
        if (phase->backing == HUGE && !has_small_huge_pages())
            printf("skipped %s: this kernel's huge pages are too large\n", phase->name);
        else
            failed += !run(phase, (unsigned)rounds, (unsigned)processes, totals);
    }
    if (!swap_off()) {
        fprintf(stderr, "zip-churn: cannot stop swapping\n");
        failed++;
    }
    if (failed > 0)
        fprintf(stderr, "zip-churn: %u failed\n", failed);
    return failed > 0;
}
