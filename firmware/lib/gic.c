#include "gic.h"

#define GICD 0x08000000ull
#define GICD_CTLR (GICD + 0x0000)
#define GICD_IGROUPR (GICD + 0x0080)
#define GICD_ISENABLER (GICD + 0x0100)
#define GICD_IPRIORITYR (GICD + 0x0400)
#define GICD_ICFGR (GICD + 0x0c00)
#define GICD_IROUTER (GICD + 0x6000)
#define GICR_WAKER (0x080a0000ull + 0x14)
#define GICR_WAKER_PROCESSOR_SLEEP BIT(1)
#define GICR_WAKER_CHILDREN_ASLEEP BIT(2)

/* The assembler knows these by their encodings only. */
#define ICC_PMR_EL1 S3_0_C4_C6_0
#define ICC_IAR1_EL1 S3_0_C12_C12_0
#define ICC_EOIR1_EL1 S3_0_C12_C12_1
#define ICC_SRE_EL1 S3_0_C12_C12_5
#define ICC_IGRPEN1_EL1 S3_0_C12_C12_7

void gic_set_up(void)
{
    w32(GICD_CTLR, BIT(4) | BIT(1)); /* ARE, group 1 */
    w32(GICR_WAKER, r32(GICR_WAKER) & ~(uint32_t)GICR_WAKER_PROCESSOR_SLEEP);
    while (r32(GICR_WAKER) & GICR_WAKER_CHILDREN_ASLEEP) {
    }
    for (uint32_t intid = IRQ_EVENTQ; intid <= IRQ_GERROR; intid++) {
        uint32_t word = intid / 32 * 4, bit = (uint32_t)BIT(intid % 32);
        uint64_t icfgr = GICD_ICFGR + intid / 16 * 4;

        w32(GICD_IGROUPR + word, r32(GICD_IGROUPR + word) | bit);
        *(volatile uint8_t *)(GICD_IPRIORITYR + intid) = 0xa0;
        w32(icfgr, r32(icfgr) | (uint32_t)(2ull << (intid % 16 * 2))); /* edge */
        w64(GICD_IROUTER + 8ull * intid, 0);
        w32(GICD_ISENABLER + word, bit);
    }
    write_sysreg(ICC_SRE_EL1, 7);
    write_sysreg(ICC_PMR_EL1, 0xff);
    write_sysreg(ICC_IGRPEN1_EL1, 1);
}

bool gic_take(uint32_t intid)
{
    bool found = false;

    barrier();
    for (;;) {
        uint32_t taken = (uint32_t)read_sysreg(ICC_IAR1_EL1);

        if (taken >= 1020)
            return found;
        found |= taken == intid;
        write_sysreg(ICC_EOIR1_EL1, taken);
    }
}
