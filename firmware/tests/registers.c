/* Registers: docs/smmuv3-conformance.md, 1 to 15. */
#include "check.h"
#include "dma_test.h"
#include "smmu.h"
#include "tables.h"

/* The first check: nothing has touched the SMMU yet. */
CHECK(enables_and_errors_are_zero_after_reset)
{
    EXPECT_EQ(r32(SMMU_CR0), 0);
    EXPECT_EQ(r32(SMMU_CR0ACK), 0);
    EXPECT_EQ(r32(SMMU_IRQ_CTRL), 0);
    EXPECT_EQ(r32(SMMU_IRQ_CTRLACK), 0);
    EXPECT_EQ(r32(SMMU_GERROR), 0);
    EXPECT_EQ(r32(SMMU_GERRORN), 0);
    EXPECT_EQ(r32(SMMU_GBPA) & GBPA_UPDATE, 0);
}

CHECK(id_registers_ignore_writes)
{
    for (uint64_t at = SMMU_IDR0; at <= SMMU_AIDR; at += 4) {
        uint32_t before = r32(at);

        w32(at, ~before);
        EXPECT_EQ(r32(at), before);
    }
}

CHECK(cr0_reads_back_at_once_and_is_acknowledged)
{
    smmu_configure();
    w32(SMMU_CR0, CMDQEN);
    EXPECT_EQ(r32(SMMU_CR0), CMDQEN);
    EXPECT(UNTIL(r32(SMMU_CR0ACK) == CMDQEN));
    EXPECT(smmu_enable(0));
}

CHECK(cr0_bits_of_absent_features_are_never_acknowledged)
{
    uint32_t idr0 = r32(SMMU_IDR0);
    uint32_t absent = 0xfffffe00u | BIT(5);

    if (!(idr0 & IDR0_VMW))
        absent |= 7 << 6;
    if (!(idr0 & IDR0_PRI))
        absent |= PRIQEN;
    if (!(idr0 & IDR0_ATS))
        absent |= ATSCHK;
    smmu_configure();
    w32(SMMU_CR0, absent | EVENTQEN);
    EXPECT(UNTIL(r32(SMMU_CR0ACK) & EVENTQEN));
    EXPECT_EQ(r32(SMMU_CR0ACK) & absent, 0);
}

CHECK(irq_ctrl_is_acknowledged)
{
    smmu_off();
    w32(SMMU_IRQ_CTRL, EVENTQ_IRQEN | GERROR_IRQEN);
    EXPECT_EQ(r32(SMMU_IRQ_CTRL), EVENTQ_IRQEN | GERROR_IRQEN);
    EXPECT(UNTIL(r32(SMMU_IRQ_CTRLACK) == (EVENTQ_IRQEN | GERROR_IRQEN)));
    w32(SMMU_IRQ_CTRL, ~7u);
    EXPECT(UNTIL(!(r32(SMMU_IRQ_CTRLACK) & 5)));
    EXPECT_EQ(r32(SMMU_IRQ_CTRLACK), 0);
}

CHECK(table_registers_are_fixed_while_translation_is_on)
{
    smmu_start();
    uint64_t base = r64(SMMU_STRTAB_BASE);
    uint32_t cfg = r32(SMMU_STRTAB_BASE_CFG), cr1 = r32(SMMU_CR1), cr2 = r32(SMMU_CR2);

    w64(SMMU_STRTAB_BASE, 0);
    w32(SMMU_STRTAB_BASE_CFG, 0);
    w32(SMMU_CR2, 0);
    w32(SMMU_CR1, 0);
    EXPECT_EQ(r64(SMMU_STRTAB_BASE), base);
    EXPECT_EQ(r32(SMMU_STRTAB_BASE_CFG), cfg);
    EXPECT_EQ(r32(SMMU_CR2), cr2);
    EXPECT_EQ(r32(SMMU_CR1) & 0xfc0, cr1 & 0xfc0);
    EXPECT(smmu_enable(0));
    w64(SMMU_STRTAB_BASE, 0);
    w32(SMMU_CR2, 0);
    EXPECT_EQ(r64(SMMU_STRTAB_BASE), 0);
    EXPECT_EQ(r32(SMMU_CR2), 0);
}

