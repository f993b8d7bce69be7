/*
 * memory: what the kernel says about this process's memory, and a swap area that needs no disk.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of a page of this kernel. */
size_t page_size(void);

/* Bytes of this process by one key of smaps_rollup, such as "Swap" or "AnonHugePages"; negative if there is none. */
long memory_bytes(const char *key);

/* Pages of a range that this process has in its page table; negative if that is not known. */
long present_pages(const void *at, size_t bytes);

/* Writes a small file below /sys or /proc. */
bool write_text(const char *path, const char *text);

/* Swaps into compressed memory, until swap_off(). */
bool swap_on(void);
bool swap_off(void);

#endif
