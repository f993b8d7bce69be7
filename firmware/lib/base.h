/* Words, memory-mapped registers, barriers, time. */
#ifndef BASE_H
#define BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BIT(n) (1ull << (n))
#define KIB 1024ull
#define MIB (1024 * KIB)
#define PAGE 4096ull

static inline uint32_t r32(uint64_t at) { return *(volatile uint32_t *)at; }
static inline uint64_t r64(uint64_t at) { return *(volatile uint64_t *)at; }
static inline void w16(uint64_t at, uint16_t value) { *(volatile uint16_t *)at = value; }
static inline void w32(uint64_t at, uint32_t value) { *(volatile uint32_t *)at = value; }
static inline void w64(uint64_t at, uint64_t value) { *(volatile uint64_t *)at = value; }

/* What was stored before is seen by devices before what is stored after. */
static inline void barrier(void) { __asm__ volatile("dsb sy" ::: "memory"); }

#define TEXT_(name) #name
#define TEXT(name) TEXT_(name)
#define read_sysreg(name) ({ uint64_t value_; __asm__ volatile("mrs %0, " TEXT(name) : "=r"(value_)); value_; })
#define write_sysreg(name, value) \
    __asm__ volatile("msr " TEXT(name) ", %0\n\tisb" ::"r"((uint64_t)(value)) : "memory")

/* A wait for something that a device does on its own. Long enough for a host with a lot else to do. */
static inline uint64_t deadline(void)
{
    return read_sysreg(cntvct_el0) + 20 * read_sysreg(cntfrq_el0);
}

static inline bool is_over(uint64_t end) { return read_sysreg(cntvct_el0) > end; }

/* Waits until a condition holds; whether it did. The condition is evaluated until it holds, and not once more. */
#define UNTIL(condition) ({                        \
    uint64_t end_ = deadline();                    \
    bool holds_;                                   \
    do                                             \
        holds_ = (condition);                      \
    while (!holds_ && !is_over(end_));             \
    holds_;                                        \
})

#endif
