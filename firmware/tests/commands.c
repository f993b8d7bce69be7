/* Command queue: docs/smmuv3-conformance.md, 16 to 35. */
#include "check.h"
#include "dma_test.h"
#include "gic.h"
#include "smmu.h"
#include "tables.h"

#define VA 0x7f0000000000ull
#define P TAG_PASID(PASID)

static uint32_t cons(void) { return r32(SMMU_CMDQ_CONS) & ((2u << CMDQ_LOG2) - 1); }

CHECK(commands_are_consumed_by_the_write_of_prod)
{
    smmu_start();
    for (unsigned i = 0; i < 5; i++)
        smmu_put(CMD_TLBI_NSNH_ALL, 0);
    uint32_t before = cons();

    smmu_submit();
    EXPECT(UNTIL(cons() == before + 5));
}

CHECK(queue_goes_round_several_times)
{
    smmu_start();
    for (unsigned i = 0; i < 5u << CMDQ_LOG2; i++)
        EXPECT(smmu_command(CMD_TLBI_NSNH_ALL, 0));
    EXPECT(smmu_sync());
}

CHECK(commands_from_before_the_enable_are_consumed_after_it)
{
    smmu_configure();
    smmu_put(CMD_TLBI_NSNH_ALL, 0);
    smmu_submit();
    EXPECT_EQ(cons(), 0);
    EXPECT(smmu_enable(CMDQEN));
    EXPECT(UNTIL(cons() == 1));
}

CHECK(illegal_command_stops_the_queue_there)
{
    smmu_configure();
    EXPECT(smmu_enable(CMDQEN));
    smmu_put(CMD_TLBI_NSNH_ALL, 0);
    smmu_put(0, 0);
    smmu_put(CMD_TLBI_NSNH_ALL, 0);
    smmu_submit();
    EXPECT(UNTIL(smmu_errors() == CMDQ_ERR));
    EXPECT_EQ(smmu_cerror(), CERROR_ILL);
    EXPECT_EQ(cons(), 1);
}

CHECK(replaced_command_is_fetched_again_on_acknowledgement)
{
    smmu_configure();
    EXPECT(smmu_enable(CMDQEN));
    uint64_t *bad = smmu_put(0, 0);

    smmu_put(CMD_TLBI_NSNH_ALL, 0);
    smmu_submit();
    EXPECT(UNTIL(smmu_errors() == CMDQ_ERR));
    bad[0] = CMD_SYNC;
    barrier();
    w32(SMMU_GERRORN, CMDQ_ERR ^ r32(SMMU_GERRORN));
    EXPECT(UNTIL(cons() == 2));
    EXPECT_EQ(smmu_errors(), 0);
}

CHECK(global_error_interrupt_comes_if_it_is_enabled)
{
    smmu_configure();
    EXPECT(smmu_enable(CMDQEN));
    EXPECT(smmu_irq(GERROR_IRQEN));
    EXPECT(smmu_is_illegal(0, 0));
    EXPECT(gic_take(IRQ_GERROR));
    EXPECT(smmu_irq(0));
    EXPECT(smmu_is_illegal(0, 0));
    EXPECT(!gic_take(IRQ_GERROR));
}

CHECK(queue_outside_memory_is_an_abort_on_fetch)
{
    smmu_configure();
    w64(SMMU_CMDQ_BASE, HOLE | CMDQ_LOG2);
    EXPECT(smmu_enable(CMDQEN));
    w32(SMMU_CMDQ_PROD, 1);
    EXPECT(UNTIL(smmu_errors() == CMDQ_ERR));
    EXPECT_EQ(smmu_cerror(), CERROR_ABT);
    EXPECT_EQ(cons(), 0);
}

CHECK(secure_stream_commands_are_illegal)
{
    static const uint64_t commands[] = {CMD_CFGI_STE, CMD_CFGI_CD, CMD_RESUME, CMD_STALL_TERM};

    smmu_start();
    for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++)
        EXPECT(smmu_is_illegal(commands[i] | CMD_SSEC, 1));
}

CHECK(sync_signals_as_its_cs_says)
{
    smmu_start();
    EXPECT(smmu_command(CMD_SYNC | SYNC_CS(0), 0));
    EXPECT(smmu_command(CMD_SYNC | SYNC_CS(1), 0));
    EXPECT(smmu_command(CMD_SYNC | SYNC_CS(2), 0));
    EXPECT(smmu_is_illegal(CMD_SYNC | SYNC_CS(3), 0));
}

CHECK(sync_writes_its_word_and_no_more)
{
    smmu_start();
    data[0][0] = data[0][1] = data[0][2] = ~0ull;
    EXPECT(smmu_command(CMD_SYNC | SYNC_CS(1) | SYNC_DATA(0x12345678), (uint64_t)&data[0][1]));
    EXPECT(UNTIL(r32((uint64_t)&data[0][1]) == 0x12345678));
    EXPECT_EQ(r64((uint64_t)&data[0][1]), 0xffffffff12345678);
    EXPECT_EQ(r64((uint64_t)&data[0][0]), ~0ull);
    EXPECT_EQ(r64((uint64_t)&data[0][2]), ~0ull);
    EXPECT(smmu_command(CMD_SYNC | SYNC_CS(1) | SYNC_DATA(1), 0));
}

