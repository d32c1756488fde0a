//! Runs of event-driven models: they learn, resume, are guarded, and say what happens in them.

use std::path::Path;

use snn_core::reference::Reference;
use snn_train::monitor::{MonitorRecord, Phase, Snapshot};
use snn_train::trainer::{Observer, RunInfo, RunOptions, Summary};
use snn_train::{Experiment, run};

const CONFIG: &str = r#"
    data = { set = "yinyang", encode = { kind = "times", window_ms = 100 }, train_samples = 240, test_samples = 90 }
    [model]
    layers = [{ kind = "dense", width = 30, init = { kind = "between", low = -0.4, high = 1.6 },
                neuron = { model = "event", threshold = 0.1, end = 0.4, spikes = 4 } }]
    [model.readout]
    init = { kind = "between", low = -0.1, high = 0.3 }
    [model.readout.neuron]
    model = "event"
    cell = { threshold = 0.12, end = 0.6, spikes = 6 }
    read = { kind = "count" }
    [train]
    epochs = 3
    batch = 20
    optimiser = { learning_rate = 0.01 }
    loss = { kind = "targets", on = 4, off = 1 }
    evaluate_every = 1
    monitor = { per_epoch = 3, snapshots = true }
"#;

fn experiment(changes: &[&str]) -> Experiment {
    let mut experiment = Experiment::from_toml("events.toml", CONFIG).unwrap();
    changes.iter().for_each(|change| experiment.set(change).unwrap());
    experiment
}

/// Keeps what a run says.
#[derive(Default)]
struct Listener {
    layers: Vec<String>,
    monitors: Vec<MonitorRecord>,
    notes: Vec<String>,
}

