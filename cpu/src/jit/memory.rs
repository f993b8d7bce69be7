//! Memory for generated code: one memory file that is mapped twice, to write to and to run from.
//!
//! No page is ever writable and executable at the same address, and writing new code needs no system call. The file's
//! descriptor is closed once both views exist, so that nobody can resize it, and sealing it would add nothing.
//!
//! Who writes where is not decided here: views are raw addresses, and the code cache that hands out parts of them has to
//! see to it that running code changes by [`CodeMemory::patch_rel32`] alone.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

/// One view of the file.
#[derive(Debug)]
struct View {
    start: *mut u8,
    bytes: usize,
}

impl View {
    fn new(file: &OwnedFd, bytes: usize, protection: libc::c_int) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), bytes })
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own. It cannot fail: address and length are those of `mmap`.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}

/// Two views of the same memory: one to write to, one to run from.
#[derive(Debug)]
pub(crate) struct CodeMemory {
    write: View,
    exec: View,
}

// SAFETY: the views are addresses; using what lies there is unsafe for the caller, or atomic.
unsafe impl Send for CodeMemory {}
// SAFETY: as above.
unsafe impl Sync for CodeMemory {}

impl CodeMemory {
    /// `bytes` of zeroes, of which the host provides the pages when they are first written to.
    ///
    /// # Errors
    /// If the host refuses: no memory file, not as many addresses, or no executable mapping.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let file = memory_file(c"code", bytes)?;
        let write = View::new(&file, bytes, libc::PROT_READ | libc::PROT_WRITE)?;
        let exec = View::new(&file, bytes, libc::PROT_READ | libc::PROT_EXEC)?;
        Ok(Self { write, exec })
    }

    /// How many bytes there are.
    pub(crate) fn bytes(&self) -> usize {
        self.write.bytes
    }

    /// Where the writable view starts.
    pub(crate) fn write_start(&self) -> *mut u8 {
        self.write.start
    }

    /// The address at which the executable view starts.
    pub(crate) fn exec_start(&self) -> u64 {
        self.exec.start as u64
    }

    /// How far from the start an address of the executable view is; none for other addresses.
    pub(crate) fn offset_of(&self, exec: u64) -> Option<usize> {
        let offset = usize::try_from(exec.checked_sub(self.exec_start())?).ok()?;
        (offset < self.bytes()).then_some(offset)
    }

    /// Where to write what runs at the address `exec`; none outside the executable view.
    pub(crate) fn to_write(&self, exec: u64) -> Option<*mut u8> {
        // SAFETY: the offset is within the view.
        self.offset_of(exec).map(|offset| unsafe { self.write.start.add(offset) })
    }

    /// Makes the jump or call whose 32-bit displacement is at address `field` of the executable view lead to `target`,
    /// while other threads may be running it: they see the old target or the new one. `field` must be a multiple of 4,
    /// as [`Asm::jmp_patchable`](super::x64::Asm::jmp_patchable) makes it. Gives whether that can be.
    ///
    /// What is at `target` must have been written before; the store has release semantics.
    #[must_use]
    pub(crate) fn patch_rel32(&self, field: u64, target: u64) -> bool {
        let Some(place) = self.to_write(field) else { return false };
        let Some(distance) = super::x64::label::rel32(field, target) else { return false };
        if !field.is_multiple_of(4) {
            return false;
        }
        // SAFETY: the place is in the writable view, which lives as long as `self`. It is a multiple of 4, since both
        // views start at pages, and so the 4 bytes end before the view does.
        unsafe { AtomicI32::from_ptr(place.cast()) }.store(distance.to_le(), Ordering::Release);
        true
    }
}

