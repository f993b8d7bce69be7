#include "dma_test.h"

#define ECAM 0x4010000000ull
/* In the 32-bit window, where nobody else is. */
#define FIRST_BAR 0x10000000ull
#define BAR_BYTES 0x10000ull

#define VENDOR_DEVICE 0x10f01af4u
#define DT_ID 0x0
#define DT_ID_VALUE 0x414d4454u
#define CH(n) (0x1000ull + 0x100ull * (n))
#define CH_COMMAND 0x00
#define CH_STATUS 0x04
#define CH_TAG 0x08
#define CH_LENGTH 0x0c
#define CH_ADDRESS 0x10
#define CH_DATA 0x20
#define CH_FAULT 0x28
#define CH_GROUP 0x34
#define CH_ATS_ADDRESS 0x38
#define CH_ATS_INFO 0x40

struct dma_test dma[2];

static uint64_t extended_capability(uint64_t config, uint32_t id)
{
    uint32_t at = 0x100;

    while (at != 0) {
        uint32_t header = r32(config + at);

        if ((header & 0xffff) == id)
            return config + at;
        at = header >> 20;
    }
    return 0;
}

static bool set_up(struct dma_test *device, uint64_t config, uint32_t sid, uint64_t bar)
{
    uint64_t pasid = extended_capability(config, 0x1b);

    *device = (struct dma_test){.config = config, .bar = bar, .sid = sid};
    w32(config + 0x10, (uint32_t)bar);
    w32(config + 0x14, (uint32_t)(bar >> 32));
    w16(config + 0x04, 6); /* memory space, bus master */
    if (pasid == 0)
        return false;
    w16(pasid + 6, 7); /* enable, execute, privileged */
    return r32(bar + DT_ID) == DT_ID_VALUE;
}

bool dma_test_find(void)
{
    unsigned found = 0;

    for (uint32_t slot = 0; slot < 32 && found < 2; slot++) {
        uint64_t config = ECAM + (slot << 15);

        if (r32(config) != VENDOR_DEVICE)
            continue;
        if (!set_up(&dma[found], config, slot << 3, FIRST_BAR + found * BAR_BYTES))
            return false;
        found++;
    }
    return found == 2;
}

void dma_start(const struct dma_test *device, unsigned channel, uint32_t command, uint32_t tag, uint64_t at,
               uint32_t length, uint64_t data)
{
    uint64_t ch = device->bar + CH(channel);

    w32(ch + CH_TAG, tag);
    w32(ch + CH_LENGTH, length);
    w64(ch + CH_ADDRESS, at);
    w64(ch + CH_DATA, data);
    barrier();
    w32(ch + CH_COMMAND, command);
}

bool dma_is_busy(const struct dma_test *device, unsigned channel)
{
    return r32(device->bar + CH(channel) + CH_STATUS) & DMA_BUSY;
}

uint32_t dma_wait(const struct dma_test *device, unsigned channel)
{
    if (!UNTIL(!dma_is_busy(device, channel)))
        return DMA_NEVER_ENDED;
    barrier();
    return r32(device->bar + CH(channel) + CH_STATUS);
}

uint64_t dma_data(const struct dma_test *device, unsigned channel)
{
    return r64(device->bar + CH(channel) + CH_DATA);
}

uint64_t dma_fault(const struct dma_test *device, unsigned channel)
{
    return r64(device->bar + CH(channel) + CH_FAULT);
}

uint64_t dma_ats_address(const struct dma_test *device, unsigned channel)
{
    return r64(device->bar + CH(channel) + CH_ATS_ADDRESS);
}

uint32_t dma_ats_info(const struct dma_test *device, unsigned channel)
{
    return r32(device->bar + CH(channel) + CH_ATS_INFO);
}

uint32_t dma_read(uint32_t tag, uint64_t at)
{
    dma_start(&dma[0], 0, DMA_READ, tag, at, 8, 0);
    return dma_wait(&dma[0], 0);
}

uint32_t dma_write(uint32_t tag, uint64_t at, uint64_t data)
{
    dma_start(&dma[0], 0, DMA_WRITE, tag, at, 8, data);
    return dma_wait(&dma[0], 0);
}

void dma_reset(const struct dma_test *device)
{
    w32(device->bar + DT_CTRL, DT_CTRL_RESET);
}

uint32_t dma_translate(uint32_t flags, uint32_t tag, uint64_t at)
{
    dma_start(&dma[0], 0, DMA_TRANSLATE | flags, tag, at, 0, 0);
    return dma_wait(&dma[0], 0) == DMA_DONE ? dma_ats_info(&dma[0], 0) : ~0u;
}

uint32_t dma_request_page(uint32_t flags, uint32_t tag, uint64_t at, uint32_t group)
{
    w32(dma[0].bar + CH(0) + CH_GROUP, group);
    dma_start(&dma[0], 0, DMA_PAGE_REQUEST | flags, tag, at, 0, 0);
    return dma_wait(&dma[0], 0);
}

void dma_services_on(const struct dma_test *device)
{
    uint64_t ats = extended_capability(device->config, 0x0f);
    uint64_t page_request = extended_capability(device->config, 0x13);

    if (ats != 0)
        w16(ats + 6, 0x8000); /* Enable, units of 4 KiB */
    if (page_request != 0) {
        w16(page_request + 4, 0);
        w16(page_request + 6, 3); /* Response Failure, Unexpected Index: cleared */
        w32(page_request + 12, 32);
        w16(page_request + 4, 1);
    }
}
