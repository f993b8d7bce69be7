/* memory: see memory.h. */
#include "memory.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/swap.h>
#include <unistd.h>

#define SWAP_DEVICE "/dev/zram0"
#define SWAP_BYTES (64u << 20)
/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_PRESENT (1ull << 63)

size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

long memory_bytes(const char *key)
{
    char line[256];
    long kib = -1;
    size_t length = strlen(key);
    FILE *file = fopen("/proc/self/smaps_rollup", "re");

    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) == 0 && line[length] == ':') {
            kib = strtol(line + length + 1, NULL, 10);
            break;
        }
    }
    if (file)
        fclose(file);
    return kib < 0 ? -1 : kib * 1024;
}

long present_pages(const void *at, size_t bytes)
{
    size_t page = page_size();
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    long present = 0;

    for (uintptr_t here = (uintptr_t)at; present >= 0 && here < (uintptr_t)at + bytes; here += page) {
        uint64_t entry;
        if (fd < 0 || pread(fd, &entry, sizeof entry, (off_t)(here / page * sizeof entry)) != sizeof entry)
            present = -1;
        else if (entry & PAGEMAP_PRESENT)
            present++;
    }
    if (fd >= 0)
        close(fd);
    return present;
}

bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return written;
}

/* A swap area begins with a page whose last bytes are a signature. */
static bool make_swap_area(int fd)
{
    static const char SIGNATURE[] = {'S', 'W', 'A', 'P', 'S', 'P', 'A', 'C', 'E', '2'};
    enum { HEADER = 1024, VERSION = 1 };
    size_t page = page_size();
    uint32_t fields[2] = {VERSION, (uint32_t)(SWAP_BYTES / page - 1)};
    char *area = calloc(1, page);
    bool made = false;

    if (area) {
        memcpy(area + HEADER, fields, sizeof fields);
        memcpy(area + page - sizeof SIGNATURE, SIGNATURE, sizeof SIGNATURE);
        made = write(fd, area, page) == (ssize_t)page;
    }
    free(area);
    return made;
}

bool swap_on(void)
{
    char size[16];

    snprintf(size, sizeof size, "%u", SWAP_BYTES);
    if (!write_text("/sys/block/zram0/disksize", size)) {
        fprintf(stderr, "  no zram device, or in use\n");
        return false;
    }
    int fd = open(SWAP_DEVICE, O_WRONLY | O_CLOEXEC);
    bool made = fd >= 0 && make_swap_area(fd);
    if (fd >= 0)
        close(fd);
    if (!made || swapon(SWAP_DEVICE, 0) != 0) {
        fprintf(stderr, "  cannot swap\n");
        return false;
    }
    return true;
}

bool swap_off(void)
{
    return swapoff(SWAP_DEVICE) == 0 && write_text("/sys/block/zram0/reset", "1");
}
