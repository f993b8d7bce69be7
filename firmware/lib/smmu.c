#include "smmu.h"

#include "dma_test.h"
#include "gic.h"
#include "tables.h"

#define CMDQ_MASK ((2u << CMDQ_LOG2) - 1)
#define EVENTQ_MASK ((2u << EVENTQ_LOG2) - 1)

uint64_t smmu_cmdq[2 << CMDQ_LOG2] __attribute__((aligned(4096)));
uint64_t smmu_eventq[4 << EVENTQ_LOG2] __attribute__((aligned(4096)));
uint64_t smmu_priq[2 << PRIQ_LOG2] __attribute__((aligned(4096)));
uint64_t smmu_strtab[8 << STRTAB_LOG2] __attribute__((aligned(4096)));
uint64_t smmu_cdtab[8 << CDTAB_LOG2] __attribute__((aligned(4096)));

/* PROD of what was put, and perhaps not yet submitted. */
static uint32_t next;

bool smmu_enable(uint32_t cr0)
{
    barrier();
    w32(SMMU_CR0, cr0);
    return UNTIL(r32(SMMU_CR0ACK) == cr0);
}

bool smmu_irq(uint32_t irq_ctrl)
{
    w32(SMMU_IRQ_CTRL, irq_ctrl);
    return UNTIL(r32(SMMU_IRQ_CTRLACK) == irq_ctrl);
}

uint32_t smmu_errors(void) { return r32(SMMU_GERROR) ^ r32(SMMU_GERRORN); }

uint32_t smmu_cerror(void) { return r32(SMMU_CMDQ_CONS) >> 24 & 0x7f; }

void smmu_off(void)
{
    dma_reset(&dma[0]);
    dma_reset(&dma[1]);
    smmu_enable(0);
    smmu_irq(0);
    w32(SMMU_GBPA, (uint32_t)GBPA_UPDATE);
    UNTIL(!(r32(SMMU_GBPA) & GBPA_UPDATE));
    w64(SMMU_GERROR_IRQ_CFG0, 0);
    w64(SMMU_EVENTQ_IRQ_CFG0, 0);
    w64(SMMU_PRIQ_IRQ_CFG0, 0);
    w32(SMMU_PRIQ_IRQ_CFG2, 0);
    w32(SMMU_GERRORN, r32(SMMU_GERROR));
    w32(SMMU_CMDQ_CONS, 0);
    gic_take(0);
}

void smmu_configure(void)
{
    smmu_off();
    tables_reset();
    for (unsigned i = 0; i < sizeof smmu_strtab / 8; i++)
        smmu_strtab[i] = i % 8 == 0 ? STE_ABORT : 0;
    for (unsigned i = 0; i < sizeof smmu_cdtab / 8; i++)
        smmu_cdtab[i] = 0;
    w32(SMMU_CR1, 0xd75);
    w32(SMMU_CR2, RECINVSID);
    w64(SMMU_STRTAB_BASE, (uint64_t)smmu_strtab);
    w32(SMMU_STRTAB_BASE_CFG, STRTAB_LOG2);
    w64(SMMU_CMDQ_BASE, (uint64_t)smmu_cmdq | CMDQ_LOG2);
    w32(SMMU_CMDQ_PROD, 0);
    w32(SMMU_CMDQ_CONS, 0);
    next = 0;
    w64(SMMU_EVENTQ_BASE, (uint64_t)smmu_eventq | EVENTQ_LOG2);
    w32(SMMU_EVENTQ_PROD, 0);
    w32(SMMU_EVENTQ_CONS, 0);
}

void smmu_start(void)
{
    smmu_configure();
    smmu_enable(CMDQEN);
    smmu_command(CMD_CFGI_ALL, 31);
    smmu_invalidate(CMD_TLBI_NSNH_ALL, 0);
    smmu_enable(CMDQEN | EVENTQEN);
    smmu_enable(CMDQEN | EVENTQEN | SMMUEN);
}

void smmu_start_services(void)
{
    smmu_start();
    w64(SMMU_PRIQ_BASE, (uint64_t)smmu_priq | PRIQ_LOG2);
    w32(SMMU_PRIQ_PROD, 0);
    w32(SMMU_PRIQ_CONS, 0);
    smmu_enable(CMDQEN | EVENTQEN | SMMUEN | PRIQEN | ATSCHK);
    dma_services_on(&dma[0]);
}

uint64_t *smmu_put(uint64_t d0, uint64_t d1)
{
    uint64_t *slot = &smmu_cmdq[2 * (next & (CMDQ_MASK >> 1))];

    slot[0] = d0;
    slot[1] = d1;
    next = (next + 1) & CMDQ_MASK;
    return slot;
}

void smmu_submit(void)
{
    barrier();
    w32(SMMU_CMDQ_PROD, next);
}

static bool is_consumed(void) { return (r32(SMMU_CMDQ_CONS) & CMDQ_MASK) == next; }

