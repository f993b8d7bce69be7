//! The system registers as they are declared: encodings, writable bits, values after reset, fields. What a read or a write does
//! is in [`super::regs`].
//!
//! Arm ARM (DDI 0487) C5.2 and D19. A place in the map is [`SysReg::place`] of the encoding. The GIC's registers (ICC_*) are declared by
//! the device that has them.

use hw::SysReg;
use hw::regmap::RegisterMap;

use super::debug::{BREAKPOINT_BAS, breakpoint_control, breakpoint_value, mdscr};
use super::features;
use crate::sizes::FREQUENCY_HZ;
use crate::state::SCTLR_RESET;

/// SPSR_EL1 bits that exist: N, Z, C, V, PAN, SS, IL, D, A, I, F, M\[4:0\].
pub(crate) const SPSR: u64 = 0xf070_03df;

/// MDSCR_EL1 bits that software can change: MDE, KDE, TDCC, SS.
const MDSCR: u64 = mdscr::MDE | mdscr::KDE | 1 << 12 | mdscr::SS;

const ALL: u64 = u64::MAX;
const WORD: u64 = u32::MAX as u64;

hw::register_map! {
    /// System registers of the built-in engine. Arm DDI 0487, C5.2 and D19; section numbers move between issues.
    ///
    /// Absent, so UNDEFINED: every register of a feature that the identification registers do not advertise.
    pub enum SystemReg {
        MIDR_EL1 @ (SysReg::place(3, 0, 0, 0, 0)): 8 Ro(0) = features::MIDR, "D19.2" {
            IMPLEMENTER[31:24] "0: none is claimed";
            VARIANT[23:20] "0";
            ARCHITECTURE[19:16] "as the ID registers say";
            PARTNUM[15:4] "of no product";
            REVISION[3:0] "0";
        };
        MPIDR_EL1 @ (SysReg::place(3, 0, 0, 0, 5)): 8 Ro(0) = 0x8000_0000, "D19.2" {
            U[30] "0: one of several";
            MT[24] "0: no threads";
            Aff3[39:32] "0";
            Aff2[23:16] "0";
            Aff1[15:8] "the vCPU's cluster of 16";
            Aff0[7:0] "the vCPU in its cluster";
        };
        /// Nothing more than MIDR_EL1 says.
        REVIDR_EL1 @ (SysReg::place(3, 0, 0, 0, 6)): 8 Ro(0) = 0, "D19.2";
        /// Nothing is claimed.
        AIDR_EL1 @ (SysReg::place(3, 1, 0, 0, 7)): 8 Ro(0) = 0, "D19.2";
        CCSIDR_EL1 @ (SysReg::place(3, 1, 0, 0, 0)): 8 Ro(0) = features::ccsidr(0), "D19.2" {
            NumSets[27:13] "sets of the cache that CSSELR_EL1 selects, less one";
            Associativity[12:3] "its ways, less one";
            LineSize[2:0] "log2 of the words of a line, less two";
        };
        CLIDR_EL1 @ (SysReg::place(3, 1, 0, 0, 1)): 8 Ro(0) = features::CLIDR, "D19.2" {
            LoUU[29:27] "level of unification for one PE";
            LoC[26:24] "level of coherence";
            LoUIS[23:21] "level of unification";
            Ctype2[5:3] "4: unified";
            Ctype1[2:0] "3: separate";
        };
        CSSELR_EL1 @ (SysReg::place(3, 2, 0, 0, 0)): 8 Rw(0xf) = 0, "D19.2" {
            Level[3:1] "of the cache, less one";
            InD[0] "the instruction cache";
        };
        CTR_EL0 @ (SysReg::place(3, 3, 0, 0, 1)): 8 Ro(0) = features::CTR, "D19.2" {
            DIC[29] "instruction caches need no invalidation";
            IDC[28] "data caches need no cleaning for instructions";
            CWG[27:24] "log2 of the words that are written back";
            ERG[23:20] "log2 of the words that a reservation covers";
            DminLine[19:16] "log2 of the words of a line of data";
            L1Ip[15:14] "3: by physical address";
            IminLine[3:0] "log2 of the words of a line of instructions";
        };
        DCZID_EL0 @ (SysReg::place(3, 3, 0, 0, 7)): 8 Ro(0) = features::DCZID, "D19.2" {
            DZP[4] "DC ZVA is forbidden here";
            BS[3:0] "log2 of the words that DC ZVA zeroes";
        };

        SPSel @ (SysReg::place(3, 0, 4, 2, 0)): 8 Special(1) = 1, "C5.2" {
            SP[0] "the exception level's own stack pointer is in use";
        };
        CurrentEL @ (SysReg::place(3, 0, 4, 2, 2)): 8 Ro(0) = 4, "C5.2" {
            EL[3:2] "exception level";
        };
        PAN @ (SysReg::place(3, 0, 4, 2, 3)): 8 Special(1 << 22) = 0, "C5.2" {
            PAN[22] "EL1 may not access what EL0 may";
        };
        NZCV @ (SysReg::place(3, 3, 4, 2, 0)): 8 Special(0xf000_0000) = 0, "C5.2" {
            N[31] "negative";
            Z[30] "zero";
            C[29] "carry";
            V[28] "overflow";
        };
        DAIF @ (SysReg::place(3, 3, 4, 2, 1)): 8 Special(0x3c0) = 0x3c0, "C5.2" {
            D[9] "debug exceptions are masked";
            A[8] "SErrors are masked";
            I[7] "interrupts are masked";
            F[6] "fast interrupts are masked";
        };

        SPSR_EL1 @ (SysReg::place(3, 0, 4, 0, 0)): 8 Rw(SPSR) = 0, "D19.2" {
            N[31] "negative";
            Z[30] "zero";
            C[29] "carry";
            V[28] "overflow";
            PAN[22] "as PAN";
            SS[21] "software step";
            IL[20] "the state is illegal";
            D[9] "debug exceptions are masked";
            A[8] "SErrors are masked";
            I[7] "interrupts are masked";
            F[6] "fast interrupts are masked";
            M[4:0] "exception level and stack pointer";
        };
        /// Where an exception returns to.
        ELR_EL1 @ (SysReg::place(3, 0, 4, 0, 1)): 8 Rw(ALL) = 0, "D19.2";
        /// The stack pointer of EL0. UNDEFINED while it is in use.
        SP_EL0 @ (SysReg::place(3, 0, 4, 1, 0)): 8 Special(ALL) = 0, "D19.2";
        /// More of a fault, of an implementation; only software writes it.
        AFSR0_EL1 @ (SysReg::place(3, 0, 5, 1, 0)): 8 Rw(WORD) = 0, "D19.2", Storage;
        /// More of a fault, of an implementation; only software writes it.
        AFSR1_EL1 @ (SysReg::place(3, 0, 5, 1, 1)): 8 Rw(WORD) = 0, "D19.2", Storage;
        ESR_EL1 @ (SysReg::place(3, 0, 5, 2, 0)): 8 Rw(WORD) = 0, "D19.2" {
            EC[31:26] "class of the exception";
            IL[25] "the instruction has 32 bits";
            ISS[24:0] "more of it";
        };
        /// The address that faulted.
        FAR_EL1 @ (SysReg::place(3, 0, 6, 0, 0)): 8 Rw(ALL) = 0, "D19.2";
        VBAR_EL1 @ (SysReg::place(3, 0, 12, 0, 0)): 8 Rw(u64::MAX << 11) = 0, "D19.2" {
            VBA[63:11] "where the vectors lie";
        };
        /// The reset address, which the machine sets otherwise.
        RVBAR_EL1 @ (SysReg::place(3, 0, 12, 0, 1)): 8 Ro(0) = 0, "D19.2";
        ISR_EL1 @ (SysReg::place(3, 0, 12, 1, 0)): 8 Ro(0) = 0, "D19.2" {
            A[8] "an SError is pending; never";
            I[7] "an interrupt is pending";
            F[6] "a fast interrupt is pending";
        };

        SCTLR_EL1 @ (SysReg::place(3, 0, 1, 0, 0)): 8 Rw(0x048d_d21f) = SCTLR_RESET, "D19.2" {
            UCI[26] "EL0 may maintain caches";
            SPAN[23] "exceptions leave PAN alone";
            WXN[19] "what can be written cannot be executed";
            nTWE[18] "EL0's WFE is not trapped";
            nTWI[16] "EL0's WFI is not trapped";
            UCT[15] "EL0 may read CTR_EL0";
            DZE[14] "EL0 may zero with DC ZVA";
            I[12] "instructions are cached; without effect";
            UMA[9] "EL0 may mask interrupts";
            SA0[4] "EL0's stack pointer has to be aligned";
            SA[3] "EL1's stack pointer has to be aligned";
            C[2] "data are cached; without effect";
            A[1] "accesses have to be aligned";
            M[0] "addresses are translated";
        };
        /// Nothing to control: reads as zero.
        ACTLR_EL1 @ (SysReg::place(3, 0, 1, 0, 1)): 8 Ro(0) = 0, "D19.2";
        CPACR_EL1 @ (SysReg::place(3, 0, 1, 0, 2)): 8 Rw(0x30_0000) = 0, "D19.2" {
            FPEN[21:20] "who may use FP and SIMD: 1 EL1, 3 EL0 too";
        };
        TTBR0_EL1 @ (SysReg::place(3, 0, 2, 0, 0)): 8 Rw(u64::MAX << 1) = 0, "D19.2" {
            ASID[63:48] "of the address space";
            BADDR[47:1] "where its tables lie";
        };
        TTBR1_EL1 @ (SysReg::place(3, 0, 2, 0, 1)): 8 Rw(u64::MAX << 1) = 0, "D19.2" {
            ASID[63:48] "of the address space";
            BADDR[47:1] "where its tables lie";
        };
        TCR_EL1 @ (SysReg::place(3, 0, 2, 0, 2)): 8 Rw(0x0077_ffff_ffbf) = 0, "D19.2" {
            TBI1[38] "the top byte of high addresses is ignored";
            TBI0[37] "the top byte of low addresses is ignored";
            AS[36] "ASIDs have 16 bits";
            IPS[34:32] "bits of a physical address, encoded";
            TG1[31:30] "granule of high addresses";
            SH1[29:28] "shareability of tables";
            ORGN1[27:26] "outer cacheability of tables";
            IRGN1[25:24] "inner cacheability of tables";
            EPD1[23] "high addresses are not walked";
            A1[22] "TTBR1_EL1 has the ASID";
            T1SZ[21:16] "high bits that a high address has set";
            TG0[15:14] "granule of low addresses";
            SH0[13:12] "shareability of tables";
            ORGN0[11:10] "outer cacheability of tables";
            IRGN0[9:8] "inner cacheability of tables";
            EPD0[7] "low addresses are not walked";
            T0SZ[5:0] "high bits that a low address has clear";
        };
        /// Result of an address translation by AT: bit 0 says that it failed.
        PAR_EL1 @ (SysReg::place(3, 0, 7, 4, 0)): 8 Rw(ALL) = 0, "D19.2";
        /// Eight memory types of a byte each, which tables name by number.
        MAIR_EL1 @ (SysReg::place(3, 0, 10, 2, 0)): 8 Rw(ALL) = 0, "D19.2";
        /// Nothing more to say of memory types: reads as zero.
        AMAIR_EL1 @ (SysReg::place(3, 0, 10, 3, 0)): 8 Ro(0) = 0, "D19.2";
        /// The process, for breakpoints that compare it.
        CONTEXTIDR_EL1 @ (SysReg::place(3, 0, 13, 0, 1)): 8 Rw(WORD) = 0, "D19.2";
        /// For software at EL1.
        TPIDR_EL1 @ (SysReg::place(3, 0, 13, 0, 4)): 8 Rw(ALL) = 0, "D19.2", Storage;
        /// For software at EL0.
        TPIDR_EL0 @ (SysReg::place(3, 3, 13, 0, 2)): 8 Rw(ALL) = 0, "D19.2", Storage;
        /// For software at EL0, which only reads it.
        TPIDRRO_EL0 @ (SysReg::place(3, 3, 13, 0, 3)): 8 Rw(ALL) = 0, "D19.2", Storage;

        /// A random number. NZCV is 0 afterwards: it is one.
        RNDR @ (SysReg::place(3, 3, 2, 4, 0)): 8 Special(0) = 0, "D19.2";
        /// As RNDR.
        RNDRRS @ (SysReg::place(3, 3, 2, 4, 1)): 8 Special(0) = 0, "D19.2";

        CNTKCTL_EL1 @ (SysReg::place(3, 0, 14, 1, 0)): 8 Rw(0x3ff) = 0, "D19.12" {
            EL0PTEN[9] "EL0 may use the physical timer";
            EL0VTEN[8] "EL0 may use the virtual timer";
            EVNTI[7:4] "which bit of the counter makes events; without effect";
            EVNTDIR[3] "which change of it; without effect";
            EVNTEN[2] "the counter makes events; without effect";
            EL0VCTEN[1] "EL0 may read the virtual counter";
            EL0PCTEN[0] "EL0 may read the physical counter";
        };
        /// Counts of a second, for software.
        CNTFRQ_EL0 @ (SysReg::place(3, 3, 14, 0, 0)): 8 Rw(WORD) = FREQUENCY_HZ, "D19.12", Storage;
        /// The counter.
        CNTPCT_EL0 @ (SysReg::place(3, 3, 14, 0, 1)): 8 Special(0) = 0, "D19.12";
        /// The counter: the same.
        CNTVCT_EL0 @ (SysReg::place(3, 3, 14, 0, 2)): 8 Special(0) = 0, "D19.12";
        /// Counts until the physical timer's time, 32 bits with sign.
        CNTP_TVAL_EL0 @ (SysReg::place(3, 3, 14, 2, 0)): 8 Special(WORD) = 0, "D19.12";
        CNTP_CTL_EL0 @ (SysReg::place(3, 3, 14, 2, 1)): 8 Special(0x3) = 0, "D19.12" {
            ISTATUS[2] "the time has come";
            IMASK[1] "it does not interrupt";
            ENABLE[0] "the timer is on";
        };
        /// The physical timer's time.
        CNTP_CVAL_EL0 @ (SysReg::place(3, 3, 14, 2, 2)): 8 Special(ALL) = 0, "D19.12";
        /// Counts until the virtual timer's time, 32 bits with sign.
        CNTV_TVAL_EL0 @ (SysReg::place(3, 3, 14, 3, 0)): 8 Special(WORD) = 0, "D19.12";
        CNTV_CTL_EL0 @ (SysReg::place(3, 3, 14, 3, 1)): 8 Special(0x3) = 0, "D19.12" {
            ISTATUS[2] "the time has come";
            IMASK[1] "it does not interrupt";
            ENABLE[0] "the timer is on";
        };
        /// The virtual timer's time.
        CNTV_CVAL_EL0 @ (SysReg::place(3, 3, 14, 3, 2)): 8 Special(ALL) = 0, "D19.12";

        /// The debug communication channel, in which nobody listens: reads as zero.
        OSDTRRX_EL1 @ (SysReg::place(2, 0, 0, 0, 2)): 8 Ro(0) = 0, "D19.3";
        MDCCINT_EL1 @ (SysReg::place(2, 0, 0, 2, 0)): 8 Rw(0x6000_0000) = 0, "D19.3", Storage {
            RX[30] "what arrives interrupts; never";
            TX[29] "room to send interrupts; never";
        };
        MDSCR_EL1 @ (SysReg::place(2, 0, 0, 2, 2)): 8 Rw(MDSCR) = 0, "D19.3" {
            MDE[15] "breakpoints and watchpoints are on";
            KDE[13] "at EL1 too";
            TDCC[12] "EL0 may not use the debug communication channel";
            SS[0] "software step";
        };
        /// The debug communication channel, in which nobody listens: reads as zero.
        OSDTRTX_EL1 @ (SysReg::place(2, 0, 0, 3, 2)): 8 Ro(0) = 0, "D19.3";
        /// Events that a debugger catches: none.
        OSECCR_EL1 @ (SysReg::place(2, 0, 0, 6, 2)): 8 Ro(0) = 0, "D19.3";
        /// Address, or context, of the breakpoint.
        DBGBVR0_EL1 @ (SysReg::place(2, 0, 0, 0, 4)): 8 Rw(breakpoint_value(0)) = 0, "D19.3";
        DBGBCR0_EL1 @ (SysReg::place(2, 0, 0, 0, 5)): 8 Rw(breakpoint_control(0)) = BREAKPOINT_BAS, "D19.3" {
            BT[23:20] "what it compares";
            LBN[19:16] "another one that has to match";
            SSC[15:14] "in which Security state";
            HMC[13] "at which exception levels";
            BAS[8:5] "always all bytes";
            PMC[2:1] "at which exception levels";
            E[0] "it is on";
        };
        DBGWVR0_EL1 @ (SysReg::place(2, 0, 0, 0, 6)): 8 Rw(u64::MAX << 2) = 0, "D19.3" {
            VA[63:2] "address of the watchpoint";
        };
        DBGWCR0_EL1 @ (SysReg::place(2, 0, 0, 0, 7)): 8 Rw(0x1f1f_ffff) = 0, "D19.3" {
            MASK[28:24] "low bits that are not compared";
            WT[20] "with another one";
            LBN[19:16] "another one that has to match";
            SSC[15:14] "in which Security state";
            HMC[13] "at which exception levels";
            BAS[12:5] "which bytes";
            LSC[4:3] "reads, writes or both";
            PAC[2:1] "at which exception levels";
            E[0] "it is on";
        };
        /// Address, or context, of the breakpoint.
        DBGBVR1_EL1 @ (SysReg::place(2, 0, 0, 1, 4)): 8 Rw(breakpoint_value(1)) = 0, "D19.3";
        DBGBCR1_EL1 @ (SysReg::place(2, 0, 0, 1, 5)): 8 Rw(breakpoint_control(1)) = BREAKPOINT_BAS, "D19.3" {
            BT[23:20] "what it compares";
            LBN[19:16] "another one that has to match";
            SSC[15:14] "in which Security state";
            HMC[13] "at which exception levels";
            BAS[8:5] "always all bytes";
            PMC[2:1] "at which exception levels";
            E[0] "it is on";
        };
        DBGWVR1_EL1 @ (SysReg::place(2, 0, 0, 1, 6)): 8 Rw(u64::MAX << 2) = 0, "D19.3" {
            VA[63:2] "address of the watchpoint";
        };
        DBGWCR1_EL1 @ (SysReg::place(2, 0, 0, 1, 7)): 8 Rw(0x1f1f_ffff) = 0, "D19.3" {
            MASK[28:24] "low bits that are not compared";
            WT[20] "with another one";
            LBN[19:16] "another one that has to match";
            SSC[15:14] "in which Security state";
            HMC[13] "at which exception levels";
            BAS[12:5] "which bytes";
            LSC[4:3] "reads, writes or both";
            PAC[2:1] "at which exception levels";
            E[0] "it is on";
        };
        /// Address, or context, of the breakpoint.
        DBGBVR2_EL1 @ (SysReg::place(2, 0, 0, 2, 4)): 8 Rw(breakpoint_value(2)) = 0, "D19.3";
        DBGBCR2_EL1 @ (SysReg::place(2, 0, 0, 2, 5)): 8 Rw(breakpoint_control(2)) = BREAKPOINT_BAS, "D19.3" {
            BT[23:20] "what it compares";
            LBN[19:16] "another one that has to match";
            SSC[15:14] "in which Security state";
            HMC[13] "at which exception levels";
            BAS[8:5] "always all bytes";
            PMC[2:1] "at which exception levels";
            E[0] "it is on";
        };
        DBGWVR2_EL1 @ (SysReg::place(2, 0, 0, 2, 6)): 8 Rw(u64::MAX << 2) = 0, "D19.3" {
            VA[63:2] "address of the watchpoint";
        };
        DBGWCR2_EL1 @ (SysReg::place(2, 0, 0, 2, 7)): 8 Rw(0x1f1f_ffff) = 0, "D19.3" {
            MASK[28:24] "low bits that are not compared";
            WT[20] "with another one";
            LBN[19:16] "another one that has to match";
            SSC[15:14] "in which Security state";
            HMC[13] "at which exception levels";
            BAS[12:5] "which bytes";
            LSC[4:3] "reads, writes or both";
            PAC[2:1] "at which exception levels";
            E[0] "it is on";
        };
        /// Address, or context, of the breakpoint.
        DBGBVR3_EL1 @ (SysReg::place(2, 0, 0, 3, 4)): 8 Rw(breakpoint_value(3)) = 0, "D19.3";
        DBGBCR3_EL1 @ (SysReg::place(2, 0, 0, 3, 5)): 8 Rw(breakpoint_control(3)) = BREAKPOINT_BAS, "D19.3" {
            BT[23:20] "what it compares";
            LBN[19:16] "another one that has to match";
            SSC[15:14] "in which Security state";
            HMC[13] "at which exception levels";
            BAS[8:5] "always all bytes";
            PMC[2:1] "at which exception levels";
            E[0] "it is on";
        };
        DBGWVR3_EL1 @ (SysReg::place(2, 0, 0, 3, 6)): 8 Rw(u64::MAX << 2) = 0, "D19.3" {
            VA[63:2] "address of the watchpoint";
        };
        DBGWCR3_EL1 @ (SysReg::place(2, 0, 0, 3, 7)): 8 Rw(0x1f1f_ffff) = 0, "D19.3" {
            MASK[28:24] "low bits that are not compared";
            WT[20] "with another one";
            LBN[19:16] "another one that has to match";
            SSC[15:14] "in which Security state";
            HMC[13] "at which exception levels";
            BAS[12:5] "which bytes";
            LSC[4:3] "reads, writes or both";
            PAC[2:1] "at which exception levels";
            E[0] "it is on";
        };
        /// No table of debug components.
        MDRAR_EL1 @ (SysReg::place(2, 0, 1, 0, 0)): 8 Ro(0) = 0, "D19.3";
        OSLAR_EL1 @ (SysReg::place(2, 0, 1, 0, 4)): 8 Wo(1) = 0, "D19.3" {
            OSLK[0] "sets the OS lock";
        };
        OSLSR_EL1 @ (SysReg::place(2, 0, 1, 1, 4)): 8 Ro(0) = 0xa, "D19.3" {
            OSLM[3] "there is an OS lock";
            OSLK[1] "it is set: no breakpoints, watchpoints and steps";
        };
        OSDLR_EL1 @ (SysReg::place(2, 0, 1, 3, 4)): 8 Rw(1) = 0, "D19.3" {
            DLK[0] "the double lock is set";
        };
        DBGPRCR_EL1 @ (SysReg::place(2, 0, 1, 4, 4)): 8 Rw(1) = 0, "D19.3", Storage {
            CORENPDRQ[0] "no power-down is asked for; without effect";
        };
        DBGCLAIMSET_EL1 @ (SysReg::place(2, 0, 7, 8, 6)): 8 Special(0xff) = 0xff, "D19.3" {
            CLAIM[7:0] "ones set; reads as all ones";
        };
        DBGCLAIMCLR_EL1 @ (SysReg::place(2, 0, 7, 9, 6)): 8 Special(0xff) = 0, "D19.3" {
            CLAIM[7:0] "ones clear; reads what is set";
        };
        /// No external debugger is authorised.
        DBGAUTHSTATUS_EL1 @ (SysReg::place(2, 0, 7, 14, 6)): 8 Ro(0) = 0, "D19.3";
        /// The debug communication channel is empty.
        MDCCSR_EL0 @ (SysReg::place(2, 3, 0, 1, 0)): 8 Ro(0) = 0, "D19.3";
        /// The debug communication channel, in which nobody listens: reads as zero.
        DBGDTR_EL0 @ (SysReg::place(2, 3, 0, 4, 0)): 8 Ro(0) = 0, "D19.3";
        /// The debug communication channel, in which nobody listens: reads as zero.
        DBGDTRRX_EL0 @ (SysReg::place(2, 3, 0, 5, 0)): 8 Ro(0) = 0, "D19.3";
        // The identification space; what is not here reads as zero.
        ID_AA64PFR0_EL1 @ (SysReg::place(3, 0, 0, 4, 0)): 8 Ro(0) = 0, "D19.2" {
            CSV3[63:60] "1: no leak of what a fault would have read";
            CSV2[59:56] "1: branch targets are of their own context";
            GIC[27:24] "1: the GIC's registers";
            AdvSIMD[23:20] "1: with half precision";
            FP[19:16] "1: with half precision";
            EL1[7:4] "1: AArch64";
            EL0[3:0] "1: AArch64";
        };
        ID_AA64DFR0_EL1 @ (SysReg::place(3, 0, 0, 5, 0)): 8 Ro(0) = 0, "D19.2" {
            CTX_CMPs[31:28] "breakpoints that compare contexts, less one";
            WRPs[23:20] "watchpoints, less one";
            BRPs[15:12] "breakpoints, less one";
            DebugVer[3:0] "6: Armv8";
        };
        ID_AA64ISAR0_EL1 @ (SysReg::place(3, 0, 0, 6, 0)): 8 Ro(0) = 0, "D19.2" {
            RNDR[63:60] "random numbers";
            TLB[59:56] "2: TLB maintenance by range";
            TS[55:52] "flag manipulation";
            FHM[51:48] "multiplication of halves";
            DP[47:44] "dot products";
            SHA3[35:32] "SHA3";
            RDM[31:28] "rounding doubling multiplication";
            Atomic[23:20] "2: atomic instructions";
            CRC32[19:16] "CRC32";
            SHA2[15:12] "SHA256, SHA512";
            SHA1[11:8] "SHA1";
            AES[7:4] "AES, PMULL";
        };
        ID_AA64ISAR1_EL1 @ (SysReg::place(3, 0, 0, 6, 1)): 8 Ro(0) = 0, "D19.2" {
            LRCPC[23:20] "loads that acquire";
            FCMA[19:16] "complex numbers";
            JSCVT[15:12] "conversion as JavaScript has it";
            DPB[3:0] "1: DC CVAP";
        };
        ID_AA64MMFR0_EL1 @ (SysReg::place(3, 0, 0, 7, 0)): 8 Ro(0) = 0, "D19.2" {
            TGran4[31:28] "0: 4 KiB granule";
            TGran64[27:24] "0: 64 KiB granule";
            TGran16[23:20] "1: 16 KiB granule";
            ASIDBits[7:4] "2: 16 bits";
            PARange[3:0] "5: 48 bits";
        };
        ID_AA64MMFR1_EL1 @ (SysReg::place(3, 0, 0, 7, 1)): 8 Ro(0) = 0, "D19.2" {
            PAN[23:20] "2: with AT S1E1RP and AT S1E1WP";
        };
        ID_AA64MMFR2_EL1 @ (SysReg::place(3, 0, 0, 7, 2)): 8 Ro(0) = 0, "D19.2" {
            AT[35:32] "unaligned accesses within 16 bytes are atomic";
        };
    }
}

impl SystemReg {
    /// Its encoding.
    #[must_use]
    pub const fn encoding(self) -> SysReg {
        SysReg::at(self.offset())
    }

    pub(super) const fn name(self) -> &'static str {
        Self::ALL[self as usize].1.name
    }

    /// Bits that software can change.
    pub(super) const fn writable(self) -> u64 {
        Self::ALL[self as usize].1.writable
    }

    pub(super) const fn reset(self) -> u64 {
        Self::ALL[self as usize].1.reset
    }
}

/// As after reset, the first vCPU's; of an identification register that follows from the features, by those.
#[must_use]
pub fn value_after_reset(features: features::Features, place: u64) -> u64 {
    let declared = SystemReg::locate(place).map_or(0, |at| at.reg.reset());
    let reg = SysReg::at(place);
    if declared == 0 && features::is_id(reg) { features::id_value(features, reg) } else { declared }
}
