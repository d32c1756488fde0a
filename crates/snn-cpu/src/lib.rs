//! The CPU backend: the operations of [`snn_core::backend`] as fast as the machine allows.
//!
//! * Scans ([`neurons`]) touch each value once forward and once backward, one sample after the other with the state
//!   row in the first-level cache; `rayon` takes the samples.
//! * Sparse spikes ([`sparse`]) cost events, not steps; where they are dense, they are expanded into a matrix product.
//! * Loops are plain slices compiled for the instruction sets of the machine at hand ([`simd`]), chosen at run time.
//! * The same bits for any number of threads: work is cut into pieces of fixed size, reductions run in fixed order.
//! * [`published`] keeps the algorithms as the papers timed them, for the comparison benchmark alone.

pub mod conv;
pub mod delays;
pub mod fit;
pub mod limits;
pub mod linalg;
mod math;
pub mod memory;
pub mod neurons;
pub mod norm;
pub mod optimise;
pub mod pool;
mod product;
pub mod published;
pub mod simd;
pub mod sparse;
mod thin;
mod winograd;

pub use memory::Cpu;
