/* Event queue: docs/smmuv3-conformance.md, 60 to 66; 61 is among the contexts. */
#include "check.h"
#include "dma_test.h"
#include "gic.h"
#include "smmu.h"
#include "tables.h"

#define VA 0x7f0000000000ull
#define SID (dma[0].sid)
#define P TAG_PASID(PASID)
#define ENTRIES (1u << EVENTQ_LOG2)

static bool read_aborts(uint64_t at) { return dma_read(P, at) == (DMA_DONE | DMA_ABORTED); }

static uint32_t prod(void) { return r32(SMMU_EVENTQ_PROD); }

CHECK(records_have_every_field_and_zero_elsewhere)
{
    struct event event;

    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS);

    map(root, VA, data[0], PTE_USER_RW);
    EXPECT_EQ(dma_read(P | TAG_EXECUTE | TAG_PRIVILEGED, VA + 8), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], (uint64_t)SID << 32 | PASID << 12 | BIT(11) | F_PERMISSION);
    EXPECT_EQ(event.d[1], EV_CLASS_IN | EV_READ | EV_IND | EV_PNU);
    EXPECT_EQ(event.d[2], VA + 8);
    EXPECT_EQ(event.d[3], 0);
    /* A write is data, also when the tag says execute. */
    EXPECT_EQ(dma_write(P | TAG_EXECUTE | TAG_PRIVILEGED, VA + PAGE, 0), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_TRANSLATION, SID, PASID));
    EXPECT_EQ(event.d[1], EV_CLASS_IN | EV_PNU);
}

CHECK(full_queue_loses_events_toggles_ovflg_once_and_goes_on_when_there_is_space)
{
    struct event event;

    smmu_start();
    smmu_process(CD_PROCESS);
    for (uint64_t i = 0; i < ENTRIES; i++)
        EXPECT(read_aborts(VA + i * PAGE));
    EXPECT_EQ(prod() & OVFLG, 0);
    for (uint64_t i = 0; i < 3; i++)
        EXPECT(read_aborts(VA + 0x1000000));
    EXPECT_EQ(prod(), OVFLG | ENTRIES);
    for (uint64_t i = 0; i < ENTRIES; i++) {
        EXPECT(smmu_event(&event));
        EXPECT_EQ(event.d[2], VA + i * PAGE);
    }
    /* Not acknowledged yet; events are recorded all the same, and the flag stays. */
    EXPECT(read_aborts(VA + 0x2000000));
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[2], VA + 0x2000000);
    EXPECT_EQ(prod() & OVFLG, OVFLG);
    w32(SMMU_EVENTQ_CONS, r32(SMMU_EVENTQ_CONS) | OVFLG);
    for (uint64_t i = 0; i <= ENTRIES; i++)
        EXPECT(read_aborts(VA));
    EXPECT_EQ(prod() & OVFLG, 0);
}

CHECK(disabled_queue_loses_events_without_overflow)
{
    smmu_start();
    smmu_process(CD_PROCESS);
    EXPECT(smmu_enable(SMMUEN | CMDQEN));
    for (unsigned i = 0; i <= ENTRIES; i++)
        EXPECT(read_aborts(VA));
    EXPECT_EQ(prod(), 0);
    EXPECT(smmu_enable(SMMUEN | CMDQEN | EVENTQEN));
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(interrupt_comes_only_when_the_queue_was_empty_and_only_if_enabled)
{
    struct event event;

    smmu_start();
    smmu_process(CD_PROCESS);
    EXPECT(read_aborts(VA));
    EXPECT(!gic_take(IRQ_EVENTQ));
    EXPECT(smmu_event(&event));
    EXPECT(smmu_irq(EVENTQ_IRQEN));
    EXPECT(!gic_take(IRQ_EVENTQ));
    EXPECT(read_aborts(VA));
    EXPECT_EQ(smmu_events_waiting(), 1);
    EXPECT(UNTIL(gic_take(IRQ_EVENTQ)));
    EXPECT(read_aborts(VA));
    EXPECT(!gic_take(IRQ_EVENTQ));
    EXPECT(smmu_event(&event) && smmu_event(&event));
    EXPECT(read_aborts(VA));
    EXPECT(UNTIL(gic_take(IRQ_EVENTQ)));
}

CHECK(event_interrupt_is_also_a_message)
{
    smmu_start();
    smmu_process(CD_PROCESS);
    data[5][0] = 0;
    w64(SMMU_EVENTQ_IRQ_CFG0, (uint64_t)data[5]);
    w32(SMMU_EVENTQ_IRQ_CFG1, 0xabcd1234);
    EXPECT(smmu_irq(EVENTQ_IRQEN));
    EXPECT(read_aborts(VA));
    EXPECT(UNTIL(r32((uint64_t)data[5]) == 0xabcd1234));
    EXPECT_EQ(r64((uint64_t)data[5]), 0xabcd1234);
}

CHECK(event_write_to_nowhere_stops_the_queue_until_acknowledged)
{
    smmu_start();
    smmu_process(CD_PROCESS);
    EXPECT(smmu_enable(SMMUEN | CMDQEN));
    w64(SMMU_EVENTQ_BASE, HOLE | EVENTQ_LOG2);
    EXPECT(smmu_enable(SMMUEN | CMDQEN | EVENTQEN));
    EXPECT(read_aborts(VA));
    EXPECT(UNTIL(smmu_errors() == EVENTQ_ABT_ERR));
    EXPECT_EQ(prod(), 0);
    EXPECT(smmu_enable(SMMUEN | CMDQEN));
    w64(SMMU_EVENTQ_BASE, (uint64_t)smmu_eventq | EVENTQ_LOG2);
    EXPECT(smmu_enable(SMMUEN | CMDQEN | EVENTQEN));
    EXPECT(read_aborts(VA));
    EXPECT_EQ(prod(), 0);
    w32(SMMU_GERRORN, r32(SMMU_GERROR));
    EXPECT(read_aborts(VA));
    EXPECT(UNTIL(prod() == 1));
}
