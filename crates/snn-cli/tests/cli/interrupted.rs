//! A run that is killed at any moment and resumed gives the same bytes as one that is left alone.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{run, slow, snn, workplace};

/// Seeded random numbers in `[0, 1)`.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Names in a directory; none if there is no such directory yet.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// Asserts that a safetensors file is as long as its header says.
fn assert_complete(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let index: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let ends = index.as_object().unwrap().values().filter_map(|t| t["data_offsets"][1].as_u64());
    assert_eq!(bytes.len(), 8 + header + ends.max().unwrap() as usize, "{}", path.display());
}

/// Asserts that every file with a final name can be read; gives epoch and batch of the checkpoint, if there is one.
fn assert_readable(out: &Path) -> Option<(u64, u64)> {
    let is_part = |name: &String| name.starts_with('.') && name.ends_with(".part");
    for name in names(out).iter().filter(|n| !is_part(n)) {
        assert!(!name.contains(".part"), "{name}");
        match name.as_str() {
            "checkpoints" => {}
            "config.toml" => {
                let text = std::fs::read_to_string(out.join(name)).unwrap();
                assert!(text.contains("[train.schedule]") && text.ends_with('\n'), "{text}");
            }
            "model.safetensors" => assert_complete(&out.join(name)),
            // A log is appended to; its last line may be half a line, which resuming cuts off.
            "log.jsonl" => {
                let text = std::fs::read_to_string(out.join(name)).unwrap();
                let whole = text.rfind('\n').map_or(0, |at| at + 1);
                crate::json_lines(&text[..whole]);
            }
            other => assert!(other.starts_with("events.out.tfevents."), "{other}"),
        }
    }
    let checkpoints = out.join("checkpoints");
    for name in names(&checkpoints).iter().filter(|n| n.ends_with(".safetensors")) {
        assert_complete(&checkpoints.join(name));
    }
    let manifest = std::fs::read(checkpoints.join("manifest.json")).ok()?;
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    for file in [&manifest["state"], &manifest["best"]].into_iter().filter_map(Value::as_str) {
        assert!(checkpoints.join(file).is_file(), "the manifest names {file}");
    }
    Some((manifest["progress"]["epoch"].as_u64()?, manifest["progress"]["batch"].as_u64()?))
}

/// What a finished run must have in common with another: the model's bytes, and the log but for times.
fn result_of(out: &Path) -> (Vec<u8>, Vec<Value>) {
    let log = std::fs::read_to_string(out.join("log.jsonl")).unwrap();
    let mut lines = crate::json_lines(&log);
    for line in &mut lines {
        forget_times(line);
    }
    (std::fs::read(out.join("model.safetensors")).unwrap(), lines)
}

fn forget_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !key.ends_with("seconds") && key != "device");
            map.values_mut().for_each(forget_times);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_times),
        _ => {}
    }
}

#[test]
fn killed_runs_end_in_the_same_bytes() {
    let wanted = if slow() { 20 } else { 5 };
    let directory = workplace();
    let directory = directory.path();
    let start = Instant::now();
    run(directory, "train small.toml --out whole --quiet --threads 1").fine();
    let duration = start.elapsed();
    let whole = result_of(&directory.join("whole"));

    let mut draw = Draw(20_220_515);
    let (mut kills, mut round, mut places) = (0, 0, BTreeSet::new());
    let deadline = Instant::now() + Duration::from_secs(300);
    while kills < wanted {
        assert!(Instant::now() < deadline, "only {kills} of {wanted} kills came in time");
        let name = format!("killed-{round}");
        let out = directory.join(&name);
        let threads = if kills % 2 == 0 { "1" } else { "2" };
        let mut child = snn(directory)
            .args(["train", "small.toml", "--resume", "--quiet", "--out", &name, "--threads", threads])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(duration.mul_f64(draw.next() * 0.9));
        if kills % 2 == 1 {
            // Every other kill waits for a file that is just being written.
            let writing =
                || names(&out).into_iter().chain(names(&out.join("checkpoints"))).any(|n| n.ends_with(".part"));
            while child.try_wait().unwrap().is_none() && !writing() {
                std::hint::spin_loop();
            }
        }
        child.kill().unwrap();
        if child.wait().unwrap().signal() == Some(9) {
            kills += 1;
            places.insert(assert_readable(&out));
        } else {
            // It had finished: that round is over.
            assert_eq!(result_of(&out), whole, "{name}");
            round += 1;
        }
    }
    assert!(places.len() > 1, "all kills fell on the same checkpoint: {places:?}");

    let name = format!("killed-{round}");
    run(directory, &format!("train small.toml --resume --quiet --out {name}")).fine();
    let out = directory.join(&name);
    assert_eq!(result_of(&out), whole);
    for name in names(&out).into_iter().chain(names(&out.join("checkpoints"))) {
        assert!(!name.ends_with(".part"), "{name} is left over");
    }
    assert_readable(&out);
}

#[test]
fn finished_run_can_be_resumed_and_extended_by_nothing() {
    let directory = workplace();
    run(directory.path(), "train small.toml --out run --quiet").fine();
    let before = result_of(&directory.path().join("run"));
    run(directory.path(), "train --resume --out run --quiet").fine();
    let after = result_of(&directory.path().join("run"));
    assert_eq!(before.0, after.0);
}
