//! Sites that miss more than they hit: accesses that go round more pages than one.
//!
//! Each miss of a [`Site`](crate::mem::tlb::Site) costs a branch that the host could not foresee, and the refill. Where misses
//! come in quick succession, the site is made wide: it covers the pages around its own that lie beside them in the host's
//! memory, too, as far as the TLB has them, and its misses leave it as it is. If that does not help either, the look into the TLB alone is
//! faster, and the code of the site begins with a jump to it from then on. When the region is left next, it is made anew
//! without that site, a few times at most.
//!
//! Hits are not counted, so it is the time that a number of misses takes that tells. Nothing that the guest sees depends on it.

use super::Jit;
use super::access::Look;
use crate::mem::tlb::{SITES, Tlb};
use crate::{Cpu, Tier};

/// Misses of a site after which the clock is looked at.
const MISSES: i32 = 256;

/// If they have taken less, in nanoseconds, they are too many: each is some 10 ns.
const QUICK: u64 = 60 * MISSES as u64;

/// Pages that a wide site has at least.
const WIDE: u64 = 8;

/// How often a site is made wide in quick succession: it is, again, when it has been forgotten, or more pages are known.
const WIDENINGS: u8 = 8;

/// How often a region is made anew without such sites.
pub(super) const RENEWALS: u8 = 4;

/// What becomes of the misses of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The site takes the page.
    Refilled,
    /// The site stays as it is.
    Wide,
    /// There is no look at the site any more.
    GivenUp,
}

/// A site's code.
#[derive(Clone, Copy, Debug)]
pub(super) struct SiteCode {
    /// Where the look at the site begins. It is longer than a jump, as is what `refill` leads to.
    start: u64,
    /// What a miss leads to.
    refill: u64,
    /// The look into the TLB, which goes on behind the site's code.
    without: u64,
    /// The instruction, by where it is.
    insn: usize,
    /// The first address of the region.
    region: u64,
    /// Of its access.
    look: Look,
    kind: Kind,
    /// How often it has been made wide lately.
    widenings: u8,
    /// When its misses were counted last, in guest time.
    since: Option<u64>,
}

impl SiteCode {
    pub(super) const fn new(
        start: u64,
        refill: u64,
        without: u64,
        (insn, region): (usize, u64),
        look: Look,
    ) -> Self {
        let (kind, widenings, since) = (Kind::Refilled, 0, None);
        Self { start, refill, without, insn, region, look, kind, widenings, since }
    }
}

/// How many more misses of each site are counted before [`miss`] is called. It stays where it is: code has its address.
pub(super) struct Patience(Box<[i32; SITES]>);

impl Patience {
    pub(super) fn new() -> Self {
        Self(Box::new([MISSES; SITES]))
    }

    /// Where the number of site 0 is, to be written by code.
    pub(super) fn start(&mut self) -> u64 {
        self.0.as_mut_ptr() as u64
    }

    pub(super) fn renew(&mut self) {
        self.0.fill(MISSES);
    }
}

/// A site has missed [`MISSES`] times, the last time for the page of `va`, which the TLB has.
pub(super) extern "C" fn miss(cpu: &mut Cpu, site: usize, va: u64) {
    // Where everything is translated at once, to be tested, nothing depends on a clock.
    let is_test = cpu.cluster.tier != Tier::Auto;
    if let Some(jit) = &mut cpu.jit {
        jit.look_at_site(site, va, cpu.cluster.clock.now_ns(), is_test, &mut cpu.mem.tlb);
    }
}

impl Jit {
    fn look_at_site(&mut self, number: usize, va: u64, now: u64, is_test: bool, tlb: &mut Tlb) {
        // In any case: the code that has called looks again, and calls until misses are counted anew.
        self.patience.0[number] = MISSES;
        let Some(site) = self.sites.get_mut(number) else { return };
        let is_quick = site.since.is_some_and(|since| now.saturating_sub(since) < QUICK);
        site.since = Some(now);
        if site.kind == Kind::GivenUp {
            self.patience.0[number] = i32::MAX;
        } else if !is_quick && !is_test {
            site.widenings = 0;
        } else if site.widenings < WIDENINGS && site.look.widen(tlb, number, va) >= WIDE {
            site.widenings += 1;
            if site.kind == Kind::Refilled {
                site.kind = Kind::Wide;
                let site = *site;
                self.redirect(site.refill as *const u8, site.without);
            }
        } else {
            site.kind = Kind::GivenUp;
            let site = *site;
            self.redirect(site.start as *const u8, site.without);
            // The region will look into the TLB in line when it is next left, and is made anew.
            self.siteless.insert(site.insn);
            self.outdated = Some(site.region);
        }
    }
}

#[cfg(test)]
mod tests {
    use hw::Pa;

    use super::*;
    use crate::Exit;
    use crate::testbed::{Bench, RAM, mmu_on_flat};

