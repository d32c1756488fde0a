//! From rectifiers to spikes: training, mapping, fine-tuning, degrading, and what is refused.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{json_lines, run, workplace};

/// A convolutional network with normalisation on generated digits, standardised, so that ranges and offsets are fused.
const RELU: &str = r#"
name = "rectifiers"

[data]
set = "digits-sim"
encode = { kind = "values", mean = [0.2], std = [0.3] }
train_samples = 160
test_samples = 80

[model]
layers = [
    { kind = "conv", channels = 4, kernel = 3, padding = 1, stride = 2, neuron = { model = "relu" } },
    { kind = "norm" },
    { kind = "pool", window = 2 },
    { kind = "dropout", p = 0.1 },
    { kind = "dense", width = 16, neuron = { model = "relu" } },
]
readout = { neuron = { model = "none" }, reduce = "last" }

[train]
epochs = 1
batch = 16
"#;

/// A directory with the trained network in `relu`.
fn trained() -> tempfile::TempDir {
    let directory = workplace();
    fs::write(directory.path().join("relu.toml"), RELU).unwrap();
    run(directory.path(), "train relu.toml --out relu --quiet").fine();
    directory
}

fn eval(directory: &Path, arguments: &str) -> Value {
    json_lines(&run(directory, &format!("eval {arguments} --json")).fine()).remove(0)
}

#[test]
fn a_trained_network_becomes_a_spiking_one_that_says_the_same_and_learns_on() {
    let directory = trained();
    let directory = directory.path();
    let said = run(directory, "map relu --out spikes").fine();
    assert!(said.contains("the same class for 80 of 80 samples") || said.contains(", of 80"), "{said}");
    let (relu, spikes) = (eval(directory, "relu"), eval(directory, "spikes"));
    assert_eq!(relu["test_accuracy"], spikes["test_accuracy"]);
    let loss = |v: &Value| v["test_loss"].as_f64().unwrap();
    assert!((loss(&relu) - loss(&spikes)).abs() < 1e-4, "{relu} {spikes}");
    assert!(relu["sparsity"].is_null());
    let sparsity = &spikes["sparsity"];
    let number = |key: &str| sparsity[key].as_f64().unwrap();
    assert_eq!(sparsity["layers"].as_array().unwrap().len(), 2);
    let (hidden, neurons) = (number("hidden"), (14.0 * 14.0 * 4.0) + 16.0);
    assert!((hidden * neurons - spikes["spikes_per_sample"].as_f64().unwrap()).abs() < 1e-6);
    assert!(number("with_input") > 0.0 && number("operations") < number("connections"));
    assert_eq!(number("latency"), sparsity["layers"][1]["window"][1].as_f64().unwrap());
    for layer in sparsity["layers"].as_array().unwrap() {
        let [start, end] = [0, 1].map(|i| layer["window"][i].as_f64().unwrap());
        let earliest = layer["earliest"].as_f64().unwrap();
        assert!(start <= earliest && earliest < end, "{layer}");
    }
    let text = run(directory, "eval spikes").fine();
    assert!(text.contains("spikes per neuron") && text.contains("ttfs conv 28x28x1 -> 14x14x4"), "{text}");

    // The mapped run is its own configuration, and a start for training.
    let tune = "train spikes/config.toml --from spikes --epochs 1 --set train.optimiser.learning_rate=1e-9 --quiet";
    run(directory, &format!("{tune} --out tuned")).fine();
    assert!((loss(&eval(directory, "tuned")) - loss(&spikes)).abs() < 1e-4, "hardly moved");
    // Degradations are values of the experiment.
    let coarse = eval(directory, "spikes --set model.layers.2.neuron.weight_bits=1");
    assert!((loss(&coarse) - loss(&spikes)).abs() > 1e-3, "{coarse}");

    // Limited windows of a quantile are shorter.
    run(directory, "map relu --out short --quantile 0.5 --limited --samples 100").fine();
    let short = eval(directory, "short");
    assert!(short["sparsity"]["latency"].as_f64().unwrap() < number("latency"));
}

#[test]
fn networks_without_fused_offsets_go_back_to_rectifiers() {
    let directory = workplace();
    let directory = directory.path();
    let plain = RELU.replace("    { kind = \"norm\" },\n", "").replace(", mean = [0.2], std = [0.3]", "");
    fs::write(directory.join("relu.toml"), plain).unwrap();
    run(directory, "train relu.toml --out relu --quiet").fine();
    run(directory, "map relu --out spikes").fine();
    run(directory, "map spikes --back --out again").fine();
    let again = eval(directory, "again");
    assert_eq!(eval(directory, "relu")["test_loss"], again["test_loss"]);
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let directory = trained();
    let directory = directory.path();
    run(directory, "map relu --out spikes --range 1 0").fails(2, &["range 1 to 0", "the lower one first"]);
    run(directory, "map relu --out spikes --quantile 0").fails(2, &["quantile 0", "above 0, at most 1"]);
    let both = run(directory, "map relu --out spikes --quantile 0.5 --back");
    assert!(both.code == Some(2) && both.err.contains("cannot be used with '--back'"), "{both:?}");
    run(directory, "map nothing --out spikes").fails(1, &["nothing"]);
    assert!(!directory.join("spikes").exists(), "a refused mapping leaves nothing behind");
    run(directory, "map relu --out spikes --quiet").fine();
    run(directory, "map relu --out spikes").fails(2, &["--out spikes: holds a model already"]);
    run(directory, "map spikes --out twice").fails(2, &["layer 0", "has no single-spike twin"]);
    run(directory, "map spikes --back --out back").fails(2, &["its shift depends on the place"]);
    run(directory, "train small.toml --out run --quiet").fine();
    run(directory, "map run --out x").fails(2, &["only networks on data.encode = { kind = \"values\" }"]);
    run(directory, "train relu.toml --from run --out y").fails(1, &["model.safetensors", "0.weight"]);
}
