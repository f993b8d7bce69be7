/*
 * A check is a function with a name. A program runs all of its checks in the order of the source, prints one line for each
 * as the Test Anything Protocol has it, and powers the machine off. The first expectation that fails ends its check.
 */
#ifndef CHECK_H
#define CHECK_H

#include "base.h"
#include "print.h"

struct check {
    const char *name;
    void (*run)(void);
};

#define CHECK(name)                                                                        \
    static void name(void);                                                                \
    static const struct check check_##name __attribute__((used, section(".checks"))) = {  \
        #name, name};                                                                      \
    static void name(void)

void check_failed(const char *file, unsigned line, const char *what);
void check_skipped(const char *condition);
void check_differs(const char *file, unsigned line, const char *what, uint64_t actual, uint64_t expected);

#define EXPECT(condition)                                    \
    do {                                                     \
        if (!(condition)) {                                  \
            check_failed(__FILE__, __LINE__, #condition);    \
            return;                                          \
        }                                                    \
    } while (0)

#define EXPECT_EQ(actual, expected)                                                  \
    do {                                                                             \
        uint64_t actual_ = (actual), expected_ = (expected);                         \
        if (actual_ != expected_) {                                                  \
            check_differs(__FILE__, __LINE__, #actual, actual_, expected_);          \
            return;                                                                  \
        }                                                                            \
    } while (0)

/* For checks of optional features: the check is then shown as skipped. */
#define SKIP_UNLESS(condition)                 \
    do {                                       \
        if (!(condition)) {                    \
            check_skipped(#condition);         \
            return;                            \
        }                                      \
    } while (0)

#endif
