//! One command of a channel: what it asks for, and how it is carried out. No lock is held meanwhile.

use std::sync::{Arc, PoisonError};

use hw::ats::{AtsPort, AtsRefusal, PageRequest, PrgIndex, TranslationRequest};
use hw::mmio::value_of;
use hw::{DmaFault, DmaPort, DmaTag, Iova, Pa, Pasid, Requester, StreamId, Waiter};

use super::DmaTest;
use super::regs::{AtsInfo, Command, Status, Tag, completion, opcode};

/// No access crosses a boundary of this many bytes, as on PCI Express (2.2.7).
const PIECE_BYTES: u64 = 4096;

/// A command as its registers were when it was started.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) command: Command,
    pub(super) tag: Tag,
    pub(super) length: u32,
    pub(super) address: u64,
    pub(super) target: u64,
    pub(super) data: u64,
    pub(super) group: u16,
    /// Where its accesses wait.
    pub(super) waiter: Arc<Waiter>,
    /// The channel's age when it was started.
    pub(super) age: u64,
}

/// What came of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) status: Status,
    pub(super) bytes: u32,
    pub(super) fault: Option<u64>,
    pub(super) data: Option<u64>,
    pub(super) ats: Option<(u64, AtsInfo)>,
}

/// Why a command ended early.
enum Stop {
    BadCommand,
    Fault(DmaFault),
    Mismatch(u64),
}

impl From<DmaFault> for Stop {
    fn from(fault: DmaFault) -> Self {
        Self::Fault(fault)
    }
}

/// A range in pieces that cross no boundary: offset from its start, address, bytes. Addresses wrap.
fn pieces(start: u64, length: u32) -> impl Iterator<Item = (u64, u64, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = u64::from(length) - done;
        let at = start.wrapping_add(done);
        let bytes = left.min(PIECE_BYTES - at % PIECE_BYTES);
        let piece = (done, at, bytes as usize);
        done += bytes;
        (bytes > 0).then_some(piece)
    })
}

/// Bytes of a pattern that stands over and over from the start of a range, at an offset in it.
fn pattern(data: u64, offset: u64, bytes: usize) -> impl Iterator<Item = u8> {
    let pattern = data.to_le_bytes();
    (0..bytes).map(move |at| pattern[(offset as usize + at) % pattern.len()])
}

impl Job {
    fn dma_tag(&self, stream: StreamId) -> DmaTag {
        let pasid = if self.tag.has_pasid() { Pasid::new(self.tag.pasid()) } else { None };
        DmaTag {
            stream,
            pasid,
            privileged: pasid.is_some() && self.tag.privileged(),
            execute: pasid.is_some() && self.tag.execute(),
        }
    }

    /// The length of a command that makes one access.
    fn small(&self) -> Result<usize, Stop> {
        match self.length {
            1..=8 => Ok(self.length as usize),
            _ => Err(Stop::BadCommand),
        }
    }
}

impl DmaTest {
    /// Carries a command out.
    pub(super) fn run(&self, job: &Job) -> Outcome {
        let mut outcome = Outcome::default();
        let stopped = self.carry_out(job, &mut outcome).err();
        let status = Status::new().with_done(true);
        outcome.status = match stopped {
            None => status,
            Some(Stop::BadCommand) => status.with_bad_command(true),
            Some(Stop::Fault(DmaFault::Cancelled)) => status.with_given_up(true),
            Some(Stop::Fault(DmaFault::Aborted(at))) => {
                outcome.fault = Some(at.0);
                status.with_aborted(true)
            }
            Some(Stop::Mismatch(at)) => {
                outcome.fault = Some(at);
                status.with_mismatch(true)
            }
        };
        outcome
    }

    fn carry_out(&self, job: &Job, outcome: &mut Outcome) -> Result<(), Stop> {
        let stream = self.config.requester_id().unwrap_or(self.stream);
        let who = Requester { tag: job.dma_tag(stream), waiter: Arc::clone(&job.waiter), command: None };
        match job.command.opcode() {
            opcode::READ => {
                let mut data = [0; 8];
                let data = &mut data[..job.small()?];
                self.port.read(&who, Iova(job.address), data)?;
                outcome.data = Some(value_of(data));
                outcome.bytes = job.length;
            }
            opcode::WRITE => {
                let data = &job.data.to_le_bytes()[..job.small()?];
                self.port.write(&who, Iova(job.address), data)?;
                outcome.bytes = job.length;
            }
            opcode::FILL | opcode::COPY | opcode::CHECK => self.go_through(job, &who, outcome)?,
            opcode::TRANSLATE..=opcode::STOP_MARKER => {
                let ats = self.ats.as_deref().ok_or(Stop::BadCommand)?;
                let is_enabled = match job.command.opcode() {
                    opcode::PAGE_REQUEST | opcode::STOP_MARKER => self.config.page_request_control().is_on,
                    _ => self.config.is_ats_enabled(),
                };
                if !is_enabled || !self.config.may_request(&who.tag) {
                    return Err(DmaFault::Aborted(Iova(job.address)).into());
                }
                self.ask_agent(ats, job, &who.tag, outcome)?;
            }
            _ => return Err(Stop::BadCommand),
        }
        Ok(())
    }

