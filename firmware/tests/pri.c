/* Page requests: docs/smmuv3-conformance.md, 80 to 84. */
#include "check.h"
#include "dma_test.h"
#include "gic.h"
#include "smmu.h"
#include "tables.h"

#define VA 0x7f0000001000ull
#define SID (dma[0].sid)
#define P TAG_PASID(PASID)
#define ENTRIES (1u << PRIQ_LOG2)
#define RESPONSE_SUCCESS 0x0u
#define RESPONSE_INVALID 0x1u
#define RESPONSE_FAILURE 0xfu

static uint32_t prod(void) { return r32(SMMU_PRIQ_PROD); }

static uint32_t responses(void) { return r32(dma[0].bar + DT_PRG_COUNT); }

/* Expects the last response: group, code, and the PASID register. */
#define EXPECT_RESPONSE(count, group, code, pasid)                              \
    do {                                                                        \
        EXPECT(UNTIL(responses() == (count)));                                  \
        EXPECT_EQ(r32(dma[0].bar + DT_PRG_INFO), (group) | (code) << 12);       \
        EXPECT_EQ(r32(dma[0].bar + DT_PRG_PASID), pasid);                       \
    } while (0)

CHECK(record_has_every_field)
{
    struct page_request request;

    NEEDS(IDR0_PRI);
    smmu_start_services();
    EXPECT_EQ(dma_request_page(REQUEST_READ | REQUEST_WRITE | REQUEST_LAST, P, VA, 3), DMA_DONE);
    EXPECT(UNTIL(smmu_page_request(&request)));
    EXPECT_EQ(request.d[0], 0xf000000000000000ull | (uint64_t)PASID << 32 | SID);
    EXPECT_EQ(request.d[1], VA | 3);
    EXPECT_EQ(dma_request_page(REQUEST_READ, P | TAG_PRIVILEGED | TAG_EXECUTE, VA, 0x1ff), DMA_DONE);
    EXPECT(UNTIL(smmu_page_request(&request)));
    EXPECT_EQ(request.d[0], BIT(63) | BIT(60) | BIT(59) | BIT(58) | (uint64_t)PASID << 32 | SID);
    EXPECT_EQ(request.d[1], VA | 0x1ff);
    EXPECT_EQ(dma_request_page(REQUEST_WRITE, 0, VA, 0), DMA_DONE);
    EXPECT(UNTIL(smmu_page_request(&request)));
    EXPECT_EQ(request.d[0], BIT(61) | SID);
    dma_start(&dma[0], 0, DMA_STOP_MARKER, P, 0, 0, 0);
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE);
    EXPECT(UNTIL(smmu_page_request(&request)));
    EXPECT_EQ(request.d[0], BIT(63) | BIT(62) | (uint64_t)PASID << 32 | SID);
    EXPECT_EQ(responses(), 0);
}

CHECK(groups_interleave)
{
    struct page_request request;

    NEEDS(IDR0_PRI);
    smmu_start_services();
    EXPECT_EQ(dma_request_page(REQUEST_READ, P, VA, 1), DMA_DONE);
    EXPECT_EQ(dma_request_page(REQUEST_READ, P, VA + PAGE, 2), DMA_DONE);
    EXPECT_EQ(dma_request_page(REQUEST_READ | REQUEST_LAST, P, VA + 2 * PAGE, 1), DMA_DONE);
    for (uint64_t i = 0; i < 3; i++) {
        EXPECT(UNTIL(smmu_page_request(&request)));
        EXPECT_EQ(request.d[1], (VA + i * PAGE) | (i == 1 ? 2 : 1));
    }
}

CHECK(interrupt_comes_when_the_queue_was_empty_or_with_lo_on_last_requests)
{
    struct page_request request;

    NEEDS(IDR0_PRI);
    smmu_start_services();
    EXPECT(smmu_irq(PRIQ_IRQEN));
    EXPECT_EQ(dma_request_page(REQUEST_READ, P, VA, 1), DMA_DONE);
    EXPECT(UNTIL(gic_take(IRQ_PRIQ)));
    EXPECT_EQ(dma_request_page(REQUEST_READ | REQUEST_LAST, P, VA, 1), DMA_DONE);
    EXPECT(!gic_take(IRQ_PRIQ));
    EXPECT(smmu_page_request(&request) && smmu_page_request(&request));
    EXPECT(smmu_irq(0));
    w32(SMMU_PRIQ_IRQ_CFG2, PRIQ_LO);
    EXPECT(smmu_irq(PRIQ_IRQEN));
    EXPECT_EQ(dma_request_page(REQUEST_READ, P, VA, 1), DMA_DONE);
    EXPECT(!gic_take(IRQ_PRIQ));
    EXPECT_EQ(dma_request_page(REQUEST_READ | REQUEST_LAST, P, VA, 1), DMA_DONE);
    EXPECT(UNTIL(gic_take(IRQ_PRIQ)));
}

