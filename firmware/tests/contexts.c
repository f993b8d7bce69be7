/* Contexts and stage 1: docs/smmuv3-conformance.md, 46 to 57. */
#include "check.h"
#include "dma_test.h"
#include "smmu.h"
#include "tables.h"

#define VA 0x7f0000000000ull
#define SID (dma[0].sid)
#define P TAG_PASID(PASID)

/* Expects an access to be aborted, and exactly this record of it. */
#define EXPECT_RECORD(status, type, d1, address)                            \
    do {                                                                    \
        struct event event_;                                                \
        EXPECT_EQ(status, DMA_DONE | DMA_ABORTED);                          \
        EXPECT(smmu_await_event(&event_));                                  \
        EXPECT_EQ(event_.d[0], event_d0(type, SID, PASID));                 \
        EXPECT_EQ(event_.d[1], d1);                                         \
        EXPECT_EQ(event_.d[2], address);                                    \
        EXPECT_EQ(event_.d[3], 0);                                          \
        EXPECT_EQ(smmu_events_waiting(), 0);                                \
    } while (0)
#define READ_FAULT (EV_CLASS_IN | EV_READ)
#define WRITE_FAULT EV_CLASS_IN

CHECK(illegal_contexts_are_bad)
{
    uint64_t fields = CD_ATTRIBUTES | CD_EPD1 | CD_V | CD_IPS(5) | CD_AA64 | CD_R | CD_A | CD_ASID(ASID);
    const struct {
        uint64_t d0, ttb0;
    } bad[] = {
        {(fields | CD_T0SZ(16)) & ~CD_V, 0},
        {fields | CD_T0SZ(15), 0},
        {fields | CD_T0SZ(49), 0},
        {fields | CD_T0SZ(16) | CD_TG0(3), 0},
        {fields | CD_T0SZ(16) | CD_ENDI, 0},
        {(fields | CD_T0SZ(16)) & ~CD_AA64, 0},
        {(fields | CD_T0SZ(16)) & ~CD_A, 0},
        {(fields & ~CD_IPS(7)) | CD_T0SZ(16), BIT(40)},
    };

    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct event event;

        smmu_start();
        smmu_contexts(SID);
        smmu_cd(PASID, bad[i].d0, bad[i].ttb0);
        EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
        EXPECT(smmu_await_event(&event));
        EXPECT_EQ(event.d[0], event_d0(C_BAD_CD, SID, PASID));
        EXPECT_EQ(event.d[1] | event.d[2] | event.d[3], 0);
    }
    if (idr0_httu() == 0) {
        struct event event;

        smmu_start();
        smmu_process(CD_PROCESS | CD_HA);
        EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
        EXPECT(smmu_await_event(&event));
        EXPECT_EQ(event.d[0], event_d0(C_BAD_CD, SID, PASID));
    }
}

CHECK(stalling_context_of_a_stream_that_must_not_stall_is_bad)
{
    struct event event;

    smmu_start();
    smmu_process(CD_PROCESS | CD_S);
    smmu_ste(SID, STE_S1 | STE_S1CDMAX(CDTAB_LOG2) | (uint64_t)smmu_cdtab, STE_S1DSS(2) | STE_S1STALLD);
    EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(C_BAD_CD, SID, PASID));
}

