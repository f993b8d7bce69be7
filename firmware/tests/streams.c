/* Stream table: docs/smmuv3-conformance.md, 36 to 45. */
#include "check.h"
#include "dma_test.h"
#include "smmu.h"
#include "tables.h"

#define VA 0x7f0000000000ull
#define SID (dma[0].sid)
#define P TAG_PASID(PASID)

/* Expects an access to be aborted, and exactly this record of it. */
#define EXPECT_ABORT_WITH(tag, type, ssid)                                  \
    do {                                                                    \
        struct event event_;                                                \
        EXPECT_EQ(dma_read(tag, VA), DMA_DONE | DMA_ABORTED);               \
        EXPECT(smmu_await_event(&event_));                                  \
        EXPECT_EQ(event_.d[0], event_d0(type, SID, ssid));                  \
        EXPECT_EQ(event_.d[1], 0);                                          \
        EXPECT_EQ(event_.d[2], 0);                                          \
        EXPECT_EQ(event_.d[3], 0);                                          \
        EXPECT_EQ(smmu_events_waiting(), 0);                                \
    } while (0)

/* The stream table shrunk below the device's StreamID, or two-level, with the rest as smmu_start leaves it. */
static void restart_with_table(uint64_t base, uint32_t cfg, uint32_t cr2)
{
    smmu_start();
    smmu_enable(0);
    w64(SMMU_STRTAB_BASE, base);
    w32(SMMU_STRTAB_BASE_CFG, cfg);
    w32(SMMU_CR2, cr2);
    smmu_enable(CMDQEN | EVENTQEN | SMMUEN);
    smmu_command(CMD_CFGI_ALL, 31);
    smmu_sync();
}

CHECK(stream_beyond_the_table_is_recorded_only_if_asked_for)
{
    restart_with_table((uint64_t)smmu_strtab, 2, RECINVSID);
    EXPECT_ABORT_WITH(0, C_BAD_STREAMID, NO_SSID);
    EXPECT_ABORT_WITH(P, C_BAD_STREAMID, PASID);
    restart_with_table((uint64_t)smmu_strtab, 2, 0);
    EXPECT_EQ(dma_read(0, VA), DMA_DONE | DMA_ABORTED);
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(level_1_descriptor_without_valid_span_is_a_bad_stream)
{
    /* 16 bits, split 8: Span may be 9 at most, and must cover the device's number. */
    static const uint64_t spans[] = {0, 1, 10, 11, 12, 31};

    for (unsigned i = 0; i < sizeof spans / sizeof *spans; i++) {
        uint64_t *level1;

        smmu_start();
        level1 = table_new(PAGE);
        uint64_t *level2 = table_new(64 * KIB);

        for (unsigned sid = 0; sid < 256; sid++)
            level2[8 * sid] = STE_BYPASS;
        level1[0] = (uint64_t)level2 | spans[i];
        barrier();
        restart_with_table((uint64_t)level1, 0x10210, RECINVSID);
        EXPECT_ABORT_WITH(0, C_BAD_STREAMID, NO_SSID);
    }
}

CHECK(new_level_1_descriptor_needs_no_command)
{
    smmu_start();
    uint64_t *level1 = table_new(PAGE), *level2 = table_new(16 * KIB);

    for (unsigned sid = 0; sid < 256; sid++)
        level2[8 * sid] = STE_BYPASS;
    restart_with_table((uint64_t)level1, 0x10210, RECINVSID);
    level1[0] = (uint64_t)level2 | 9;
    barrier();
    EXPECT_EQ(dma_write(0, (uint64_t)data[0], 5), DMA_DONE);
}

CHECK(invalid_entry_is_bad_aborting_entry_is_silent_bypassing_entry_passes)
{
    smmu_start();
    smmu_ste(SID, 0, 0);
    EXPECT_ABORT_WITH(0, C_BAD_STE, NO_SSID);
    for (uint64_t config = 0; config < 4; config++) {
        smmu_ste(SID, STE_V | config << 1, 0);
        EXPECT_EQ(dma_read(0, VA), DMA_DONE | DMA_ABORTED);
        EXPECT_EQ(smmu_events_waiting(), 0);
    }
    smmu_ste(SID, STE_BYPASS, 0);
    EXPECT_EQ(dma_write(0, (uint64_t)data[0], 0x77), DMA_DONE);
    EXPECT_EQ(data[0][0], 0x77);
}

CHECK(bypassing_entry_takes_addresses_below_the_output_size)
{
    struct event event;

    smmu_start();
    smmu_ste(SID, STE_BYPASS, 0);
    EXPECT_EQ(dma_read(0, BIT(48)), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_ADDR_SIZE, SID, NO_SSID));
    EXPECT_EQ(event.d[2], BIT(48));
}

