//! Command queue: fetch, execute, and what errors do (chapter 4, 7.1).
//!
//! Commands are executed by the thread that makes them visible (a vCPU's), or that ends the wait of a CMD_SYNC (an
//! endpoint's, or the alarm service's), one at a time over all threads. Nothing waits for the guest, and CMD_SYNC
//! waits only for accesses that are counted in, never for stalled ones. One register write executes no more commands
//! than the queue holds.

use std::ops::ControlFlow;
use std::sync::Weak;

use hw::ats::{InvalidateTag, PageResponse, PageResponseCode, PrgIndex};
use hw::trace::{Answers, Ending, Slice, SliceKind};
use hw::{AlarmTarget, Pa, Pasid, StreamId, Track};
use vmsa::Granule;

use crate::ats::Invalidations;
use crate::context::World;
use crate::queue::Ring;
use crate::smmu::Smmu;
use crate::spec::command::{
    AtcInvD1, AtsD0, COMMAND_BYTES, Opcode, PriRespD1, SYNC_MSI_ADDRESS, StreamD0, SyncD0, TlbiD0, TlbiD1,
    cs, resp,
};
use crate::spec::regs::{Cerror, QueueBase, SmmuReg, gerror, queue_index};
use crate::stalls::ResumeAction;
use crate::state::State;
use crate::stats::count;
use crate::tlb::{Extent, Space};

/// What is left to do once a command has taken effect.
enum Completion {
    Done,
    /// CMD_SYNC with CS = SIG_IRQ: this message, if any, and the wire.
    Signal(Option<(u64, u32)>),
    /// CMD_SYNC that waits for endpoints: CONS stays, and the end of the wait consumes the queue again.
    Waiting,
}

impl Smmu {
    pub(crate) fn command_ring(&self, state: &State) -> Ring {
        let base = QueueBase::from(state.get(SmmuReg::SMMU_CMDQ_BASE));
        Ring::new(base, self.features.cmdq_log2, COMMAND_BYTES, self.features.output_mask())
    }

    /// Executes the commands that are in the queue.
    pub(crate) fn consume_commands(&self) {
        let _one_at_a_time = self.consumer();
        let mut budget = None;
        loop {
            let (ring, cons) = {
                let state = self.state();
                let ring = self.command_ring(&state);
                let (prod, cons) = (state.word(SmmuReg::SMMU_CMDQ_PROD), state.word(SmmuReg::SMMU_CMDQ_CONS));
                let stopped = !state.cr0().cmdqen() || state.active_errors() & gerror::CMDQ_ERR != 0;
                if stopped || ring.is_empty(prod, cons) {
                    return;
                }
                (ring, cons)
            };
            // A thread that makes more commands visible meanwhile consumes them itself.
            let left = budget.get_or_insert(ring.capacity());
            if *left == 0 {
                return;
            }
            *left -= 1;
            if self.consume_one(&ring, cons).is_break() {
                return;
            }
        }
    }

    fn consume_one(&self, ring: &Ring, cons: u32) -> ControlFlow<()> {
        let at = ring.entry(cons);
        let fetched = self.ram.load_u64(Pa(at)).and_then(|d0| Ok((d0, self.ram.load_u64(Pa(at + 8))?)));
        let result = match fetched {
            Ok((d0, d1)) => {
                log::trace!("command {d0:#018x} {d1:#018x}");
                self.trace.begin(Track::SmmuCommands, || of_timeline(d0, d1));
                let result = self.execute(d0, d1);
                let ending = match &result {
                    Ok(Completion::Waiting) => Ending::Said("waits for endpoints"),
                    Ok(_) => Ending::Plain,
                    Err(_) => Ending::Said("error"),
                };
                self.trace.end(Track::SmmuCommands, SliceKind::SmmuCommand, ending);
                result
            }
            Err(_) => Err(Cerror::ABT),
        };
        let mut state = self.state();
        match result {
            Ok(Completion::Waiting) => return ControlFlow::Break(()),
            Ok(completion) => {
                let err = state.word(SmmuReg::SMMU_CMDQ_CONS) & queue_index::ERR_MASK;
                state.set_word(SmmuReg::SMMU_CMDQ_CONS, ring.next(cons) | err);
                if let Completion::Signal(message) = completion {
                    // With the lock held, so that software which has seen the message also reads the new CONS.
                    if let Some((address, data)) = message
                        && self.send_message(address, data).is_err()
                    {
                        self.raise(&mut state, gerror::MSI_CMDQ_ABT_ERR);
                    }
                    self.wires.cmdq_sync.pulse();
                }
            }
            Err(Cerror(reason)) => {
                let what = fetched.map_or("command", |(d0, _)| name_of(d0));
                self.errors.report(
                    "commands that stop the command queue",
                    format_args!("{what} at {at:#x} ends with {}", Cerror(reason).name()),
                );
                let err = u32::from(reason) << queue_index::ERR_SHIFT;
                state.set_word(SmmuReg::SMMU_CMDQ_CONS, cons & ring.index_mask() | err);
                self.raise(&mut state, gerror::CMDQ_ERR);
            }
        }
        ControlFlow::Continue(())
    }

