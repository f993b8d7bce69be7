//! The configuration space of one function as a part of its function's saved state: its registers and messages.
//!
//! Only what differs from reset is in it. What can differ is what software can write, and the few bits of status that the
//! space itself keeps; everything else is what the function was built with.

use std::collections::BTreeMap;

use hw::StreamId;
use hw::saved::{RestoreError, hex, hex_option};
use serde::{Deserialize, Serialize};

use super::super::caps::{msi, page_request, pm};
use super::super::interrupts::MsixEntryState;
use super::registers::{Registers, mask_of, place};
use super::{ConfigSpace, State};

/// A configuration space: a part of the state of each kind of function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigState {
    /// The requester ID that the function has captured.
    #[serde(with = "hex_option")]
    requester_id: Option<u32>,
    /// Registers with other values than after reset, by offset.
    registers: BTreeMap<String, RegisterState>,
    /// Entries of the MSI-X table that are not as after reset, by vector.
    msix: BTreeMap<String, MsixEntryState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterState {
    /// Its name.
    register: String,
    #[serde(with = "hex")]
    value: u32,
}

/// The key of the register at an offset.
fn key(at: u16) -> String {
    format!("{at:#05x}")
}

impl ConfigSpace {
    /// Registers, messages and the requester ID.
    #[must_use]
    pub fn save(&self) -> ConfigState {
        let state = self.lock();
        let registers = &state.registers;
        // A message of MSI that is on its way is sent again, unless it is of no concern any more. MSI-X has its own table.
        let leaving = match self.layout.msi {
            Some(base) if registers.get(base, msi::CONTROL) & 1 != 0 && self.layout.msix.is_none() => {
                let bits = state.leaving.iter().fold(0, |bits, &vector| bits | 1 << (vector & 31));
                Some((place(base, msi::PENDING), bits))
            }
            _ => None,
        };
        let value_of = |at: u16| {
            let more = leaving.filter(|(pending, _)| *pending == at).map_or(0, |(_, bits)| bits);
            Registers::lane(&registers.value, at) | more
        };
        let changed =
            |at: &u16, mask: u32| (value_of(*at) ^ Registers::lane(&registers.reset, *at)) & mask != 0;
        ConfigState {
            requester_id: self.requester_id().map(|requester| requester.0),
            registers: registers
                .declared
                .iter()
                .filter(|(at, info)| changed(at, mask_of(info)))
                .map(|(at, info)| {
                    let value = value_of(*at) & mask_of(info);
                    (key(*at), RegisterState { register: info.name.to_owned(), value })
                })
                .collect(),
            msix: state.msix.save(&state.leaving),
        }
    }

    /// Takes up what [`Self::save`] has given, of a function that was built in the same way and is as at power-on. Tells nobody:
    /// whoever has the function looks afterwards at what is enabled, and sends what is pending when its work goes on.
    ///
    /// # Errors
    /// If no guest could have brought about one of the values.
    pub fn restore(&self, saved: ConfigState) -> Result<(), RestoreError> {
        let ConfigState { requester_id, registers, msix } = saved;
        let requester = requester_id.map(StreamId);
        if requester.is_some_and(|requester| requester.0 > u16::MAX.into()) {
            return Err(RestoreError::value("requester_id", "has more than 16 bits"));
        }
        // A function on a root bus has had its requester ID since it was attached; one behind a port has none yet.
        if self.requester_id().is_some_and(|mine| Some(mine) != requester) {
            return Err(RestoreError::value("requester_id", "is not that of the function's place"));
        }
        let mut state = self.lock();
        let State { registers: mine, msix: table, .. } = &mut *state;
        self.restore_registers(mine, registers).map_err(|error| error.within("registers"))?;
        table.restore(msix).map_err(|error| error.within("msix"))?;
        self.gates.set_requester(requester);
        self.update_gates(mine);
        Ok(())
    }

    fn restore_registers(
        &self,
        registers: &mut Registers,
        mut saved: BTreeMap<String, RegisterState>,
    ) -> Result<(), RestoreError> {
        registers.value.copy_from_slice(&registers.reset);
        for (at, info) in registers.declared.clone() {
            let Some(RegisterState { register, value }) = saved.remove(&key(at)) else { continue };
            if register != info.name {
                return Err(RestoreError::value(key(at), format!("is {}, not {register}", info.name)));
            }
            let fixed = !self.changeable(registers, at) | !mask_of(info);
            let reset = Registers::lane(&registers.reset, at) & mask_of(info);
            if (value ^ reset) & fixed != 0 {
                return Err(RestoreError::value(
                    key(at),
                    format!("{register} has read-only bits at {value:#x}"),
                ));
            }
            registers.put_at(at, info, value);
        }
        if let Some(key) = saved.into_keys().next() {
            return Err(RestoreError::value(key, "there is no register"));
        }
        if self.layout.pm.is_some_and(|base| !matches!(registers.get(base, pm::PMCSR) & 3, 0 | 3)) {
            return Err(RestoreError::value("PowerState", "D1 and D2 do not exist"));
        }
        if self.layout.msi.is_some_and(|base| {
            registers.get(base, msi::CONTROL) & 1 == 0 && registers.get(base, msi::PENDING) != 0
        }) {
            return Err(RestoreError::value("Pending Bits", "are set while MSI is disabled"));
        }
        if self.layout.page_request.is_some_and(|base| {
            registers.get(base, page_request::CONTROL) & page_request::ENABLE != 0
                && registers.get(base, page_request::STATUS) & page_request::STOPPED != 0
        }) {
            return Err(RestoreError::value("Page Request Status", "is Stopped while requests are enabled"));
        }
        Ok(())
    }

    /// The bits from offset `at` on that can differ from their reset values.
    fn changeable(&self, registers: &Registers, at: u16) -> u32 {
        let writable = Registers::lane(&registers.writable, at);
        let status = match (self.layout.msi, self.layout.page_request) {
            (Some(base), _) if at == place(base, msi::PENDING) => {
                Registers::lane(&registers.writable, place(base, msi::MASK))
            }
            (_, Some(base)) if at == place(base, page_request::STATUS) => {
                page_request::STOPPED | page_request::RESPONSE_FAILURE | page_request::UNEXPECTED_INDEX
            }
            _ => 0,
        };
        writable | status
    }
}
