/* Stage 2: docs/smmuv3-conformance.md, 42, 58 and 59. */
#include "check.h"
#include "dma_test.h"
#include "smmu.h"
#include "tables.h"

#define VA 0x7f0000000000ull
/* Intermediate addresses that no memory has: what stage 2 makes of them is its own doing. */
#define IPA 0x1000000000ull
#define NOWHERE 0x2000000000ull
#define SID (dma[0].sid)
#define P TAG_PASID(PASID)
#define VMID 7

/* STE, D0 and D2. */
#define STE_S2 (STE_V | 6 << 1)
#define STE_NESTED (STE_V | 7 << 1)
#define S2T0SZ(bits) ((uint64_t)(64 - (bits)) << 32)
#define S2SL0(sl0) ((uint64_t)(sl0) << 38)
#define S2TG(tg) ((uint64_t)(tg) << 46)
#define S2PS(ps) ((uint64_t)(ps) << 48)
#define S2AA64 BIT(51)
#define S2S BIT(57)
#define S2R BIT(58)
/* 39 bits by the 4 KiB granule: the walk starts at level 1 with one table. */
#define INPUT_BITS 39
#define STAGE2                                                                                         \
    (VMID | S2T0SZ(INPUT_BITS) | S2SL0(1) | BIT(40) | BIT(42) | 3ull << 44 | S2TG(0) | S2PS(5) |      \
     S2AA64 | S2R)

/* Leaf descriptors: normal memory, inner shareable, accessed. */
#define S2_LEAF (0xfull << 2 | 3ull << 8 | BIT(10))
#define S2_READ BIT(6)
#define S2_WRITE BIT(7)
#define S2_RW (S2_LEAF | S2_READ | S2_WRITE)

#define EV_S2 BIT(39)
#define EV_CLASS (3ull << 40)
#define EV_CLASS_CD 0ull

static uint64_t *stage2;

static void map2(uint64_t ipa, const volatile void *page, uint64_t attributes)
{
    *pte_at(stage2, G4K, INPUT_BITS, 3, ipa) = (uint64_t)page | attributes | 3;
    barrier();
}

/* A stream with stage 2 alone, or below a stage 1 with a process. Stage 2 maps the first GiB of RAM as it is. */
static void ste(uint64_t config, uint64_t d1, uint64_t d2)
{
    uint64_t table = config == STE_S2 ? 0 : STE_S1CDMAX(CDTAB_LOG2) | (uint64_t)smmu_cdtab;

    smmu_ste_all(SID, (const uint64_t[8]){config | table, d1, d2, (uint64_t)stage2});
}

static uint64_t *start(uint64_t config)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS);

    stage2 = table_new(PAGE);
    *pte_at(stage2, G4K, INPUT_BITS, 1, 0x40000000) = 0x40000000 | S2_RW | 1;
    barrier();
    ste(config, STE_S1DSS(2), STAGE2);
    return root;
}

CHECK(stage_2_alone_translates)
{
    NEEDS(IDR0_S2P);
    start(STE_S2);
    map2(IPA, data[3], S2_RW);
    EXPECT_EQ(dma_write(0, IPA + 8, 0x1234), DMA_DONE);
    EXPECT_EQ(data[3][1], 0x1234);
    EXPECT_EQ(dma_write(0, (uint64_t)&data[4][0], 0x5678), DMA_DONE);
    EXPECT_EQ(data[4][0], 0x5678);
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(nested_stages_translate_one_after_the_other)
{
    NEEDS(IDR0_S2P);
    uint64_t *root = start(STE_NESTED);

    map2(IPA, data[3], S2_RW);
    map(root, VA, (void *)IPA, PTE_USER_RW);
    EXPECT_EQ(dma_write(P, VA + 16, 0x4321), DMA_DONE);
    EXPECT_EQ(data[3][2], 0x4321);
}

CHECK(pasid_on_a_stream_with_stage_2_alone_is_a_bad_substream)
{
    struct event event;

    NEEDS(IDR0_S2P);
    start(STE_S2);
    EXPECT_EQ(dma_read(P, IPA), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0] & 0xff, C_BAD_SUBSTREAMID);
}

