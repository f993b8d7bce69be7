/*
 * The processors themselves: code that others rewrite, translations of tagged addresses, timers, suspension. Needs 66 of them
 * (--cpus 66) for what happens beyond one word of bits. Unlike the other programs these checks use cacheable memory, with
 * the MMU on.
 */
#include "check.h"

#include "psci.h"

#define NORMAL 0x701ull /* a block: AF, inner shareable, attribute 0 */
#define DEVICE 0x405ull /* a block: AF, attribute 1 */
#define TABLE 3ull
#define BLOCK (2 * MIB)

static uint64_t level1[512] __attribute__((aligned(4096)));
static uint64_t level2[512] __attribute__((aligned(4096)));
/* Named by the code below only. */
static uint8_t stacks[2][4096] __attribute__((used, aligned(4096)));

/* Called with x0 = which of the stacks. */
__attribute__((used)) void secondary_main(uint64_t which);
extern const uint8_t secondary[];
__asm__(".text\n"
        "secondary:\n"
        "    ldr x1, =stacks\n"
        "    add x2, x0, #1\n"
        "    add x1, x1, x2, lsl #12\n"
        "    mov sp, x1\n"
        "    b secondary_main\n"
        "    .ltorg\n");

static void tlbi_all(void) { __asm__ volatile("dsb ish; tlbi vmalle1; dsb ish; isb" ::: "memory"); }

static void tlbi_page(uint64_t va)
{
    __asm__ volatile("dsb ish; tlbi vaae1is, %0; dsb ish; isb" ::"r"(va >> 12 & (BIT(44) - 1)) : "memory");
}

/* Devices below 1 GiB, memory above, both at their own addresses; 39 bits of address, the top byte ignored. */
static void mmu_on(void)
{
    level1[0] = DEVICE;
    level1[1] = 0x40000000 | NORMAL;
    write_sysreg(mair_el1, 0x00ff);
    write_sysreg(tcr_el1, 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 5ull << 32 | BIT(37));
    write_sysreg(ttbr0_el1, level1);
    tlbi_all();
    write_sysreg(sctlr_el1, read_sysreg(sctlr_el1) | 1);
}

static void mmu_off(void)
{
    write_sysreg(sctlr_el1, read_sysreg(sctlr_el1) & ~1ull);
    tlbi_all();
}

/* A page with a function that returns a number, and room for data. */
static uint32_t code[1024] __attribute__((aligned(4096)));
static volatile uint64_t phase, result;

static bool wait_for(uint64_t wanted) { return UNTIL(__atomic_load_n(&phase, __ATOMIC_ACQUIRE) == wanted); }
static void go_on_to(uint64_t next) { __atomic_store_n(&phase, next, __ATOMIC_RELEASE); }

static void function_returns(uint32_t number)
{
    code[0] = 0xd2800000u | number << 5; /* mov x0, #number */
    __asm__ volatile("dc cvau, %0; dsb ish; ic ivau, %0; dsb ish; isb" ::"r"(code) : "memory");
}

static uint64_t call_function(void)
{
    __asm__ volatile("isb");
    return ((uint64_t (*)(void))(uintptr_t)code)();
}

static void run_function(void)
{
    wait_for(1);
    /* Long enough for the first processor to fall asleep. If it does not, the check has less to find. */
    for (volatile unsigned i = 0; i < 300000; i++)
        ;
    result = call_function();
    go_on_to(2);
    wait_for(4);
    result = call_function();
    go_on_to(5);
    wait_for(6);
    result = call_function();
    go_on_to(7);
}

static void rewrite_function(void)
{
    wait_for(2);
    function_returns(2);
    ((volatile uint32_t *)code)[512] = 8; /* a fast write path to a page that is no code any more */
    go_on_to(3);
    __asm__ volatile("sev");
    wait_for(5);
    function_returns(3);
    go_on_to(6);
}

void secondary_main(uint64_t which)
{
    mmu_on();
    if (which == 0)
        run_function();
    else
        rewrite_function();
    psci_call(PSCI_CPU_OFF, 0, 0, 0);
}

static uint64_t affinity(unsigned processor) { return (processor / 16) << 8 | processor % 16; }

