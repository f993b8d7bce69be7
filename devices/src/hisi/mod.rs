//! HiSilicon accelerators. Each is an [engine](qm::Engine) on a [queue manager](qm) on a [`Function`]; the engine alone knows what
//! kind it is.

#[cfg(test)]
mod bench;
mod function;
mod msi;
pub mod qm;
pub mod registers;
mod sgl;
#[cfg(test)]
mod tests;
mod words;
pub mod zip;

pub use function::{Accelerator, Function, FunctionWiring, Translation};
pub use qm::{Engine, Totals};
