//! Translation tables.

use std::cell::Cell;

use ::vmsa::{
    Access, AccessKind, ExternalAbort, Granule, Half, Permissions, Stage1Rules, TableMemory, WalkParams,
    in_range, walk,
};

use crate::input::Input;

/// Descriptors from the input, wherever the walker looks, again and again.
struct Descriptors {
    words: Vec<u64>,
    loads: Cell<usize>,
}

impl TableMemory for Descriptors {
    fn load(&self, pa: u64) -> Result<u64, ExternalAbort> {
        assert_eq!(pa % 8, 0, "descriptors are aligned");
        let loads = self.loads.get();
        self.loads.set(loads + 1);
        self.words.get(loads % self.words.len().max(1)).copied().ok_or(ExternalAbort)
    }
}

/// Walks tables of random descriptors with random parameters: a walk ends after at most four loads.
pub fn vmsa(data: &[u8]) {
    let mut input = Input::new(data);
    while !input.is_empty() {
        let granule = input.choose(&Granule::ALL);
        let (input_bits, output_bits) = (u32::from(input.u8() % 72), u32::from(input.u8() % 72));
        let stage1 = WalkParams::stage1(input.word(&[]), granule, input_bits, output_bits);
        let how = input.u8();
        let params = WalkParams {
            hierarchical_attrs_disabled: how & 1 != 0,
            access_flag_ignored: how & 2 != 0,
            // Stage 2 and nested walks name their own level.
            start_level: if how & 4 != 0 { how >> 4 } else { stage1.start_level },
            input_bits: if how & 8 != 0 { input_bits } else { stage1.input_bits },
            ..stage1
        };
        let address = input.word(&[]);
        let _ = (Half::of(address), in_range(address, input_bits, how & 1 != 0));
        // Mostly tables, then something.
        let words = (0..input.u8() % 5)
            .map(|_| match input.u8() {
                kind @ 0..0xc0 => input.u64() & !3 | u64::from(kind & 3) | u64::from(kind & 4) << 8,
                _ => input.u64(),
            })
            .collect();
        let memory = Descriptors { words, loads: Cell::new(0) };
        let leaf = walk(&params, address, &memory);
        assert!(memory.loads.get() <= 4, "{} loads", memory.loads.get());
        let Ok(leaf) = leaf else { continue };
        assert!(leaf.level <= 3 && leaf.size_log2 < 64, "{leaf:?}");
        let _ = leaf.translate(address);
        let rules = Stage1Rules { wxn: how & 0x10 != 0, has_el0: how & 0x20 != 0 };
        let permissions = Permissions::stage1(leaf.attributes, rules);
        for kind in [AccessKind::Read, AccessKind::Write, AccessKind::Execute] {
            let _ = permissions.allow(Access { kind, privileged: how & 0x40 != 0 }, how & 0x80 != 0);
        }
    }
}
