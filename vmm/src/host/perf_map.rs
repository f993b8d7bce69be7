//! A map of generated code for `perf` on the host: the file `/tmp/perf-PID.map`, a line for each piece.
//!
//! A line is the address and length in hexadecimal and a name: `schedule+0x40 0xffff800080b1c2d0 T1`, with a symbol if a
//! file has one for the address. Code that lies where other code was before comes later in the file, and wins. It is
//! written as the code appears, so that it is there whatever ends the process.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process;

use cpu::{CodeKind, CodeMap, MappedCode};
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSymbol, SymbolKind};

use crate::exit::Failed;

/// The map of this process.
#[derive(Debug)]
pub struct PerfMap {
    file: File,
    symbols: Symbols,
}

impl PerfMap {
    /// Makes the file, in the place where `perf` looks. Names come from `vmlinux`, if it is given.
    ///
    /// # Errors
    /// A line for the user.
    pub fn create(vmlinux: Option<&Path>) -> Result<Self, Failed> {
        let symbols = vmlinux.map(Symbols::read).transpose()?.unwrap_or_default();
        let path = PathBuf::from(format!("/tmp/perf-{}.map", process::id()));
        // One of an earlier process with this number. Nobody's link is followed: the folder is everybody's.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|e| Failed::new(format!("cannot make the map for perf {path:?}: {e}")))?;
        Ok(Self { file, symbols })
    }
}

impl AsRawFd for PerfMap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl CodeMap for PerfMap {
    fn added(&self, code: &MappedCode) {
        let line = format!("{:x} {:x} {}\n", code.start, code.len, self.symbols.name(code.kind));
        // One write for a line, so that those of other threads stay whole. A map with holes, on a full disk, is still of
        // use, and no reason to end a guest.
        let _ = (&self.file).write_all(line.as_bytes());
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Symbol {
    address: u64,
    /// 0 in assembly sources: up to the next one.
    size: u64,
    name: String,
}

/// Symbols of code, in the order of their addresses.
#[derive(Debug, Default)]
struct Symbols(Vec<Symbol>);

impl Symbols {
    fn read(path: &Path) -> Result<Self, Failed> {
        let failed = |why: String| Failed::new(format!("cannot read symbols of {path:?}: {why}"));
        let bytes = fs::read(path).map_err(|e| failed(e.to_string()))?;
        let file = ElfFile64::<Endianness>::parse(&*bytes).map_err(|e| failed(e.to_string()))?;
        let symbols = Self::new(file.symbols().filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty() && !name.starts_with('$'))?;
            let is_code = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Label)
                || symbol.kind() == SymbolKind::Unknown && symbol.is_definition();
            let name = name.chars().filter(|c| !c.is_control()).collect();
            is_code.then(|| Symbol { address: symbol.address(), size: symbol.size(), name })
        }));
        if symbols.0.is_empty() {
            return Err(failed("there are none".to_owned()));
        }
        Ok(symbols)
    }

    fn new(symbols: impl Iterator<Item = Symbol>) -> Self {
        let mut symbols: Vec<Symbol> = symbols.collect();
        // Of several at one address the largest counts, and a function more than a label in it.
        symbols.sort_by(|a, b| a.address.cmp(&b.address).then(a.size.cmp(&b.size)));
        Self(symbols)
    }

    fn find(&self, address: u64) -> Option<&Symbol> {
        let next = self.0.partition_point(|symbol| symbol.address <= address);
        let symbol = self.0.get(next.checked_sub(1)?)?;
        (symbol.size == 0 || address - symbol.address < symbol.size).then_some(symbol)
    }

    /// The name of a piece of code.
    fn name(&self, kind: CodeKind) -> String {
        let (pc, tier) = match kind {
            CodeKind::Stubs => return "warpvmm stubs".to_owned(),
            CodeKind::Block(pc) => (pc, "T1"),
            CodeKind::Region(pc) => (pc, "T2"),
        };
        match self.find(pc) {
            Some(symbol) => format!("{}+{:#x} {pc:#x} {tier}", symbol.name, pc - symbol.address),
            None => format!("guest {pc:#x} {tier}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        let symbol = |address, size, name: &str| Symbol { address, size, name: name.to_owned() };
        Symbols::new(
            [
                symbol(0x2000, 0, "vectors"),
                symbol(0x1000, 0x40, "schedule"),
                symbol(0x1000, 0, "label"),
                symbol(0x3000, 0x10, "idle"),
            ]
            .into_iter(),
        )
    }

    #[test]
    fn address_has_the_name_of_the_symbol_that_it_is_in() {
        let name = |pc| symbols().name(CodeKind::Block(pc));

        assert_eq!(name(0x1000), "schedule+0x0 0x1000 T1");
        assert_eq!(name(0x103c), "schedule+0x3c 0x103c T1");
        assert_eq!(name(0x2ffc), "vectors+0xffc 0x2ffc T1");
        assert_eq!(symbols().name(CodeKind::Region(0x3004)), "idle+0x4 0x3004 T2");
    }

    #[test]
    fn address_in_no_symbol_is_a_number() {
        let name = |pc| symbols().name(CodeKind::Block(pc));

        assert_eq!(name(0xffc), "guest 0xffc T1");
        assert_eq!(name(0x1040), "guest 0x1040 T1");
        assert_eq!(name(0x3010), "guest 0x3010 T1");
        assert_eq!(Symbols::default().name(CodeKind::Stubs), "warpvmm stubs");
    }

    #[test]
    fn file_without_symbols_is_refused_by_name() {
        let error = Symbols::read(Path::new("/dev/null")).unwrap_err();

        assert!(error.message.contains("\"/dev/null\""), "{error}");
    }

    #[test]
    fn functions_of_a_program_are_read_from_it() {
        let symbols = Symbols::read(&std::env::current_exe().unwrap()).unwrap();

        assert!(symbols.0.iter().any(|symbol| symbol.name == "main" && symbol.size > 0));
    }
}
