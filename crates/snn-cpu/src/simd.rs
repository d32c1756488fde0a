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

/// Runs a kernel that is written with vector registers, on the widest ones of this machine.
#[inline(always)]
pub(crate) fn vectorise<K: pulp::WithSimd>(kernel: K) -> K::Output {
    ARCH.dispatch(kernel)
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

/// Asks for a slice to be in the cache soon, one request per cache line; does nothing where there is no such request.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "a prefetch takes a raw pointer"))]
pub(crate) fn prefetch(slice: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in slice.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and cannot fault; the pointer is that of a live slice anyway.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slice;
}
