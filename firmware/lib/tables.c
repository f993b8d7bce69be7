#include "tables.h"

#define POOL_BYTES (4 * MIB)

static uint8_t pool[POOL_BYTES] __attribute__((aligned(65536)));
static uint64_t used;

uint64_t data[DATA_PAGES][PAGE / 8] __attribute__((aligned(65536)));

void tables_reset(void) { used = 0; }

uint64_t *table_new(uint64_t bytes)
{
    uint64_t start = (used + bytes - 1) & ~(bytes - 1);
    uint64_t *table = (uint64_t *)(void *)&pool[start];

    /* No check needs more; a table of nobody's would show at once. */
    if (start + bytes > POOL_BYTES)
        return (uint64_t *)0;
    used = start + bytes;
    for (uint64_t i = 0; i < bytes / 8; i++)
        *(volatile uint64_t *)&table[i] = 0;
    return table;
}

unsigned start_level(unsigned granule, unsigned input_bits)
{
    return 3 - (input_bits - 1 - granule) / (granule - 3);
}

volatile uint64_t *pte_at(uint64_t *root, unsigned granule, unsigned input_bits, unsigned level, uint64_t va)
{
    volatile uint64_t *table = root;

    for (unsigned at = start_level(granule, input_bits);; at++) {
        unsigned shift = granule + (3 - at) * (granule - 3);
        unsigned top = shift + granule - 3 < input_bits ? shift + granule - 3 : input_bits;
        volatile uint64_t *entry = &table[va >> shift & (BIT(top - shift) - 1)];

        if (at == level)
            return entry;
        if (!(*entry & 1))
            *entry = (uint64_t)table_new(BIT(granule)) | 3;
        table = (volatile uint64_t *)(*entry & PTE_ADDRESS & ~(BIT(granule) - 1));
    }
}

volatile uint64_t *pte(uint64_t *root, uint64_t va) { return pte_at(root, G4K, 48, 3, va); }

void map(uint64_t *root, uint64_t va, const volatile void *page, uint64_t attributes)
{
    *pte(root, va) = (uint64_t)page | attributes | 3;
    barrier();
}
