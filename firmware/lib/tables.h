/* VMSAv8-64 translation tables (Arm DDI 0487, D8), and memory for tables and data. */
#ifndef TABLES_H
#define TABLES_H

#include "base.h"

/* Leaf descriptors. */
#define PTE_USER BIT(6)
#define PTE_RO BIT(7)
#define PTE_AF BIT(10)
#define PTE_NG BIT(11)
#define PTE_DBM BIT(51)
#define PTE_CONTIGUOUS BIT(52)
#define PTE_PXN BIT(53)
#define PTE_UXN BIT(54)
#define PTE_USER_RW (PTE_USER | PTE_AF | PTE_NG | PTE_PXN | PTE_UXN)
#define PTE_ADDRESS 0x0000fffffffff000ull

/* Granules by log2 of their bytes. */
enum { G4K = 12, G64K = 16, G16K = 14 };

/* Gives all tables back. */
void tables_reset(void);

/* A table of zeros, aligned to its size. */
uint64_t *table_new(uint64_t bytes);

/* The descriptor of a 4 KiB page in a 48-bit space, with the tables above it. */
volatile uint64_t *pte(uint64_t *root, uint64_t va);

/* As pte, of a leaf at a level, for any granule and input size. */
volatile uint64_t *pte_at(uint64_t *root, unsigned granule, unsigned input_bits, unsigned level, uint64_t va);

/* The level that a walk starts at. */
unsigned start_level(unsigned granule, unsigned input_bits);

/* Maps a 4 KiB page. */
void map(uint64_t *root, uint64_t va, const volatile void *page, uint64_t attributes);

/* Pages for data. */
#define DATA_PAGES 16
extern uint64_t data[DATA_PAGES][PAGE / 8];

#endif
