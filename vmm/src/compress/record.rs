//! The record at the end of the output disk: how the guest's half of the job says what it did.
//!
//! Format: `docs/compress-protocol.md`, section "Record".

use std::collections::BTreeMap;

use thiserror::Error;

/// Bytes of the record on the disk.
pub const RECORD_BYTES: u64 = 4096;
const FIRST_LINE: &str = "warpvmm-result 1";

/// The record is not one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// The guest has not written it.
    #[error("the guest ended without a result")]
    Missing,
    /// It does not follow the format.
    #[error("the guest's result cannot be read: {0}")]
    Malformed(String),
}

/// What the guest says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `ok`, or the kind of trouble.
    pub status: String,
    /// A line for people, unless ok.
    pub message: Option<String>,
    /// Where the input went wrong.
    pub error_at: Option<u64>,
    /// Input used, in bytes.
    pub input_bytes: u64,
    /// Valid output, in bytes.
    pub output_bytes: u64,
    /// Commands completed.
    pub commands: u64,
    /// Queues used.
    pub queues: u64,
    /// Time with a command under way, in nanoseconds.
    pub busy_ns: u64,
    /// From the program's start to the record, in nanoseconds.
    pub elapsed_ns: u64,
    /// `uname -r`.
    pub kernel: String,
    /// The device below `/sys/class/uacce`.
    pub device: Option<String>,
}

impl Record {
    /// Reads the record's bytes. All of it comes from the guest: nothing is trusted.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let text = bytes.split(|&b| b == 0).next().unwrap_or_default();
        if text.is_empty() {
            return Err(RecordError::Missing);
        }
        let malformed = |what: &str| RecordError::Malformed(what.to_string());
        let text = std::str::from_utf8(text).map_err(|_| malformed("not text"))?;
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(malformed("unknown version"));
        }
        let fields: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once('=')).collect();
        // Printable only: some of it ends up on a terminal.
        let string = |key: &str| {
            fields.get(key).map(|value| value.chars().filter(|c| !c.is_control()).collect::<String>())
        };
        let optional = |key: &str| match fields.get(key) {
            None => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| malformed(key)),
        };
        let number = |key: &str| optional(key)?.ok_or_else(|| malformed(key));
        Ok(Self {
            status: string("status").ok_or_else(|| malformed("status"))?,
            message: string("message"),
            error_at: optional("error_at")?,
            input_bytes: number("input_bytes")?,
            output_bytes: number("output_bytes")?,
            commands: number("commands")?,
            queues: number("queues")?,
            busy_ns: number("busy_ns")?,
            elapsed_ns: number("elapsed_ns")?,
            kernel: string("kernel").ok_or_else(|| malformed("kernel"))?,
            device: string("device"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(body: &str) -> Vec<u8> {
        let mut bytes = format!("{FIRST_LINE}\n{body}").into_bytes();
        bytes.resize(RECORD_BYTES as usize, 0);
        bytes
    }

    const GOOD: &str = "status=ok\ninput_bytes=5\noutput_bytes=30\ncommands=1\nqueues=1\nbusy_ns=10\n\
                        elapsed_ns=20\nkernel=6.12.1\nunknown=7\n";

    #[test]
    fn record_is_read_and_unknown_keys_are_skipped() {
        let record = Record::parse(&record(GOOD)).unwrap();
        assert_eq!((record.status.as_str(), record.input_bytes, record.output_bytes), ("ok", 5, 30));
        assert_eq!((record.error_at, record.device), (None, None));
    }

    #[test]
    fn missing_and_malformed_records_are_told_apart() {
        assert_eq!(Record::parse(&[0; 4096]), Err(RecordError::Missing));
        assert_eq!(Record::parse(b""), Err(RecordError::Missing));
        for bad in [
            b"warpvmm-result 2\nstatus=ok\n".to_vec(),
            vec![0xff; 4096],
            record("status=ok\n"),
            record(&GOOD.replace("output_bytes=30", "output_bytes=-1")),
            record(&GOOD.replace("output_bytes=30", "output_bytes=99999999999999999999")),
        ] {
            assert!(matches!(Record::parse(&bad), Err(RecordError::Malformed(_))));
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let record = Record::parse(&record(&GOOD.replace("6.12.1", "6\x1b[31m"))).unwrap();
        assert_eq!(record.kernel, "6[31m");
    }
}