CHECK(context_of_a_dead_process_aborts_silently)
{
    smmu_start();
    smmu_contexts(SID);
    /* Garbage where the fields of both halves are. */
    smmu_cd(PASID, 0x0002c205c0004000ull | CD_T0SZ(63) | CD_TG0(3), ~0ull);
    EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    EXPECT_EQ(dma_fault(&dma[0], 0), VA);
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(every_granule_and_input_size_translates_pages)
{
    static const struct {
        unsigned granule, tg0;
    } granules[] = {{G4K, 0}, {G64K, 1}, {G16K, 2}};

    for (unsigned i = 0; i < 3; i++) {
        for (unsigned bits = r32(SMMU_IDR3) & IDR3_STT ? 17 : 25; bits <= 48; bits++) {
            unsigned granule = granules[i].granule;
            uint64_t va = (BIT(bits) - 1) & ~(BIT(granule) - 1);

            smmu_start();
            uint64_t *root = table_new(BIT(granule));

            smmu_contexts(SID);
            smmu_cd(PASID, (CD_PROCESS & ~0xffull) | CD_T0SZ(64 - bits) | CD_TG0(granules[i].tg0), (uint64_t)root);
            *pte_at(root, granule, bits, 3, va) = ((uint64_t)data & ~(BIT(granule) - 1)) | PTE_USER_RW | 3;
            barrier();
            data[0][1] = BIT(bits) | granule;
            EXPECT_EQ(dma_read(P, va + 8), DMA_DONE);
            EXPECT_EQ(dma_data(&dma[0], 0), BIT(bits) | granule);
            if (bits < 48)
                EXPECT_EQ(dma_read(P, va + BIT(bits)), DMA_DONE | DMA_ABORTED);
        }
    }
}

CHECK(every_block_size_translates)
{
    static const struct {
        unsigned granule, tg0, level;
    } blocks[] = {{G4K, 0, 1}, {G4K, 0, 2}, {G16K, 2, 2}, {G64K, 1, 2}};

    for (unsigned i = 0; i < 4; i++) {
        unsigned granule = blocks[i].granule;
        uint64_t bytes = BIT(granule + (3 - blocks[i].level) * (granule - 3));
        uint64_t start = (uint64_t)data & ~(bytes - 1);

        smmu_start();
        uint64_t *root = table_new(BIT(granule));

        smmu_contexts(SID);
        smmu_cd(PASID, CD_PROCESS | CD_TG0(blocks[i].tg0), (uint64_t)root);
        *pte_at(root, granule, 48, blocks[i].level, VA) = start | PTE_USER_RW | 1;
        barrier();
        data[3][0] = bytes;
        EXPECT_EQ(dma_read(P, VA + ((uint64_t)&data[3][0] - start)), DMA_DONE);
        EXPECT_EQ(dma_data(&dma[0], 0), bytes);
    }
}

CHECK(contiguous_hint_changes_nothing)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS);

    for (uint64_t page = 0; page < 16; page++) {
        map(root, VA + page * PAGE, data[page], PTE_USER_RW | PTE_CONTIGUOUS);
        data[page][0] = page;
    }
    for (uint64_t page = 0; page < 16; page++) {
        EXPECT_EQ(dma_read(P, VA + page * PAGE), DMA_DONE);
        EXPECT_EQ(dma_data(&dma[0], 0), page);
    }
}

CHECK(addresses_outside_the_range_are_translation_faults)
{
    smmu_start();
    smmu_process(CD_PROCESS);
    EXPECT_RECORD(dma_read(P, BIT(48)), F_TRANSLATION, READ_FAULT, BIT(48));
    /* Not canonical, and the disabled upper half. */
    EXPECT_RECORD(dma_read(P, VA | BIT(63)), F_TRANSLATION, READ_FAULT, VA | BIT(63));
    EXPECT_RECORD(dma_write(P, ~0xfffull, 0), F_TRANSLATION, WRITE_FAULT, ~0xfffull);
}

CHECK(tagged_address_needs_tbi_and_is_recorded_whole)
{
    const uint64_t tagged = VA | 0x5a00000000000000ull;

    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS);

    map(root, VA, data[0], PTE_USER_RW);
    EXPECT_RECORD(dma_read(P, tagged), F_TRANSLATION, READ_FAULT, tagged);
    smmu_cd(PASID, CD_PROCESS | CD_TBI0, (uint64_t)root);
    EXPECT_EQ(dma_read(P, tagged), DMA_DONE);
    EXPECT_RECORD(dma_read(P, tagged + PAGE), F_TRANSLATION, READ_FAULT, tagged + PAGE);
}

