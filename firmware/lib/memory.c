/* What the compiler calls for copies and initialisers. */
#include "base.h"

void *memset(void *to, int byte, size_t count)
{
    for (volatile uint8_t *at = to; count > 0; count--)
        *at++ = (uint8_t)byte;
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    volatile uint8_t *at = to;

    for (const uint8_t *source = from; count > 0; count--)
        *at++ = *source++;
    return to;
}
