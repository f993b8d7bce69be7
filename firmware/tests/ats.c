/* Address translation services: docs/smmuv3-conformance.md, 73 to 79. */
#include "check.h"
#include "dma_test.h"
#include "smmu.h"
#include "tables.h"

#define VA 0x7f0000000000ull
#define SID (dma[0].sid)
#define P TAG_PASID(PASID)
#define S1 (STE_S1 | STE_S1CDMAX(CDTAB_LOG2) | (uint64_t)smmu_cdtab)
#define NOTHING ATS_SIZE(12)

/* A stream that may use ATS, with a process; its table. */
static uint64_t *start(uint64_t cd_d0)
{
    smmu_start_services();
    uint64_t *root = smmu_process(cd_d0);

    smmu_ste(SID, S1, STE_S1DSS(2) | STE_EATS(1));
    return root;
}

static uint32_t translated(uint32_t command, uint64_t at, uint64_t value)
{
    dma_start(&dma[0], 0, command, 0, at, 8, value);
    return dma_wait(&dma[0], 0);
}

CHECK(request_gets_page_and_permissions_of_the_process)
{
    NEEDS(IDR0_ATS);
    uint64_t *root = start(CD_PROCESS);

    map(root, VA, data[0], PTE_USER_RW);
    map(root, VA + PAGE, data[1], PTE_USER_RW | PTE_RO);
    EXPECT_EQ(dma_translate(0, P, VA + 0x10), ATS_READ | ATS_WRITE | ATS_SIZE(12));
    EXPECT_EQ(dma_ats_address(&dma[0], 0), (uint64_t)data[0]);
    EXPECT_EQ(dma_translate(0, P, VA + PAGE), ATS_READ | ATS_SIZE(12));
    EXPECT_EQ(dma_ats_address(&dma[0], 0), (uint64_t)data[1]);
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(granted_range_lies_in_one_leaf)
{
    NEEDS(IDR0_ATS);
    uint64_t block = (uint64_t)data & ~(2 * MIB - 1);
    uint64_t *root = start(CD_PROCESS);

    *pte_at(root, G4K, 48, 2, VA) = block | PTE_USER_RW | 1;
    barrier();
    uint32_t info = dma_translate(0, P, VA + 2 * MIB - 1);
    unsigned log2 = info >> 8 & 0xff;
    uint64_t start = dma_ats_address(&dma[0], 0);

    EXPECT_EQ(info & 0x3f, ATS_READ | ATS_WRITE);
    EXPECT(log2 >= 12 && log2 <= 21);
    EXPECT_EQ(start & (BIT(log2) - 1), 0);
    EXPECT(start >= block && start + BIT(log2) == block + 2 * MIB);
}

CHECK(request_without_write_is_not_granted_writes)
{
    NEEDS(IDR0_ATS);
    uint64_t *root = start(CD_PROCESS);

    map(root, VA, data[0], PTE_USER_RW);
    uint32_t info = dma_translate(DMA_NO_WRITE, P, VA);

    /* A page that is writable anyway may be granted so. */
    EXPECT_EQ(info & ~(uint32_t)ATS_WRITE, ATS_READ | ATS_SIZE(12));
    EXPECT_EQ(info & ATS_GLOBAL, 0);
}

CHECK(execute_and_privilege_are_granted_as_asked_for)
{
    NEEDS(IDR0_ATS);
    uint64_t *root = start(CD_PROCESS);

    map(root, VA, data[0], (PTE_USER_RW | PTE_RO) & ~PTE_UXN);
    map(root, VA + PAGE, data[1], PTE_USER_RW & ~PTE_USER);
    EXPECT_EQ(dma_translate(0, P, VA) & ATS_EXECUTE, 0);
    EXPECT_EQ(dma_translate(0, P | TAG_EXECUTE, VA) & ATS_EXECUTE, ATS_EXECUTE);
    EXPECT_EQ(dma_translate(0, P, VA + PAGE), NOTHING);
    EXPECT_EQ(dma_translate(0, P | TAG_PRIVILEGED, VA + PAGE),
              ATS_READ | ATS_WRITE | ATS_PRIVILEGED | ATS_SIZE(12));
}

CHECK(request_for_what_is_not_there_succeeds_with_nothing_and_neither_stalls_nor_records)
{
    static const uint64_t stall[] = {0, CD_S};

    NEEDS(IDR0_ATS);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t *root = start(CD_PROCESS | stall[i]);

        map(root, VA, data[0], PTE_USER_RW & ~PTE_AF);
        EXPECT_EQ(dma_translate(0, P, VA), NOTHING);
        EXPECT_EQ(dma_translate(0, P, VA + PAGE), NOTHING);
        EXPECT_EQ(dma_translate(0, P, BIT(60)), NOTHING);
        EXPECT_EQ(smmu_events_waiting(), 0);
    }
}

