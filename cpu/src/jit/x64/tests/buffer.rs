//! The buffer, labels and patching.

use iced_x86::{Decoder, DecoderOptions, Mnemonic};

use super::super::label::rel32;
use super::super::{Alu, Asm, AsmError, Cond, Gpr, HostFeatures, Mem, Size};
use super::{ORIGIN, code, decode};

/// The targets of the branches in `bytes`, in order.
fn targets(bytes: &[u8]) -> Vec<u64> {
    Decoder::with_ip(64, bytes, ORIGIN, DecoderOptions::NONE)
        .into_iter()
        .filter(|instruction| instruction.near_branch_target() != 0)
        .map(|instruction| instruction.near_branch_target())
        .collect()
}

/// What finishing says of code with `emit`.
fn error(emit: impl FnOnce(&mut Asm)) -> Option<AsmError> {
    let mut buffer = [0; 1024];
    // SAFETY: the buffer outlives the assembler and is used by nobody else meanwhile.
    let mut asm = unsafe { Asm::new(buffer.as_mut_ptr(), buffer.len(), ORIGIN) };
    emit(&mut asm);
    asm.finish().err()
}

#[test]
fn full_buffer_is_an_error_and_nothing_beyond_it_is_written() {
    let emits: [fn(&mut Asm); 5] = [
        |asm| asm.alu_imm(Alu::Add, Size::Qword, Mem::base(Gpr::R12, 0x1000), 0x1234_5678),
        |asm| asm.mov_imm64(Gpr::R9, 1),
        |asm| asm.lock().cmpxchg16b(Mem::base(Gpr::R12, 0x1000)),
        Asm::ret,
        |asm| asm.data(&[1; 21]),
    ];
    for emit in emits {
        for capacity in 24..80 {
            let mut buffer = [0xee; 128];
            // SAFETY: as above.
            let mut asm = unsafe { Asm::new(buffer.as_mut_ptr(), capacity, ORIGIN) };
            for _ in 0..200 {
                emit(&mut asm);
            }
            assert_eq!(asm.finish(), Err(AsmError::Full));
            assert!(asm.offset() <= capacity);
            assert!(buffer[capacity..].iter().all(|&byte| byte == 0xee), "{capacity}");
        }
    }
}

#[test]
fn code_within_the_room_that_was_told_is_complete() {
    let mut buffer = [0; 100];
    // SAFETY: as above.
    let mut asm = unsafe { Asm::new(buffer.as_mut_ptr(), buffer.len(), ORIGIN) };
    while asm.room() >= 10 {
        asm.mov_imm64(Gpr::Rax, u64::MAX);
    }
    assert_eq!(asm.finish(), Ok(70));
    // SAFETY: as above.
    unsafe { asm.restart(buffer.as_mut_ptr(), buffer.len(), ORIGIN) };
    assert_eq!(asm.finish(), Ok(0));
}

#[test]
fn restart_forgets_an_error_and_labels() {
    let mut buffer = [0; 100];
    // SAFETY: as above.
    let mut asm = unsafe { Asm::new(buffer.as_mut_ptr(), buffer.len(), ORIGIN) };
    let label = asm.label();
    asm.jmp(label);
    assert_eq!(asm.finish(), Err(AsmError::Unbound));
    // SAFETY: as above.
    unsafe { asm.restart(buffer.as_mut_ptr(), buffer.len(), ORIGIN + 64) };
    let label = asm.label_here();
    asm.jmp(label);
    assert_eq!(asm.finish(), Ok(2));
    assert_eq!(asm.here(), ORIGIN + 66);
}

#[test]
fn forward_jumps_lead_to_the_label_bound_later() {
    let bytes = code(|asm| {
        let (near, far) = (asm.label(), asm.label());
        asm.jmp(far);
        asm.jcc(Cond::Ge, far);
        asm.call_label(far);
        asm.jmp_short(near);
        asm.jcc_short(Cond::B, near);
        asm.nop(17);
        asm.bind(near);
        asm.nop(150);
        asm.bind(far);
        asm.ret();
    });
    let (near, far) = (ORIGIN + bytes.len() as u64 - 151, ORIGIN + bytes.len() as u64 - 1);
    assert_eq!(targets(&bytes), [far, far, far, near, near]);
    assert_eq!(bytes.len(), 5 + 6 + 5 + 2 + 2 + 17 + 150 + 1);
}

#[test]
fn backward_jump_is_short_as_far_as_that_reaches() {
    for (gap, short) in [(0, true), (126, true), (127, false), (200, false)] {
        for (emit, bytes) in
            [(Asm::jmp as fn(&mut Asm, _), 5), (|asm: &mut Asm, label| asm.jcc(Cond::Ne, label), 6)]
        {
            let bytes_of = code(|asm| {
                let label = asm.label_here();
                asm.nop(gap);
                emit(asm, label);
            });
            assert_eq!(targets(&bytes_of), [ORIGIN]);
            assert_eq!(bytes_of.len(), gap + if short { 2 } else { bytes });
        }
    }
}

