//! Weights that go to another program and come back.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{json_lines, run, run_with, workplace};

const PARALLEL: &str = r#"
name = "parallel"

[data]
set = "yinyang-paralif"
encode = { kind = "rate", steps = 20 }
train_samples = 200
test_samples = 100

[model]
layers = [{ kind = "dense", width = 16, neuron = { model = "paralif", mode = "SD", recurrent = "spike", filter = { learn_tau = true } } }]
readout = { reduce = "mean", neuron = { model = "filter", tau_mem = 5.0 } }

[train]
epochs = 1
batch = 20
"#;

#[test]
fn exported_weights_come_back_as_the_same_model() {
    let directory = workplace();
    let directory = directory.path();
    fs::write(directory.join("parallel.toml"), PARALLEL).unwrap();
    run(directory, "train parallel.toml --out run").fine();
    run(directory, "export run --out weights.npz").fine();
    run(directory, "import weights.npz --as parallel.toml --out again").fine();
    let [first, again] =
        ["run", "again"].map(|model| json_lines(&run(directory, &format!("eval {model} --json")).fine()));
    assert_eq!(first[0]["test_loss"], again[0]["test_loss"]);
    assert_eq!(
        fs::read(directory.join("run/config.toml")).unwrap(),
        fs::read(directory.join("again/config.toml")).unwrap()
    );

    let refused = run(directory, "export run --out weights.npz --names spsn");
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("learned `beta`") && refused.err.contains("no name for"), "{}", refused.err);
    let refused = run(directory, "import small.toml --as parallel.toml --out other");
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("small.toml: is no npz archive"), "{}", refused.err);
    assert!(!directory.join("other").exists(), "nothing half-written");
}

#[test]
fn impossible_neurons_are_refused_with_their_numbers() {
    let directory = workplace();
    let directory = directory.path();
    fs::write(directory.join("parallel.toml"), PARALLEL).unwrap();
    for (set, want) in [
        (
            "model.layers.0.neuron.mode=XT",
            "unknown firing mode `XT`; it is one of GS, SB, TRB, D, SD, TD, TRD, T, ST, TT, TRT",
        ),
        ("model.layers.0.neuron.filter.tau_mem=0", "tau_mem = 0: must be a number of steps above 0"),
        (
            "model.layers.0.neuron.filter.tau_mem=[1.0,2.0]",
            "tau_mem has 2 numbers: must be one for all or one for each of the 16 neurons",
        ),
        ("data.encode.steps=0", "0"),
    ] {
        let refused = run(directory, &format!("train parallel.toml --set {set}"));
        assert_eq!(refused.code, Some(2), "{set}: {}", refused.err);
        assert!(refused.err.contains(want), "{set}: {}", refused.err);
    }
}

const EVENTS: &str = r#"
name = "events"

[data]
set = "yinyang"
encode = { kind = "times", window_ms = 100.0 }
train_samples = 200
test_samples = 100

[model]
layers = [{ kind = "dense", width = 16, neuron = { model = "event", spikes = 5 }, init = { kind = "between", low = 0.0, high = 2.0 } }]
readout = { neuron = { model = "event", cell = { threshold = 0.6, spikes = 10 } }, init = { kind = "between", low = 0.0, high = 1.0 } }

[train]
epochs = 1
batch = 20
loss = { kind = "targets", on = 5.0, off = 1.0 }
"#;

/// A directory with a trained model of event-driven neurons in `run`.
fn trained_events() -> tempfile::TempDir {
    let directory = workplace();
    fs::write(directory.path().join("events.toml"), EVENTS).unwrap();
    run(directory.path(), "train events.toml --out run --quiet").fine();
    directory
}

fn result(directory: &Path, arguments: &str) -> Value {
    json_lines(&run(directory, &format!("{arguments} --json")).fine()).remove(0)
}

