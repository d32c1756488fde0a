//! Every kernel compiles for the architectures that people have; no GPU is needed for that, but NVIDIA's compiler is.
//!
//! Without the compiler it says that it was skipped, and fails where `SNN_REQUIRE_NVRTC` is 1.

use std::process::ExitCode;
use std::sync::Mutex;

use snn_cuda::Compiler;
use snn_cuda::kernels::{ALL, Source};

/// Ampere and Hopper: PTX, and machine code, which is where registers and shared memory have their limits.
const ARCHITECTURES: [&str; 4] = ["compute_80", "compute_90", "sm_80", "sm_90"];

fn main() -> ExitCode {
    if let Err(reason) = Compiler::for_architecture(ARCHITECTURES[0]) {
        let must = std::env::var_os("SNN_REQUIRE_NVRTC").is_some_and(|value| value == "1");
        println!("test nvrtc ... {}: {reason}", if must { "FAILED" } else { "skipped" });
        return ExitCode::from(u8::from(must));
    }
    let jobs = ALL.iter().flat_map(|source| ARCHITECTURES.map(|architecture| (*source, architecture)));
    let (jobs, failed) = (Mutex::new(jobs), Mutex::new(0));
    std::thread::scope(|scope| {
        let work = || {
            while let Some((source, architecture)) = { jobs.lock().unwrap().next() } {
                match compile(source, architecture) {
                    Ok(kernels) => println!("test nvrtc::{} {architecture} ... ok, {kernels} kernels", source.name),
                    Err(reason) => {
                        println!("test nvrtc::{} {architecture} ... FAILED: {reason}", source.name);
                        *failed.lock().unwrap() += 1;
                    }
                }
            }
        };
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (failed, all) = (*failed.lock().unwrap(), ALL.len() * ARCHITECTURES.len());
    println!("test result: {}. {} passed; {failed} failed", if failed == 0 { "ok" } else { "FAILED" }, all - failed);
    ExitCode::from(u8::from(failed > 0))
}

/// Compiles a file and looks for its kernels in what comes out; gives how many there are.
fn compile(source: &Source, architecture: &str) -> Result<usize, String> {
    let image = Compiler::for_architecture(architecture)?.compile(source)?;
    let text = String::from_utf8_lossy(&image);
    let mark = |kernel: &str| match architecture.starts_with("sm_") {
        true => format!(".text.{kernel}\0"),
        false => format!(".entry {kernel}("),
    };
    let declared: Vec<&str> = source.kernels().collect();
    match declared.iter().find(|kernel| !text.contains(&mark(kernel))) {
        Some(missing) => Err(format!("{missing} is not in the result")),
        None if declared.is_empty() => Err("no kernels".into()),
        None => Ok(declared.len()),
    }
}