CHECK(sync_answers_into_its_own_slot)
{
    smmu_start();
    for (unsigned i = 0; i < 3; i++)
        EXPECT(smmu_sync());
    EXPECT(UNTIL(cons() == (r32(SMMU_CMDQ_PROD) & ((2u << CMDQ_LOG2) - 1))));
}

CHECK(sync_pulses_its_wire_whatever_irq_ctrl_says)
{
    smmu_start();
    gic_take(0);
    EXPECT(smmu_command(CMD_SYNC | SYNC_CS(0), 0));
    EXPECT(!gic_take(IRQ_CMDQ_SYNC));
    EXPECT(smmu_command(CMD_SYNC | SYNC_CS(1), 0));
    EXPECT(UNTIL(gic_take(IRQ_CMDQ_SYNC)));
}

CHECK(sync_to_nowhere_is_a_global_error_and_completes)
{
    smmu_start();
    EXPECT(smmu_command(CMD_SYNC | SYNC_CS(1), HOLE));
    EXPECT(UNTIL(smmu_errors() == MSI_CMDQ_ABT_ERR));
    w32(SMMU_GERRORN, r32(SMMU_GERROR));
    EXPECT(smmu_sync());
}

CHECK(commands_of_absent_features_are_illegal)
{
    uint32_t idr0 = r32(SMMU_IDR0);

    smmu_start();
    if (!(idr0 & IDR0_HYP)) {
        for (uint64_t op = CMD_TLBI_EL2_ALL; op <= CMD_TLBI_EL2_ALL + 3; op++)
            EXPECT(smmu_is_illegal(op, 0));
    }
    if (!(idr0 & IDR0_S2P)) {
        EXPECT(smmu_is_illegal(CMD_TLBI_S12_VMALL, 0));
        EXPECT(smmu_is_illegal(CMD_TLBI_S2_IPA, 0));
    }
    if (!(idr0 & IDR0_ATS))
        EXPECT(smmu_is_illegal(CMD_ATC_INV | CMD_SID(dma[0].sid), 52));
    if (!(idr0 & IDR0_PRI))
        EXPECT(smmu_is_illegal(CMD_PRI_RESP | CMD_SID(dma[0].sid), 0));
    EXPECT(smmu_is_illegal(CMD_PRI_RESP | CMD_SID(dma[0].sid), 3 << 12));
    static const uint64_t reserved[] = {0x00, 0x18, 0x1a, 0x50, 0x60, 0x70, 0x73, 0xff};

    for (unsigned i = 0; i < sizeof reserved / sizeof *reserved; i++)
        EXPECT(smmu_is_illegal(reserved[i], 0));
}

CHECK(commands_of_the_drivers_reset_are_legal)
{
    smmu_start();
    EXPECT(smmu_command(CMD_CFGI_ALL, 31));
    EXPECT(smmu_command(CMD_TLBI_NSNH_ALL, 0));
    EXPECT(smmu_command(CMD_PREFETCH_CONFIG | CMD_SID(dma[0].sid), 0));
    EXPECT(smmu_sync());
}

CHECK(range_without_extent_and_level_is_illegal)
{
    smmu_start();
    EXPECT(smmu_is_illegal(CMD_TLBI_NH_VA | CMD_ASID(ASID), VA | 1 << 10));
    EXPECT(smmu_command(CMD_TLBI_NH_VA | CMD_ASID(ASID), VA | 1 << 10 | 3 << 8));
    EXPECT(smmu_command(CMD_TLBI_NH_VA | CMD_ASID(ASID) | 1 << 12, VA | 1 << 10));
    /* Bit 25 is the highest of SCALE: a range that has an extent. */
    EXPECT(smmu_command(CMD_TLBI_NH_VA | CMD_ASID(ASID) | 1 << 25, VA | 1 << 10));
}

CHECK(range_invalidation_takes_what_num_and_scale_say)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS);

    /* Twelve pages: NUM 2 (three), SCALE 2 (times four). */
    for (uint64_t page = 0; page < 12; page++) {
        map(root, VA + page * PAGE, data[page], PTE_USER_RW);
        data[page][0] = page;
        EXPECT_EQ(dma_read(P, VA + page * PAGE), DMA_DONE);
        EXPECT_EQ(dma_data(&dma[0], 0), page);
    }
    for (uint64_t page = 0; page < 12; page++)
        *pte(root, VA + page * PAGE) = 0;
    barrier();
    EXPECT(smmu_invalidate(CMD_TLBI_NH_VA | CMD_ASID(ASID) | 2 << 12 | 2 << 20, VA | 1 << 10));
    for (uint64_t page = 0; page < 12; page++)
        EXPECT_EQ(dma_read(P, VA + page * PAGE), DMA_DONE | DMA_ABORTED);
}

