//! PL011 UART: the guest's serial console.
//!
//! Arm DDI 0183G. 32-byte FIFOs, as revision 3 and later have. Time on the wire does not pass: a byte is sent when
//! the host takes it, and the receive timeout is over as soon as a byte is there. Bytes go out even before software
//! has enabled the UART, as they do behind firmware that has used it. Input that finds no room is not accepted, so
//! nothing is ever lost on the way in. Deliberately absent: DMA, IrDA, parity and framing errors, modem lines
//! (ready, and never changing).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitfield_struct::bitfield;
use hw::mmio::{put_value, value_of};
use hw::regmap::{RegisterMap, Store, whole_register};
use hw::saved::{Hex, Registers, RestoreError, SavedState};
use hw::{BusError, IrqLine, LifeCycle, MmioDevice};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[cfg(test)]
mod tests;

hw::register_map! {
    /// PL011 registers. Arm DDI 0183G, table 3-1.
    pub enum Pl011Reg {
        UARTDR @ 0x000: 4 Special(0xff) = 0, "3.3.1" {
            OE[11] "overrun: characters were lost before this one";
            BE[10] "a break, not a character";
            PE[9] "parity error; never";
            FE[8] "framing error; never";
            DATA[7:0] "the next character received, or one to send";
        };
        UARTRSR_ECR @ 0x004: 4 Special(0xf) = 0, "3.3.2" {
            OE[3] "overrun; a write of any value clears all four";
            BE[2] "of the last character read";
            PE[1] "of the last character read";
            FE[0] "of the last character read";
        };
        UARTFR @ 0x018: 4 Ro(0) = 0, "3.3.3" {
            RI[8] "ring indicator; never";
            TXFE[7] "transmit FIFO empty";
            RXFF[6] "receive FIFO full";
            TXFF[5] "transmit FIFO full";
            RXFE[4] "receive FIFO empty";
            BUSY[3] "characters are to be sent";
            DCD[2] "data carrier; always";
            DSR[1] "data set ready; always";
            CTS[0] "clear to send; always";
        };
        /// Divisor of the clock for IrDA, which is absent.
        UARTILPR @ 0x020: 4 Rw(0xff) = 0, "3.3.4", Storage;
        /// Integer part of the divisor: time on the wire does not pass.
        UARTIBRD @ 0x024: 4 Rw(0xffff) = 0, "3.3.5", Storage;
        /// Fraction of the divisor.
        UARTFBRD @ 0x028: 4 Rw(0x3f) = 0, "3.3.6", Storage;
        UARTLCR_H @ 0x02c: 4 Rw(0xff) = 0, "3.3.7" {
            SPS[7] "stick parity; without effect";
            WLEN[6:5] "bits of a character; without effect";
            FEN[4] "FIFOs are on; a change empties the receive FIFO";
            STP2[3] "two stop bits; without effect";
            EPS[2] "even parity; without effect";
            PEN[1] "parity; without effect";
            BRK[0] "send a break; without effect";
        };
        UARTCR @ 0x030: 4 Rw(0xff87) = 0x300, "3.3.8" {
            CTSEn[15] "hardware flow control; without effect";
            RTSEn[14] "hardware flow control; without effect";
            Out2[13] "modem line; without effect";
            Out1[12] "modem line; without effect";
            RTS[11] "modem line; without effect";
            DTR[10] "modem line; without effect";
            RXE[9] "the receiver is on";
            TXE[8] "the transmitter is on";
            LBE[7] "what is sent is received";
            SIRLP[2] "IrDA; without effect";
            SIREN[1] "IrDA; without effect";
            UARTEN[0] "the UART is on";
        };
        UARTIFLS @ 0x034: 4 Rw(0x3f) = 0x12, "3.3.9" {
            RXIFLSEL[5:3] "how full the receive FIFO interrupts";
            TXIFLSEL[2:0] "how empty the transmit FIFO interrupts";
        };
        UARTIMSC @ 0x038: 4 Rw(0x7ff) = 0, "3.3.10" {
            OEIM[10] "overrun interrupts";
            BEIM[9] "a break interrupts";
            PEIM[8] "parity error interrupts";
            FEIM[7] "framing error interrupts";
            RTIM[6] "receive timeout interrupts";
            TXIM[5] "transmit interrupts";
            RXIM[4] "receive interrupts";
            DSRMIM[3] "a change of DSR interrupts";
            DCDMIM[2] "a change of DCD interrupts";
            CTSMIM[1] "a change of CTS interrupts";
            RIMIM[0] "a change of RI interrupts";
        };
        /// What would interrupt, masked or not, with the bits of UARTIMSC.
        UARTRIS @ 0x03c: 4 Ro(0) = 0, "3.3.11";
        /// What interrupts, with the bits of UARTIMSC.
        UARTMIS @ 0x040: 4 Ro(0) = 0, "3.3.12";
        /// Ones end an interrupt, with the bits of UARTIMSC.
        UARTICR @ 0x044: 4 Wo(0x7ff) = 0, "3.3.13";
        UARTDMACR @ 0x048: 4 Rw(0x7) = 0, "3.3.14", Storage {
            DMAONERR[2] "no DMA after an error; there is no DMA";
            TXDMAE[1] "DMA to send";
            RXDMAE[0] "DMA to receive";
        };
        /// Part 0x011, designer Arm, revision r1p5.
        UARTPeriphID[4; 4] @ 0xfe0: 4 Ro(0) = 0, "3.3.15";
        /// A PrimeCell.
        UARTPCellID[4; 4] @ 0xff0: 4 Ro(0) = 0, "3.3.16";
    }
}

