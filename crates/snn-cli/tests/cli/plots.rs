//! Pictures of monitors, snapshots and several runs, from logs as a run writes them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use snn_train::log::JsonLines;
use snn_train::monitor::{Extra, HeatMap, LayerRaster, Monitors, Phase, Seen, Snapshot};

use crate::{run, run_with};

const HIDDEN: usize = 120;
const CLASSES: usize = 10;
const EPOCHS: u32 = 4;

/// Numbers that look random and are the same everywhere.
fn noise(a: usize, b: usize) -> f64 {
    let mut x = (a as u64) << 32 ^ b as u64 ^ 0x9E37_79B9;
    for _ in 0..3 {
        x = (x ^ x >> 31).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    }
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

/// One batch of a network that learns: its hidden neurons prefer classes, its outputs ever more the right one.
fn batch(monitors: &mut Monitors, epoch: f64, seed: usize) {
    let labels: Vec<u32> = (0..100).map(|i| i % CLASSES as u32).collect();
    let skill = 1.0 - (-epoch * (0.8 + 0.1 * noise(seed, 7))).exp();
    let (mut hidden, mut output, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for (i, &label) in labels.iter().enumerate() {
        for n in 0..HIDDEN {
            let likes = noise(n, label as usize) > 0.7 && n % 9 != 0;
            hidden.push(if likes { (12.0 * skill * noise(n + i, seed)) as u32 } else { u32::from(n % 9 == 1) });
        }
        for class in 0..CLASSES as u32 {
            let rate = if class == label { 3.0 + 12.0 * skill } else { 4.0 - 3.0 * skill };
            output.push((rate * noise(i * 10 + class as usize, seed + 50)) as u32);
        }
        losses.push(if i % 50 == 49 && epoch < 1.0 { f64::NAN } else { 12.0 - 7.0 * skill + noise(i, seed) });
    }
    let correct = (96.0 * skill + 4.0 * noise(seed, (epoch * 10.0) as usize)) as usize;
    monitors.batch(&Seen { labels: &labels, correct, losses: &losses, spikes: vec![&hidden, &output] }).unwrap();
}

fn raster(epoch: u32) -> Vec<LayerRaster> {
    let layer = |width: usize, spikes: usize| {
        let count = spikes * (epoch as usize + 4) / 4;
        let times = (0..count).map(|i| (0.2 * noise(i, width).sqrt()) as f32).collect();
        LayerRaster { times, units: (0..count).map(|i| (noise(i, 3) * noise(i, 5) * width as f64) as u32).collect() }
    };
    let mut output = layer(CLASSES, 12);
    output.units.iter_mut().enumerate().filter(|(i, _)| i % 3 != 0).for_each(|(_, unit)| *unit = 7);
    vec![layer(HIDDEN, 200), output]
}

/// A run's directory as training leaves it, snapshots included.
fn fake_run(directory: &Path, experiment: &str, seed: usize, snapshots: bool) {
    fs::create_dir_all(directory).unwrap();
    let mut log = JsonLines::open(&directory.join("log.jsonl"), 0).unwrap();
    let toml = format!("name = \"{experiment}\"\n[train]\nseed = {seed}\n");
    log.write(&json!({ "event": "run", "info": { "name": experiment }, "experiment": toml })).unwrap();
    let mut train = Monitors::new(&[HIDDEN, CLASSES], CLASSES).unwrap();
    let mut test = Monitors::new(&[HIDDEN, CLASSES], CLASSES).unwrap().with_heat();
    let mut write = |event: &str, mut record: Value| {
        record["event"] = event.into();
        log.write(&record).unwrap();
    };
    for epoch in 1..=EPOCHS {
        let before = f64::from(epoch - 1);
        for tenth in 1..=10 {
            let at = before + f64::from(tenth) / 10.0;
            batch(&mut train, at, seed);
            let norms = [("0.weight".to_owned(), 470.0 + 60.0 * at), ("1.weight".to_owned(), 59.0 + 10.0 * at)];
            let rate = 0.003 * 0.9_f64.powi((at as i32) / 2);
            let extra = Extra { weight_norms: &norms, seconds: f64::from(tenth) * 3.2, learning_rate: Some(rate) };
            write("monitor", serde_json::to_value(train.record(Phase::Train, at, extra)).unwrap());
        }
        batch(&mut test, f64::from(epoch) - 0.2, seed + 1000);
        let heat: Vec<HeatMap> = test.heat().unwrap();
        let record = test.record(Phase::Test, f64::from(epoch), Extra { seconds: 4.5, ..Extra::default() });
        let accuracy = record.get("accuracy").unwrap() / 100.0;
        write("monitor", serde_json::to_value(record).unwrap());
        write(
            "epoch",
            json!({ "epoch": epoch, "loss": 12.0 - before, "accuracy": accuracy, "spikes_per_sample": 500.0,
                    "seconds": 32.0, "test_accuracy": accuracy }),
        );
        if snapshots {
            Snapshot { epoch, label: 7, raster: raster(epoch), heat }.write(directory).unwrap();
        }
    }
}

/// The pictures go to `$SNN_KEEP_FIGURES/plots` if that names a directory, to be looked at.
fn place() -> (Option<tempfile::TempDir>, std::path::PathBuf) {
    match std::env::var_os("SNN_KEEP_FIGURES") {
        Some(kept) => (None, Path::new(&kept).join("plots")),
        None => {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().to_owned();
            (Some(directory), path)
        }
    }
}

fn png(path: &Path) {
    assert!(fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).starts_with(b"\x89PNG"));
}

/// The frames of a GIF: each begins with a graphic control extension.
fn frames(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap();
    assert!(bytes.starts_with(b"GIF89a"));
    bytes.windows(4).filter(|w| w[..3] == [0x21, 0xf9, 0x04]).count()
}

#[test]
fn monitors_and_snapshots_of_a_run_become_pictures() {
    let (_guard, directory) = place();
    fake_run(&directory.join("one"), "mnist-count", 1, true);
    let out = run(&directory, "plot one").fine();
    let listed: Vec<&str> = out.lines().collect();
    let want = ["one/training.png", "one/monitors.png", "one/raster.gif", "one/heat-0.gif", "one/heat-1.gif"];
    assert_eq!(listed, want);
    let one = directory.join("one");
    for name in ["accuracy", "loss", "silent_labels", "silent_neurons-0", "silent_neurons-1", "spikes-0", "seconds"] {
        for split in ["train", "test"] {
            png(&one.join(format!("monitors/{split}-{name}.png")));
            assert!(one.join(format!("monitors/{split}-{name}.npz")).is_file());
        }
    }
    png(&one.join("monitors/train-weight_norm-0.weight.png"));
    assert!(!one.join("monitors/test-learning_rate.png").exists());
    let csv = fs::read_to_string(one.join("monitors/train-learning_rate.csv")).unwrap();
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!((rows[0], rows[1], rows.len()), ("epoch,learning_rate", "0.1,0.003", 10 * EPOCHS as usize + 1));
    let overview = fs::read_to_string(one.join("monitors.svg")).unwrap();
    for label in ["silent neurons, layer 1 (%)", "weight norm, 0.weight", "losses not finite (%)"] {
        assert!(overview.contains(label), "{label}");
    }
    for name in ["raster", "heat-0", "heat-1"] {
        png(&one.join(format!("{name}.png")));
        assert_eq!(frames(&one.join(format!("{name}.gif"))), EPOCHS as usize, "{name}");
    }

    fs::write(Snapshot::directory(&one).join("epoch-0009.npz"), b"PK cut").unwrap();
    run(&directory, "plot one").fails(1, &["epoch-0009.npz: is no complete npz archive"]);
}

#[test]
fn runs_are_compared_by_experiment() {
    let (_guard, directory) = place();
    let mut arguments = vec!["plot".to_owned()];
    for seed in 1..=5 {
        for experiment in ["mnist-count", "mnist-ttfs"] {
            let name = format!("{experiment}-{seed}");
            fake_run(
                &directory.join(&name),
                experiment,
                if experiment == "mnist-count" { seed } else { seed + 50 },
                false,
            );
            arguments.push(name);
        }
    }
    arguments.extend(["--out".to_owned(), "both".to_owned()]);
    let out = run_with(&directory, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).fine();
    assert!(out.starts_with("both/training.png\nboth/runs.png\nboth/mnist-count-1/monitors.png\n"), "{out}");
    png(&directory.join("both/runs.png"));
    let csv = fs::read_to_string(directory.join("both/runs.csv")).unwrap();
    let count = |text: &str| csv.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count(",lines,mnist-count (n = 5),"), EPOCHS as usize);
    assert_eq!(count(",whiskers,mnist-ttfs (n = 5),"), 3);
    assert_eq!(count(",sample,mnist-ttfs (n = 5),best epoch,"), 5);
}
