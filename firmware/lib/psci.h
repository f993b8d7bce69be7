/* Calls by PSCI with the HVC conduit (Arm DEN 0022). */
#ifndef PSCI_H
#define PSCI_H

#include "base.h"

#define PSCI_CPU_SUSPEND 0xc4000001u
#define PSCI_CPU_OFF 0x84000002u
#define PSCI_CPU_ON 0xc4000003u
#define PSCI_AFFINITY_INFO 0xc4000004u
#define PSCI_SYSTEM_OFF 0x84000008u
#define PSCI_SYSTEM_RESET 0x84000009u
#define PSCI_FEATURES 0x8400000au

static inline int64_t psci_call(uint32_t function, uint64_t first, uint64_t second, uint64_t third)
{
    register uint64_t x0 __asm__("x0") = function;
    register uint64_t x1 __asm__("x1") = first;
    register uint64_t x2 __asm__("x2") = second;
    register uint64_t x3 __asm__("x3") = third;

    __asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)::"memory");
    /* Functions in the 32-bit convention answer with 32 bits. */
    return function >> 30 & 1 ? (int64_t)x0 : (int32_t)x0;
}

static inline void psci(uint32_t function) { psci_call(function, 0, 0, 0); }

#endif
