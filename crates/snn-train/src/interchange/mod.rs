//! Weights of other programs: one file for each format.

pub mod npy;
pub mod npz;