CHECK(pasid_on_a_bypassing_stream_is_a_bad_substream)
{
    struct event event;

    smmu_start();
    smmu_ste(SID, STE_BYPASS, 0);
    EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0] & 0xff, C_BAD_SUBSTREAMID);
    EXPECT_EQ(event.d[0] >> 32, SID);
    EXPECT_EQ(event.d[0] >> 12 & 0xfffff, PASID);
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(illegal_entries_are_bad)
{
    uint32_t idr0 = r32(SMMU_IDR0);
    uint64_t table = (uint64_t)smmu_cdtab | STE_S1;

    smmu_start();
    /* More contexts than there can be SubstreamIDs. */
    smmu_ste(SID, table | STE_S1CDMAX(21), STE_S1DSS(2));
    EXPECT_ABORT_WITH(0, C_BAD_STE, NO_SSID);
    /* Contexts beyond the output size. */
    smmu_ste(SID, STE_S1 | STE_S1CDMAX(CDTAB_LOG2) | BIT(50), STE_S1DSS(2));
    EXPECT_ABORT_WITH(0, C_BAD_STE, NO_SSID);
    if (!(idr0 & IDR0_S2P)) {
        for (uint64_t config = 6; config <= 7; config++) {
            smmu_ste(SID, STE_V | config << 1 | STE_S1CDMAX(CDTAB_LOG2) | (uint64_t)smmu_cdtab, STE_S1DSS(2));
            EXPECT_ABORT_WITH(0, C_BAD_STE, NO_SSID);
        }
    }
    if (idr0 & IDR0_ATS) {
        smmu_ste(SID, table | STE_S1CDMAX(CDTAB_LOG2), STE_S1DSS(2) | STE_EATS(2));
        EXPECT_ABORT_WITH(0, C_BAD_STE, NO_SSID);
    }
}

CHECK(substream_beyond_the_table_is_bad)
{
    static const uint32_t pasids[] = {1u << CDTAB_LOG2, 0xfffff};
    struct event event;

    smmu_start();
    smmu_contexts(SID);
    for (unsigned i = 0; i < 2; i++) {
        EXPECT_EQ(dma_read(TAG_PASID(pasids[i]), VA), DMA_DONE | DMA_ABORTED);
        EXPECT(smmu_await_event(&event));
        EXPECT_EQ(event.d[0] & 0xff, C_BAD_SUBSTREAMID);
        EXPECT_EQ(event.d[0] >> 12 & 0xfffff, pasids[i]);
    }
    smmu_ste(SID, STE_S1 | (uint64_t)smmu_cdtab, STE_S1DSS(0));
    EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0] & 0xff, C_BAD_SUBSTREAMID);
}

CHECK(traffic_without_pasid_goes_as_s1dss_says)
{
    uint64_t ste = STE_S1 | STE_S1CDMAX(CDTAB_LOG2) | (uint64_t)smmu_cdtab;

    smmu_start();
    uint64_t *root = table_new(PAGE);

    map(root, VA, data[0], PTE_USER_RW);
    data[0][0] = 0x99;
    smmu_cd(0, CD_PROCESS, (uint64_t)root);
    smmu_ste(SID, ste, STE_S1DSS(0));
    EXPECT_ABORT_WITH(0, F_STREAM_DISABLED, NO_SSID);
    smmu_ste(SID, ste, STE_S1DSS(1));
    EXPECT_EQ(dma_write(0, (uint64_t)data[1], 0x55), DMA_DONE);
    EXPECT_EQ(data[1][0], 0x55);
    smmu_ste(SID, ste, STE_S1DSS(2));
    EXPECT_EQ(dma_read(0, VA), DMA_DONE);
    EXPECT_EQ(dma_data(&dma[0], 0), 0x99);
    EXPECT_ABORT_WITH(TAG_PASID(0), F_STREAM_DISABLED, NO_SSID);
    smmu_ste(SID, ste, STE_S1DSS(3));
    EXPECT_ABORT_WITH(0, F_STREAM_DISABLED, NO_SSID);
}

CHECK(invalid_level_1_context_descriptor_is_a_bad_substream)
{
    struct event event;

    smmu_start();
    uint64_t *level1 = table_new(PAGE);

    smmu_ste(SID, STE_S1 | STE_S1FMT(1) | STE_S1CDMAX(10) | (uint64_t)level1, STE_S1DSS(2));
    EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0] & 0xff, C_BAD_SUBSTREAMID);
    EXPECT_EQ(event.d[0] >> 12 & 0xfffff, PASID);
}

CHECK(every_table_format_finds_the_same_context)
{
    /* A number that is in the second table of either two-level form. */
    const uint32_t ssid = 1024 + 70;

    for (unsigned format = 0; format < 3; format++) {
        smmu_start();
        uint64_t *root = table_new(PAGE), *top, *cd;

        map(root, VA, data[0], PTE_USER_RW);
        if (format == 0) {
            top = table_new(2048 * 64);
            cd = &top[8 * ssid];
        } else {
            unsigned split = format == 1 ? 6 : 10;
            uint64_t *leaf = table_new(64ull << split);

            top = table_new(PAGE);
            top[ssid >> split] = (uint64_t)leaf | 1;
            cd = &leaf[8 * (ssid & (BIT(split) - 1))];
        }
        cd[0] = CD_PROCESS;
        cd[1] = (uint64_t)root;
        cd[3] = 0xff;
        smmu_ste(SID, STE_S1 | STE_S1FMT(format) | STE_S1CDMAX(11) | (uint64_t)top, STE_S1DSS(2));
        EXPECT_EQ(dma_read(TAG_PASID(ssid), VA), DMA_DONE);
    }
}
