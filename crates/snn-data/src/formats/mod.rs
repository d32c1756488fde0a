//! Readers of the published file formats, and a writer of one. Each refuses what its format does not allow and names the
//! file, the place and the numbers; none believes a length before the bytes are there.

pub mod cifar;
pub mod dvs;
pub mod emnist;
pub mod idx;
pub mod keras;
pub mod nmnist;
pub mod npy;
pub mod ntidigits;
pub mod shd;
