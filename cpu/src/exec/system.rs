//! System instructions: exception generation, hints, barriers, system registers.
//!
//! Arm ARM C3.1.3, C5. What they do to the machine is in `sys`; here are the operands, and the few registers that
//! live in [`crate::State`] itself.

use hw::SysReg;

use crate::exception::Class;
use crate::insn::Insn;
use crate::state::Flags;
use crate::sys::PstateField;
use crate::{Cpu, Exception};

/// FPCR bits that exist: AHP, DN, FZ, RMode. Trapped exceptions are not modelled: their enables read as zero.
pub(crate) const FPCR_BITS: u64 = 0x07c0_0000;
/// FPSR bits that exist: QC, IDC, IXC, UFC, OFC, DZC, IOC.
pub(crate) const FPSR_BITS: u64 = 0x0800_009f;

fn sysreg(i: &Insn) -> SysReg {
    SysReg(i.imm as u16)
}

pub(crate) fn svc(_cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    Err(Exception { far: 0, iss: i.imm as u32, class: Class::Svc })
}

pub(crate) fn hvc(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    cpu.hypervisor_call(i.imm as u16)
}

pub(crate) fn brk(_cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    Err(Exception { far: 0, iss: i.imm as u32, class: Class::Brk })
}

pub(crate) fn eret(cpu: &mut Cpu, _i: &Insn) -> Result<(), Exception> {
    cpu.exception_return()
}

#[inline(always)]
pub(crate) fn hint(_cpu: &mut Cpu, _i: &Insn) {}

/// YIELD: the guest waits in a loop. The vCPU that it waits for may be one whose thread waits for this processor of the
/// host, so that other threads get their turn.
pub(crate) fn give_way(cpu: &mut Cpu, _i: &Insn) {
    cpu.cluster.scheduler.yield_now();
}

pub(crate) fn wfe(cpu: &mut Cpu, _i: &Insn) -> Result<(), Exception> {
    cpu.wait_for_event()
}

pub(crate) fn wfi(cpu: &mut Cpu, _i: &Insn) -> Result<(), Exception> {
    cpu.wait_for_interrupt()
}

pub(crate) fn sev(cpu: &mut Cpu, _i: &Insn) {
    cpu.send_event(true);
}

pub(crate) fn sevl(cpu: &mut Cpu, _i: &Insn) {
    cpu.send_event(false);
}

/// ISB: the block ends here, and what follows is looked up again.
pub(crate) fn isb(_cpu: &mut Cpu, _i: &Insn) -> Result<(), Exception> {
    Ok(())
}

/// MSR (immediate). `a` is the place in this list that the table gives, `b` the value.
pub(crate) fn msr_imm(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    const FIELDS: [PstateField; 7] = [
        PstateField::SpSel,
        PstateField::DaifSet,
        PstateField::DaifClr,
        PstateField::Pan,
        PstateField::Uao,
        PstateField::Dit,
        PstateField::Ssbs,
    ];
    match FIELDS.get(usize::from(i.a)) {
        Some(&field) => cpu.write_pstate_field(field, i.b),
        None => Err(Exception::undefined()),
    }
}

pub(crate) fn cfinv(cpu: &mut Cpu, _i: &Insn) {
    cpu.state.flags.c ^= 1;
}

/// From the flags of a floating-point comparison to those of an alternative representation (FEAT_FlagM2).
pub(crate) fn axflag(cpu: &mut Cpu, _i: &Insn) {
    let nzcv = cpu.state.flags.nibble();
    let (z, c, v) = (nzcv >> 2 & 1, nzcv >> 1 & 1, nzcv & 1);
    cpu.state.flags = Flags::from_nzcv((z | v) << 30 | (c & (v ^ 1)) << 29);
}

/// The way back from [`axflag`].
pub(crate) fn xaflag(cpu: &mut Cpu, _i: &Insn) {
    let nzcv = cpu.state.flags.nibble();
    let (z, c) = (nzcv >> 2 & 1, nzcv >> 1 & 1);
    let (not_z, not_c) = (z ^ 1, c ^ 1);
    cpu.state.flags =
        Flags::from_nzcv((not_c & not_z) << 31 | (z & c) << 30 | (c | z) << 29 | (not_c & z) << 28);
}

pub(crate) fn mrs(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let value = cpu.read_sysreg(sysreg(i), i.a)?;
    cpu.set_x(i.rd, value);
    Ok(())
}

pub(crate) fn msr(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    cpu.write_sysreg(sysreg(i), i.a, cpu.x(i.rn))
}

pub(crate) fn mrs_nzcv(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.state.flags.nzcv().into());
}

pub(crate) fn msr_nzcv(cpu: &mut Cpu, i: &Insn) {
    cpu.state.flags = Flags::from_nzcv(cpu.w(i.rn));
}

pub(crate) fn mrs_fpcr(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.state.fpcr.into());
}

/// Translations depend on what FPCR asks for: the block ends here.
pub(crate) fn msr_fpcr(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    cpu.state.fpcr = (cpu.x(i.rn) & FPCR_BITS) as u32;
    cpu.context_changed();
    Ok(())
}

pub(crate) fn mrs_fpsr(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.state.fpsr.into());
}

pub(crate) fn msr_fpsr(cpu: &mut Cpu, i: &Insn) {
    cpu.state.fpsr = (cpu.x(i.rn) & FPSR_BITS) as u32;
}

pub(crate) fn dc_zva(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    sys(cpu, i)
}

/// SYS: DC, IC, AT, TLBI.
pub(crate) fn sys(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    cpu.system_instruction(sysreg(i), i.a, cpu.x(i.rn))
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use crate::insn::{Features, decode};
    use crate::interp::Handler;
    use crate::testbed::Bench;

    /// Leaves this thread, and those that it starts, one of the host's processors.
    fn keep_to_one_processor() {
        // SAFETY: the set is plain data, valid as zeros, and both calls are given its size.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let size = size_of::<libc::cpu_set_t>();
            assert_eq!(libc::sched_getaffinity(0, size, &mut set), 0);
            let first = (0..libc::CPU_SETSIZE as usize).find(|&cpu| libc::CPU_ISSET(cpu, &set)).unwrap();
            libc::CPU_ZERO(&mut set);
            libc::CPU_SET(first, &mut set);
            assert_eq!(libc::sched_setaffinity(0, size, &set), 0);
        }
    }

    /// Two vCPUs on one processor of the host, of which one waits for the other. A hint that does nothing is executed some
    /// hundred thousand times before the host's scheduler takes the processor away.
    #[test]
    fn yield_gives_the_hosts_processor_to_the_vcpu_that_is_waited_for() {
        const YIELD: u32 = 0xd503_203f;
        const TURNS: u32 = 100;
        let insn = decode(YIELD, 0, Features::default(), false);
        let Handler::Plain(handler) = insn.op.handler() else { panic!("YIELD always completes") };
        let waits = thread::spawn(move || {
            keep_to_one_processor();
            let bench = Bench::new(1);
            let mut cpu = bench.cpu(0);
            let turn = AtomicBool::new(false);
            let mut yields = 0;
            thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..TURNS {
                        while turn.load(Ordering::Acquire) {
                            thread::yield_now();
                        }
                        turn.store(true, Ordering::Release);
                    }
                });
                for _ in 0..TURNS {
                    while !turn.load(Ordering::Acquire) {
                        handler(&mut cpu, &insn);
                        yields += 1;
                    }
                    turn.store(false, Ordering::Release);
                }
            });
            yields
        });
        let yields = waits.join().unwrap();
        assert!(yields < 1000 * TURNS, "{yields} for {TURNS} turns");
    }
}