    /// A command over a range.
    fn go_through(&self, job: &Job, who: &Requester, outcome: &mut Outcome) -> Result<(), Stop> {
        let mut buffer = vec![0; PIECE_BYTES as usize];
        for (offset, at, bytes) in pieces(job.address, job.length) {
            let buffer = &mut buffer[..bytes];
            let before = outcome.bytes;
            // What precedes the address of an abort has been transferred.
            let mut note = |fault: DmaFault, start: u64| {
                if let DmaFault::Aborted(iova) = fault {
                    outcome.bytes = before + iova.0.wrapping_sub(start).min(bytes as u64) as u32;
                }
                Stop::Fault(fault)
            };
            if job.command.opcode() == opcode::FILL {
                buffer.iter_mut().zip(pattern(job.data, offset, bytes)).for_each(|(to, from)| *to = from);
                self.port.write(who, Iova(at), buffer).map_err(|fault| note(fault, at))?;
            } else {
                self.port.read(who, Iova(at), buffer).map_err(|fault| note(fault, at))?;
            }
            if job.command.opcode() == opcode::COPY {
                for (skip, to, part) in pieces(job.target.wrapping_add(offset), bytes as u32) {
                    let part = &buffer[skip as usize..skip as usize + part];
                    let start = to.wrapping_sub(skip);
                    self.port.write(who, Iova(to), part).map_err(|fault| note(fault, start))?;
                }
            }
            if job.command.opcode() == opcode::CHECK {
                let wrong =
                    buffer.iter().zip(pattern(job.data, offset, bytes)).position(|(is, due)| *is != due);
                if let Some(wrong) = wrong {
                    outcome.bytes = before + wrong as u32;
                    return Err(Stop::Mismatch(at.wrapping_add(wrong as u64)));
                }
            }
            outcome.bytes = before + bytes as u32;
        }
        Ok(())
    }

    /// A command of address translation services.
    fn ask_agent(
        &self,
        ats: &dyn AtsPort,
        job: &Job,
        tag: &DmaTag,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        let address = Iova(job.address);
        match job.command.opcode() {
            opcode::TRANSLATE => {
                let request = TranslationRequest { tag: *tag, address, no_write: job.command.no_write() };
                outcome.ats = Some(match ats.request_translation(&request) {
                    Ok(answer) => {
                        let info = AtsInfo::new()
                            .with_read(answer.read)
                            .with_write(answer.write)
                            .with_execute(answer.execute)
                            .with_privileged(answer.privileged)
                            .with_global(answer.global)
                            .with_untranslated_only(answer.untranslated_only)
                            .with_size_log2(answer.size_log2);
                        (answer.address.0, info)
                    }
                    Err(refusal) => {
                        let code = match refusal {
                            AtsRefusal::UnsupportedRequest => completion::UNSUPPORTED_REQUEST,
                            AtsRefusal::CompleterAbort => completion::COMPLETER_ABORT,
                        };
                        (0, AtsInfo::new().with_completion(code))
                    }
                });
            }
            opcode::READ_TRANSLATED => {
                let mut data = [0; 8];
                let data = &mut data[..job.small()?];
                let _in_use = self.translated.read().unwrap_or_else(PoisonError::into_inner);
                ats.read_translated(tag.stream, Pa(job.address), data)?;
                outcome.data = Some(value_of(data));
                outcome.bytes = job.length;
            }
            opcode::WRITE_TRANSLATED => {
                let data = &job.data.to_le_bytes()[..job.small()?];
                let _in_use = self.translated.read().unwrap_or_else(PoisonError::into_inner);
                ats.write_translated(tag.stream, Pa(job.address), data)?;
                outcome.bytes = job.length;
            }
            opcode::PAGE_REQUEST => ats.request_page(&PageRequest {
                tag: *tag,
                address,
                read: job.command.read(),
                write: job.command.write(),
                last: job.command.last(),
                index: PrgIndex::new(job.group),
            }),
            opcode::STOP_MARKER => {
                let pasid = tag.pasid.ok_or(Stop::BadCommand)?;
                ats.request_page(&PageRequest::stop_marker(tag.stream, pasid));
            }
            _ => return Err(Stop::BadCommand),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_range_and_cross_no_boundary() {
        let all: Vec<_> = pieces(0xff8, 0x1010).collect();
        assert_eq!(all, [(0, 0xff8, 8), (8, 0x1000, 0x1000), (0x1008, 0x2000, 8)]);
        assert_eq!(pieces(0x1000, 0).count(), 0);
        let wrapped: Vec<_> = pieces(u64::MAX - 3, 8).collect();
        assert_eq!(wrapped, [(0, u64::MAX - 3, 4), (4, 0, 4)]);
    }

    #[test]
    fn pattern_goes_on_at_an_offset() {
        let bytes: Vec<u8> = pattern(0x0706_0504_0302_0100, 6, 4).collect();
        assert_eq!(bytes, [6, 7, 0, 1]);
    }
}
