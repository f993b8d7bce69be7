/* Leaving, by PSCI with the HVC conduit (Arm DEN 0022). */
#ifndef PSCI_H
#define PSCI_H

#include "base.h"

#define PSCI_SYSTEM_OFF 0x84000008u
#define PSCI_SYSTEM_RESET 0x84000009u

static inline void psci(uint32_t function)
{
    register uint64_t x0 __asm__("x0") = function;

    __asm__ volatile("hvc #0" : "+r"(x0)::"x1", "x2", "x3", "memory");
}

#endif
