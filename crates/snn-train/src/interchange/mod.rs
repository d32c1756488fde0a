//! Weights of other programs: one file for each format.

pub mod keras;
pub mod npy;
pub mod npz;