    /// Sums a word of each of `pages` pages, one after the other, `rounds` times: the sum, and how many sites have been given
    /// up.
    fn sum(pages: u64, rounds: u64) -> (u64, usize) {
        given_up(&summed(pages, rounds, 1).0)
    }

    /// The sum of a vCPU, and how many of its sites have been given up.
    fn given_up(cpu: &Cpu) -> (u64, usize) {
        let jit = cpu.jit.as_ref().unwrap();
        let is_jump = |site: &&SiteCode| {
            let place = jit.memory.to_write(site.start).unwrap();
            // SAFETY: the code of a site, which does not run now.
            unsafe { *place == 0xe9 }
        };
        (cpu.state.x[3], jit.sites.iter().filter(is_jump).count())
    }

    /// The same with `apart` pages from one to the next: 1 or 2.
    fn summed(pages: u64, rounds: u64, apart: u64) -> (Cpu, Bench) {
        const DATA: u64 = RAM + 0x10_0000;
        let bench = Bench::with_tier(1, Tier::Translated);
        bench.code(
            RAM,
            &[
                0x8a07_00a6,                        // loop: and x6, x5, x7
                0x8b06_2c22 + 0x400 * apart as u32, // add x2, x1, x6, lsl #12 or #13
                0xf940_0044,                        // ldr x4, [x2]
                0x8b04_0063,                        // add x3, x3, x4
                0xf940_0028,                        // ldr x8, [x1]
                0xf100_04a5,                        // subs x5, x5, #1
                0x54ff_ff41,                        // b.ne loop
                0x5280_0100,                        // mov w0, #0x8400_0008
                0x72b0_8000,
                0xd400_0002, // hvc #0
            ],
        );
        for page in 0..pages {
            bench.ram.write(Pa(DATA + 0x1000 * apart * page), &(page + 1).to_le_bytes()).unwrap();
        }
        let mut cpu = bench.cpu(0);
        cpu.set_boot_state(RAM, 0);
        mmu_on_flat(&mut cpu);
        (cpu.state.x[1], cpu.state.x[3], cpu.state.x[5], cpu.state.x[7]) =
            (DATA, 0, rounds * pages, pages - 1);
        assert_eq!(cpu.run(None), Exit::SystemOff);
        (cpu, bench)
    }

    #[test]
    fn region_made_anew_has_no_site_for_what_was_crowded_and_does_the_same() {
        let (mut cpu, _bench) = summed(4, 1000, 1);
        // If it was not left for something that was pending.
        cpu.renew_region();
        let jit = cpu.jit.as_ref().unwrap();
        assert_eq!((jit.sites.len(), jit.outdated), (2 + 1, None));

        cpu.cluster.resume();
        (cpu.state.pc, cpu.state.x[3], cpu.state.x[5]) = (RAM, 0, 400);
        assert_eq!((cpu.run(None), cpu.state.x[3]), (Exit::SystemOff, 1000));
        assert_eq!(cpu.jit.as_ref().unwrap().sites.len(), 3, "no other region was made");
    }

    #[test]
    fn site_that_misses_all_the_time_is_given_up_and_no_other() {
        assert_eq!(sum(4, 1000), (10_000, 1));
    }

    #[test]
    fn site_that_goes_round_pages_that_lie_side_by_side_covers_them_all() {
        let (cpu, _bench) = summed(64, 100, 1);
        assert_eq!(given_up(&cpu), (64 * 65 / 2 * 100, 0));
        let site = cpu.mem.tlb.sites[0];
        assert_eq!((site.tag, site.limit), (cpu.state.x[1], 64 * 0x1000 - 7));
        // It hits: nothing but what came before it was wide has been counted.
        let code = cpu.jit.as_ref().unwrap().sites[0];
        assert_eq!((code.kind, code.widenings), (Kind::Wide, 1));
    }

    #[test]
    fn wide_site_that_was_forgotten_is_made_wide_again() {
        let (mut cpu, _bench) = summed(64, 100, 1);
        for _ in 0..3 {
            cpu.mem.tlb.forget_sites();
            cpu.cluster.resume();
            (cpu.state.pc, cpu.state.x[3], cpu.state.x[5]) = (RAM, 0, 64 * 100);
            assert_eq!(cpu.run(None), Exit::SystemOff);
            assert_eq!(given_up(&cpu), (64 * 65 / 2 * 100, 0));
            assert_eq!(cpu.mem.tlb.sites[0].limit, 64 * 0x1000 - 7);
        }
    }

    #[test]
    fn site_that_goes_round_pages_that_lie_apart_is_given_up() {
        assert_eq!(given_up(&summed(64, 100, 2).0), (64 * 65 / 2 * 100, 1));
    }

    #[test]
    fn site_that_stays_in_its_page_is_kept() {
        assert_eq!(sum(1, 10_000), (10_000, 0));
    }
}