CHECK(request_that_the_stream_does_not_allow_is_unsupported_and_recorded)
{
    struct event event;

    NEEDS(IDR0_ATS);
    start(CD_PROCESS);
    smmu_contexts(SID);
    EXPECT_EQ(dma_translate(0, P, VA + 0x123), ATS_UNSUPPORTED_REQUEST);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_BAD_ATS_TREQ, SID, PASID));
    /* Read and write were asked for. */
    EXPECT_EQ(event.d[1] & ~0xfull, BIT(31) | BIT(30));
    EXPECT_EQ(event.d[2], VA);
    EXPECT_EQ(dma_translate(DMA_NO_WRITE, P | TAG_EXECUTE | TAG_PRIVILEGED, VA), ATS_UNSUPPORTED_REQUEST);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[1] & ~0xfull, BIT(31) | BIT(29) | BIT(28));
    /* In bypass EATS counts for nothing; with translation off neither. */
    smmu_ste(SID, STE_BYPASS, STE_EATS(1));
    EXPECT_EQ(dma_translate(0, 0, VA), ATS_UNSUPPORTED_REQUEST);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0] & 0xff, F_BAD_ATS_TREQ);
    EXPECT(smmu_enable(CMDQEN | EVENTQEN));
    EXPECT_EQ(dma_translate(0, 0, VA), ATS_UNSUPPORTED_REQUEST);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0] & 0xff, F_BAD_ATS_TREQ);
}

