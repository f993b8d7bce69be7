//! A batch: many cases laid out in one image, run as one program by both sides.
//!
//! The image is code, variables, case code, input blocks, scratch memory and output blocks, in this order, at the same
//! addresses for both. Code and variables are on different pages: QEMU translates a page's code anew after a store
//! to it.

use crate::case::{BLOCK, CODE_ADDRESS_AT, Case, SCRATCH, branch_to_epilogue};
use crate::machine_code::{IMAGE_BASE, RUNNER, VARIABLES};

const PAGE: u64 = 0x1000;

/// Where each part of an image is.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    code: Vec<u64>,
    inputs: u64,
    scratch: u64,
    outputs: u64,
    end: u64,
}

fn page_up(address: u64) -> u64 {
    address.next_multiple_of(PAGE)
}

impl Layout {
    /// A layout for these cases.
    pub(crate) fn new(cases: &[Case]) -> Self {
        let mut code = Vec::new();
        let (mut at, mut next) = (VARIABLES + PAGE, VARIABLES + PAGE);
        for (i, case) in cases.iter().enumerate() {
            if i == 0 || cases[i - 1].group != case.group {
                at = next;
                next += 4 * (case.words.len() as u64 + 1);
            }
            code.push(at);
        }
        let at = next;
        let count = code.len() as u64;
        let inputs = page_up(at);
        let scratch = page_up(inputs + count * BLOCK as u64);
        let outputs = scratch + count * SCRATCH as u64;
        Self { code, inputs, scratch, outputs, end: page_up(outputs + count * BLOCK as u64) }
    }

    /// Address of a case's first instruction.
    pub(crate) fn code(&self, case: usize) -> u64 {
        self.code[case]
    }

    /// Address of a case's scratch memory.
    pub(crate) fn scratch(&self, case: usize) -> u64 {
        self.scratch + (case * SCRATCH) as u64
    }

    /// First address after the image.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Address and bytes of what is dumped: scratch memory, then output blocks.
    pub(crate) fn dump(&self) -> (u64, usize) {
        (self.scratch, self.code.len() * (SCRATCH + BLOCK))
    }

    /// A case's output block and scratch memory out of a dump.
    pub(crate) fn result(&self, dump: &[u8], case: usize) -> Vec<u8> {
        let count = self.code.len();
        let block = &dump[count * SCRATCH + case * BLOCK..][..BLOCK];
        let scratch = &dump[case * SCRATCH..][..SCRATCH];
        let mut result = [block, scratch].concat();
        // Not a result: the slot is input only.
        result[CODE_ADDRESS_AT..CODE_ADDRESS_AT + 8].fill(0);
        result
    }

    /// The image up to the output blocks, which start as zeros. `faults` is where exceptions are recorded.
    pub(crate) fn image(&self, cases: &[Case], faults: u64) -> Vec<u8> {
        let mut image = vec![0; (self.outputs - IMAGE_BASE) as usize];
        let mut put = |address: u64, bytes: &[u8]| {
            let at = (address - IMAGE_BASE) as usize;
            image[at..at + bytes.len()].copy_from_slice(bytes);
        };
        for (i, word) in RUNNER.iter().enumerate() {
            put(IMAGE_BASE + 4 * i as u64, &word.to_le_bytes());
        }
        let (dump, dump_bytes) = self.dump();
        let variables = [self.inputs, self.outputs, cases.len() as u64, dump, dump_bytes as u64, faults];
        for (i, value) in variables.iter().enumerate() {
            put(VARIABLES + 8 * i as u64, &value.to_le_bytes());
        }
        for (i, case) in cases.iter().enumerate() {
            let code = self.code(i);
            for (j, word) in case.words.iter().enumerate() {
                put(code + 4 * j as u64, &word.to_le_bytes());
            }
            let end = code + 4 * case.words.len() as u64;
            put(end, &branch_to_epilogue(end).to_le_bytes());
            let mut block = case.block();
            block[CODE_ADDRESS_AT..CODE_ADDRESS_AT + 8].copy_from_slice(&code.to_le_bytes());
            put(self.inputs + (i * BLOCK) as u64, &block);
            put(self.scratch(i), &case.scratch);
        }
        image
    }
}
