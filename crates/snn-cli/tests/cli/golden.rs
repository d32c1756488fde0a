//! `snn golden` notices every kind of damage to a folder of golden cases.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::{Got, run_with};

/// A copy of the project's cases of a system that can be damaged.
fn copy_of(system: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snn-core/golden").join(system);
    let folder = directory.path().join(system);
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(own).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    (directory, folder)
}

fn copy() -> (tempfile::TempDir, PathBuf) {
    copy_of("block")
}

fn golden(directory: &Path) -> Got {
    run_with(directory, &["golden", "--dir", &directory.display().to_string()])
}

/// Cases in the index.
fn count(folder: &Path) -> usize {
    let index: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    index["cases"].as_array().unwrap().len()
}

/// Writes an archive anew, with each array as `change` gives it back.
fn rewrite(path: &Path, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) {
    let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut arrays = Vec::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).unwrap();
        let name = entry.name().unwrap().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        arrays.push((name, bytes));
    }
    let mut writer = zip::ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in arrays {
        if let Some(bytes) = change(&name, bytes) {
            writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(&bytes).unwrap();
        }
    }
    writer.finish().unwrap();
}

/// Asserts exit code 1 and the closing line; gives standard output.
fn assert_ends(got: Got, passed: usize, failed: usize, unclaimed: usize) -> String {
    assert_eq!(got.code, Some(1), "{got:?}");
    let want = format!("{passed} passed, {failed} failed, {unclaimed} unclaimed, 0 skipped");
    assert_eq!(got.out.lines().last(), Some(&*want), "{}", got.out);
    assert!(got.err.contains("not everything passed"), "{}", got.err);
    got.out
}

#[test]
fn own_cases_pass() {
    let directory = tempfile::tempdir().unwrap();
    let out = run_with(directory.path(), &["golden"]).fine();
    // Cases that need a published data set run where it is.
    let skipped: Vec<&str> = out.lines().filter(|l| l.contains(": skipped")).collect();
    assert!(skipped.iter().all(|l| l.contains("needs the data set mnist")) && skipped.len() <= 3, "{out}");
    let end = format!(" passed, 0 failed, 0 unclaimed, {} skipped", skipped.len());
    assert!(out.lines().last().is_some_and(|l| l.ends_with(&end)), "{out}");
}

#[test]
fn changed_number_and_missing_array_fail() {
    let (directory, folder) = copy();
    let cases = count(&folder);
    let changed = folder.join("block_hetero_beta.npz");
    rewrite(&changed, |name, mut bytes| {
        if name.starts_with("grad_current_f64") {
            // The last entry, a double: a little larger.
            let at = bytes.len() - 8;
            let value = f64::from_le_bytes(bytes[at..].try_into().unwrap());
            bytes[at..].copy_from_slice(&(value + 0.01 * (1.0 + value.abs())).to_le_bytes());
        }
        Some(bytes)
    });
    let out = assert_ends(golden(directory.path()), cases - 1, 1, 0);
    assert!(
        out.contains("block_hetero_beta.npz [block_neurons]: reference f64 FAILED: grad_current_f64: difference"),
        "{out}"
    );

    rewrite(&folder.join("model_block_sum.npz"), |name, bytes| (!name.starts_with("logits")).then_some(bytes));
    let out = assert_ends(golden(directory.path()), cases - 2, 2, 0);
    assert!(out.contains("model_block_sum.npz") && out.contains("is not in the file"), "{out}");
}

#[test]
fn spike_that_moved_fails() {
    let (directory, folder) = copy();
    let cases = count(&folder);
    rewrite(&folder.join("std_multi.npz"), |name, mut bytes| {
        if name.starts_with("spikes") {
            let at = bytes.len() - 1;
            bytes[at] ^= 1;
        }
        Some(bytes)
    });
    let out = assert_ends(golden(directory.path()), cases - 1, 1, 0);
    assert!(out.contains("spikes: difference 1.000e0, allowed 0.0e0"), "{out}");
}

#[test]
fn files_and_kinds_that_nobody_knows_are_counted() {
    let (directory, folder) = copy();
    let cases = count(&folder);
    fs::write(folder.join("stray.npz"), b"").unwrap();
    let out = assert_ends(golden(directory.path()), cases, 0, 1);
    assert!(out.contains("block/stray.npz: unclaimed, the index does not mention it"), "{out}");

    let index = fs::read_to_string(folder.join("index.json")).unwrap();
    fs::write(folder.join("index.json"), index.replacen("\"block_yinyang\"", "\"block_yingyang\"", 1)).unwrap();
    let out = assert_ends(golden(directory.path()), cases - 1, 0, 2);
    assert!(out.contains("yinyang.npz [block_yingyang]: unclaimed, no runner for this kind"), "{out}");
}

#[test]
fn damaged_archives_and_indices_are_named() {
    let (directory, folder) = copy();
    let cases = count(&folder);
    let path = folder.join("std_single.npz");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let out = assert_ends(golden(directory.path()), cases - 1, 1, 0);
    assert!(out.contains("std_single.npz"), "{out}");
    fs::remove_file(&path).unwrap();
    let out = golden(directory.path());
    assert!(out.out.ends_with("0 failed, 0 unclaimed, 1 skipped\n"), "{}", out.out);
    fs::write(folder.join("index.json"), "{").unwrap();
    golden(directory.path()).fails(1, &["index.json"]);
}

#[test]
fn recordings_that_are_not_as_the_index_says_fail() {
    let (directory, folder) = copy_of("alif-blocks");
    let cases = count(&folder);
    let index = fs::read_to_string(folder.join("index.json")).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let tiny = index["cases"].as_array_mut().unwrap().iter_mut().find(|c| c["file"] == "nwb_tiny.nwb").unwrap();
    let sweep = &mut tiny["options"]["expected"]["sweeps"][0];
    sweep["rate_hz"] = 50_001.0.into();
    sweep["probes"][2]["stimulus"] = 8.176e-11.into();
    sweep["windows"][1]["raster_idx"][0] = 557.into();
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    let out = assert_ends(golden(directory.path()), cases - 1, 1, 0);
    for part in ["sweep 5, rate: 50000, expected 50001", "sweep 5, sample 37500", "window from 10 s, raster: [556, "] {
        assert!(out.contains(part), "{part}: {out}");
    }
}