/// Part 0x011, designer Arm, revision r1p5: the first with 32-byte FIFOs.
const PERIPH_ID: [u8; 4] = [0x11, 0x10, 0x34, 0x00];
const PCELL_ID: [u8; 4] = [0x0d, 0xf0, 0x05, 0xb1];

/// Bytes in each FIFO.
pub const FIFO_BYTES: usize = 32;

/// UARTFR: flags (3.3.3). Modem lines read as asserted.
#[bitfield(u32)]
struct Flags {
    cts: bool,
    dsr: bool,
    dcd: bool,
    busy: bool,
    rxfe: bool,
    txff: bool,
    rxff: bool,
    txfe: bool,
    ri: bool,
    #[bits(23)]
    _reserved: u32,
}

/// UARTCR (3.3.8): what the model uses of it.
#[bitfield(u32)]
struct Control {
    uarten: bool,
    #[bits(6)]
    _siren_sirlp: u8,
    lbe: bool,
    txe: bool,
    rxe: bool,
    #[bits(22)]
    _modem: u32,
}

/// Bits of the interrupt registers (3.3.11).
const RXIS: u32 = 1 << 4;
const TXIS: u32 = 1 << 5;
const RTIS: u32 = 1 << 6;
const BEIS: u32 = 1 << 9;
const OEIS: u32 = 1 << 10;
/// UARTLCR_H.FEN: FIFOs on.
const FEN: u32 = 1 << 4;
/// UARTDR and UARTRSR: break, overrun; in the data register they are 8 bits further up.
const DR_BREAK: u16 = 1 << 10;
const DR_OVERRUN: u16 = 1 << 11;
const RSR_OVERRUN: u32 = 1 << 3;

/// The host's end of the wire. Called on vCPU threads under the UART's lock: neither waits nor calls the UART.
pub trait ConsoleOut: Send + Sync {
    /// Takes bytes that the guest has sent, and says how many of them. With less than all, the rest waits in the
    /// UART's FIFO until [`Pl011::output_room`].
    fn write(&self, bytes: &[u8]) -> usize;

    /// There is room for input again, after [`Pl011::receive`] had not taken all: wakes the thread that will call it
    /// once more.
    fn input_room(&self) {}
}

/// The UART as it is saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UartState {
    registers: Registers,
    /// Received characters, with their error bits, as UARTDR gives them.
    receive_fifo: Vec<Hex>,
    /// The next received character gets the overrun bit.
    overrun: bool,
    /// Bytes that the host has not taken.
    transmit_fifo: Vec<Hex>,
}

impl SavedState for UartState {
    const VERSION: u32 = 1;
}

