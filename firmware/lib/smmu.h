/*
 * A driver of the SMMUv3 (Arm IHI 0070) that lets checks do everything, also what no driver should.
 *
 * Offsets and fields are those of the specification, not taken from the model.
 */
#ifndef SMMU_H
#define SMMU_H

#include "base.h"
#include "check.h"

#define SMMU 0x09050000ull
#define SMMU_IDR0 (SMMU + 0x00)
#define SMMU_IDR1 (SMMU + 0x04)
#define SMMU_IDR2 (SMMU + 0x08)
#define SMMU_IDR3 (SMMU + 0x0c)
#define SMMU_IDR4 (SMMU + 0x10)
#define SMMU_IDR5 (SMMU + 0x14)
#define SMMU_IIDR (SMMU + 0x18)
#define SMMU_AIDR (SMMU + 0x1c)
#define SMMU_CR0 (SMMU + 0x20)
#define SMMU_CR0ACK (SMMU + 0x24)
#define SMMU_CR1 (SMMU + 0x28)
#define SMMU_CR2 (SMMU + 0x2c)
#define SMMU_GBPA (SMMU + 0x44)
#define SMMU_IRQ_CTRL (SMMU + 0x50)
#define SMMU_IRQ_CTRLACK (SMMU + 0x54)
#define SMMU_GERROR (SMMU + 0x60)
#define SMMU_GERRORN (SMMU + 0x64)
#define SMMU_GERROR_IRQ_CFG0 (SMMU + 0x68)
#define SMMU_STRTAB_BASE (SMMU + 0x80)
#define SMMU_STRTAB_BASE_CFG (SMMU + 0x88)
#define SMMU_CMDQ_BASE (SMMU + 0x90)
#define SMMU_CMDQ_PROD (SMMU + 0x98)
#define SMMU_CMDQ_CONS (SMMU + 0x9c)
#define SMMU_EVENTQ_BASE (SMMU + 0xa0)
#define SMMU_EVENTQ_IRQ_CFG0 (SMMU + 0xb0)
#define SMMU_EVENTQ_IRQ_CFG1 (SMMU + 0xb8)
#define SMMU_EVENTQ_IRQ_CFG2 (SMMU + 0xbc)
#define SMMU_PRIQ_BASE (SMMU + 0xc0)
#define SMMU_PRIQ_IRQ_CFG0 (SMMU + 0xd0)
#define SMMU_PRIQ_IRQ_CFG2 (SMMU + 0xdc)
#define SMMU_EVENTQ_PROD (SMMU + 0x100a8)
#define SMMU_EVENTQ_CONS (SMMU + 0x100ac)
#define SMMU_PRIQ_PROD (SMMU + 0x100c8)
#define SMMU_PRIQ_CONS (SMMU + 0x100cc)

enum {
    IDR0_S2P = 1 << 0,
    IDR0_HYP = 1 << 9,
    IDR0_ATS = 1 << 10,
    IDR0_PRI = 1 << 16,
    IDR0_VMW = 1 << 17,
    /* SMMU_CR0 */
    SMMUEN = 1 << 0,
    PRIQEN = 1 << 1,
    EVENTQEN = 1 << 2,
    CMDQEN = 1 << 3,
    ATSCHK = 1 << 4,
    /* SMMU_CR2 */
    RECINVSID = 1 << 1,
    /* SMMU_IRQ_CTRL */
    GERROR_IRQEN = 1 << 0,
    PRIQ_IRQEN = 1 << 1,
    EVENTQ_IRQEN = 1 << 2,
    /* SMMU_GBPA */
    GBPA_ABORT = 1 << 20,
    /* SMMU_GERROR */
    CMDQ_ERR = 1 << 0,
    EVENTQ_ABT_ERR = 1 << 2,
    MSI_CMDQ_ABT_ERR = 1 << 4,
    /* SMMU_CMDQ_CONS.ERR */
    CERROR_NONE = 0,
    CERROR_ILL = 1,
    CERROR_ABT = 2,
    CERROR_ATC_INV_SYNC = 3,
};
#define GBPA_UPDATE BIT(31)
/* SMMU_PRIQ_IRQ_CFG2 */
#define PRIQ_LO 0x80000000u
#define OVFLG 0x80000000u
#define IDR3_PPS BIT(5)
#define IDR3_STT BIT(9)