/// A memory file that may be mapped executable. Since Linux 6.3 one has to say so, and earlier kernels know no such flag.
fn memory_file(name: &CStr, bytes: usize) -> io::Result<OwnedFd> {
    let create = |flags| {
        // SAFETY: the name ends with a zero byte.
        match unsafe { libc::memfd_create(name.as_ptr(), flags) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the descriptor was just made and has no other owner.
            descriptor => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        }
    };
    let file = create(libc::MFD_CLOEXEC | libc::MFD_EXEC).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => create(libc::MFD_CLOEXEC),
        _ => Err(error),
    })?;
    let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: works on the descriptor alone.
    if unsafe { libc::ftruncate(file.as_raw_fd(), length) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::x64::{Asm, Gpr, Size};
    use super::*;

    fn asm_at(code: &CodeMemory, offset: usize) -> Asm {
        let start = code.to_write(code.exec_start() + offset as u64).unwrap();
        // SAFETY: each test has a memory of its own and emits one piece of code after the other.
        unsafe { Asm::new(start, 256, code.exec_start() + offset as u64) }
    }

    /// # Safety
    /// There is a function of this type at `exec`.
    unsafe fn run(exec: u64, argument: u64) -> u64 {
        // SAFETY: the caller's promise.
        let function: extern "sysv64" fn(u64) -> u64 = unsafe { std::mem::transmute(exec as *const ()) };
        function(argument)
    }

    #[test]
    fn code_written_to_one_view_runs_in_the_other() {
        let code = CodeMemory::new(1 << 16).unwrap();
        let mut asm = asm_at(&code, 0);
        asm.lea(Size::Qword, Gpr::Rax, super::super::x64::Mem::base(Gpr::Rdi, 42));
        asm.ret();
        asm.finish().unwrap();
        // SAFETY: just emitted.
        assert_eq!(unsafe { run(code.exec_start(), 100) }, 142);
    }

    #[test]
    fn patchable_jump_leads_to_its_new_target_after_a_patch() {
        let code = CodeMemory::new(1 << 16).unwrap();
        for (offset, value) in [(0x100, 1), (0x200, 2)] {
            let mut asm = asm_at(&code, offset);
            asm.mov_imm(Gpr::Rax, value);
            asm.ret();
            asm.finish().unwrap();
        }
        for start in 0x1000..0x1004 {
            let mut asm = asm_at(&code, start);
            let field = asm.jmp_patchable(code.exec_start() + 0x100);
            let field = asm.address(field);
            asm.finish().unwrap();
            let exec = code.exec_start() + start as u64;
            // SAFETY: just emitted.
            assert_eq!(unsafe { run(exec, 0) }, 1);
            assert!(code.patch_rel32(field, code.exec_start() + 0x200));
            // SAFETY: as above.
            assert_eq!(unsafe { run(exec, 0) }, 2);
        }
    }

    #[test]
    fn patch_is_refused_unaligned_outside_or_out_of_reach() {
        let code = CodeMemory::new(1 << 16).unwrap();
        let (start, end) = (code.exec_start(), code.exec_start() + code.bytes() as u64);
        assert!(code.patch_rel32(start, start));
        assert!(!code.patch_rel32(start + 2, start));
        assert!(!code.patch_rel32(start - 4, start));
        assert!(!code.patch_rel32(end, start));
        assert!(code.patch_rel32(end - 4, start));
        assert!(!code.patch_rel32(start, start.wrapping_add(1 << 40)));
    }

    #[test]
    fn addresses_of_the_executable_view_lead_to_the_writable_one_and_not_beyond() {
        let code = CodeMemory::new(1 << 16).unwrap();
        let last = code.exec_start() + code.bytes() as u64 - 1;
        for (exec, offset) in [(code.exec_start(), 0), (code.exec_start() + 77, 77), (last, (1 << 16) - 1)] {
            assert_eq!(code.to_write(exec), Some(code.write_start().wrapping_add(offset)));
        }
        assert_eq!(code.to_write(last + 1), None);
        assert_eq!(code.to_write(code.exec_start() - 1), None);
    }

    #[test]
    fn memory_of_an_impossible_size_is_an_error() {
        assert!(CodeMemory::new(0).is_err());
        assert!(CodeMemory::new(1 << 60).is_err());
        assert!(CodeMemory::new(usize::MAX).is_err());
    }

    #[test]
    fn memory_is_an_error_where_the_host_refuses_executable_mappings() {
        use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule};
        use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};

        // A filter binds the thread that installs it, and no other test's.
        let refused = std::thread::spawn(|| {
            let exec = libc::PROT_EXEC as u64;
            let condition =
                SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(exec), exec)
                    .unwrap();
            let rule = SeccompRule::new(vec![condition]).unwrap();
            let filter: BpfProgram = SeccompFilter::new(
                [(libc::SYS_mmap, vec![rule])].into(),
                SeccompAction::Allow,
                SeccompAction::Errno(libc::EACCES as u32),
                std::env::consts::ARCH.try_into().unwrap(),
            )
            .unwrap()
            .try_into()
            .unwrap();
            seccompiler::apply_filter(&filter).unwrap();
            CodeMemory::new(1 << 16).map(|_| ()).map_err(|error| error.kind())
        });
        assert_eq!(refused.join().unwrap(), Err(io::ErrorKind::PermissionDenied));
    }
}