CHECK(reserved_descriptors_are_translation_faults)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS);

    EXPECT_RECORD(dma_read(P, VA), F_TRANSLATION, READ_FAULT, VA);
    /* 0b01 at level 3, and a block at level 0. */
    *pte(root, VA) = (uint64_t)data[0] | PTE_USER_RW | 1;
    barrier();
    EXPECT_RECORD(dma_read(P, VA), F_TRANSLATION, READ_FAULT, VA);
    *pte_at(root, G4K, 48, 0, VA) = PTE_USER_RW | 1;
    barrier();
    EXPECT(smmu_invalidate(CMD_TLBI_NH_ASID | CMD_ASID(ASID), 0));
    EXPECT_RECORD(dma_read(P, VA), F_TRANSLATION, READ_FAULT, VA);
}

CHECK(addresses_beyond_ips_are_address_size_faults)
{
    smmu_start();
    uint64_t *root = smmu_process((CD_PROCESS & ~CD_IPS(7)) | CD_IPS(1)); /* 36 bits */

    *pte(root, VA) = BIT(36) | PTE_USER_RW | 3;
    *pte(root, VA + BIT(30)) = 0;
    *pte_at(root, G4K, 48, 2, VA + BIT(30)) = BIT(40) | 3;
    barrier();
    EXPECT_RECORD(dma_read(P, VA), F_ADDR_SIZE, READ_FAULT, VA);
    EXPECT_RECORD(dma_read(P, VA + BIT(30)), F_ADDR_SIZE, READ_FAULT, VA + BIT(30));
}

CHECK(clear_access_flag_faults_unless_affd)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS);

    map(root, VA, data[0], PTE_USER_RW & ~PTE_AF);
    EXPECT_RECORD(dma_read(P, VA), F_ACCESS, READ_FAULT, VA);
    EXPECT_EQ(*pte(root, VA) & PTE_AF, 0);
    smmu_cd(PASID, CD_PROCESS | CD_AFFD, (uint64_t)root);
    EXPECT_EQ(dma_read(P, VA), DMA_DONE);
}

CHECK(hardware_sets_the_access_flag_if_it_can)
{
    SKIP_UNLESS(idr0_httu() >= 1);
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS | CD_HA);

    map(root, VA, data[0], PTE_USER_RW & ~PTE_AF);
    EXPECT_EQ(dma_read(P, VA), DMA_DONE);
    EXPECT_EQ(*pte(root, VA) & PTE_AF, PTE_AF);
}

CHECK(write_to_a_read_only_page_is_a_permission_fault)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS);

    map(root, VA, data[0], PTE_USER_RW | PTE_RO);
    EXPECT_EQ(dma_read(P, VA), DMA_DONE);
    EXPECT_RECORD(dma_write(P, VA, 1), F_PERMISSION, WRITE_FAULT, VA);
}

CHECK(hardware_makes_a_clean_page_dirty_if_it_can)
{
    SKIP_UNLESS(idr0_httu() >= 2);
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS | CD_HA | CD_HD);

    map(root, VA, data[0], PTE_USER_RW | PTE_RO | PTE_DBM);
    EXPECT_EQ(dma_read(P, VA), DMA_DONE);
    EXPECT_EQ(*pte(root, VA) & PTE_RO, PTE_RO);
    EXPECT_EQ(dma_write(P, VA, 0x66), DMA_DONE);
    EXPECT_EQ(*pte(root, VA) & PTE_RO, 0);
    EXPECT_EQ(data[0][0], 0x66);
    map(root, VA + PAGE, data[1], PTE_USER_RW | PTE_RO);
    EXPECT_RECORD(dma_write(P, VA + PAGE, 1), F_PERMISSION, WRITE_FAULT, VA + PAGE);
}

