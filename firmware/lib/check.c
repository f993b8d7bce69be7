#include "check.h"

#include "dma_test.h"
#include "gic.h"
#include "psci.h"

extern const struct check checks_start[], checks_end[];

static bool has_failed;
/* The condition that did not hold. */
static const char *skipped;

static void note(const char *file, unsigned line, const char *what)
{
    has_failed = true;
    print("# %s:%u: %s", file, line, what);
}

void check_failed(const char *file, unsigned line, const char *what)
{
    note(file, line, what);
    print("\n");
}

void check_differs(const char *file, unsigned line, const char *what, uint64_t actual, uint64_t expected)
{
    note(file, line, what);
    print(" is %lx, expected %lx\n", actual, expected);
}

void check_skipped(const char *condition) { skipped = condition; }

void check_exception(uint64_t vector, uint64_t esr, uint64_t elr, uint64_t far);
void check_main(void);

void check_exception(uint64_t vector, uint64_t esr, uint64_t elr, uint64_t far)
{
    print("Bail out! exception %lx: ESR %lx ELR %lx FAR %lx\n", vector, esr, elr, far);
    psci(PSCI_SYSTEM_RESET);
}

void check_main(void)
{
    unsigned number = 0, failed = 0;

    gic_set_up();
    if (!dma_test_find()) {
        print("Bail out! this needs two DMA test devices: --device dma-test,dma-test\n");
        psci(PSCI_SYSTEM_RESET);
    }
    for (const struct check *check = checks_start; check < checks_end; check++) {
        number++;
        has_failed = false;
        skipped = NULL;
        check->run();
        failed += has_failed;
        print("%s %u %s", has_failed ? "not ok" : "ok", number, check->name);
        if (skipped != NULL)
            print(" # SKIP unless %s", skipped);
        print("\n");
    }
    print("1..%u\n# %u checks, %u failed\n", number, number, failed);
    psci(PSCI_SYSTEM_OFF);
}