CHECK(invalidation_by_address_and_by_address_for_all_asids)
{
    static const uint64_t commands[] = {CMD_TLBI_NH_VA | CMD_ASID(ASID), CMD_TLBI_NH_VAA};

    for (unsigned i = 0; i < 2; i++) {
        smmu_start();
        uint64_t *root = smmu_process(CD_PROCESS);

        map(root, VA, data[0], PTE_USER_RW);
        EXPECT_EQ(dma_read(P, VA), DMA_DONE);
        *pte(root, VA) = 0;
        barrier();
        EXPECT(smmu_invalidate(commands[i], VA));
        EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    }
}

CHECK(asid_invalidation_takes_all_users_of_the_asid)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS);

    /* A second context and a second stream with the same ASID and table. */
    smmu_cd(PASID + 1, CD_PROCESS, (uint64_t)root);
    smmu_contexts(dma[1].sid);
    map(root, VA, data[0], PTE_USER_RW);
    for (unsigned device = 0; device < 2; device++) {
        for (uint32_t pasid = PASID; pasid <= PASID + 1; pasid++) {
            dma_start(&dma[device], 0, DMA_READ, TAG_PASID(pasid), VA, 8, 0);
            EXPECT_EQ(dma_wait(&dma[device], 0), DMA_DONE);
        }
    }
    *pte(root, VA) = 0;
    barrier();
    EXPECT(smmu_invalidate(CMD_TLBI_NH_ASID | CMD_ASID(ASID), 0));
    for (unsigned device = 0; device < 2; device++) {
        for (uint32_t pasid = PASID; pasid <= PASID + 1; pasid++) {
            dma_start(&dma[device], 0, DMA_READ, TAG_PASID(pasid), VA, 8, 0);
            EXPECT_EQ(dma_wait(&dma[device], 0), DMA_DONE | DMA_ABORTED);
        }
    }
}

CHECK(stream_commands_make_a_changed_entry_and_its_contexts_effective)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS), *other = table_new(PAGE);

    map(root, VA, data[0], PTE_USER_RW);
    map(other, VA, data[1], PTE_USER_RW);
    data[0][0] = 1;
    data[1][0] = 2;
    EXPECT_EQ(dma_read(P, VA), DMA_DONE);
    EXPECT_EQ(dma_data(&dma[0], 0), 1);
    /* The context changes table and ASID; only the stream is invalidated. */
    smmu_cdtab[8 * PASID + 1] = (uint64_t)other;
    smmu_cdtab[8 * PASID] = CD_PROCESS + CD_ASID(1);
    barrier();
    EXPECT(smmu_invalidate(CMD_CFGI_STE | CMD_SID(dma[0].sid), 1));
    EXPECT_EQ(dma_read(P, VA), DMA_DONE);
    EXPECT_EQ(dma_data(&dma[0], 0), 2);
    smmu_strtab[8 * dma[0].sid] = STE_ABORT;
    barrier();
    EXPECT(smmu_invalidate(CMD_CFGI_STE | CMD_SID(dma[0].sid), 1));
    EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
}

CHECK(context_commands_make_a_changed_context_effective)
{
    static const uint64_t commands[] = {CMD_CFGI_CD | CMD_SSID(PASID), CMD_CFGI_CD_ALL};

    for (unsigned i = 0; i < 2; i++) {
        smmu_start();
        uint64_t *root = smmu_process(CD_PROCESS);

        map(root, VA, data[0], PTE_USER_RW);
        EXPECT_EQ(dma_read(P, VA), DMA_DONE);
        smmu_cdtab[8 * PASID] = 0;
        barrier();
        EXPECT(smmu_invalidate(commands[i] | CMD_SID(dma[0].sid), 1));
        EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    }
}

CHECK(changed_level_1_context_descriptor_is_effective_after_its_command)
{
    smmu_start();
    uint64_t *level1 = table_new(PAGE), *level2 = table_new(PAGE), *root = table_new(PAGE);

    map(root, VA, data[0], PTE_USER_RW);
    level2[8 * PASID] = CD_PROCESS;
    level2[8 * PASID + 1] = (uint64_t)root;
    level2[8 * PASID + 3] = 0xff;
    smmu_ste(dma[0].sid, STE_S1 | STE_S1FMT(1) | STE_S1CDMAX(10) | (uint64_t)level1, STE_S1DSS(2));
    EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    level1[0] = (uint64_t)level2 | 1;
    barrier();
    EXPECT(smmu_invalidate(CMD_CFGI_CD | CMD_SID(dma[0].sid) | CMD_SSID(PASID), 0));
    EXPECT_EQ(dma_read(P, VA), DMA_DONE);
}

CHECK(prefetch_of_a_bad_stream_records_nothing)
{
    smmu_start();
    smmu_ste(dma[0].sid, 0, 0);
    EXPECT(smmu_command(CMD_PREFETCH_CONFIG | CMD_SID(dma[0].sid), 0));
    EXPECT(smmu_sync());
    EXPECT_EQ(smmu_events_waiting(), 0);
}
