//! `--device cuda` on the emulated device: the program as it is, with CUDA's libraries exchanged for ones that run kernels
//! on the processor.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{Got, run_with, snn, workplace};

/// The program on a machine with that many emulated GPUs.
fn emulated(directory: &Path, devices: usize) -> Command {
    let mut command = snn(directory);
    command
        .env("SNN_CUDA_LIB_DIR", snn_cuda_emulator::directory())
        .env("SNN_CACHE_DIR", directory.join("cache"))
        .env("SNN_EMULATOR_DEVICES", devices.to_string());
    command
}

fn collect(command: &mut Command) -> Got {
    Got::of(command.output().expect("the program starts"))
}

fn on_gpu(directory: &Path, arguments: &[&str]) -> Got {
    collect(emulated(directory, 1).args(arguments))
}

#[test]
fn devices_are_listed_with_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let found = on_gpu(directory.path(), &["info", "--devices"]).fine();
    assert!(found.contains("cuda:0  emulated on the CPU, compute capability 9.0"), "{found}");
    let none = collect(emulated(directory.path(), 0).args(["info", "--devices"])).fine();
    assert!(none.lines().any(|line| line == "cuda    none: the driver finds no GPU"), "{none}");
    let json = on_gpu(directory.path(), &["info", "--devices", "--json"]).fine();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["cuda"][0]["device"], "cuda:0");
    assert_eq!(json["cuda_missing"], Value::Null);
}

#[test]
fn a_device_that_is_not_there_is_one_clear_message() {
    let directory = workplace();
    on_gpu(directory.path(), &["train", "small.toml", "--device", "cuda:3"])
        .fails(1, &["--device cuda:3 cannot be used here: cuda:3: no such GPU; there is cuda:0 emulated on the CPU"]);
    let none = collect(emulated(directory.path(), 0).args(["train", "small.toml", "--device", "cuda"]));
    none.fails(1, &["--device cuda cannot be used here: cuda:0: the driver finds no GPU"]);
    for wrong in ["cuda:x", "cuda:", "cuda,fast", "cpu,tf32"] {
        let got = run_with(directory.path(), &["train", "small.toml", "--device", wrong]);
        got.fails(2, &[&format!("--device {wrong}: expected `cpu` or `cuda[:N][,tf32]`")]);
    }
    let refused = on_gpu(directory.path(), &["reproduce", "figure4", "--device", "cuda", "--profile", "smoke"]);
    refused.fails(2, &["--device cuda: this runs on the processor alone"]);
    // Nothing was begun.
    assert!(!directory.path().join("runs").exists());
}

/// The last line of `train --json`.
fn result(out: &str) -> Value {
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

#[test]
fn training_there_is_training_here() {
    let directory = workplace();
    let train = |device: &str, out: &str| {
        let changes = ["--set", "data.train_samples=48", "--set", "data.test_samples=32", "--epochs", "1"];
        let place = ["train", "small.toml", "--json", "--device", device, "--out", out];
        result(&on_gpu(directory.path(), &[&place[..], &changes].concat()).fine())
    };
    let (cpu, gpu) = (train("cpu", "on-cpu"), train("cuda", "on-gpu"));
    let tf32 = train("cuda:0,tf32", "on-tensor-cores");
    assert_eq!(gpu["device"], "cuda:0, emulated on the CPU, sm_90, f32");
    assert_eq!(tf32["device"], "cuda:0, emulated on the CPU, sm_90, TF32 products");
    assert_eq!(gpu["spikes_per_sample"], cpu["spikes_per_sample"]);
    let loss = |run: &Value| run["test_loss"].as_f64().unwrap();
    assert!((loss(&gpu) - loss(&cpu)).abs() < 1e-5 * loss(&cpu), "{gpu} {cpu}");
    // A run can go on elsewhere, and a damaged kernel is compiled again.
    let kernels = directory.path().join("cache/kernels");
    let entries: Vec<_> = std::fs::read_dir(&kernels).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(entries.len() > 3);
    for entry in &entries {
        std::fs::write(entry, b"damaged").unwrap();
    }
    let eval = ["eval", "on-cpu", "--json", "--device", "cuda"];
    let there = result(&on_gpu(directory.path(), &eval).fine());
    assert!((there["test_loss"].as_f64().unwrap() - loss(&cpu)).abs() < 1e-5 * loss(&cpu));
    assert!(entries.iter().any(|entry| std::fs::read(entry).unwrap() != b"damaged"));
}

#[test]
fn every_golden_case_passes_there() {
    let directory = tempfile::tempdir().unwrap();
    let out = collect(emulated(directory.path(), 1).env("SNN_REQUIRE_CUDA", "1").arg("golden")).fine();
    let lines = out.lines().filter(|line| line.contains("cpu f32 ok"));
    let without: Vec<&str> = lines.filter(|line| !line.contains("cuda f32 ok")).collect();
    assert!(without.is_empty(), "{without:#?}");
    assert!(out.contains("cuda f32 ok"), "{out}");
}

#[test]
fn a_missing_gpu_is_skipped_unless_it_must_be_there() {
    let directory = tempfile::tempdir().unwrap();
    let golden =
        |must: &str| collect(emulated(directory.path(), 0).env("SNN_REQUIRE_CUDA", must).args(["golden", "block"]));
    let out = golden("0").fine();
    assert!(out.contains("cuda f32 skipped: no device (cuda:0: the driver finds no GPU)"), "{out}");
    golden("1").fails(1, &["SNN_REQUIRE_CUDA is 1", "the driver finds no GPU"]);
}

#[test]
fn the_check_of_a_gpu_runs_whole() {
    let directory = tempfile::tempdir().unwrap();
    let parts = "suite,agreement,recorded,scans,layers,busy";
    let arguments = ["gpu-check", "--small", "--only", parts, "--json", "found.json", "--quiet"];
    let out = on_gpu(directory.path(), &arguments).fine();
    assert!(out.contains("emulated on the CPU"), "{out}");
    let found: Value = serde_json::from_slice(&std::fs::read(directory.path().join("found.json")).unwrap()).unwrap();
    let findings = found["findings"].as_array().unwrap();
    let of = |part: &str| findings.iter().filter(|f| f["part"] == part).count();
    assert_eq!(of("suite"), 18);
    assert!(of("agreement") > 12 && of("scans") > 12 && of("layers") == 2);
    assert_eq!((of("recorded"), of("busy")), (1, 1));
    assert!(findings.iter().all(|f| f["passed"] != Value::Bool(false)), "{findings:#?}");
}