#[test]
fn weights_of_event_driven_neurons_go_and_come_back_as_npy() {
    let directory = trained_events();
    let directory = directory.path();
    run(directory, "export run --names bats --out weights").fine();
    let mut names: Vec<_> = fs::read_dir(directory.join("weights")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["Hidden layer 1_weights.npy", "Output layer_weights.npy"]);

    run(directory, "import weights --as events.toml --out again").fine();
    let [first, again] = ["eval run", "eval again"].map(|call| result(directory, call));
    let folder = result(directory, "eval weights --experiment events.toml");
    for key in ["test_accuracy", "test_loss", "spikes_per_layer", "readings", "infinite_share", "samples"] {
        assert!(!first[key].is_null(), "{key}: {first}");
        assert_eq!(first[key], again[key], "{key}");
        assert_eq!(first[key], folder[key], "{key}");
    }
    for file in ["config.toml", "model.safetensors"] {
        let [first, again] = ["run", "again"].map(|run| fs::read(directory.join(run).join(file)).unwrap());
        assert!(first == again, "{file}");
    }
    let csv = ["predict run", "predict weights --experiment events.toml"].map(|call| run(directory, call).fine());
    assert_eq!(csv[0], csv[1]);

    run(directory, "export run --out w.npz").fails(2, &["neurons are event-driven; export them with `--names bats`"]);
    run(directory, "eval weights").fails(2, &["weights: a folder of weights", "`--experiment`"]);
    run(directory, "eval run --experiment events.toml").fails(2, &["--experiment: run carries its own experiment"]);
    run(directory, "eval weights --experiment small.toml")
        .fails(1, &["weights: files of weights, one for each layer, are those of event-driven neurons"]);
    run(directory, "import weights --as small.toml --out other").fails(1, &["event-driven neurons"]);
    assert!(!directory.join("other").exists(), "nothing half-written");
    run(directory, "train small.toml --epochs 1 --quiet --out steps").fine();
    run(directory, "export steps --names bats --out w").fails(
        2,
        &["neurons are other than event-driven; export them with `--names spsn`, `--names paralif` or `--names keras`"],
    );
}

#[test]
fn npy_weights_that_do_not_fit_are_refused() {
    let directory = trained_events();
    let directory = directory.path();
    run(directory, "export run --names bats --out weights").fine();
    run(directory, "eval weights --experiment events.toml --set model.layers.0.width=15")
        .fails(1, &["Hidden layer 1_weights.npy: has shape [16, 4], the experiment wants [15, 4]"]);
    run(directory, "import weights --as events.toml --set model.layers.0.width=15 --out other")
        .fails(1, &["Hidden layer 1_weights.npy: has shape [16, 4], the experiment wants [15, any]"]);

    let path = directory.join("weights/Hidden layer 1_weights.npy");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let message = "Hidden layer 1_weights.npy: the weight at [15, 3] is NaN, expected finite f32 numbers";
    run(directory, "eval weights --experiment events.toml").fails(1, &[message]);
    run(directory, "import weights --as events.toml --out other").fails(1, &[message]);
    fs::write(&path, &bytes[..last]).unwrap();
    run(directory, "eval weights --experiment events.toml")
        .fails(1, &["Hidden layer 1_weights.npy: npy header: shape"]);
    fs::remove_file(&path).unwrap();
    run(directory, "eval weights --experiment events.toml")
        .fails(1, &["has no `Hidden layer 1_weights.npy`", "found `Output layer_weights.npy` [3, 16]"]);
    assert!(!directory.join("other").exists(), "nothing half-written");
}

#[test]
fn convolutions_of_event_driven_neurons_go_and_come_back() {
    let directory = workplace();
    let directory = directory.path();
    let set = |key_value: &str| format!(" --set {key_value}");
    let small: String = [
        "data.set=digits-sim",
        "data.train_samples=20",
        "data.test_samples=20",
        "data.augment=[]",
        "model.layers.0.channels=2",
        "model.layers.2.channels=3",
        "model.layers.4.width=8",
        "train.monitor.per_epoch=0",
    ]
    .map(set)
    .concat();
    run(directory, &format!("train bats-mnist-conv --epochs 1 --quiet --out run{small}")).fine();
    run(directory, "export run --names bats --out weights").fine();
    run(directory, "import weights --as run/config.toml --out again").fine();
    let got = run(directory, "eval weights --experiment run/config.toml");
    assert_eq!(got.err, "");
    let want = run(directory, "eval run").fine();
    assert_eq!(got.fine(), want);
    assert_eq!(run(directory, "eval again").fine(), want);
    // With the names of another program the shapes decide.
    for (from, to) in [("Hidden layer 1", "Convolution 1"), ("Hidden layer 2", "Convolution 2")] {
        let path = |name: &str| directory.join(format!("weights/{name}_weights.npy"));
        fs::rename(path(from), path(to)).unwrap();
    }
    let got = run(directory, "eval weights --experiment run/config.toml");
    assert!(got.err.contains("`Convolution 2_weights.npy` as `Hidden layer 2_weights.npy`"), "{}", got.err);
    assert_eq!(got.fine(), want);
}