CHECK(queue_attributes_are_fixed_while_any_queue_is_on)
{
    static const uint32_t enables[] = {CMDQEN, EVENTQEN};

    for (unsigned i = 0; i < 2; i++) {
        smmu_configure();
        EXPECT(smmu_enable(enables[i]));
        w32(SMMU_CR1, 0);
        EXPECT_EQ(r32(SMMU_CR1), 0xd75 & 0x3f);
        EXPECT(smmu_enable(0));
        w32(SMMU_CR1, 0);
        EXPECT_EQ(r32(SMMU_CR1), 0);
    }
}

CHECK(queue_registers_are_fixed_while_their_queue_is_on)
{
    smmu_start();
    uint64_t cmdq = r64(SMMU_CMDQ_BASE), eventq = r64(SMMU_EVENTQ_BASE);
    uint32_t cons = r32(SMMU_CMDQ_CONS), prod = r32(SMMU_EVENTQ_PROD);

    w64(SMMU_CMDQ_BASE, 0);
    w32(SMMU_CMDQ_CONS, cons + 1);
    w64(SMMU_EVENTQ_BASE, 0);
    w32(SMMU_EVENTQ_PROD, prod + 1);
    EXPECT_EQ(r64(SMMU_CMDQ_BASE), cmdq);
    EXPECT_EQ(r32(SMMU_CMDQ_CONS), cons);
    EXPECT_EQ(r64(SMMU_EVENTQ_BASE), eventq);
    EXPECT_EQ(r32(SMMU_EVENTQ_PROD), prod);
    EXPECT(smmu_enable(0));
    w32(SMMU_CMDQ_CONS, 1);
    w32(SMMU_EVENTQ_PROD, 1);
    EXPECT_EQ(r32(SMMU_CMDQ_CONS), 1);
    EXPECT_EQ(r32(SMMU_EVENTQ_PROD), 1);
}

CHECK(interrupt_configuration_is_fixed_while_the_interrupt_is_on)
{
    smmu_off();
    w64(SMMU_EVENTQ_IRQ_CFG0, 0x1000);
    w32(SMMU_EVENTQ_IRQ_CFG1, 0x11);
    w32(SMMU_EVENTQ_IRQ_CFG2, 1);
    w64(SMMU_GERROR_IRQ_CFG0, 0x2000);
    EXPECT(smmu_irq(EVENTQ_IRQEN));
    w64(SMMU_EVENTQ_IRQ_CFG0, 0);
    w32(SMMU_EVENTQ_IRQ_CFG1, 0);
    w32(SMMU_EVENTQ_IRQ_CFG2, 0);
    w64(SMMU_GERROR_IRQ_CFG0, 0x3000);
    EXPECT_EQ(r64(SMMU_EVENTQ_IRQ_CFG0), 0x1000);
    EXPECT_EQ(r32(SMMU_EVENTQ_IRQ_CFG1), 0x11);
    EXPECT_EQ(r32(SMMU_EVENTQ_IRQ_CFG2), 1);
    EXPECT_EQ(r64(SMMU_GERROR_IRQ_CFG0), 0x3000);
    smmu_off();
}

CHECK(wide_registers_take_one_write_or_two_halves)
{
    const uint64_t base = 0x0000123456789000ull;

    smmu_off();
    w64(SMMU_EVENTQ_BASE, base | 4);
    EXPECT_EQ(r64(SMMU_EVENTQ_BASE), base | 4);
    EXPECT_EQ(r32(SMMU_EVENTQ_BASE), (uint32_t)base | 4);
    EXPECT_EQ(r32(SMMU_EVENTQ_BASE + 4), base >> 32);
    w64(SMMU_EVENTQ_BASE, 0);
    w32(SMMU_EVENTQ_BASE + 4, (uint32_t)(base >> 32));
    w32(SMMU_EVENTQ_BASE, (uint32_t)base | 4);
    EXPECT_EQ(r64(SMMU_EVENTQ_BASE), base | 4);
}

CHECK(gbpa_changes_only_with_update)
{
    smmu_off();
    uint32_t before = r32(SMMU_GBPA);

    w32(SMMU_GBPA, before ^ GBPA_ABORT);
    EXPECT_EQ(r32(SMMU_GBPA), before);
    w32(SMMU_GBPA, (uint32_t)GBPA_UPDATE | GBPA_ABORT);
    EXPECT(UNTIL(!(r32(SMMU_GBPA) & GBPA_UPDATE)));
    EXPECT_EQ(r32(SMMU_GBPA), GBPA_ABORT);
}

