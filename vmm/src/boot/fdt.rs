//! The device tree: a root that collects what each part of the board says of itself.
//!
//! A part that is instantiated returns a [`Node`]; the tree is those nodes and the few that describe no device of
//! ours (memory, chosen, CPUs). So the tree cannot promise what is not there.

use vm_fdt::{Error, FdtWriter};

/// phandles of the nodes that others point at.
pub mod phandle {
    /// The GIC.
    pub const GIC: u32 = 1;
    /// The ITS.
    pub const ITS: u32 = 2;
    /// The 24 MHz clock of the PrimeCell devices.
    pub const CLK24MHZ: u32 = 3;
    /// The SMMU.
    pub const SMMU: u32 = 4;
    /// The first CPU; the others follow.
    pub const CPU0: u32 = 0x100;
}

/// First cell of an interrupt specifier: shared peripheral interrupt.
pub const SPI: u32 = 0;
/// First cell of an interrupt specifier: private peripheral interrupt.
pub const PPI: u32 = 1;
/// Third cell: rising edge.
pub const EDGE: u32 = 1;
/// Third cell: level high.
pub const LEVEL: u32 = 4;

/// A property's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// No value: the property's presence is the statement.
    Empty,
    /// 32-bit cells.
    Cells(Vec<u32>),
    /// Strings.
    Strings(Vec<String>),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A node: a name, properties in order, children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    name: String,
    properties: Vec<(String, Value)>,
    children: Vec<Node>,
}

impl Node {
    /// A node of this name (with unit address, if it has one).
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a property.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.properties.push((name.into(), value));
        self
    }

    /// Adds a property without value.
    #[must_use]
    pub fn flag(self, name: &str) -> Self {
        self.with(name, Value::Empty)
    }

    /// Adds cells.
    #[must_use]
    pub fn cells(self, name: &str, cells: &[u32]) -> Self {
        self.with(name, Value::Cells(cells.to_vec()))
    }

    /// Adds 64-bit numbers, two cells each.
    #[must_use]
    pub fn cells64(self, name: &str, values: &[u64]) -> Self {
        let cells = values.iter().flat_map(|v| [(v >> 32) as u32, *v as u32]).collect();
        self.with(name, Value::Cells(cells))
    }

    /// Adds one or more strings.
    #[must_use]
    pub fn strings(self, name: &str, strings: &[&str]) -> Self {
        self.with(name, Value::Strings(strings.iter().map(|s| (*s).into()).collect()))
    }

    /// Adds a child.
    #[must_use]
    pub fn child(mut self, node: Node) -> Self {
        self.children.push(node);
        self
    }

    fn write(&self, fdt: &mut FdtWriter) -> Result<(), Error> {
        let node = fdt.begin_node(&self.name)?;
        for (name, value) in &self.properties {
            match value {
                Value::Empty => fdt.property_null(name)?,
                Value::Cells(cells) if name == "phandle" => fdt.property_phandle(cells[0])?,
                Value::Cells(cells) => fdt.property_array_u32(name, cells)?,
                Value::Strings(strings) => fdt.property_string_list(name, strings.clone())?,
                Value::Bytes(bytes) => fdt.property(name, bytes)?,
            }
        }
        for child in &self.children {
            child.write(fdt)?;
        }
        fdt.end_node(node)
    }

    /// The flattened tree with this node as its root.
    ///
    /// # Errors
    /// If a name or value has no place in a device tree (a NUL in the command line, say).
    pub fn flatten(&self) -> Result<Vec<u8>, Error> {
        let mut fdt = FdtWriter::new()?;
        self.write(&mut fdt)?;
        fdt.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_is_flattened_with_its_magic_and_a_nul_in_a_string_is_an_error() {
        let tree = Node::new("")
            .cells("#address-cells", &[2])
            .child(Node::new("chosen").strings("bootargs", &["a"]));
        assert_eq!(tree.flatten().unwrap()[..4], [0xd0, 0x0d, 0xfe, 0xed]);
        assert!(Node::new("").strings("bootargs", &["a\0b"]).flatten().is_err());
    }

    #[test]
    fn long_numbers_become_two_cells_high_first() {
        let node = Node::new("").cells64("reg", &[0x40_1000_0000, 1]);
        assert_eq!(node.properties[0].1, Value::Cells(vec![0x40, 0x1000_0000, 0, 1]));
    }
}
