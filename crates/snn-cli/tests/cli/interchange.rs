//! Weights that go to another program and come back.

use std::fs;

use crate::{json_lines, run, workplace};

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