CHECK(request_to_a_shut_stream_is_unsupported_without_a_record)
{
    NEEDS(IDR0_ATS);
    start(CD_PROCESS);
    smmu_ste(SID, STE_ABORT, STE_EATS(1));
    EXPECT_EQ(dma_translate(0, P, VA), ATS_UNSUPPORTED_REQUEST);
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(request_that_meets_a_wrong_configuration_is_aborted_without_a_record)
{
    NEEDS(IDR0_ATS);
    uint64_t *root = start(CD_PROCESS);

    *pte_at(root, G4K, 48, 0, VA) = HOLE | 3;
    barrier();
    EXPECT_EQ(dma_translate(0, P, VA), ATS_COMPLETER_ABORT);
    EXPECT_EQ(dma_translate(0, TAG_PASID(PASID + 1), VA), ATS_COMPLETER_ABORT);
    EXPECT_EQ(dma_translate(0, TAG_PASID(1u << CDTAB_LOG2), VA), ATS_COMPLETER_ABORT);
    smmu_ste(SID, 0, 0);
    EXPECT_EQ(dma_translate(0, P, VA), ATS_COMPLETER_ABORT);
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(request_without_pasid_where_stage_1_is_bypassed_gets_the_address_itself)
{
    NEEDS(IDR0_ATS);
    start(CD_PROCESS);
    smmu_ste(SID, S1, STE_S1DSS(1) | STE_EATS(1));
    uint32_t info = dma_translate(0, 0, (uint64_t)data[0]);
    unsigned log2 = info >> 8 & 0xff;

    EXPECT_EQ(info & 0x3f, ATS_READ | ATS_WRITE);
    EXPECT(log2 >= 12);
    EXPECT_EQ(dma_ats_address(&dma[0], 0), (uint64_t)data[0] & ~(BIT(log2) - 1));
}

CHECK(translated_access_passes_where_the_stream_allows_it)
{
    NEEDS(IDR0_ATS);
    start(CD_PROCESS);
    EXPECT_EQ(translated(DMA_WRITE_TRANSLATED, (uint64_t)data[2], 0x7788), DMA_DONE);
    EXPECT_EQ(data[2][0], 0x7788);
    EXPECT_EQ(translated(DMA_READ_TRANSLATED, (uint64_t)data[2], 0), DMA_DONE);
    EXPECT_EQ(dma_data(&dma[0], 0), 0x7788);
    EXPECT_EQ(translated(DMA_READ_TRANSLATED, HOLE, 0), DMA_DONE | DMA_ABORTED);
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(translated_access_is_forbidden_without_eats_or_translation_unless_nobody_checks)
{
    struct event event;

    NEEDS(IDR0_ATS);
    start(CD_PROCESS);
    smmu_contexts(SID);
    EXPECT_EQ(translated(DMA_READ_TRANSLATED, (uint64_t)data[2], 0), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_TRANSL_FORBIDDEN, SID, NO_SSID));
    EXPECT_EQ(event.d[1], EV_READ);
    EXPECT_EQ(event.d[2], (uint64_t)data[2]);
    EXPECT_EQ(event.d[3], 0);
    EXPECT(smmu_enable(SMMUEN | EVENTQEN | CMDQEN));
    EXPECT_EQ(translated(DMA_READ_TRANSLATED, (uint64_t)data[2], 0), DMA_DONE);
    EXPECT(smmu_enable(EVENTQEN | CMDQEN | ATSCHK));
    EXPECT_EQ(translated(DMA_WRITE_TRANSLATED, (uint64_t)data[2], 0), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_TRANSL_FORBIDDEN, SID, NO_SSID));
    EXPECT_EQ(event.d[1], 0);
}

CHECK(invalidation_reaches_the_endpoint_as_commanded)
{
    NEEDS(IDR0_ATS);
    start(CD_PROCESS);
    uint32_t count = r32(dma[0].bar + DT_INV_COUNT);

    EXPECT(smmu_invalidate(CMD_ATC_INV | CMD_SID(SID) | CMD_SSV | CMD_SSID(PASID), ATC_INV_ALL));
    EXPECT_EQ(r32(dma[0].bar + DT_INV_COUNT), count + 1);
    EXPECT_EQ(r32(dma[0].bar + DT_INV_INFO), INV_INFO(64) | INV_INFO_PASID(PASID));
    /* 16 KiB, whatever the PASID. */
    EXPECT(smmu_invalidate(CMD_ATC_INV | CMD_SID(SID), VA | 2));
    EXPECT_EQ(r32(dma[0].bar + DT_INV_INFO), INV_INFO(14));
    EXPECT_EQ(r64(dma[0].bar + DT_INV_ADDRESS), VA);
    EXPECT(smmu_invalidate(CMD_ATC_INV | CMD_SID(dma[1].sid), ATC_INV_ALL));
    EXPECT_EQ(r32(dma[0].bar + DT_INV_COUNT), count + 2);
}

CHECK(sync_waits_for_the_endpoint_and_goes_on_by_itself)
{
    NEEDS(IDR0_ATS);
    start(CD_PROCESS);
    w32(dma[0].bar + DT_CTRL, DT_CTRL_HOLD);
    EXPECT(smmu_command(CMD_ATC_INV | CMD_SID(SID), ATC_INV_ALL));
    uint64_t *slot = smmu_put(CMD_SYNC | SYNC_CS(1) | SYNC_DATA(1), 0);

    slot[1] = (uint64_t)&data[4][0];
    data[4][0] = 0;
    smmu_submit();
    EXPECT_EQ(r32(dma[0].bar + DT_INV_HELD), 1);
    EXPECT_EQ(r64((uint64_t)&data[4][0]), 0);
    w32(dma[0].bar + DT_INV_ANSWER, 1);
    EXPECT(UNTIL(r64((uint64_t)&data[4][0]) == 1));
    EXPECT_EQ(smmu_errors(), 0);
}

CHECK(invalidation_that_is_not_answered_ends_in_an_error_at_the_sync)
{
    NEEDS(IDR0_ATS);
    start(CD_PROCESS);
    w32(dma[0].bar + DT_CTRL, DT_CTRL_HOLD);
    EXPECT(smmu_command(CMD_ATC_INV | CMD_SID(SID), ATC_INV_ALL));
    uint32_t cons = r32(SMMU_CMDQ_CONS);

    smmu_put(CMD_SYNC, 0);
    smmu_submit();
    EXPECT(UNTIL(smmu_errors() == CMDQ_ERR));
    EXPECT_EQ(smmu_cerror(), CERROR_ATC_INV_SYNC);
    EXPECT_EQ(r32(SMMU_CMDQ_CONS) & 0xfffff, cons & 0xfffff);
    w32(dma[0].bar + DT_CTRL, 0);
    w32(dma[0].bar + DT_INV_ANSWER, 1);
    w32(SMMU_GERRORN, r32(SMMU_GERROR));
    EXPECT(smmu_sync());
}

CHECK(invalidation_with_translation_off_is_consumed_without_effect)
{
    NEEDS(IDR0_ATS);
    start(CD_PROCESS);
    EXPECT(smmu_enable(EVENTQEN | CMDQEN));
    uint32_t count = r32(dma[0].bar + DT_INV_COUNT);

    EXPECT(smmu_invalidate(CMD_ATC_INV | CMD_SID(SID), ATC_INV_ALL));
    EXPECT_EQ(r32(dma[0].bar + DT_INV_COUNT), count);
}