CHECK(full_queue_answers_last_requests_with_success_until_the_overflow_is_acknowledged)
{
    struct page_request request;

    NEEDS(IDR0_PRI);
    smmu_start_services();
    for (uint32_t group = 0; group < ENTRIES; group++)
        EXPECT_EQ(dma_request_page(REQUEST_READ | REQUEST_LAST, P, VA, group), DMA_DONE);
    EXPECT_EQ(prod(), ENTRIES);
    EXPECT_EQ(dma_request_page(REQUEST_READ, P, VA, 10), DMA_DONE);
    EXPECT_EQ(prod(), OVFLG | ENTRIES);
    EXPECT_EQ(responses(), 0);
    uint32_t kept = r32(SMMU_IDR3) & IDR3_PPS ? TAG_PASID(PASID) : 0;

    EXPECT_EQ(dma_request_page(REQUEST_READ | REQUEST_LAST, P, VA, 11), DMA_DONE);
    if (kept)
        EXPECT_RESPONSE(1, 11, RESPONSE_SUCCESS, kept);
    /* Space, but no acknowledgement: nothing is recorded. */
    EXPECT(smmu_page_request(&request));
    EXPECT_EQ(dma_request_page(REQUEST_READ | REQUEST_LAST, P, VA, 12), DMA_DONE);
    EXPECT(UNTIL(responses() == 2));
    EXPECT_EQ(prod(), OVFLG | ENTRIES);
    w32(SMMU_PRIQ_CONS, r32(SMMU_PRIQ_CONS) | OVFLG);
    EXPECT_EQ(dma_request_page(REQUEST_READ | REQUEST_LAST, P, VA, 13), DMA_DONE);
    EXPECT_EQ(prod(), OVFLG | (ENTRIES + 1));
    EXPECT_EQ(responses(), 2);
}

CHECK(without_the_queue_or_translation_every_request_fails_without_pasid)
{
    static const uint32_t enables[] = {SMMUEN | EVENTQEN | CMDQEN, PRIQEN | EVENTQEN | CMDQEN};

    NEEDS(IDR0_PRI);
    for (unsigned i = 0; i < 2; i++) {
        smmu_start_services();
        EXPECT(smmu_enable(enables[i]));
        EXPECT_EQ(dma_request_page(REQUEST_READ | REQUEST_LAST, P, VA, 5), DMA_DONE);
        EXPECT_RESPONSE(1, 5, RESPONSE_FAILURE, 0);
        EXPECT_EQ(prod(), 0);
    }
}

CHECK(stop_markers_are_never_answered)
{
    NEEDS(IDR0_PRI);
    smmu_start_services();
    EXPECT(smmu_enable(SMMUEN | EVENTQEN | CMDQEN));
    dma_start(&dma[0], 0, DMA_STOP_MARKER, P, 0, 0, 0);
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE);
    EXPECT(smmu_sync());
    EXPECT_EQ(responses(), 0);
}

CHECK(pri_resp_reaches_the_device_with_its_code_and_with_a_pasid_if_ssv)
{
    const uint64_t command = CMD_PRI_RESP | CMD_SID(SID);
    struct page_request request;

    NEEDS(IDR0_PRI);
    smmu_start_services();
    for (uint32_t group = 3; group <= 5; group++)
        EXPECT_EQ(dma_request_page(REQUEST_READ | REQUEST_LAST, P, VA, group), DMA_DONE);
    for (unsigned i = 0; i < 3; i++)
        EXPECT(UNTIL(smmu_page_request(&request)));
    EXPECT(smmu_command(command | CMD_SSV | CMD_SSID(PASID), PRI_RESP(3, 2)));
    EXPECT_RESPONSE(1, 3, RESPONSE_SUCCESS, TAG_PASID(PASID));
    EXPECT(smmu_command(command | CMD_SSV | CMD_SSID(PASID), PRI_RESP(4, 1)));
    EXPECT_RESPONSE(2, 4, RESPONSE_INVALID, TAG_PASID(PASID));
    EXPECT(smmu_command(command, PRI_RESP(5, 0)));
    EXPECT_RESPONSE(3, 5, RESPONSE_FAILURE, 0);
    EXPECT(smmu_is_illegal(command, PRI_RESP(5, 3)));
}

CHECK(pri_resp_with_translation_off_is_consumed_without_effect)
{
    NEEDS(IDR0_PRI);
    smmu_start_services();
    EXPECT(smmu_enable(EVENTQEN | CMDQEN));
    EXPECT(smmu_command(CMD_PRI_RESP | CMD_SID(SID), PRI_RESP(1, 2)));
    EXPECT(smmu_sync());
    EXPECT_EQ(responses(), 0);
}