/* Skips a check of features that SMMU_IDR0 does not have. */
#define NEEDS(features) SKIP_UNLESS((r32(SMMU_IDR0) & (features)) == (features))

static inline uint32_t idr0_httu(void) { return r32(SMMU_IDR0) >> 6 & 3; }

/* Commands: low doubleword. */
enum {
    CMD_PREFETCH_CONFIG = 0x01,
    CMD_CFGI_STE = 0x03,
    CMD_CFGI_ALL = 0x04,
    CMD_CFGI_CD = 0x05,
    CMD_CFGI_CD_ALL = 0x06,
    CMD_TLBI_NH_ALL = 0x10,
    CMD_TLBI_NH_ASID = 0x11,
    CMD_TLBI_NH_VA = 0x12,
    CMD_TLBI_NH_VAA = 0x13,
    CMD_TLBI_EL2_ALL = 0x20,
    CMD_TLBI_S12_VMALL = 0x28,
    CMD_TLBI_S2_IPA = 0x2a,
    CMD_TLBI_NSNH_ALL = 0x30,
    CMD_ATC_INV = 0x40,
    CMD_PRI_RESP = 0x41,
    CMD_RESUME = 0x44,
    CMD_STALL_TERM = 0x45,
    CMD_SYNC = 0x46,
};
#define CMD_SSEC BIT(10)
#define CMD_SID(sid) ((uint64_t)(sid) << 32)
#define CMD_SSID(ssid) ((uint64_t)(ssid) << 12)
#define CMD_ASID(asid) ((uint64_t)(asid) << 48)
#define SYNC_CS(cs) ((uint64_t)(cs) << 12)
#define SYNC_DATA(data) ((uint64_t)(data) << 32)
#define CMD_SSV BIT(11)
#define ATC_INV_ALL 52
#define PRI_RESP(group, response) ((uint64_t)(response) << 12 | (group))
#define RESUME_RETRY BIT(12)
#define RESUME_ABORT BIT(13)

/* Events: D0[7:0]. */
enum {
    C_BAD_STREAMID = 0x02,
    C_BAD_STE = 0x04,
    F_BAD_ATS_TREQ = 0x05,
    F_STREAM_DISABLED = 0x06,
    F_TRANSL_FORBIDDEN = 0x07,
    C_BAD_SUBSTREAMID = 0x08,
    C_BAD_CD = 0x0a,
    F_WALK_EABT = 0x0b,
    F_TRANSLATION = 0x10,
    F_ADDR_SIZE = 0x11,
    F_ACCESS = 0x12,
    F_PERMISSION = 0x13,
};
/* D1 */
#define EV_STALL BIT(31)
#define EV_PNU BIT(33)
#define EV_IND BIT(34)
#define EV_READ BIT(35)
#define EV_CLASS_TT BIT(40)
#define EV_CLASS_IN BIT(41)

/* Stream table entries. */
#define STE_V BIT(0)
#define STE_ABORT STE_V
#define STE_BYPASS (STE_V | 4 << 1)
#define STE_S1 (STE_V | 5 << 1)
#define STE_S1FMT(fmt) ((uint64_t)(fmt) << 4)
#define STE_S1CDMAX(log2) ((uint64_t)(log2) << 59)
/* D1: S1DSS, and cacheable, shareable fetches. */
#define STE_S1DSS(dss) ((uint64_t)(dss) | 0xd4)
#define STE_S1STALLD BIT(27)
#define STE_EATS(eats) ((uint64_t)(eats) << 28)