bool smmu_command(uint64_t d0, uint64_t d1)
{
    smmu_put(d0, d1);
    smmu_submit();
    return UNTIL(is_consumed() || (smmu_errors() & CMDQ_ERR)) && is_consumed();
}

bool smmu_is_illegal(uint64_t d0, uint64_t d1)
{
    uint64_t *slot = smmu_put(d0, d1);

    smmu_submit();
    UNTIL(is_consumed() || (smmu_errors() & CMDQ_ERR));
    if (!(smmu_errors() & CMDQ_ERR))
        return false;
    bool is_illegal = smmu_cerror() == CERROR_ILL;

    slot[0] = CMD_SYNC;
    slot[1] = 0;
    barrier();
    w32(SMMU_GERRORN, r32(SMMU_GERRORN) ^ CMDQ_ERR);
    return UNTIL(is_consumed()) && is_illegal;
}

bool smmu_sync(void)
{
    uint64_t at = (uint64_t)&smmu_cmdq[2 * (next & (CMDQ_MASK >> 1))];

    /* Inner shareable, write-back: as the Linux driver polls. */
    smmu_put(CMD_SYNC | SYNC_CS(1) | 3 << 22 | 0xf << 24, at);
    smmu_submit();
    return UNTIL(r32(at) == 0);
}

bool smmu_invalidate(uint64_t d0, uint64_t d1) { return smmu_command(d0, d1) && smmu_sync(); }

void smmu_ste_all(uint32_t sid, const uint64_t dwords[8])
{
    uint64_t *ste = &smmu_strtab[8 * sid];

    for (unsigned i = 0; i < 8; i++)
        *(volatile uint64_t *)&ste[i] = dwords[i];
    barrier();
    if (r32(SMMU_CR0) & CMDQEN)
        smmu_invalidate(CMD_CFGI_STE | CMD_SID(sid), 1);
}

void smmu_ste(uint32_t sid, uint64_t d0, uint64_t d1)
{
    smmu_ste_all(sid, (const uint64_t[8]){d0, d1});
}

void smmu_contexts(uint32_t sid)
{
    smmu_ste(sid, STE_S1 | STE_S1CDMAX(CDTAB_LOG2) | (uint64_t)smmu_cdtab, STE_S1DSS(2));
}

void smmu_cd(uint32_t ssid, uint64_t d0, uint64_t ttb0)
{
    uint64_t *cd = &smmu_cdtab[8 * ssid];

    cd[1] = ttb0;
    cd[2] = 0;
    cd[3] = 0xff;
    *(volatile uint64_t *)&cd[0] = d0;
    barrier();
    for (unsigned device = 0; device < 2; device++)
        smmu_invalidate(CMD_CFGI_CD | CMD_SID(dma[device].sid) | CMD_SSID(ssid), 1);
}

uint64_t *smmu_process(uint64_t cd_d0)
{
    uint64_t *root = table_new(PAGE);

    smmu_contexts(dma[0].sid);
    smmu_cd(PASID, cd_d0, (uint64_t)root);
    return root;
}

unsigned smmu_events_waiting(void)
{
    return ((r32(SMMU_EVENTQ_PROD) & EVENTQ_MASK) - (r32(SMMU_EVENTQ_CONS) & EVENTQ_MASK)) & EVENTQ_MASK;
}

bool smmu_event(struct event *event)
{
    uint32_t cons = r32(SMMU_EVENTQ_CONS);

    if (smmu_events_waiting() == 0)
        return false;
    barrier();
    for (unsigned i = 0; i < 4; i++)
        event->d[i] = r64((uint64_t)&smmu_eventq[4 * (cons & (EVENTQ_MASK >> 1)) + i]);
    w32(SMMU_EVENTQ_CONS, (cons & OVFLG) | ((cons + 1) & EVENTQ_MASK));
    return true;
}

bool smmu_await_event(struct event *event) { return UNTIL(smmu_events_waiting() > 0) && smmu_event(event); }

bool smmu_page_request(struct page_request *request)
{
    uint32_t mask = (2u << PRIQ_LOG2) - 1;
    uint32_t cons = r32(SMMU_PRIQ_CONS);

    if ((r32(SMMU_PRIQ_PROD) & mask) == (cons & mask))
        return false;
    barrier();
    for (unsigned i = 0; i < 2; i++)
        request->d[i] = r64((uint64_t)&smmu_priq[2 * (cons & (mask >> 1)) + i]);
    w32(SMMU_PRIQ_CONS, (cons & OVFLG) | ((cons + 1) & mask));
    return true;
}

uint64_t event_d0(uint32_t type, uint32_t sid, uint32_t ssid)
{
    uint64_t substream = ssid == NO_SSID ? 0 : BIT(11) | (uint64_t)ssid << 12;

    return (uint64_t)sid << 32 | substream | type;
}