    fn execute(&self, d0: u64, d1: u64) -> Result<Completion, Cerror> {
        let head = StreamD0::from(d0);
        let opcode = Opcode(head.opcode());
        let illegal = || {
            count(&self.stats.illegal_commands);
            Cerror::ILL
        };
        if opcode.name().is_none() || head.ssec() {
            return Err(illegal());
        }
        let (sid, ssid) = (head.sid(), head.ssid());
        match opcode {
            // Nothing is prefetched: hints may be ignored, and never record events.
            Opcode::PREFETCH_CONFIG | Opcode::PREFETCH_ADDR => {}
            Opcode::CFGI_STE | Opcode::CFGI_CD_ALL => self.configs.invalidate_stream(&self.age, sid),
            Opcode::CFGI_STE_RANGE => {
                self.configs.invalidate_streams(&self.age, sid, (d1 & 0x1f) as u32);
            }
            Opcode::CFGI_CD if d1 & 1 != 0 => self.configs.invalidate_context(&self.age, sid, ssid),
            // Without Leaf the level 1 descriptor is invalidated too, with all contexts that may have been found
            // through it.
            Opcode::CFGI_CD => self.configs.invalidate_stream(&self.age, sid),
            _ if opcode.is_tlbi() => self.invalidate_tlb(opcode, d0, d1).ok_or_else(illegal)?,
            Opcode::RESUME | Opcode::STALL_TERM if !self.features.can_stall() => return Err(illegal()),
            Opcode::RESUME => {
                // Ac is bit 12. Ab does not matter: TERM_MODEL is 1, terminated is aborted.
                let action = if d0 >> 12 & 1 != 0 { ResumeAction::Retry } else { ResumeAction::Abort };
                self.answer_stall(sid, d1 as u16, action);
            }
            Opcode::STALL_TERM => self.state().stalls.terminate(sid),
            Opcode::ATC_INV if !self.features.ats => return Err(illegal()),
            Opcode::PRI_RESP if !self.features.pri || PriRespD1::from(d1).resp() > resp::SUCCESS => {
                return Err(illegal());
            }
            Opcode::ATC_INV | Opcode::PRI_RESP if !self.state().cr0().smmuen() => {}
            Opcode::ATC_INV => self.endpoints.invalidate(&self.features, AtsD0::from(d0), AtcInvD1::from(d1)),
            Opcode::PRI_RESP => {
                let d1 = PriRespD1::from(d1);
                let response = PageResponse {
                    pasid: self.features.pasid(head.ssv().then(|| Pasid::new(ssid)).flatten()),
                    index: PrgIndex::new(d1.prg_index()),
                    code: match d1.resp() {
                        resp::FAILURE => PageResponseCode::ResponseFailure,
                        resp::INVALID => PageResponseCode::InvalidRequest,
                        resp::SUCCESS => PageResponseCode::Success,
                        resp => unreachable!("response code {resp} is illegal"),
                    },
                };
                self.answer_pages(sid, response);
            }
            Opcode::SYNC => {
                let sync = SyncD0::from(d0);
                if sync.cs() > cs::SIG_SEV {
                    return Err(illegal());
                }
                match self.endpoints.invalidations() {
                    Invalidations::Complete => {}
                    Invalidations::Waiting => return Ok(Completion::Waiting),
                    Invalidations::Failed => return Err(Cerror::ATC_INV_SYNC),
                }
                self.inflight.drain(&self.age);
                self.stats.command(opcode);
                if sync.cs() == cs::SIG_IRQ {
                    let address = d1 & SYNC_MSI_ADDRESS;
                    let message = (self.features.msi && address != 0).then(|| (address, sync.msi_data()));
                    return Ok(Completion::Signal(message));
                }
                return Ok(Completion::Done);
            }
            _ => unreachable!("{opcode:?} has a name, so it is among the commands above"),
        }
        if opcode.is_cfgi() {
            self.give_answers_of_ended_contexts();
        }
        self.stats.command(opcode);
        Ok(Completion::Done)
    }

