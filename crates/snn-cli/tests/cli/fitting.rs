//! `snn fit-neuron`: what it writes, and what it says of recordings and settings that it cannot use.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::run;

/// A few epochs of two generated cells into `out`.
const QUICK: &str = "fit-neuron --synthetic 2 --seed 3 --set epochs=3 --set starts=2";

#[test]
fn generated_cells_are_fitted_and_shown() {
    let place = tempfile::tempdir().unwrap();
    let got = run(place.path(), &format!("{QUICK} --out fits"));
    assert!(got.err.contains("epoch    3: mean of the least distances"), "{}", got.err);
    let out = got.fine();
    for part in ["Fitted cells", "explained, 15 ms", "synthetic recording", "fits"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let folder = place.path().join("fits");
    for name in ["summary", "cells/1", "cells/2"] {
        for ending in ["svg", "png", "csv"] {
            assert!(folder.join(format!("{name}.{ending}")).is_file(), "{name}.{ending}");
        }
    }
    let table = fs::read_to_string(folder.join("summary.md")).unwrap();
    assert_eq!(table.matches("| synthetic recording |").count(), 2, "{table}");
    let fit: Value = serde_json::from_slice(&fs::read(folder.join("fit.json")).unwrap()).unwrap();
    assert_eq!((&fit["config"]["epochs"], &fit["protocol"]["trials"]), (&Value::from(3), &Value::from("all")));
    let cells = fit["cells"].as_array().unwrap();
    assert_eq!(cells.iter().map(|c| c["cell"].as_str().unwrap()).collect::<Vec<_>>(), ["1", "2"]);
    for cell in cells {
        assert_eq!(cell["label"], "synthetic recording");
        assert_eq!(cell["constants"]["history"].as_array().unwrap().len(), 3);
        assert_eq!(cell["scores"].as_array().unwrap().len(), 3);
        assert!(cell["membrane_ms"].as_f64().unwrap() > 1.0, "{cell}");
    }
    // A directory that holds a fit is left alone.
    run(place.path(), &format!("{QUICK} --out fits")).fails(2, &["--out fits", "holds a fit already"]);

    // The generated files are recordings like others; names of pictures are those of cells, each once.
    let file = "fits/sessions/specimen_1/ephys.nwb";
    let again = format!("fit-neuron {file} {file} --published --detect --set epochs=2 --out again --quiet");
    let out = run(place.path(), &again).fine();
    assert!(out.contains("detector") && out.contains("1-2"), "{out}");
    assert!(place.path().join("again/cells/1-2.png").is_file());
    let fit: Value = serde_json::from_slice(&fs::read(place.path().join("again/fit.json")).unwrap()).unwrap();
    assert_eq!((&fit["gradient"], &fit["protocol"]["trials"]), (&"of the block model".into(), &"first".into()));
    assert_eq!(fit["cells"][0]["constants"], fit["cells"][1]["constants"], "who stands beside a cell does not matter");

    // The folder of the generated cells, at steps that need more samples than were recorded.
    run(place.path(), "fit-neuron fits/sessions --set dt_ms=0.05 --out finer").fails(
        1,
        &["specimen_1/ephys.nwb", "Sweep_", "rate of the model: 20000 Hz", "divides the 50000 Hz of the recording"],
    );
    assert!(!place.path().join("finer").join("fit.json").exists());
}

#[test]
fn settings_that_do_not_fit_are_usage_errors() {
    let place = tempfile::tempdir().unwrap();
    for (arguments, parts) in [
        ("", &["no cells", "--synthetic N"][..]),
        ("--synthetic 1 --set epoch=3", &["--set epoch=3", "no key `epoch`", "did you mean `epochs`"]),
        ("--synthetic 1 --set protocol.second=3", &["no key `second`", "did you mean `seconds`"]),
        ("--synthetic 1 --set dt_ms=0.07", &["dt_ms", "0.07", "a whole number of samples of 0.1 ms"]),
        ("--synthetic 1 --set starts=0", &["starts", "1 to 1024"]),
        ("--synthetic 1 --set epochs", &["expected KEY=VALUE"]),
        ("505808144", &["specimen", "505808144", "there are none in"]),
        ("nowhere.nwb", &["nowhere.nwb: no such recording", "the number of a specimen"]),
        (".", &["no recordings", "specimen_ID"]),
    ] {
        run(place.path(), &format!("fit-neuron {arguments} --out fits")).fails(2, parts);
    }
    assert!(!place.path().join("fits").exists(), "nothing was written");
}

/// A recording of the golden files, in which every `from` is `to`.
fn altered(folder: &Path, name: &str, from: &str, to: &str) -> PathBuf {
    assert_eq!(from.len(), to.len(), "places in the file stay as they are");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snn-core/golden/alif-blocks/nwb_tiny.nwb");
    let mut bytes = fs::read(own).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "{from}");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn recordings_that_cannot_be_used_are_named_with_the_place_inside() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let fails = |arguments: &str, parts: &[&str]| {
        run(folder, &format!("fit-neuron {arguments} --out fits")).fails(1, parts);
    };
    altered(folder, "nameless.nwb", "Sweep_", "Swoop_");
    fails("nameless.nwb", &["nameless.nwb: /epochs: no member Sweep_0", "expected the sweeps of an NWB 1.x file"]);
    altered(folder, "short.nwb", "Noise 2", "Noise 2");
    fails("short.nwb", &["short.nwb: stimulus `Noise 2`: sweep 7 of 0.0395 s", "expected at least 21 s"]);
    fails("short.nwb --set protocol.test=Ramp", &["no sweep of stimulus `Ramp`, expected one of", "`Noise 1`"]);
    altered(folder, "unequal.nwb", "Noise 2", "Noise 1");
    let unequal = ["unequal.nwb: stimulus `Noise 1`: sweep 7 of 0.0395 s", "as has sweep 5 of 21.0478 s"];
    fails("unequal.nwb", &unequal);
    let path = altered(folder, "whole.nwb", "Noise 2", "Noise 1");
    let bytes = fs::read(path).unwrap();
    fs::write(folder.join("cut.nwb"), &bytes[..bytes.len() / 2]).unwrap();
    fails("cut.nwb", &["cut.nwb"]);
    fs::write(folder.join("text.npz"), "no archive").unwrap();
    fails("text.npz", &["text.npz"]);
}
