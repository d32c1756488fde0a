//! Recordings of single neurons: an injected current, the membrane voltage, and when the neuron fired.
//!
//! 1. [`allen`] asks the service of the Allen Cell Types Database which cells there are, and fetches their files;
//!    [`session`] writes files of the same layout from neurons whose parameters are known.
//! 2. [`nwb`] reads files of the format NWB 1.x sweep by sweep; [`npz`] reads plain arrays from anywhere else.
//! 3. [`detect`] finds spikes in a voltage trace, where a file has not stored them.
//! 4. [`mod@slice`] cuts sweeps into windows, at a rate that a model can run at, and spike times into bins.
//! 5. [`recording`] puts all of it together: for each stimulus the trials, for each trial the segments.
//!
//! Currents are in pA, voltages in mV, times in seconds unless a name says otherwise.

pub mod allen;
pub mod detect;
pub mod npz;
pub mod nwb;
pub mod recording;
pub mod session;
pub mod slice;

pub use detect::{Bessel, Detector, Spike};
pub use nwb::{Clamp, NwbFile, Sweep};
pub use recording::{ReadOptions, Recording, Segment, SpikeChoice, SpikesFrom, Stimulus, Trial};