/// Registers with a state of their own.
const fn is_saved(reg: Pl011Reg) -> bool {
    use Pl011Reg as Reg;
    match reg {
        Reg::UARTRSR_ECR
        | Reg::UARTILPR
        | Reg::UARTIBRD
        | Reg::UARTFBRD
        | Reg::UARTLCR_H
        | Reg::UARTCR
        | Reg::UARTIFLS
        | Reg::UARTIMSC
        | Reg::UARTRIS
        | Reg::UARTDMACR => true,
        Reg::UARTDR | Reg::UARTFR | Reg::UARTMIS | Reg::UARTICR | Reg::UARTPeriphID | Reg::UARTPCellID => {
            false
        }
    }
}

/// The UART.
pub struct Pl011 {
    front: Mutex<Front>,
    console: Arc<dyn ConsoleOut>,
    irq: Arc<dyn IrqLine>,
}

#[derive(Debug)]
struct Front {
    registers: Store<Pl011Reg>,
    /// Received characters, each with its error bits as in UARTDR.
    rx: VecDeque<u16>,
    /// The next received character gets the overrun bit.
    overrun: bool,
    tx: VecDeque<u8>,
    /// The host has input for which there was no room.
    input_waits: bool,
}

impl Front {
    fn at_reset() -> Self {
        Self {
            registers: Store::at_reset(),
            rx: VecDeque::with_capacity(FIFO_BYTES),
            overrun: false,
            tx: VecDeque::with_capacity(FIFO_BYTES),
            input_waits: false,
        }
    }

    fn word(&self, reg: Pl011Reg) -> u32 {
        self.registers.word(reg)
    }

    fn control(&self) -> Control {
        Control::from_bits(self.word(Pl011Reg::UARTCR))
    }

    fn has_fifos(&self) -> bool {
        self.word(Pl011Reg::UARTLCR_H) & FEN != 0
    }

    /// What interrupts: UARTMIS.
    fn masked(&self) -> u32 {
        self.word(Pl011Reg::UARTRIS) & self.word(Pl011Reg::UARTIMSC)
    }

    fn raise(&mut self, interrupts: u32) {
        self.registers.set_word(Pl011Reg::UARTRIS, self.word(Pl011Reg::UARTRIS) | interrupts);
    }

    fn lower(&mut self, interrupts: u32) {
        self.registers.set_word(Pl011Reg::UARTRIS, self.word(Pl011Reg::UARTRIS) & !interrupts);
    }

    fn save(&self) -> UartState {
        let Self { registers, rx, overrun, tx, input_waits: _ } = self;
        UartState {
            registers: Registers::of(is_saved, |reg, _| registers.get(reg)),
            receive_fifo: rx.iter().map(|&character| Hex(character.into())).collect(),
            overrun: *overrun,
            transmit_fifo: tx.iter().map(|&byte| Hex(byte.into())).collect(),
        }
    }

    fn restored(state: UartState) -> Result<Self, RestoreError> {
        let UartState { registers, receive_fifo, overrun, transmit_fifo } = state;
        let mut front = Self::at_reset();
        registers
            .restore(is_saved, |reg: Pl011Reg, _, value| {
                // Interrupts are the UART's to raise; the others are what a write leaves.
                let possible = match reg {
                    Pl011Reg::UARTRIS => u64::from(RXIS | TXIS | RTIS | BEIS | OEIS),
                    _ => reg.info().writable,
                };
                front.registers.restore(reg, 0, value, possible)
            })
            .map_err(|error| error.within("registers"))?;
        // What is to be sent stays when FIFOs are switched off; what has been received goes.
        for (name, len, depth) in [
            ("receive_fifo", receive_fifo.len(), front.depth()),
            ("transmit_fifo", transmit_fifo.len(), FIFO_BYTES),
        ] {
            if len > depth {
                return Err(RestoreError::value(name, format!("{len} characters; {depth} fit")));
            }
        }
        for Hex(character) in receive_fifo {
            let bits = u64::from(DR_BREAK | DR_OVERRUN) | 0xff;
            let character = u16::try_from(character).ok().filter(|&c| u64::from(c) & !bits == 0);
            let character =
                character.ok_or_else(|| RestoreError::value("receive_fifo", "has no such character"))?;
            front.rx.push_back(character);
        }
        for Hex(byte) in transmit_fifo {
            let byte =
                u8::try_from(byte).map_err(|_| RestoreError::value("transmit_fifo", "has no such byte"))?;
            front.tx.push_back(byte);
        }
        front.overrun = overrun;
        Ok(front)
    }