/* One that could write fast sleeps while another runs from the page, and has an old request to serve when it wakes. */
CHECK(code_rewritten_by_processor_64_runs_in_its_new_form_on_a_third)
{
    SKIP_UNLESS(psci_call(PSCI_AFFINITY_INFO, affinity(64), 0, 0) == 1);
    mmu_on();
    code[1] = 0xd65f03c0; /* ret */
    function_returns(1);
    ((volatile uint32_t *)code)[514] = 7;
    phase = 0;
    int64_t on[] = {
        psci_call(PSCI_CPU_ON, affinity(1), (uint64_t)secondary, 0),
        psci_call(PSCI_CPU_ON, affinity(64), (uint64_t)secondary, 1),
    };
    __asm__ volatile("sevl; wfe");
    go_on_to(1);
    while (phase < 3)
        __asm__ volatile("wfe" ::: "memory");
    go_on_to(4);
    bool is_over = wait_for(7);
    mmu_off();
    EXPECT(on[0] == 0 && on[1] == 0);
    EXPECT(is_over);
    EXPECT_EQ(result, 3);
}

CHECK(tlbi_reaches_a_block_that_was_used_through_a_tagged_pointer)
{
    const uint64_t va = 0x80000000, first = 0x44000000, second = 0x44200000;
    uint64_t seen[3][2];

    /* Not the page that the TLBI names: one mapping of a block is invalidated as a whole. */
    w64(first + 0x1000, 0xaaaa);
    w64(second + 0x1000, 0xbbbb);
    level1[2] = (uint64_t)level2 | TABLE;
    mmu_on();
    for (unsigned i = 0; i < 3; i++) {
        uint64_t tagged = (i == 1 ? 0x5aull << 56 : 0) | va;

        level2[0] = first | NORMAL;
        tlbi_page(va);
        seen[i][0] = r64(tagged + 0x1000);
        level2[0] = 0;
        tlbi_page(va);
        level2[0] = second | NORMAL;
        barrier();
        __asm__ volatile("isb");
        seen[i][1] = r64(tagged + 0x1000);
        level2[0] = 0;
        tlbi_page(va);
    }
    mmu_off();
    level1[2] = 0;
    for (unsigned i = 0; i < 3; i++) {
        EXPECT_EQ(seen[i][0], 0xaaaa);
        EXPECT_EQ(seen[i][1], 0xbbbb);
    }
}

#define GICR_SGI 0x080b0000ull
#define GICR_IGROUPR0 (GICR_SGI + 0x080)
#define GICR_ISENABLER0 (GICR_SGI + 0x100)
#define GICR_ICENABLER0 (GICR_SGI + 0x180)
#define GICR_ISPENDR0 (GICR_SGI + 0x200)
#define PPI_PHYSICAL_TIMER 30

/* A timer that fires after some counts. */
static void set_timer(uint32_t counts)
{
    write_sysreg(cntp_tval_el0, counts);
    write_sysreg(cntp_ctl_el0, 1);
}

CHECK(timer_interrupt_is_pending_for_whoever_reads_that_its_condition_holds)
{
    for (unsigned i = 0; i < 200; i++) {
        set_timer(500 * (i % 7));
        while (!(read_sysreg(cntp_ctl_el0) & 4))
            ;
        EXPECT(r32(GICR_ISPENDR0) & BIT(PPI_PHYSICAL_TIMER));
        set_timer(500 * (i % 7));
        uint64_t at = read_sysreg(cntp_cval_el0);
        while (read_sysreg(cntpct_el0) < at)
            ;
        EXPECT(r32(GICR_ISPENDR0) & BIT(PPI_PHYSICAL_TIMER));
        write_sysreg(cntp_ctl_el0, 0);
        EXPECT(!(r32(GICR_ISPENDR0) & BIT(PPI_PHYSICAL_TIMER)));
    }
}

CHECK(suspension_in_standby_ends_with_an_interrupt_that_is_masked)
{
    EXPECT_EQ(psci_call(PSCI_FEATURES, PSCI_CPU_SUSPEND, 0, 0), 0);
    EXPECT_EQ(psci_call(PSCI_CPU_SUSPEND, BIT(16), 0x40200000, 0), -2);
    w32(GICR_IGROUPR0, r32(GICR_IGROUPR0) | (uint32_t)BIT(PPI_PHYSICAL_TIMER));
    w32(GICR_ISENABLER0, (uint32_t)BIT(PPI_PHYSICAL_TIMER));
    set_timer(100000);
    uint64_t at = read_sysreg(cntp_cval_el0);
    int64_t answer = psci_call(PSCI_CPU_SUSPEND, 0, 0, 0);
    uint64_t end = read_sysreg(cntpct_el0);
    write_sysreg(cntp_ctl_el0, 0);
    w32(GICR_ICENABLER0, (uint32_t)BIT(PPI_PHYSICAL_TIMER));
    EXPECT_EQ(answer, 0);
    EXPECT(end >= at);
}