CHECK(kernel_pages_are_for_privileged_access_only)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS);

    map(root, VA, data[0], PTE_USER_RW & ~PTE_USER);
    EXPECT_RECORD(dma_read(P, VA), F_PERMISSION, READ_FAULT, VA);
    EXPECT_EQ(dma_read(P | TAG_PRIVILEGED, VA), DMA_DONE);
    EXPECT_EQ(dma_write(P | TAG_PRIVILEGED, VA, 1), DMA_DONE);
}

CHECK(pan_keeps_privileged_data_accesses_from_user_pages)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS | CD_PAN);

    map(root, VA, data[0], PTE_USER_RW);
    EXPECT_EQ(dma_read(P, VA), DMA_DONE);
    EXPECT_RECORD(dma_read(P | TAG_PRIVILEGED, VA), F_PERMISSION, READ_FAULT | EV_PNU, VA);
}

CHECK(execute_reads_need_an_executable_page)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS);

    map(root, VA, data[0], PTE_USER_RW);
    EXPECT_RECORD(dma_read(P | TAG_EXECUTE, VA), F_PERMISSION, READ_FAULT | EV_IND, VA);
    map(root, VA + PAGE, data[1], PTE_USER_RW & ~PTE_UXN);
    EXPECT_EQ(dma_read(P | TAG_EXECUTE, VA + PAGE), DMA_DONE);
    /* Writes are data, whatever the tag says. */
    EXPECT_EQ(dma_write(P | TAG_EXECUTE, VA, 1), DMA_DONE);
}

CHECK(table_attributes_restrict_unless_disabled)
{
    for (unsigned had = 0; had < 2; had++) {
        smmu_start();
        uint64_t *root = smmu_process(CD_PROCESS);

        map(root, VA, data[0], PTE_USER_RW & ~PTE_UXN);
        /* APTable: no writes; UXNTable: no unprivileged execution. */
        *pte_at(root, G4K, 48, 2, VA) |= BIT(62) | BIT(60);
        barrier();
        smmu_cd(PASID, CD_PROCESS, (uint64_t)root | (had ? CD_HAD0 : 0));
        if (had) {
            EXPECT_EQ(dma_write(P, VA, 1), DMA_DONE);
            EXPECT_EQ(dma_read(P | TAG_EXECUTE, VA), DMA_DONE);
        } else {
            EXPECT_EQ(dma_read(P, VA), DMA_DONE);
            EXPECT_RECORD(dma_write(P, VA, 1), F_PERMISSION, WRITE_FAULT, VA);
            EXPECT_RECORD(dma_read(P | TAG_EXECUTE, VA), F_PERMISSION, READ_FAULT | EV_IND, VA);
        }
    }
}

CHECK(descriptor_outside_memory_is_a_walk_abort_and_never_stalls)
{
    static const uint64_t stall[] = {0, CD_S};

    for (unsigned i = 0; i < 2; i++) {
        struct event event;

        smmu_start();
        uint64_t *root = smmu_process(CD_PROCESS | stall[i]);

        *pte_at(root, G4K, 48, 0, VA) = HOLE | 3;
        barrier();
        EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
        EXPECT(smmu_await_event(&event));
        EXPECT_EQ(event.d[0], event_d0(F_WALK_EABT, SID, PASID));
        EXPECT_EQ(event.d[1] & ~0xffffull, EV_CLASS_TT | EV_READ);
        EXPECT_EQ(event.d[2], VA);
        EXPECT_EQ(event.d[3], HOLE + (VA >> 30 & 0x1ff) * 8);
    }
}

CHECK(terminated_faults_are_recorded_only_if_r_says_so)
{
    smmu_start();
    uint64_t *root = smmu_process(CD_PROCESS & ~CD_R);

    EXPECT_EQ(dma_read(P, VA), DMA_DONE | DMA_ABORTED);
    EXPECT_EQ(smmu_events_waiting(), 0);
    smmu_cd(PASID, CD_PROCESS, (uint64_t)root);
    EXPECT_RECORD(dma_read(P, VA), F_TRANSLATION, READ_FAULT, VA);
}
