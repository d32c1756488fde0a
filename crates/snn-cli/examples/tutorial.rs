//! The tutorial's program: an experiment from text, trained, tested and looked at.

use snn_cpu::Cpu;
use snn_train::trainer::{EpochRecord, RunOptions, Split, build_model};
use snn_train::{Experiment, Observer, checkpoint, evaluate, run};

const EXPERIMENT: &str = r#"
[data]
set = "yinyang"
encode = { kind = "latency", steps = 50 }
train_samples = 1000
test_samples = 500
[model]
layers = [{ kind = "dense", width = 60, init = { kind = "uniform", bound = 2.0 } }]
[train]
epochs = 5
batch = 50
optimiser = { learning_rate = 0.005 }
"#;

/// Prints a line for every epoch.
struct Lines;

impl Observer for Lines {
    fn epoch(&mut self, r: &EpochRecord) {
        println!("epoch {}: loss {:.3}, {:.1} spikes per sample", r.epoch, r.loss, r.spikes_per_sample);
    }
}

/// Trains, reads the model back, and tests it: twice the same number.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Cpu::new(0)?;
    let experiment = Experiment::from_toml("tutorial", EXPERIMENT)?;
    let out = std::env::temp_dir().join(format!("snn-tutorial-{}", std::process::id()));
    let options = RunOptions { out: Some(out.clone()), ..RunOptions::default() };
    let summary = run(&device, &experiment, &options, &mut Lines)?;
    println!("test accuracy {:.1} %", 100.0 * summary.test_accuracy);

    let split = Split::test(&experiment, &options)?;
    let mut model = build_model(&device, &experiment, &split)?;
    checkpoint::load_model(&device, &out.join("model.safetensors"), &mut model)?;
    for layer in model.layers() {
        let shapes: Vec<_> = layer.parameters().iter().map(|p| (p.name, p.value.shape.clone())).collect();
        println!("{}: {shapes:?}", layer.name());
    }
    let again = evaluate(&device, &mut model, &split, &experiment.train)?;
    assert_eq!(again.accuracy, summary.test_accuracy);
    std::fs::remove_dir_all(out)?;
    Ok(())
}