#[test]
fn short_jump_over_more_than_it_reaches_is_an_error() {
    let over = |gap| {
        move |asm: &mut Asm| {
            let label = asm.label();
            asm.jcc_short(Cond::E, label);
            asm.nop(gap);
            asm.bind(label);
        }
    };
    assert_eq!(error(over(127)), None);
    assert_eq!(error(over(128)), Some(AsmError::OutOfReach));
}

#[test]
fn address_of_a_label_accounts_for_the_immediate_behind_it() {
    let bytes = code(|asm| {
        let label = asm.label();
        asm.alu_imm(Alu::Cmp, Size::Dword, Mem::At(label), 0x1234_5678);
        asm.bind(label);
        asm.data(&[1, 2, 3]);
    });
    assert_eq!(bytes[10..], [1, 2, 3]);
    assert_eq!(decode(&bytes[..10]).ip_rel_memory_address(), ORIGIN + 10);
}

#[test]
fn target_is_in_reach_up_to_two_gib() {
    let end = ORIGIN + 5;
    for (target, fits) in [
        (end + 0x7fff_ffff, true),
        (end + 0x8000_0000, false),
        (end - 0x8000_0000, true),
        (end - 0x8000_0001, false),
    ] {
        assert_eq!(error(|asm| asm.jmp_to(target)), (!fits).then_some(AsmError::OutOfReach));
        assert_eq!(rel32(ORIGIN + 1, target).is_some(), fits);
        let bytes = code(|asm| asm.call_far(target, Gpr::R11));
        assert_eq!(bytes.len(), if fits { 5 } else { 13 });
    }
    assert_eq!(error(|asm| asm.lea(Size::Qword, Gpr::Rax, Mem::Near(0))), Some(AsmError::OutOfReach));
}

#[test]
fn patchable_displacement_is_at_a_multiple_of_four_and_ends_the_branch() {
    let patchables: [fn(&mut Asm, u64) -> usize; 3] =
        [Asm::jmp_patchable, |asm, target| asm.jcc_patchable(Cond::S, target), Asm::call_patchable];
    for patchable in patchables {
        for before in 0..8 {
            let mut field = 0;
            let mut bytes = code(|asm| {
                asm.nop(before);
                field = patchable(asm, ORIGIN + 0x100);
                asm.ret();
            });
            assert_eq!((ORIGIN + field as u64) % 4, 0);
            assert_eq!(field + 5, bytes.len());
            assert_eq!(targets(&bytes), [ORIGIN + 0x100]);
            let distance = rel32(ORIGIN + field as u64, ORIGIN).unwrap();
            bytes[field..field + 4].copy_from_slice(&distance.to_le_bytes());
            assert_eq!(targets(&bytes), [ORIGIN]);
        }
    }
}

#[test]
fn patch_before_the_code_runs_changes_the_target() {
    let bytes = code(|asm| {
        let field = asm.jmp_patchable(ORIGIN);
        asm.nop(40);
        asm.patch_rel32(field, ORIGIN + 0x4000);
    });
    assert_eq!(targets(&bytes), [ORIGIN + 0x4000]);
}

#[test]
fn nops_have_the_length_asked_for_and_align_fills_up_with_them() {
    for length in 0..40 {
        let bytes = code(|asm| asm.nop(length));
        assert_eq!(bytes.len(), length);
        let decoded = Decoder::with_ip(64, &bytes, ORIGIN, DecoderOptions::NONE);
        assert!(decoded.into_iter().all(|instruction| instruction.mnemonic() == Mnemonic::Nop));
        let aligned = code(|asm| {
            asm.nop(length);
            asm.align(16);
        });
        assert_eq!(aligned.len(), length.next_multiple_of(16));
    }
}

#[test]
fn host_features_are_those_that_the_kernel_reports() {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap();
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let host = HostFeatures::get();
    for (name, ours) in [
        ("ssse3", host.ssse3),
        ("sse4_1", host.sse4_1),
        ("sse4_2", host.sse4_2),
        ("popcnt", host.popcnt),
        ("avx", host.avx),
        ("avx2", host.avx2),
        ("fma", host.fma),
        ("f16c", host.f16c),
        ("bmi1", host.bmi1),
        ("bmi2", host.bmi2),
        ("abm", host.lzcnt),
        ("movbe", host.movbe),
        ("aes", host.aes),
        ("pclmulqdq", host.pclmulqdq),
        ("sha_ni", host.sha),
        ("cx16", host.cmpxchg16b),
    ] {
        assert_eq!(ours, has(name), "{name}");
    }
}
