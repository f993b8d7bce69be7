//! Nanoseconds for a walk in guest RAM.

#![allow(missing_docs, reason = "`criterion_group!` makes undocumented items")]

use criterion::{Criterion, criterion_group, criterion_main};
use hw::{Pa, Ram};
use vmsa::{Granule, WalkParams, walk};

fn four_levels(c: &mut Criterion) {
    let ram = Ram::new(&[(Pa(0x4000_0000), 0x10_0000)]).expect("a megabyte");
    for level in 0..3u64 {
        let table = 0x4000_0000 + 0x1000 * level;
        ram.store_u64(Pa(table), (table + 0x1000) | 3).expect("in RAM");
    }
    for page in 0..512u64 {
        ram.store_u64(Pa(0x4000_3000 + 8 * page), (0x4000_0000 + (page << 12)) | 0x743).expect("in RAM");
    }
    let params = WalkParams::stage1(0x4000_0000, Granule::K4, 48, 48);
    let mut va = 0u64;
    c.bench_function("walk of four levels", |b| {
        b.iter(|| {
            va = (va + 0x1000) & 0x1f_ffff;
            walk(&params, va, &ram)
        });
    });
}

criterion_group!(benches, four_levels);
criterion_main!(benches);
