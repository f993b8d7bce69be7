//! The DMA test device, without threads: the input says when it works.

use std::sync::{Arc, Weak};

use devices::dma_test::regs::{BAR0_BYTES, DmaTestReg};
use devices::dma_test::{DmaTest, DmaTestWiring};
use devices::pci::PciFunction;
use hw::ats::{
    AtsEndpoint, AtsPort, AtsRefusal, AtsTranslation, InvalidateRequest, InvalidateTag, PageRequest,
    PageResponse, PageResponseCode, PrgIndex, Stamp, TranslatedFault, TranslationRequest,
};
use hw::schedule::Stepped;
use hw::{DirectPort, DmaFault, Iova, Pa, Pasid, Ram, RecordingMsiSink, StreamId};

use crate::input::Input;
use crate::machine::{DOORBELL, PLACES, RAM, access, offsets, ram, scribble};

/// An agent that grants RAM as it is.
struct Agent(Arc<Ram>);

impl AtsPort for Agent {
    fn attach(&self, _: StreamId, _: Weak<dyn AtsEndpoint>) {}

    fn request_translation(&self, request: &TranslationRequest) -> Result<AtsTranslation, AtsRefusal> {
        let address = Pa(request.address.0 & !0xfff);
        if request.address.0 >> 63 != 0 {
            return Err(AtsRefusal::CompleterAbort);
        }
        let is_ram = self.0.contains(address, 1);
        Ok(AtsTranslation {
            address,
            size_log2: 12,
            read: is_ram,
            write: is_ram && !request.no_write,
            execute: false,
            privileged: request.tag.privileged,
            global: false,
            untranslated_only: false,
        })
    }

    fn read_translated_if(
        &self,
        _: StreamId,
        at: Pa,
        out: &mut [u8],
        _: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        Ok(self.0.read(at, out).map_err(|_| DmaFault::Aborted(Iova(at.0)))?)
    }

    fn write_translated_if(
        &self,
        _: StreamId,
        at: Pa,
        data: &[u8],
        _: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        Ok(self.0.write(at, data).map_err(|_| DmaFault::Aborted(Iova(at.0)))?)
    }

    fn await_translated(&self) {}

    fn request_page(&self, _: &PageRequest) {}

    fn invalidate_completed(&self, _: StreamId, _: InvalidateTag) {}
}

/// What a driver does first: bus master, PASIDs, messages, translation services.
fn bring_up(device: &DmaTest) {
    let dword = |at: u64| {
        let mut data = [0; 4];
        device.config().read(at, &mut data);
        u32::from_le_bytes(data)
    };
    let _ = device.config_write(4, &[6, 0]);
    let mut at = u64::from(dword(0x34) & 0xff);
    while at != 0 {
        if dword(at) & 0xff == 5 {
            let _ = device.config_write(at + 4, &DOORBELL.to_le_bytes());
            let _ = device.config_write(at + 2, &[0x31, 0]);
        }
        at = u64::from(dword(at) >> 8 & 0xff);
    }
    let mut at = 0x100;
    while at != 0 {
        // ATS, page requests, PASID.
        let enable: Option<(u64, [u8; 2])> = match dword(at) & 0xffff {
            0x0f => Some((6, [0, 0x80])),
            0x13 => Some((4, [1, 0])),
            0x1b => Some((6, [7, 0])),
            _ => None,
        };
        if let Some((offset, value)) = enable {
            let _ = device.config_write(at + offset, &value);
        }
        at = u64::from(dword(at) >> 20);
    }
}

/// Registers, commands that make sense, and what an agent sends.
pub fn dma_test(data: &[u8]) {
    let mut input = Input::new(data);
    let (ram, msi) = (ram(), Arc::new(RecordingMsiSink::new(Pa(DOORBELL))));
    let device = DmaTest::new(DmaTestWiring {
        stream: StreamId(8),
        dma: Arc::new(DirectPort::new(ram.clone(), msi.clone())),
        ats: Some(Arc::new(Agent(ram.clone()))),
        scheduler: Arc::new(Stepped),
    })
    .expect("nothing is started");
    bring_up(&device);
    let registers = offsets::<DmaTestReg>();
    let configuration: Vec<u64> = (0..0x100).step_by(4).chain((0x100..0x140).step_by(2)).collect();
    while !input.is_empty() {
        match input.u8() % 16 {
            0..5 => access(
                &mut input,
                BAR0_BYTES,
                &registers,
                |offset, data| device.bar_read(0, offset, data),
                |offset, data| device.bar_write(0, offset, data),
            ),
            5 => access(
                &mut input,
                0x1000,
                &configuration,
                |offset, data| {
                    device.config_read(offset, data);
                    Ok(())
                },
                |offset, data| {
                    if device.config_write(offset, data).reset {
                        device.function_reset();
                    }
                    Ok(())
                },
            ),
            6..10 => {
                // Addresses in RAM, a short length, and an opcode that is one.
                let channel = 0x1000 + 0x100 * u64::from(input.u8() % 8);
                for (offset, value) in [
                    (0x10, RAM + u64::from(input.u32() % 0x40_1000)),
                    (0x18, RAM + u64::from(input.u32() % 0x40_1000)),
                ] {
                    let _ = device.bar_write(0, channel + offset, &value.to_le_bytes());
                }
                for (offset, value) in
                    [(0xc, u32::from(input.u16())), (0, u32::from(input.u8() % 11) | input.u32() & 0x7_0300)]
                {
                    let _ = device.bar_write(0, channel + offset, &value.to_le_bytes());
                }
            }
            10 => {
                // Each channel and the messenger have one thing to do at most.
                for _ in 0..=9 {
                    device.step();
                }
                assert!(!device.step(), "the device never comes to rest");
            }
            11 => {
                let size_log2 = 12 + input.u8() % 53;
                let request = InvalidateRequest {
                    pasid: Pasid::new(input.u32()),
                    global: input.u8() & 1 != 0,
                    address: Iova(input.word(&PLACES)),
                    size_log2,
                };
                device.invalidate(&request, InvalidateTag(input.u16().into()));
            }
            12 => device.page_response(&PageResponse {
                pasid: Pasid::new(input.u32()),
                index: PrgIndex::new(input.u16()),
                code: input.choose(&[PageResponseCode::Success, PageResponseCode::ResponseFailure]),
            }),
            13 => scribble(&ram, &mut input, &PLACES),
            14 if input.u8() & 7 == 0 => device.function_reset(),
            _ => bring_up(&device),
        }
    }
    let _ = msi.take();
}