    /// An endpoint has completed an invalidation.
    pub(crate) fn complete_invalidation(&self, sid: u32, tag: InvalidateTag) {
        // Not from within CMD_ATC_INV, whose thread has the consumer's lock: no CMD_SYNC waits then.
        if self.endpoints.complete(sid, tag) {
            self.consume_commands();
        }
    }

    /// CMD_TLBI_*; `None` if it is illegal (4.4).
    fn invalidate_tlb(&self, opcode: Opcode, d0: u64, d1: u64) -> Option<()> {
        let (tlb, age) = (&self.tlb, &self.age);
        let (d0, d1) = (TlbiD0::from(d0), TlbiD1::from(d1));
        let (vmid, asid) = (if self.features.stage2 { d0.vmid() } else { 0 }, d0.asid());
        let address = d1.address_63_12() << 12;
        let is_el2 = matches!(
            opcode,
            Opcode::TLBI_EL2_ALL | Opcode::TLBI_EL2_ASID | Opcode::TLBI_EL2_VA | Opcode::TLBI_EL2_VAA
        );
        let is_stage2 = matches!(opcode, Opcode::TLBI_S12_VMALL | Opcode::TLBI_S2_IPA);
        if (is_el2 || is_stage2) && !self.features.stage2 {
            return None;
        }
        match opcode {
            Opcode::TLBI_NSNH_ALL | Opcode::TLBI_EL2_ALL => tlb.invalidate_all(age),
            Opcode::TLBI_NH_ALL | Opcode::TLBI_S12_VMALL => tlb.invalidate_vmid(age, vmid),
            Opcode::TLBI_NH_ASID => tlb.invalidate_asid(age, Space::el1(vmid, asid)),
            Opcode::TLBI_EL2_ASID => tlb.invalidate_asid(age, Space::el2(World::El2E2h, asid)),
            Opcode::TLBI_NH_VA => tlb.invalidate_va(age, Space::el1(vmid, asid), address, extent(d0, d1)?),
            Opcode::TLBI_NH_VAA => {
                extent(d0, d1)?;
                tlb.invalidate_vmid(age, vmid);
            }
            Opcode::TLBI_EL2_VA => {
                let extent = extent(d0, d1)?;
                for world in [World::El2, World::El2E2h] {
                    tlb.invalidate_va(age, Space::el2(world, asid), address, extent);
                }
            }
            Opcode::TLBI_EL2_VAA => {
                extent(d0, d1)?;
                tlb.invalidate_all(age);
            }
            Opcode::TLBI_S2_IPA => {
                const IPA: u64 = 0x000f_ffff_ffff_f000;
                tlb.invalidate_ipa(age, vmid, address & IPA, extent(d0, d1)?);
            }
            _ => unreachable!("{opcode:?} is CMD_TLBI_*, so it is among the commands above"),
        }
        Some(())
    }
}

/// A command as a timeline has it.
fn of_timeline(d0: u64, d1: u64) -> Slice {
    let head = StreamD0::from(d0);
    let opcode = Opcode(head.opcode());
    let stream = StreamId(head.sid());
    let answers = match opcode {
        Opcode::RESUME => Some(Answers::Stall { stream, stag: d1 as u16 }),
        Opcode::PRI_RESP => Some(Answers::PageRequests { stream, group: PriRespD1::from(d1).prg_index() }),
        _ => None,
    };
    Slice::SmmuCommand { name: name_of(d0), dwords: [d0, d1], answers }
}

fn name_of(d0: u64) -> &'static str {
    Opcode(StreamD0::from(d0).opcode()).name().unwrap_or("unknown command")
}

/// Calls the SMMU when a CMD_SYNC has waited long enough for endpoints.
pub(crate) struct SyncTimeout(pub(crate) Weak<Smmu>);

impl AlarmTarget for SyncTimeout {
    fn alarm(&self) {
        if let Some(smmu) = self.0.upgrade()
            && smmu.endpoints.time_out()
        {
            smmu.consume_commands();
        }
    }
}

/// What a command by address covers (4.4.1). `None` for the reserved combination of a granule with no range and no
/// level.
fn extent(d0: TlbiD0, d1: TlbiD1) -> Option<Extent> {
    let granule = match d1.tg() {
        0 => return Some(Extent::Single),
        1 => Granule::K4,
        2 => Granule::K16,
        _ => Granule::K64,
    };
    // Without 52-bit output addresses no 16 KiB table has a leaf at level 1.
    let ttl = if granule == Granule::K16 && d1.ttl() == 1 { 0 } else { d1.ttl() };
    if d0.num() == 0 && d0.scale() == 0 && ttl == 0 {
        return None;
    }
    let granules = (u64::from(d0.num()) + 1).saturating_mul(1 << d0.scale());
    Some(Extent::Granules(granule, granules))
}