#[test]
fn output_spikes_can_be_read_in_any_way() {
    let directory = trained_events();
    let directory = directory.path();
    let as_trained = result(directory, "eval run");
    let readings = &as_trained["readings"];
    assert_eq!(readings.as_object().unwrap().keys().collect::<Vec<_>>(), ["count", "decaying_count", "first_spike"]);
    assert_eq!(as_trained["test_accuracy"], readings["count"]);
    let layers: Vec<f64> =
        as_trained["spikes_per_layer"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
    assert_eq!((layers.len(), &as_trained["spikes_per_sample"]), (2, &as_trained["spikes_per_layer"][0]));

    let text = run(directory, "eval run").fine();
    let lines: Vec<&str> = text.lines().collect();
    let share = |key: &str| format!("{:.2} %", 100.0 * readings[key].as_f64().unwrap());
    let want =
        ["count", "first_spike", "decaying_count"].map(|key| format!("by {} {}", key.replace('_', " "), share(key)));
    assert_eq!(lines[1], format!("accuracy {}", want.join(", ")));
    assert_eq!(lines[2], format!("layer 0 (event 4 -> 16): {:.3} spikes per sample", layers[0]));
    assert_eq!(lines[3], format!("layer 1 (event 16 -> 3): {:.3} spikes per sample", layers[1]));

    let first = [
        "--set",
        r#"model.readout.neuron.read={kind="first-spike",tau=0.005}"#,
        "--set",
        r#"train.loss={kind="cross-entropy"}"#,
    ];
    let got = run_with(directory, &[&["eval", "run", "--json"], &first[..]].concat()).fine();
    let got = json_lines(&got).remove(0);
    assert_eq!(got["test_accuracy"], readings["first_spike"]);
    assert_eq!(got["spikes_per_layer"], as_trained["spikes_per_layer"]);

    // Output neurons that never fire: every first spike is infinitely late, and no class is more likely than another.
    let silent = [&first[..], &["--set", "model.readout.neuron.cell.threshold=1000"]].concat();
    let csv = run_with(directory, &[&["predict", "run"], &silent[..]].concat()).fine();
    let rows: Vec<&str> = csv.lines().skip(1).collect();
    assert_eq!(rows.len(), 100);
    for row in rows {
        assert!(row.contains(",0.333333,-inf,-inf,-inf"), "{row}");
    }
    let got = run_with(directory, &[&["eval", "run"], &silent[..]].concat()).fine();
    assert!(got.contains("\n100.00 % of the samples have an infinite loss, which the mean leaves out\n"), "{got}");

    run(directory, "train small.toml --epochs 1 --quiet --out steps").fine();
    let steps = result(directory, "eval steps");
    assert!(steps.get("readings").is_none() && steps.get("infinite_share").is_none(), "{steps}");
    assert_eq!(run(directory, "eval steps").fine().lines().count(), 1);
}

const RECTIFIERS: &str = r#"
name = "rectifiers"

[data]
set = "yinyang"
encode = { kind = "values" }
train_samples = 200
test_samples = 100

[model]
layers = [
    { kind = "dense", width = 16, neuron = { model = "relu" } },
    { kind = "norm", eps = 1e-3 },
    { kind = "dense", width = 8, neuron = { model = "relu" } },
]
readout = { neuron = { model = "none" } }

[train]
epochs = 1
batch = 20
"#;

const MAPS: &str = r#"
name = "maps"

[data]
set = "digits-sim"
encode = { kind = "values", mean = [0.13], std = [0.3], low = -3.0, high = 3.0 }
train_samples = 40
test_samples = 20

[model]
layers = [
    { kind = "conv", channels = 3, kernel = 3, padding = 1, neuron = { model = "ttfs", borders = true } },
    { kind = "pool", window = 4, signed = true },
    { kind = "dense", width = 8, neuron = { model = "ttfs" } },
]
readout = { neuron = { model = "none" } }

[train]
epochs = 1
batch = 20
"#;

/// A directory with both experiments.
fn for_keras() -> tempfile::TempDir {
    let directory = workplace();
    fs::write(directory.path().join("rectifiers.toml"), RECTIFIERS).unwrap();
    fs::write(directory.path().join("maps.toml"), MAPS).unwrap();
    directory
}

#[test]
fn weights_of_rectifiers_and_first_spikes_go_to_keras_and_come_back() {
    let directory = for_keras();
    let directory = directory.path();
    for name in ["rectifiers", "maps"] {
        run(directory, &format!("train {name}.toml --out {name} --quiet")).fine();
        run(directory, &format!("export {name} --names keras --out {name}.H5")).fine();
        let got = run(directory, &format!("import {name}.H5 --as {name}.toml --out {name}-again"));
        assert_eq!(got.err.contains("windows are not in such files"), name == "maps", "{}", got.err);
        got.fine();
        let [first, again] = ["", "-again"].map(|end| run(directory, &format!("eval {name}{end}")).fine());
        assert_eq!(first, again);
        let [first, again] =
            ["", "-again"].map(|end| fs::read(directory.join(format!("{name}{end}/model.safetensors"))));
        assert!(first.unwrap() == again.unwrap());
    }
    let [rectifiers, maps] = ["rectifiers", "maps"].map(|name| {
        let file = snn_data::formats::keras::read(&directory.join(format!("{name}.H5"))).unwrap();
        file.layers.into_iter().map(|l| l.name).collect::<Vec<_>>()
    });
    assert_eq!(rectifiers, ["dense_1", "batch_normalization_1", "dense_2", "dense_output"]);
    assert_eq!(maps, ["conv2d_1", "max_min_pool2d", "dense_1", "dense_2"]);
}

#[test]
fn what_does_not_fit_of_a_keras_file_is_said_line_by_line() {
    let directory = for_keras();
    let directory = directory.path();
    run(directory, "train rectifiers.toml --out run --quiet").fine();
    run(directory, "export run --names keras --out w.h5").fine();
    let width = "--set model.layers.0.width=15";
    let got = run(directory, &format!("import w.h5 --as rectifiers.toml --out other {width}"));
    let lines: Vec<&str> = got.err.lines().collect();
    assert_eq!(lines[0], "w.h5: dense_1/dense_1/kernel:0 has shape [4, 16], layer 0 wants [4, 15]");
    assert_eq!(lines[1], "w.h5: dense_1/dense_1/bias:0 has shape [16], layer 0 wants [15]");
    assert_eq!(lines.len(), 2 + 4 + 1 + 1, "{}", got.err);
    got.fails(1, &["w.h5: does not fit rectifiers in 7 places, see above"]);

    // One more normalisation, which the file does not have.
    let deeper = r#"model.layers=[{kind="dense",width=16,neuron={model="relu"}},{kind="norm",eps=1e-3},
        {kind="dense",width=8,neuron={model="relu"}},{kind="norm",eps=1e-3}]"#;
    let call = |more: &[&str]| {
        run_with(directory, &[&["import", "w.h5", "--as", "rectifiers.toml", "--set", deeper][..], more].concat())
    };
    call(&["--out", "other"])
        .fails(1, &["w.h5: batch_normalization_2: missing\n", "in 1 place, see above", "`--keep-missing`"]);
    let got = call(&["--out", "kept", "--keep-missing"]);
    assert_eq!(got.err, "layers that keep their initial values: batch_normalization_2\n");
    got.fine();

    run(directory, "import w.h5 --as maps.toml --out other")
        .fails(1, &["w.h5: conv2d_1: missing\n", "w.h5: batch_normalization_1: nothing in the model takes its arrays"]);
    run(directory, "import w.npz --as rectifiers.toml --out other --keep-missing")
        .fails(2, &["--keep-missing: only files of Keras"]);
    fs::write(directory.join("none.h5"), b"nothing").unwrap();
    run(directory, "import none.h5 --as rectifiers.toml --out other").fails(1, &["none.h5: signature: no HDF5"]);
    run(directory, "train small.toml --epochs 1 --quiet --out steps").fine();
    run(directory, "export steps --names keras --out other").fails(2, &["Keras has no layer with"]);
    assert!(!directory.join("other").exists(), "nothing half-written");
}

#[test]
fn published_weights_are_listed_and_taken_from_a_file() {
    let directory = for_keras();
    let directory = directory.path();
    run(directory, "train rectifiers.toml --out run --quiet").fine();
    run(directory, "export run --names keras --out w.h5").fine();
    assert!(run(directory, "data list").fine().contains("https://github.com/geifmany/cifar-vgg"));
    run(directory, "data download cifar10vgg").fails(1, &["no address of its own", "--from FILE"]);
    let got = run(directory, "data download cifar10vgg --from w.h5");
    assert!(got.err.contains("no digest of this file is published"), "{}", got.err);
    got.fine();
    assert!(directory.join("data/downloads/cifar10vgg/cifar10vgg.h5").is_file());
    run(directory, "data download cifar10vgg").fine();
    run(directory, "data convert cifar10vgg").fails(2, &["weights of a model, without samples", "snn import"]);
}