CHECK(fault_of_stage_2_alone_has_the_input_address_as_ipa)
{
    struct event event;

    NEEDS(IDR0_S2P);
    start(STE_S2);
    EXPECT_EQ(dma_read(0, IPA + 0x128), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_TRANSLATION, SID, NO_SSID));
    EXPECT_EQ(event.d[1], EV_S2 | EV_CLASS_IN | EV_READ);
    EXPECT_EQ(event.d[2], IPA + 0x128);
    EXPECT_EQ(event.d[3], IPA);
    map2(IPA, data[3], S2_LEAF | S2_READ);
    EXPECT_EQ(dma_read(0, IPA), DMA_DONE);
    EXPECT_EQ(dma_write(0, IPA, 1), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_PERMISSION, SID, NO_SSID));
    EXPECT_EQ(event.d[1] & (EV_S2 | EV_CLASS | EV_READ), EV_S2 | EV_CLASS_IN);
    EXPECT_EQ(event.d[3], IPA);
}

CHECK(address_beyond_the_input_size_is_a_translation_fault)
{
    struct event event;

    NEEDS(IDR0_S2P);
    start(STE_S2);
    EXPECT_EQ(dma_read(0, BIT(INPUT_BITS)), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_TRANSLATION, SID, NO_SSID));
    EXPECT_EQ(event.d[1] & EV_S2, EV_S2);
}

CHECK(stage_2_fault_tells_what_it_was_for)
{
    struct event event;

    NEEDS(IDR0_S2P);
    uint64_t *root = start(STE_NESTED);

    /* The address that stage 1 makes. */
    map(root, VA, (void *)NOWHERE, PTE_USER_RW);
    EXPECT_EQ(dma_read(P, VA + 0x40), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_TRANSLATION, SID, PASID));
    EXPECT_EQ(event.d[1], EV_S2 | EV_CLASS_IN | EV_READ);
    EXPECT_EQ(event.d[2], VA + 0x40);
    EXPECT_EQ(event.d[3], NOWHERE);

    /* A table of stage 1. */
    *pte_at(root, G4K, 48, 0, VA) = (NOWHERE + PAGE) | 3;
    barrier();
    EXPECT(smmu_invalidate(CMD_TLBI_NSNH_ALL, 0));
    EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_TRANSLATION, SID, PASID));
    EXPECT_EQ(event.d[1] & (EV_S2 | EV_CLASS), EV_S2 | EV_CLASS_TT);
    EXPECT_EQ(event.d[2], VA);
    EXPECT_EQ(event.d[3], NOWHERE + PAGE);

    /* The context. */
    smmu_ste_all(SID, (const uint64_t[8]){STE_NESTED | STE_S1CDMAX(CDTAB_LOG2) | NOWHERE, STE_S1DSS(2),
                                          STAGE2, (uint64_t)stage2});
    EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_TRANSLATION, SID, PASID));
    EXPECT_EQ(event.d[1] & (EV_S2 | EV_CLASS), EV_S2 | EV_CLASS_CD);
    EXPECT_EQ(event.d[3], NOWHERE);
}

CHECK(stage_1_fault_below_stage_2_is_one_of_stage_1)
{
    struct event event;

    NEEDS(IDR0_S2P);
    start(STE_NESTED);
    EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_TRANSLATION, SID, PASID));
    EXPECT_EQ(event.d[1], EV_CLASS_IN | EV_READ);
    EXPECT_EQ(event.d[3], 0);
}