CHECK(disabled_smmu_passes_or_aborts_by_gbpa_without_events)
{
    smmu_configure();
    EXPECT(smmu_enable(EVENTQEN));
    EXPECT_EQ(dma_write(0, (uint64_t)data[0], 0x1122), DMA_DONE);
    EXPECT_EQ(data[0][0], 0x1122);
    EXPECT_EQ(dma_write(TAG_PASID(PASID), (uint64_t)data[0], 0x3344), DMA_DONE);
    EXPECT_EQ(data[0][0], 0x3344);
    EXPECT_EQ(dma_read(0, BIT(48)), DMA_DONE | DMA_ABORTED);
    w32(SMMU_GBPA, (uint32_t)GBPA_UPDATE | GBPA_ABORT);
    EXPECT(UNTIL(!(r32(SMMU_GBPA) & GBPA_UPDATE)));
    EXPECT_EQ(dma_read(0, (uint64_t)data[0]), DMA_DONE | DMA_ABORTED);
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(global_error_toggles_once_until_acknowledged)
{
    smmu_configure();
    EXPECT(smmu_enable(CMDQEN));
    uint32_t before = r32(SMMU_GERROR);

    smmu_put(0, 0);
    smmu_submit();
    EXPECT(UNTIL(smmu_errors() == CMDQ_ERR));
    EXPECT_EQ(r32(SMMU_GERROR), before ^ CMDQ_ERR);
    /* Off and on again: the error stays, and is the same. */
    EXPECT(smmu_enable(0));
    EXPECT(smmu_enable(CMDQEN));
    EXPECT_EQ(r32(SMMU_GERROR), before ^ CMDQ_ERR);
    EXPECT(smmu_enable(0));
    w32(SMMU_GERRORN, r32(SMMU_GERROR));
    EXPECT_EQ(smmu_errors(), 0);
}

CHECK(index_bits_above_the_wrap_bit_read_zero)
{
    smmu_configure();
    w32(SMMU_CMDQ_PROD, 0xfffff);
    w32(SMMU_CMDQ_CONS, 0xfffff);
    w32(SMMU_EVENTQ_PROD, 0xfffff);
    w32(SMMU_EVENTQ_CONS, 0xfffff);
    EXPECT_EQ(r32(SMMU_CMDQ_PROD), (2u << CMDQ_LOG2) - 1);
    EXPECT_EQ(r32(SMMU_CMDQ_CONS), (2u << CMDQ_LOG2) - 1);
    EXPECT_EQ(r32(SMMU_EVENTQ_PROD), (2u << EVENTQ_LOG2) - 1);
    EXPECT_EQ(r32(SMMU_EVENTQ_CONS), (2u << EVENTQ_LOG2) - 1);
    w32(SMMU_EVENTQ_CONS, OVFLG);
    EXPECT_EQ(r32(SMMU_EVENTQ_CONS), OVFLG);
}

CHECK(event_queue_indexes_are_on_page_1)
{
    smmu_configure();
    w32(SMMU + 0x100a8, 3);
    w32(SMMU + 0x100ac, 2);
    EXPECT_EQ(r32(SMMU + 0x100a8), 3);
    EXPECT_EQ(r32(SMMU + 0x100ac), 2);
}

CHECK(queue_sizes_above_the_limit_count_as_the_limit)
{
    uint32_t idr1 = r32(SMMU_IDR1);
    uint32_t cmdqs = idr1 >> 21 & 0x1f, eventqs = idr1 >> 16 & 0x1f;

    smmu_configure();
    w64(SMMU_CMDQ_BASE, (uint64_t)smmu_cmdq | 0x1f);
    w64(SMMU_EVENTQ_BASE, (uint64_t)smmu_eventq | 0x1f);
    w32(SMMU_CMDQ_PROD, 0xfffff);
    w32(SMMU_EVENTQ_CONS, 0xfffff);
    EXPECT_EQ(r32(SMMU_CMDQ_PROD), (2u << cmdqs) - 1);
    EXPECT_EQ(r32(SMMU_EVENTQ_CONS), (2u << eventqs) - 1);
    smmu_off();
}
