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

/* CH_ATS_INFO */
enum {
    ATS_READ = 1 << 0,
    ATS_WRITE = 1 << 1,
    ATS_EXECUTE = 1 << 2,
    ATS_PRIVILEGED = 1 << 3,
    ATS_GLOBAL = 1 << 4,
    ATS_UNSUPPORTED_REQUEST = 1 << 16,
    ATS_COMPLETER_ABORT = 2 << 16,
};
#define ATS_SIZE(log2) ((uint32_t)(log2) << 8)

/* Translation Request for an address, on the first device's channel 0; CH_ATS_INFO, or ~0 if it was not sent. */
uint32_t dma_translate(uint32_t flags, uint32_t tag, uint64_t at);

/* Page Request on the first device's channel 0. */
enum { REQUEST_READ = 1 << 16, REQUEST_WRITE = 1 << 17, REQUEST_LAST = 1 << 18 };
uint32_t dma_request_page(uint32_t flags, uint32_t tag, uint64_t at, uint32_t group);

/* Enables ATS and page requests in the function, page requests as if for the first time. */
void dma_services_on(const struct dma_test *device);

/* DT registers. */
enum {
    DT_CTRL = 0x0c,
    DT_CTRL_RESET = 1 << 0,
    DT_CTRL_HOLD = 1 << 1,
    DT_INV_COUNT = 0x10,
    DT_INV_HELD = 0x14,
    DT_INV_ADDRESS = 0x18,
    DT_INV_INFO = 0x20,
    DT_INV_ANSWER = 0x24,
    DT_PRG_COUNT = 0x28,
    DT_PRG_INFO = 0x2c,
    DT_PRG_PASID = 0x30,
};
#define INV_INFO(log2) ((uint32_t)(log2) << 24)
#define INV_INFO_PASID(pasid) (1u << 20 | (pasid))

/* 8 bytes of the first device's channel 0: status, and data of reads in dma_data. */
uint32_t dma_read(uint32_t tag, uint64_t at);
uint32_t dma_write(uint32_t tag, uint64_t at, uint64_t data);

/* Everything in BAR0 to its reset value; commands under way are given up. */
void dma_reset(const struct dma_test *device);

#endif