CHECK(stage_2_faults_are_recorded_and_stall_as_s2r_and_s2s_say)
{
    struct event event;

    NEEDS(IDR0_S2P);
    start(STE_S2);
    ste(STE_S2, STE_S1DSS(2), STAGE2 & ~S2R);
    EXPECT_EQ(dma_read(0, IPA), DMA_DONE | DMA_ABORTED);
    EXPECT_EQ(smmu_events_waiting(), 0);
    ste(STE_S2, STE_S1DSS(2), STAGE2 | S2S);
    dma_start(&dma[0], 1, DMA_WRITE, 0, IPA, 8, 0x99);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[1] & (EV_S2 | EV_STALL), EV_S2 | EV_STALL);
    map2(IPA, data[5], S2_RW);
    EXPECT(smmu_command(CMD_RESUME | RESUME_RETRY | CMD_SID(SID), event.d[1] & 0xffff));
    EXPECT_EQ(dma_wait(&dma[0], 1), DMA_DONE);
    EXPECT_EQ(data[5][0], 0x99);
}

CHECK(stage_2_invalidations_take_what_they_name)
{
    static const uint64_t commands[][2] = {
        {CMD_TLBI_S2_IPA | (uint64_t)VMID << 32, IPA},
        {CMD_TLBI_S12_VMALL | (uint64_t)VMID << 32, 0},
        {CMD_TLBI_NSNH_ALL, 0},
    };

    NEEDS(IDR0_S2P);
    for (unsigned i = 0; i < 3; i++) {
        start(STE_S2);
        map2(IPA, data[3], S2_RW);
        EXPECT_EQ(dma_read(0, IPA), DMA_DONE);
        *pte_at(stage2, G4K, INPUT_BITS, 3, IPA) = 0;
        barrier();
        EXPECT(smmu_invalidate(commands[i][0], commands[i][1]));
        EXPECT_EQ(dma_read(0, IPA), DMA_DONE | DMA_ABORTED);
    }
}

CHECK(inconsistent_stage_2_fields_are_a_bad_ste)
{
    const uint64_t fields = STAGE2 & ~(S2T0SZ(1) | S2SL0(3));
    const uint64_t bad[] = {
        /* Level 2 for 48 bits, level 0 for 32 bits, SL0 reserved, input sizes out of range. */
        fields | S2T0SZ(48) | S2SL0(0),
        fields | S2T0SZ(32) | S2SL0(2),
        fields | S2T0SZ(39) | S2SL0(3),
        fields | S2T0SZ(15) | S2SL0(3),
        /* Reserved granule, AArch32, big-endian. */
        STAGE2 | S2TG(3),
        STAGE2 & ~S2AA64,
        STAGE2 | BIT(52),
    };
    struct event event;

    NEEDS(IDR0_S2P);
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        start(STE_S2);
        ste(STE_S2, STE_S1DSS(2), bad[i]);
        EXPECT_EQ(dma_read(0, (uint64_t)data), DMA_DONE | DMA_ABORTED);
        EXPECT(smmu_await_event(&event));
        EXPECT_EQ(event.d[0], event_d0(C_BAD_STE, SID, NO_SSID));
        EXPECT_EQ(event.d[1] | event.d[2] | event.d[3], 0);
    }
    /* A table beyond S2PS. */
    start(STE_S2);
    smmu_ste_all(SID, (const uint64_t[8]){STE_S2, STE_S1DSS(2), STAGE2 & ~S2PS(7), BIT(32)});
    EXPECT_EQ(dma_read(0, (uint64_t)data), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(C_BAD_STE, SID, NO_SSID));
}

CHECK(ats_of_a_stream_whose_stage_2_stalls_is_a_bad_ste)
{
    struct event event;

    NEEDS(IDR0_S2P | IDR0_ATS);
    start(STE_S2);
    ste(STE_S2, STE_S1DSS(2) | STE_EATS(1), STAGE2 | S2S);
    EXPECT_EQ(dma_read(0, (uint64_t)data), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(C_BAD_STE, SID, NO_SSID));
    ste(STE_S2, STE_S1DSS(2) | STE_EATS(1), STAGE2);
    EXPECT_EQ(dma_read(0, (uint64_t)data), DMA_DONE);
}