    /// Characters that fit into a FIFO: one, in the holding register, while FIFOs are off.
    fn depth(&self) -> usize {
        if self.has_fifos() { FIFO_BYTES } else { 1 }
    }

    /// The level of UARTIFLS field `shift` (3.3.9): 1/8, 1/4, 1/2, 3/4 or 7/8 of the FIFO.
    fn trigger(&self, shift: u32) -> usize {
        if !self.has_fifos() {
            return 1;
        }
        match self.word(Pl011Reg::UARTIFLS) >> shift & 7 {
            0 => FIFO_BYTES / 8,
            1 => FIFO_BYTES / 4,
            3 => FIFO_BYTES * 3 / 4,
            4 => FIFO_BYTES * 7 / 8,
            _ => FIFO_BYTES / 2, // 2, and the reserved encodings
        }
    }

    fn rx_trigger(&self) -> usize {
        self.trigger(3)
    }

    fn rx_room(&self) -> usize {
        // What arrives at a disabled receiver would be lost: it is kept back instead.
        let control = self.control();
        if control.uarten() && control.rxe() { self.depth().saturating_sub(self.rx.len()) } else { 0 }
    }

    fn push_rx(&mut self, character: u16) {
        if self.rx.len() >= self.depth() {
            self.overrun = true;
            let errors = self.word(Pl011Reg::UARTRSR_ECR) | RSR_OVERRUN;
            self.registers.set_word(Pl011Reg::UARTRSR_ECR, errors);
            self.raise(OEIS);
            return;
        }
        let overrun = if std::mem::take(&mut self.overrun) { DR_OVERRUN } else { 0 };
        self.rx.push_back(character | overrun);
        if self.rx.len() == self.rx_trigger() {
            self.raise(RXIS);
        }
        self.raise(RTIS);
    }

    fn pop_rx(&mut self) -> u16 {
        let character = self.rx.pop_front().unwrap_or(0);
        self.registers.set_word(Pl011Reg::UARTRSR_ECR, u32::from(character >> 8) & 0xf);
        if self.rx.len() < self.rx_trigger() {
            self.lower(RXIS);
        }
        if self.rx.is_empty() {
            self.lower(RTIS);
        } else {
            self.raise(RTIS);
        }
        character
    }

    /// Hands what waits in the transmit FIFO to the host, or around the loop.
    fn transmit(&mut self, console: &dyn ConsoleOut) {
        if self.control().lbe() {
            while let Some(byte) = self.tx.pop_front() {
                self.push_rx(byte.into());
            }
        } else if !self.tx.is_empty() {
            let taken = console.write(self.tx.make_contiguous()).min(self.tx.len());
            self.tx.drain(..taken);
        }
        // With FIFOs off the trigger is the empty holding register.
        let level = if self.has_fifos() { self.trigger(0) } else { 0 };
        if self.tx.len() <= level {
            self.raise(TXIS);
        }
    }

    fn flags(&self) -> Flags {
        Flags::new()
            .with_cts(true)
            .with_dsr(true)
            .with_dcd(true)
            .with_busy(!self.tx.is_empty())
            .with_rxfe(self.rx.is_empty())
            .with_txff(self.tx.len() >= self.depth())
            .with_rxff(self.rx.len() >= self.depth())
            .with_txfe(self.tx.is_empty())
    }
}

impl Pl011 {
    /// A UART that sends to `console` and drives `irq`.
    #[must_use]
    pub fn new(console: Arc<dyn ConsoleOut>, irq: Arc<dyn IrqLine>) -> Arc<Self> {
        Arc::new(Self { front: Mutex::new(Front::at_reset()), console, irq })
    }

