/* GICv3 (Arm IHI 0069): the SMMU's interrupts, looked for and never taken. */
#ifndef GIC_H
#define GIC_H

#include "base.h"

/* INTIDs of the SMMU's wires. */
enum { IRQ_EVENTQ = 106, IRQ_PRIQ = 107, IRQ_CMDQ_SYNC = 108, IRQ_GERROR = 109 };

void gic_set_up(void);

/* Whether an interrupt is pending; it is then acknowledged. Others that were are forgotten. */
bool gic_take(uint32_t intid);

#endif
