//! A KVM vCPU's registers by their names (`KVM_GET_ONE_REG`, `KVM_SET_ONE_REG`).
//!
//! Core registers are named by their place in the kernel's `struct kvm_regs`, counted in words of 32 bits; system
//! registers by their encoding.

use std::io;

use hw::SysReg;
use kvm_bindings::{
    KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_ARM64_SYSREG, KVM_REG_SIZE_U64, KVM_REG_SIZE_U128,
};
use kvm_ioctls::VcpuFd;

/// A register's name.
#[derive(Clone, Copy)]
pub(super) struct Name(u64);

const fn core(size: u64, byte_offset: u64) -> Name {
    Name(KVM_REG_ARM64 | size | KVM_REG_ARM_CORE as u64 | byte_offset / 4)
}

/// Xn, for n up to 30.
pub(super) const fn x(n: u8) -> Name {
    core(KVM_REG_SIZE_U64, 8 * n as u64)
}

/// SP_EL0.
pub(super) const SP_EL0: Name = core(KVM_REG_SIZE_U64, 8 * 31);
/// The program counter.
pub(super) const PC: Name = core(KVM_REG_SIZE_U64, 8 * 32);
/// PSTATE, as SPSR holds it.
pub(super) const PSTATE: Name = core(KVM_REG_SIZE_U64, 8 * 33);
/// SP_EL1.
pub(super) const SP_EL1: Name = core(KVM_REG_SIZE_U64, 8 * 34);

/// Vn: behind ELR_EL1 and five SPSRs, at the next multiple of 16.
pub(super) const fn v(n: u8) -> Name {
    core(KVM_REG_SIZE_U128, 336 + 16 * n as u64)
}

const fn system(register: SysReg) -> Name {
    Name(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG as u64 | register.0 as u64)
}

/// Reads a register of 64 bits.
pub(super) fn get(fd: &VcpuFd, name: Name) -> io::Result<u64> {
    let mut bytes = [0; 8];
    fd.get_one_reg(name.0, &mut bytes).map_err(io::Error::from)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Writes a register of 64 bits.
pub(super) fn set(fd: &VcpuFd, name: Name, value: u64) -> io::Result<()> {
    fd.set_one_reg(name.0, &value.to_le_bytes()).map_err(io::Error::from)?;
    Ok(())
}

/// Reads a register of 128 bits.
pub(super) fn get_wide(fd: &VcpuFd, name: Name) -> io::Result<u128> {
    let mut bytes = [0; 16];
    fd.get_one_reg(name.0, &mut bytes).map_err(io::Error::from)?;
    Ok(u128::from_le_bytes(bytes))
}

/// Writes a register of 128 bits.
pub(super) fn set_wide(fd: &VcpuFd, name: Name, value: u128) -> io::Result<()> {
    fd.set_one_reg(name.0, &value.to_le_bytes()).map_err(io::Error::from)?;
    Ok(())
}

/// Reads a system register.
pub(super) fn sysreg(fd: &VcpuFd, register: SysReg) -> io::Result<u64> {
    get(fd, system(register))
}

/// Writes a system register.
pub(super) fn set_sysreg(fd: &VcpuFd, register: SysReg, value: u64) -> io::Result<()> {
    set(fd, system(register), value)
}