impl Observer for Listener {
    fn started(&mut self, info: &RunInfo) {
        self.layers.clone_from(&info.layers);
    }
    fn monitor(&mut self, record: &MonitorRecord) {
        self.monitors.push(record.clone());
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

fn train(experiment: &Experiment, out: Option<&Path>, resume: bool) -> (Summary, Listener) {
    let options = RunOptions { out: out.map(Path::to_owned), resume, ..RunOptions::default() };
    let mut listener = Listener::default();
    let summary = run(&Reference::<f32>::new(), experiment, &options, &mut listener).unwrap();
    (summary, listener)
}

/// The published networks on drawn digits, smaller and shorter.
fn digits(changes: &[&str]) -> Experiment {
    let base = [
        "data={set='digits-sim',encode={kind='times',window_ms=100},train_samples=300,test_samples=50}",
        "model.layers=[{kind='dense',width=60,init={kind='between',low=-1,high=1},neuron={model='event',end=0.2}}]",
        "model.readout={init={kind='between',low=-1,high=1},neuron={model='event',\
         cell={threshold=0.25,end=0.2},read={kind='count'}}}",
        "train.loss={kind='targets',on=15,off=3}",
        "train.optimiser.learning_rate=0.01",
        "train.epochs=4",
        "train.monitor={}",
    ];
    experiment(&[&base[..], changes].concat())
}

#[test]
fn every_loss_learns() {
    let first = [
        "model.layers.0.init.low=0.0",
        "model.layers.0.neuron={model='event',threshold=0.7,end=1.0,spikes=1}",
        "model.readout.init.low=0.0",
        "model.readout.neuron.cell={threshold=0.2,end=1.0,spikes=1}",
    ];
    let by_first = |read: &'static str, loss: &'static str| [&first[..], &[read, loss]].concat();
    for changes in [
        vec![],
        vec!["model.readout.neuron.read={kind='decay',rate=1.0}"],
        vec!["model.readout.neuron.read={kind='decay',rate=6.0,exact=true}", "train.loss={kind='targets',on=8,off=1}"],
        by_first("model.readout.neuron.read={kind='first-spike',tau=0.005}", "train.loss={kind='cross-entropy'}"),
        by_first(
            "model.readout.neuron.read={kind='first-time',missing=1.0}",
            "train.loss={kind='targets',on=-0.03,off=-0.06}",
        ),
    ] {
        let (summary, _) = train(&digits(&changes), None, false);
        let (first, last) = (&summary.history[0], &summary.history[3]);
        assert!(last.loss < first.loss, "{changes:?}: {} then {}", first.loss, last.loss);
        assert!(last.accuracy > 0.3, "{changes:?}: {}", last.accuracy);
        assert_eq!(last.skipped_updates, 0);
    }
}

#[test]
fn monitors_and_snapshots_tell_what_happens() {
    let directory = tempfile::tempdir().unwrap();
    let (summary, listener) = train(&experiment(&[]), Some(directory.path()), false);
    assert_eq!(listener.layers, ["event 4 -> 30", "event 30 -> 3", "spike count"]);
    let of = |phase| listener.monitors.iter().filter(move |m| m.split == phase).collect::<Vec<_>>();
    let (train, test) = (of(Phase::Train), of(Phase::Test));
    assert_eq!((train.len(), test.len()), (9, 2));
    let epochs: Vec<f64> = train.iter().map(|m| m.epoch).collect();
    assert!((epochs[0] - 1.0 / 3.0).abs() < 1e-12 && epochs[8] == 3.0, "{epochs:?}");
    let tested = summary.history[1].test_accuracy.unwrap();
    assert!((test[1].get("accuracy").unwrap() - 100.0 * tested).abs() < 1e-9);
    for name in ["silent_neurons/0", "silent_labels", "spikes/1", "weight_norm/0.weight", "learning_rate", "non_finite"]
    {
        assert!(train[0].get(name).is_some(), "{name} is missing");
    }
    let snapshots = Snapshot::list(directory.path()).unwrap();
    assert_eq!(snapshots.len(), 2);
    let snapshot = Snapshot::read(&snapshots[0]).unwrap();
    assert_eq!((snapshot.raster.len(), snapshot.heat[0].dim(), snapshot.heat[1].dim()), (2, (3, 30), (3, 3)));
    assert!(!snapshot.raster[0].times.is_empty() && snapshot.raster[0].times.is_sorted());
    let log = std::fs::read_to_string(directory.path().join("log.jsonl")).unwrap();
    assert_eq!(log.lines().filter(|l| l.contains(r#""event":"monitor""#)).count(), 11);
}

#[test]
fn interrupted_runs_end_with_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, part) = (directory.path().join("whole"), directory.path().join("part"));
    let experiment = experiment(&["train.checkpoint_batches=5"]);
    train(&experiment, Some(&whole), false);
    // Only what lay on disk after the first epoch goes on.
    let mut short = experiment.clone();
    short.train.epochs = 1;
    train(&short, Some(&part), false);
    let manifest = part.join("checkpoints/manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let long = |text: &str| text.replace("epochs = 1", "epochs = 3");
    std::fs::write(&manifest, long(&text)).unwrap();
    let (_, listener) = train(&experiment, Some(&part), true);
    assert!(listener.notes.iter().any(|n| n.contains("resumed after epoch 1")), "{:?}", listener.notes);
    let model = |run: &Path| std::fs::read(run.join("model.safetensors")).unwrap();
    assert!(model(&whole) == model(&part), "other bytes");
}

#[test]
fn updates_without_a_finite_gradient_are_left_out_and_counted() {
    let experiment = experiment(&["train.loss={kind='targets',on=3e38,off=-3e38}", "train.epochs=1"]);
    let (summary, _) = train(&experiment, None, false);
    let record = &summary.history[0];
    assert_eq!((record.skipped_updates, record.infinite_share), (12, 1.0));
    assert!(record.loss.is_infinite() && summary.test_loss.is_infinite());
}

#[test]
fn collapsed_runs_stop_with_their_best_weights() {
    let directory = tempfile::tempdir().unwrap();
    let experiment = digits(&[
        "train.epochs=7",
        "train.collapse=0.9",
        "train.keep=best-training-accuracy",
        "train.schedule={kind='milestones',epochs=[4],factor=1e5}",
    ]);
    let (summary, listener) = train(&experiment, Some(directory.path()), false);
    let ended = summary.collapsed.expect("no training survives such a rate");
    assert!((5..=7).contains(&ended), "{ended}");
    assert_eq!(summary.history.len(), ended as usize);
    assert!(listener.notes.iter().any(|n| n.starts_with("collapsed: ")), "{:?}", listener.notes);
    let best = summary.history.iter().map(|r| r.accuracy).fold(0.0, f64::max);
    assert!(summary.test_accuracy > 0.7 * best, "the best weights give {}", summary.test_accuracy);
    // A run that has ended stays ended.
    let (again, _) = train(&experiment, Some(directory.path()), true);
    assert_eq!((again.collapsed, again.history.len()), (Some(ended), ended as usize));
}

#[test]
fn silent_networks_come_back_by_synaptic_scaling() {
    let quiet = "model.layers.0.init={kind='between',low=0.0,high=0.05}";
    let spikes = |changes: &[&str]| {
        let (summary, _) = train(&experiment(changes), None, false);
        summary.history.iter().map(|r| r.spikes_per_sample).collect::<Vec<_>>()
    };
    assert_eq!(spikes(&[quiet]), [0.0; 3]);
    let scaling = "model.layers.0.neuron.scaling={silent=0.5,factor=1.0}";
    let woken = spikes(&[quiet, "train.optimiser.kind=sgd", "train.optimiser.learning_rate=0.2", scaling]);
    assert!(woken[0] == 0.0 || woken[0] < woken[2], "{woken:?}");
    assert!(woken[2] > 1.0, "{woken:?}");
}

#[test]
fn classes_that_never_fire_are_woken() {
    let quiet = "model.readout.init={kind='between',low=0.0,high=0.004}";
    let silent = |changes: &[&str]| {
        let (_, listener) = train(&digits(&[&["train.monitor.per_epoch=1", quiet], changes].concat()), None, false);
        let train = listener.monitors.iter().filter(|m| m.split == Phase::Train);
        train.map(|m| m.get("silent_labels").unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(silent(&[]), [100.0; 4]);
    let woken = silent(&["train.wake_labels=0.1"]);
    assert!(woken[0] > 20.0 && woken[3] < 5.0, "{woken:?}");
}

#[test]
fn what_does_not_fit_is_named() {
    let message = |change: &str| experiment(&[]).set(change).unwrap_err().to_string();
    for (change, want) in [
        ("model.layers.0.neuron.spikes=0", "neuron.spikes = 0: must be in [1, 2^32)"),
        ("model.layers.0.neuron.threshold=-1", "neuron.threshold = -1: must be in (0, inf)"),
        ("model.layers.0.neuron.tau_s=0", "neuron.tau_s = 0: must be in (0, inf)"),
        ("model.readout.neuron.read={kind='first-spike',tau=0}", "read.tau = 0: must be a number above 0"),
        ("model.readout.neuron.cell.scaling={silent=2,factor=1}", "scaling.silent = 2: must be in [0, 1]"),
        ("train.rates.limit=0.1", "0 for event-driven neurons"),
        ("train.wake_labels=-1", "train.wake_labels = -1: must be 0 or more"),
        ("model.layers.0.init={kind='between',low=1,high=0}", "at least low = 1"),
    ] {
        let message = message(change);
        assert!(message.contains(want), "{change}: {message}");
    }
    let fit = |change: &str| {
        let experiment = experiment(&[change]);
        let result = run(&Reference::<f32>::new(), &experiment, &RunOptions::default(), &mut Listener::default());
        result.unwrap_err().to_string()
    };
    for (change, want) in [
        ("data.encode={kind='latency',steps=10}", "layer 0 (event-driven neurons) takes spike trains"),
        ("model.layers.0.neuron={model='block'}", "layer 0 (in time steps) takes spikes in steps"),
        ("model.layers.0.norm={kind='batch'}", "layer 0: norm"),
        ("data.encode={kind='times',window_ms=-1}", "window_ms"),
    ] {
        let message = fit(change);
        assert!(message.contains(want), "{change}: {message}");
    }
}
