//! Run-time dispatch to the widest vector instructions of the machine.
//!
//! A hot loop is a closure over slices, marked `#[inline(always)]`; [`run`] compiles it once per instruction set and
//! picks one at run time, so no `target-cpu` flag is needed. Rust never contracts `a * b + c`, so every instruction
//! set gives the same bits.

use std::sync::LazyLock;

use pulp::Arch;

static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// Runs `work` compiled for the best instruction set of this machine.
#[inline(always)]
pub fn run<R>(work: impl FnOnce() -> R) -> R {
    ARCH.dispatch(work)
}

/// The instruction set in use, for reports.
#[must_use]
pub fn name() -> &'static str {
    match *ARCH {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => "avx512",
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => "avx2",
        _ => "baseline",
    }
}