/* Context descriptors, D0. */
#define CD_T0SZ(bits) ((uint64_t)(bits))
#define CD_TG0(tg) ((uint64_t)(tg) << 6)
#define CD_ATTRIBUTES (1ull << 8 | 1ull << 10 | 3ull << 12)
#define CD_EPD0 BIT(14)
#define CD_ENDI BIT(15)
#define CD_EPD1 BIT(30)
#define CD_V BIT(31)
#define CD_IPS(ips) ((uint64_t)(ips) << 32)
#define CD_AFFD BIT(35)
#define CD_TBI0 BIT(38)
#define CD_PAN BIT(40)
#define CD_AA64 BIT(41)
#define CD_HD BIT(42)
#define CD_HA BIT(43)
#define CD_S BIT(44)
#define CD_R BIT(45)
#define CD_A BIT(46)
#define CD_ASET BIT(47)
#define CD_ASID(asid) ((uint64_t)(asid) << 48)
/* 48 bits, 4 KiB granule, 48-bit output; faults recorded and aborted. */
#define CD_PROCESS                                                                                       \
    (CD_T0SZ(16) | CD_TG0(0) | CD_ATTRIBUTES | CD_EPD1 | CD_V | CD_IPS(5) | CD_AA64 | CD_R | CD_A |     \
     CD_ASET | CD_ASID(ASID))
/* D1 */
#define CD_HAD0 BIT(1)

/* Where the checks have their things. */
#define CMDQ_LOG2 7
#define EVENTQ_LOG2 4
#define PRIQ_LOG2 2
#define STRTAB_LOG2 6
#define CDTAB_LOG2 6
#define PASID 5
#define ASID 0x12
/* Takes no access: between RAM and the ECAM. */
#define HOLE 0x3000000000ull

extern uint64_t smmu_cmdq[2 << CMDQ_LOG2];
extern uint64_t smmu_eventq[4 << EVENTQ_LOG2];
extern uint64_t smmu_priq[2 << PRIQ_LOG2];
extern uint64_t smmu_strtab[8 << STRTAB_LOG2];
extern uint64_t smmu_cdtab[8 << CDTAB_LOG2];

struct event {
    uint64_t d[4];
};

/* Everything off, no error active, nothing pending: what a check of registers starts from. */
void smmu_off(void);

/* Queues and a linear stream table whose entries abort, nothing enabled. */
void smmu_configure(void);

/* smmu_configure, then commands, events and translation on, caches empty. */
void smmu_start(void);

/* smmu_start, and what ATS and page requests need, here and in the first device. */
void smmu_start_services(void);

/* Writes SMMU_CR0 and waits for its acknowledgement; whether it came. */
bool smmu_enable(uint32_t cr0);
bool smmu_irq(uint32_t irq_ctrl);

/* Unacknowledged global errors. */
uint32_t smmu_errors(void);

/* SMMU_CMDQ_CONS.ERR */
uint32_t smmu_cerror(void);

/* Puts a command at PROD without telling the SMMU; its slot. */
uint64_t *smmu_put(uint64_t d0, uint64_t d1);
/* Moves PROD over what was put. */
void smmu_submit(void);
/* Both; whether the command was consumed. */
bool smmu_command(uint64_t d0, uint64_t d1);
/* Whether a command is refused as illegal; the queue then goes on behind it. */
bool smmu_is_illegal(uint64_t d0, uint64_t d1);
/* CMD_SYNC that answers into its own slot; whether the answer came. */
bool smmu_sync(void);
/* smmu_command and smmu_sync. */
bool smmu_invalidate(uint64_t d0, uint64_t d1);

void smmu_ste(uint32_t sid, uint64_t d0, uint64_t d1);
void smmu_ste_all(uint32_t sid, const uint64_t dwords[8]);
/* A linear table of contexts for a stream; accesses without PASID use context 0. */
void smmu_contexts(uint32_t sid);
void smmu_cd(uint32_t ssid, uint64_t d0, uint64_t ttb0);
/* smmu_contexts for the first device, and a context for PASID; its table. */
uint64_t *smmu_process(uint64_t cd_d0);

/* The next record; false if there is none. */
bool smmu_event(struct event *event);
/* Waits for the next record; false if none comes. */
bool smmu_await_event(struct event *event);
unsigned smmu_events_waiting(void);

struct page_request {
    uint64_t d[2];
};

/* The next page request; false if there is none. */
bool smmu_page_request(struct page_request *request);

/* A record of event, stream and, unless it is NO_SSID, SubstreamID. */
#define NO_SSID 0xffffffffu
uint64_t event_d0(uint32_t type, uint32_t sid, uint32_t ssid);

#endif
