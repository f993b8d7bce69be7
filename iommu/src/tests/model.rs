//! The SMMU with its caches against a model without any: as long as software sends the commands that the architecture
//! asks for, both behave the same.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SPACES: usize = 3;
const BASE: u64 = 0x7f00_0000_0000;

/// How software makes its change known.
#[derive(Clone, Copy, Debug)]
enum Told {
    Range,
    Single,
    Asid,
    Everything,
}

#[derive(Clone, Debug)]
enum Step {
    /// Makes a page of a space point to a frame, read-only or not, or nowhere.
    Page {
        space: usize,
        page: u64,
        frame: Option<u64>,
        writable: bool,
        told: Told,
    },
    /// Gives a PASID another space, or none.
    Context {
        pasid: u32,
        space: Option<usize>,
    },
    /// Turns the stream to its contexts, or to abort.
    Stream {
        on: bool,
    },
    Access {
        pasid: u32,
        page: u64,
        write: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let told = prop::sample::select(vec![Told::Range, Told::Single, Told::Asid, Told::Everything]);
    prop_oneof![
        4 => (0..SPACES, 0u64..6, prop::option::weighted(0.7, 0u64..4), any::<bool>(), told).prop_map(
            |(space, page, frame, writable, told)| Step::Page { space, page, frame, writable, told }
        ),
        1 => (1u32..4, prop::option::weighted(0.8, 0..SPACES))
            .prop_map(|(pasid, space)| Step::Context { pasid, space }),
        1 => prop::bool::weighted(0.8).prop_map(|on| Step::Stream { on }),
        8 => (1u32..4, 0u64..6, any::<bool>())
            .prop_map(|(pasid, page, write)| Step::Access { pasid, page, write }),
    ]
}

fn asid(space: usize) -> u16 {
    0x40 + space as u16
}

fn frame_address(frame: u64) -> u64 {
    DATA + (frame << 12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn caches_are_invisible_to_software_that_invalidates(steps in prop::collection::vec(step(), 1..120)) {
        let m = Bench::new();
        let roots: Vec<u64> = (0..SPACES).map(|_| m.table(4096)).collect();
        m.contexts(SID);
        let mut stream_on = true;
        let mut contexts: HashMap<u32, usize> = HashMap::new();
        let mut pages: HashMap<(usize, u64), (u64, bool)> = HashMap::new();
        for frame in 0..4 {
            m.put(frame_address(frame), &[frame]);
        }
        for step in steps {
            match step {
                Step::Page { space, page, frame, writable, told } => {
                    let va = BASE + (page << 12);
                    let access = if writable { 0 } else { RO };
                    m.map(roots[space], va, 0, 0);
                    match frame {
                        Some(frame) => {
                            m.map(roots[space], va, frame_address(frame), USER_RW | access);
                            pages.insert((space, page), (frame, writable));
                        }
                        None => {
                            m.put(m.pte(roots[space], va), &[0]);
                            pages.remove(&(space, page));
                        }
                    }
                    match told {
                        Told::Range => m.tlbi_va(asid(space), va & !0x1fff, 2),
                        Told::Single => _ = m.command(u64::from(asid(space)) << 48 | 0x12, va),
                        Told::Asid => m.tlbi_asid(asid(space)),
                        Told::Everything => _ = m.command(0x30, 0),
                    }
                    m.sync();
                }
                Step::Context { pasid, space } => match space {
                    Some(space) => {
                        let d0 = CD_D0 & !(0xffff << 48) | u64::from(asid(space)) << 48;
                        m.cd(pasid, &[d0, roots[space]]);
                        contexts.insert(pasid, space);
                    }
                    None => {
                        m.cd(pasid, &[0]);
                        contexts.remove(&pasid);
                    }
                },
                Step::Stream { on } => {
                    if on {
                        m.contexts(SID);
                    } else {
                        m.ste(SID, &[1]);
                    }
                    stream_on = on;
                }
                Step::Access { pasid, page, write } => {
                    let expected = contexts
                        .get(&pasid)
                        .filter(|_| stream_on)
                        .and_then(|&space| pages.get(&(space, page)))
                        .filter(|(_, writable)| *writable || !write)
                        .map(|(frame, _)| *frame);
                    let (who, va) = (with_pasid(SID, pasid), BASE + (page << 12));
                    let found = if write {
                        // A frame is known by its first word; writing goes beside it.
                        m.write(&who, va + 8, &[1]).ok().map(|()| {
                            let hit = (0..4).find(|&frame| m.dword(frame_address(frame) + 8) != 0).unwrap();
                            m.put(frame_address(hit) + 8, &[0]);
                            hit
                        })
                    } else {
                        m.read(&who, va, 1).ok().map(|byte| byte[0].into())
                    };
                    prop_assert_eq!(found, expected, "pasid {} page {} write {}", pasid, page, write);
                }
            }
        }
    }
}
