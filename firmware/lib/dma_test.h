/* The DMA test devices: docs/dma-test.md. */
#ifndef DMA_TEST_H
#define DMA_TEST_H

#include "base.h"

/* CH_COMMAND.opcode and flags. */
enum {
    DMA_READ = 1,
    DMA_WRITE = 2,
    DMA_FILL = 3,
    DMA_COPY = 4,
    DMA_CHECK = 5,
    DMA_TRANSLATE = 6,
    DMA_READ_TRANSLATED = 7,
    DMA_WRITE_TRANSLATED = 8,
    DMA_PAGE_REQUEST = 9,
    DMA_STOP_MARKER = 10,
    DMA_MESSAGE = 1 << 8,
    DMA_NO_WRITE = 1 << 9,
};

/* CH_STATUS. */
enum {
    DMA_BUSY = 1 << 0,
    DMA_DONE = 1 << 1,
    DMA_ABORTED = 1 << 2,
    DMA_GIVEN_UP = 1 << 3,
    DMA_MISMATCH = 1 << 5,
    /* Not a bit of the register: it did not end. */
    DMA_NEVER_ENDED = 1 << 30,
};

/* CH_TAG. */
#define TAG_PASID(pasid) (0x80000000u | (pasid))
#define TAG_PRIVILEGED 0x40000000u
#define TAG_EXECUTE 0x20000000u

#define DMA_CHANNELS 8

struct dma_test {
    uint64_t config; /* in the ECAM */
    uint64_t bar;
    uint32_t sid;
};

extern struct dma_test dma[2];

/* Finds two devices on bus 0 and makes them bus masters with PASIDs. */
bool dma_test_find(void);

/* Starts 8 bytes at an address (READ, WRITE). */
void dma_start(const struct dma_test *device, unsigned channel, uint32_t command, uint32_t tag, uint64_t at,
               uint32_t length, uint64_t data);

/* Waits for the end of a channel's command; its status. */
uint32_t dma_wait(const struct dma_test *device, unsigned channel);

bool dma_is_busy(const struct dma_test *device, unsigned channel);
uint64_t dma_data(const struct dma_test *device, unsigned channel);
uint64_t dma_fault(const struct dma_test *device, unsigned channel);
uint64_t dma_ats_address(const struct dma_test *device, unsigned channel);
uint32_t dma_ats_info(const struct dma_test *device, unsigned channel);

/* 8 bytes of the first device's channel 0: status, and data of reads in dma_data. */
uint32_t dma_read(uint32_t tag, uint64_t at);
uint32_t dma_write(uint32_t tag, uint64_t at, uint64_t data);

/* Everything in BAR0 to its reset value; commands under way are given up. */
void dma_reset(const struct dma_test *device);

#endif
