/* Stalls: docs/smmuv3-conformance.md, 35, 63, 64, 67 to 72. STALL_MAX is more than the devices have channels. */
#include "check.h"
#include "dma_test.h"
#include "smmu.h"
#include "tables.h"

#define VA 0x7f0000000000ull
#define SID (dma[0].sid)
#define P TAG_PASID(PASID)
#define ENTRIES (1u << EVENTQ_LOG2)

/* Starts an access of a channel that stalls; its STAG in *stag. */
#define STALL(channel, command, at, stag)                                             \
    do {                                                                              \
        struct event event_;                                                          \
        uint64_t at_ = (at);                                                          \
        dma_start(&dma[0], channel, command, P, at_, 8, 0x5a5a);                      \
        EXPECT(smmu_await_event(&event_));                                            \
        EXPECT_EQ(event_.d[1] & EV_STALL, EV_STALL);                                  \
        EXPECT_EQ(event_.d[0] >> 32, SID);                                            \
        EXPECT_EQ(event_.d[2], at_);                                                  \
        *(stag) = event_.d[1] & 0xffff;                                               \
    } while (0)

static uint64_t *start(void)
{
    smmu_start();
    return smmu_process(CD_PROCESS | CD_S);
}

static bool resume(uint64_t stag, uint64_t how)
{
    return smmu_command(CMD_RESUME | how | CMD_SID(SID), stag);
}

CHECK(stalled_record_has_every_field)
{
    struct event event;

    start();
    dma_start(&dma[0], 0, DMA_READ, P, VA + 0x234, 4, 0);
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[0], event_d0(F_TRANSLATION, SID, PASID));
    EXPECT_EQ(event.d[1] & ~0xffffull, EV_STALL | EV_CLASS_IN | EV_READ);
    EXPECT_EQ(event.d[2], VA + 0x234);
    EXPECT_EQ(event.d[3], 0);
    EXPECT(resume(event.d[1] & 0xffff, RESUME_ABORT));
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE | DMA_ABORTED);
}

CHECK(stags_are_unique_and_others_of_the_stream_go_on)
{
    uint64_t stags[DMA_CHANNELS];
    uint64_t *root = start();

    map(root, VA, data[0], PTE_USER_RW);
    for (unsigned channel = 1; channel < DMA_CHANNELS; channel++) {
        STALL(channel, DMA_WRITE, VA + channel * PAGE, &stags[channel]);
        for (unsigned other = 1; other < channel; other++)
            EXPECT(stags[other] != stags[channel]);
        EXPECT_EQ(dma_read(P, VA), DMA_DONE);
    }
    for (unsigned channel = 1; channel < DMA_CHANNELS; channel++) {
        EXPECT(dma_is_busy(&dma[0], channel));
        EXPECT(resume(stags[channel], RESUME_ABORT));
        EXPECT_EQ(dma_wait(&dma[0], channel), DMA_DONE | DMA_ABORTED);
    }
}

CHECK(sync_completes_while_accesses_are_stalled)
{
    uint64_t stag;

    start();
    STALL(0, DMA_WRITE, VA, &stag);
    EXPECT(smmu_sync());
    EXPECT(smmu_invalidate(CMD_TLBI_NSNH_ALL, 0));
    EXPECT(dma_is_busy(&dma[0], 0));
    EXPECT(resume(stag, RESUME_ABORT));
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE | DMA_ABORTED);
}

CHECK(stalled_access_completes_after_the_page_is_mapped_and_retried)
{
    uint64_t stag;
    uint64_t *root = start();

    STALL(0, DMA_WRITE, VA, &stag);
    data[0][0] = 0;
    map(root, VA, data[0], PTE_USER_RW);
    EXPECT(dma_is_busy(&dma[0], 0));
    EXPECT(resume(stag, RESUME_RETRY));
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE);
    EXPECT_EQ(data[0][0], 0x5a5a);
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(retry_without_a_remedy_is_recorded_again)
{
    struct event event;
    uint64_t stag;

    start();
    STALL(0, DMA_READ, VA, &stag);
    for (unsigned i = 0; i < 3; i++) {
        EXPECT(resume(stag, RESUME_RETRY));
        EXPECT(smmu_await_event(&event));
        EXPECT_EQ(event.d[2], VA);
        stag = event.d[1] & 0xffff;
    }
    EXPECT(resume(stag, RESUME_ABORT));
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE | DMA_ABORTED);
    EXPECT_EQ(dma_fault(&dma[0], 0), VA);
}

CHECK(every_kind_of_fault_stalls)
{
    static const struct {
        uint64_t descriptor;
        uint32_t type;
    } faults[] = {
        {0, F_TRANSLATION},
        {BIT(40) | PTE_USER_RW | 3, F_ADDR_SIZE},
        {(PTE_USER_RW & ~PTE_AF) | 3, F_ACCESS},
        {PTE_USER_RW | PTE_RO | 3, F_PERMISSION},
    };

    for (unsigned i = 0; i < 4; i++) {
        struct event event;

        smmu_start();
        uint64_t *root = smmu_process((CD_PROCESS & ~CD_IPS(7)) | CD_IPS(1) | CD_S);

        *pte(root, VA) = faults[i].descriptor;
        barrier();
        dma_start(&dma[0], 0, DMA_WRITE, P, VA, 8, 0x33);
        EXPECT(smmu_await_event(&event));
        EXPECT_EQ(event.d[0], event_d0(faults[i].type, SID, PASID));
        EXPECT_EQ(event.d[1] & EV_STALL, EV_STALL);
        map(root, VA, data[0], PTE_USER_RW);
        EXPECT(smmu_invalidate(CMD_TLBI_NH_ASID | CMD_ASID(ASID), 0));
        EXPECT(resume(event.d[1] & 0xffff, RESUME_RETRY));
        EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE);
    }
}

