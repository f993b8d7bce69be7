//! Sites that miss more than they hit: accesses that go round more pages than one remembers none.
//!
//! Each miss of a [`Site`](crate::mem::tlb::Site) costs a branch that the host could not foresee, and the refill. Where they
//! come in quick succession, the look into the TLB alone is faster: the code of the site then begins with a jump to it.
//! When the region is left next, it is made anew without it, a few times at most.
//! Hits are not counted, so it is the time that a number of misses takes that tells. Nothing that the guest sees depends on it.

use std::time::{Duration, Instant};

use super::Jit;
use crate::mem::tlb::SITES;
use crate::{Cpu, Tier};

/// Misses after which the clock is looked at.
const MISSES: i32 = 256;

/// If they have taken less, the site is not worth its misses, each of which is some 10 ns.
const QUICK: Duration = Duration::from_nanos(60 * MISSES as u64);

/// How often a region is made anew for such sites.
pub(super) const RENEWALS: u8 = 4;

/// A site, as it concerns us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowded {
    /// Where its code begins, which is longer than a jump.
    start: u64,
    /// The look into the TLB, which goes on behind the site's code.
    without: u64,
    /// The instruction, by where it is.
    insn: usize,
    /// The first address of the region.
    region: u64,
    /// When its misses were counted last.
    since: Option<Instant>,
}

impl Crowded {
    pub(super) const fn new(start: u64, without: u64, insn: usize, region: u64) -> Self {
        Self { start, without, insn, region, since: None }
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

/// A site has missed [`MISSES`] times.
pub(super) extern "C" fn miss(cpu: &mut Cpu, site: usize) {
    // Where everything is translated at once, to be tested, nothing depends on a clock.
    let is_test = cpu.cluster.tier != Tier::Auto;
    if let Some(jit) = &mut cpu.jit {
        jit.look_at_site(site, is_test);
    }
}

impl Jit {
    fn look_at_site(&mut self, number: usize, is_test: bool) {
        let now = Instant::now();
        let Some(site) = self.sites.get_mut(number) else { return };
        let is_quick = site.since.is_some_and(|since| now.duration_since(since) < QUICK);
        site.since = Some(now);
        let site = *site;
        if is_quick || is_test {
            self.redirect(site.start as *const u8, site.without);
            // The region will look into the TLB in line when it is next left, and is made anew.
            self.siteless.insert(site.insn);
            self.outdated = Some(site.region);
        }
        self.patience.0[number] = MISSES;
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
        let (cpu, _) = summed(pages, rounds);
        let jit = cpu.jit.as_ref().unwrap();
        let is_jump = |site: &&Crowded| {
            let place = jit.memory.to_write(site.start).unwrap();
            // SAFETY: the code of a site, which does not run now.
            unsafe { *place == 0xe9 }
        };
        (cpu.state.x[3], jit.sites.iter().filter(is_jump).count())
    }

    fn summed(pages: u64, rounds: u64) -> (Cpu, Bench) {
        const DATA: u64 = RAM + 0x10_0000;
        let bench = Bench::with_tier(1, Tier::Translated);
        bench.code(
            RAM,
            &[
                0x8a07_00a6, // loop: and x6, x5, x7
                0x8b06_3022, // add x2, x1, x6, lsl #12
                0xf940_0044, // ldr x4, [x2]
                0x8b04_0063, // add x3, x3, x4
                0xf940_0028, // ldr x8, [x1]
                0xf100_04a5, // subs x5, x5, #1
                0x54ff_ff41, // b.ne loop
                0x5280_0100, // mov w0, #0x8400_0008
                0x72b0_8000,
                0xd400_0002, // hvc #0
            ],
        );
        for page in 0..pages {
            bench.ram.write(Pa(DATA + 0x1000 * page), &(page + 1).to_le_bytes()).unwrap();
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
        let (mut cpu, _bench) = summed(4, 1000);
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
    fn site_that_stays_in_its_page_is_kept() {
        assert_eq!(sum(1, 10_000), (10_000, 0));
    }
}
