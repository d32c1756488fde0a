//! The behaviour suite of all backends on the GPU at hand.
//!
//! Without one every case says that it was skipped, and fails where `SNN_REQUIRE_CUDA` is 1. It is a program of its own
//! because the usual harness shows nothing of tests that pass.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use snn_cuda::Cuda;

fn main() -> ExitCode {
    let cases = snn_core::backend_suite!(table Cuda);
    let must = std::env::var_os("SNN_REQUIRE_CUDA").is_some_and(|value| value == "1");
    let device = match Cuda::new(0) {
        Ok(device) => device,
        Err(reason) => {
            for (name, _) in cases {
                println!("test gpu::{name} ... {}: no device", if must { "FAILED" } else { "skipped" });
            }
            println!("{reason}");
            return ExitCode::from(u8::from(must));
        }
    };
    let mut failed = 0;
    for (name, case) in cases {
        let passed = catch_unwind(AssertUnwindSafe(|| case(&device))).is_ok();
        failed += usize::from(!passed);
        println!("test gpu::{name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    println!(
        "test result: {}. {} passed; {failed} failed",
        if failed == 0 { "ok" } else { "FAILED" },
        cases.len() - failed
    );
    ExitCode::from(u8::from(failed > 0))
}