CHECK(terminate_without_abort_is_an_abort)
{
    uint64_t stag;

    start();
    STALL(0, DMA_READ, VA, &stag);
    EXPECT(resume(stag, 0));
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE | DMA_ABORTED);
}

CHECK(answer_to_nobody_is_no_error_and_answers_nobody)
{
    uint64_t stag;

    start();
    STALL(0, DMA_READ, VA, &stag);
    EXPECT(smmu_command(CMD_RESUME | RESUME_ABORT | CMD_SID(dma[1].sid), stag));
    EXPECT(smmu_command(CMD_RESUME | RESUME_ABORT | CMD_SID(SID), stag ^ 0x8000));
    EXPECT(smmu_command(CMD_STALL_TERM | CMD_SID(dma[1].sid), 0));
    EXPECT(smmu_sync());
    EXPECT_EQ(smmu_errors(), 0);
    EXPECT(dma_is_busy(&dma[0], 0));
    EXPECT(resume(stag, RESUME_ABORT));
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE | DMA_ABORTED);
}

CHECK(stall_term_aborts_all_of_its_stream)
{
    uint64_t stag;

    start();
    for (unsigned channel = 0; channel < 4; channel++)
        STALL(channel, DMA_READ, VA + channel * PAGE, &stag);
    EXPECT(smmu_command(CMD_STALL_TERM | CMD_SID(SID), 0));
    for (unsigned channel = 0; channel < 4; channel++)
        EXPECT_EQ(dma_wait(&dma[0], channel), DMA_DONE | DMA_ABORTED);
    STALL(0, DMA_READ, VA, &stag);
    EXPECT(resume(stag, RESUME_ABORT));
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE | DMA_ABORTED);
}

CHECK(end_of_translation_aborts_all_stalls)
{
    uint64_t stag;

    start();
    for (unsigned channel = 0; channel < 4; channel++)
        STALL(channel, DMA_READ, VA + channel * PAGE, &stag);
    EXPECT(smmu_enable(CMDQEN | EVENTQEN));
    for (unsigned channel = 0; channel < 4; channel++)
        EXPECT_EQ(dma_wait(&dma[0], channel), DMA_DONE | DMA_ABORTED);
}

CHECK(full_queue_delays_a_stall_and_does_not_overflow)
{
    struct event event;

    start();
    /* Without PASID nothing stalls: context 0 does not exist. */
    for (unsigned i = 0; i < ENTRIES; i++)
        EXPECT_EQ(dma_read(0, VA), DMA_DONE | DMA_ABORTED);
    dma_start(&dma[0], 1, DMA_READ, P, VA, 8, 0);
    EXPECT(smmu_sync());
    EXPECT_EQ(smmu_events_waiting(), ENTRIES);
    EXPECT_EQ(r32(SMMU_EVENTQ_PROD) & OVFLG, 0);
    for (unsigned i = 0; i < ENTRIES; i++)
        EXPECT(smmu_event(&event));
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[1] & EV_STALL, EV_STALL);
    EXPECT_EQ(event.d[2], VA);
    EXPECT(resume(event.d[1] & 0xffff, RESUME_ABORT));
    EXPECT_EQ(dma_wait(&dma[0], 1), DMA_DONE | DMA_ABORTED);
}

CHECK(disabled_queue_holds_stalls_until_it_is_enabled)
{
    struct event event;

    start();
    EXPECT(smmu_enable(SMMUEN | CMDQEN));
    dma_start(&dma[0], 0, DMA_READ, P, VA, 8, 0);
    EXPECT(smmu_sync());
    EXPECT_EQ(smmu_events_waiting(), 0);
    EXPECT(smmu_enable(SMMUEN | CMDQEN | EVENTQEN));
    EXPECT(smmu_await_event(&event));
    EXPECT_EQ(event.d[1] & EV_STALL, EV_STALL);
    EXPECT(resume(event.d[1] & 0xffff, RESUME_ABORT));
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE | DMA_ABORTED);
}

CHECK(retry_looks_everything_up_anew)
{
    uint64_t stag;

    start();
    STALL(0, DMA_WRITE, VA, &stag);
    /* Another table in the context; then a stream that aborts. */
    uint64_t *other = table_new(PAGE);

    map(other, VA, data[2], PTE_USER_RW);
    data[2][0] = 0;
    smmu_cd(PASID, CD_PROCESS | CD_S, (uint64_t)other);
    EXPECT(resume(stag, RESUME_RETRY));
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE);
    EXPECT_EQ(data[2][0], 0x5a5a);

    STALL(0, DMA_WRITE, VA + PAGE, &stag);
    smmu_ste(SID, STE_ABORT, 0);
    EXPECT(resume(stag, RESUME_RETRY));
    EXPECT_EQ(dma_wait(&dma[0], 0), DMA_DONE | DMA_ABORTED);
    EXPECT_EQ(smmu_events_waiting(), 0);
}

CHECK(device_that_gives_up_leaves_nothing_behind)
{
    struct event event;
    uint64_t stag;
    uint64_t *root = start();

    STALL(0, DMA_READ, VA, &stag);
    dma_reset(&dma[0]);
    EXPECT(UNTIL(!dma_is_busy(&dma[0], 0)));
    /* The answer comes too late, and harms nobody. */
    EXPECT(resume(stag, RESUME_RETRY));
    EXPECT(smmu_sync());
    map(root, VA, data[0], PTE_USER_RW);
    EXPECT_EQ(dma_read(P, VA), DMA_DONE);
    EXPECT(!smmu_event(&event));
}