    fn lock(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drive(&self, front: &Front) {
        self.irq.set(front.masked() != 0);
    }

    /// Receives bytes from the host, as many as there is room for, and says how many. If not all, the
    /// console's [`ConsoleOut::input_room`] tells when to come back; it tells all that wait, of whom some may find no room.
    pub fn receive(&self, bytes: &[u8]) -> usize {
        let mut front = self.lock();
        let taken = front.rx_room().min(bytes.len());
        for &byte in bytes.iter().take(taken) {
            front.push_rx(byte.into());
        }
        front.input_waits |= taken < bytes.len();
        self.drive(&front);
        taken
    }

    /// Receives a break condition, which Linux takes as the start of a SysRq. Says whether there was room.
    pub fn receive_break(&self) -> bool {
        let mut front = self.lock();
        let has_room = front.rx_room() > 0;
        if has_room {
            front.push_rx(DR_BREAK);
            front.raise(BEIS);
        }
        self.drive(&front);
        has_room
    }

    /// The console, which had not taken all output, can take more.
    pub fn output_room(&self) {
        let mut front = self.lock();
        front.transmit(&*self.console);
        self.drive(&front);
    }

    fn read(&self, front: &mut Front, reg: Pl011Reg, index: u64) -> u32 {
        let id =
            |ids: [u8; 4]| usize::try_from(index).ok().and_then(|i| ids.get(i)).copied().unwrap_or(0).into();
        match reg {
            Pl011Reg::UARTDR => front.pop_rx().into(),
            Pl011Reg::UARTFR => front.flags().into_bits(),
            Pl011Reg::UARTMIS => front.masked(),
            Pl011Reg::UARTPeriphID => id(PERIPH_ID),
            Pl011Reg::UARTPCellID => id(PCELL_ID),
            _ => front.registers.read(reg, 0) as u32,
        }
    }

    fn write(&self, front: &mut Front, reg: Pl011Reg, value: u32) {
        let written = reg.info().written(0, value.into()) as u32;
        match reg {
            Pl011Reg::UARTDR => {
                // A byte for a full FIFO is lost.
                if front.tx.len() < front.depth() {
                    front.tx.push_back(written as u8);
                }
                front.transmit(&*self.console);
            }
            Pl011Reg::UARTRSR_ECR => front.registers.set(reg, 0),
            Pl011Reg::UARTICR => front.lower(written),
            Pl011Reg::UARTLCR_H => {
                if (written ^ front.word(reg)) & FEN != 0 {
                    // Switching the FIFOs flushes what has been received; what is to be sent still goes.
                    front.rx.clear();
                    front.lower(RXIS | RTIS);
                }
                front.registers.set_word(reg, written);
            }
            _ => front.registers.write(reg, 0, value.into(), u64::MAX, |condition| match condition {}),
        }
    }

    /// After an access: drives the wire, and tells the host if input waits and half of the FIFO is free.
    fn settle(&self, front: &mut Front) {
        self.drive(front);
        if front.input_waits && front.rx_room() > front.depth() / 2 {
            front.input_waits = false;
            self.console.input_room();
        }
    }
}

impl LifeCycle for Pl011 {
    /// Input that the host keeps back is still there: it comes once software has enabled the receiver.
    fn reset(&self) {
        let Self { front, console: _, irq } = self;
        let mut front = front.lock().unwrap_or_else(PoisonError::into_inner);
        let input_waits = front.input_waits;
        *front = Front { input_waits, ..Front::at_reset() };
        irq.set(false);
    }

    fn save(&self) -> Value {
        self.lock().save().to_value()
    }

    /// Output that waits goes to the console at [`Self::resume`]. Whether input waits is the host's, and stays.
    fn restore(&self, state: Value) -> Result<(), RestoreError> {
        let mut front = self.lock();
        let restored = Front::restored(UartState::from_value(state)?)?;
        *front = Front { input_waits: front.input_waits, ..restored };
        self.settle(&mut front);
        Ok(())
    }

    /// The console of a restored machine has never said that it took no more, and so will not ask.
    fn resume(&self) {
        if !self.lock().tx.is_empty() {
            self.output_room();
        }
    }
}

impl MmioDevice for Pl011 {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        let (reg, index) = whole_register::<Pl011Reg>(offset, data.len())?;
        let mut front = self.lock();
        put_value(data, self.read(&mut front, reg, index).into());
        self.settle(&mut front);
        Ok(())
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        let (reg, _) = whole_register::<Pl011Reg>(offset, data.len())?;
        let mut front = self.lock();
        self.write(&mut front, reg, value_of(data) as u32);
        self.settle(&mut front);
        Ok(())
    }
}
