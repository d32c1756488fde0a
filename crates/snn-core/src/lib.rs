//! The core of the workspace: what a spiking network is made of, without saying how fast.
//!
//! * [`signal`] — activity: what flows between layers; [`shape`] — its sizes.
//! * [`backend`] — the operations of a device; [`layer`] — the parts of a model.
//! * [`neurons`] — reference maths of every neuron family, generic over [`Real`]: `f32`, `f64`, [`Dual`].
//! * [`reference`](mod@reference) — a slow and obvious backend on that maths: the yardstick of all others.
//! * [`stream`] — event-driven inference of one sample at a time, with plastic synapses.
//! * [`surrogate`] — surrogate derivatives; [`random`] — counter-based random numbers.
//!
//! Layout everywhere: batch, time, neurons; neurons contiguous. Nothing here does input or output, starts threads,
//! reads clocks or the environment; the feature `testkit` alone reads golden files.

pub mod backend;
pub mod error;
pub mod fit;
pub mod layer;
pub mod neurons;
pub mod random;
pub mod real;
pub mod reference;
pub mod shape;
pub mod signal;
pub mod stream;
pub mod surrogate;
pub mod tensor;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use backend::Backend;
pub use error::{Error, Result};
pub use layer::{FirstSpikes, Layer, Mode, Parameter, Pass};
pub use real::{Dual, Element, Real};
pub use shape::{Borders, Conv, Kind, Lanes, Map, Pool, Signal, Synapses};
pub use signal::{Activity, Events, Spikes, Trains};
pub use surrogate::Surrogate;
pub use tensor::Tensor;
