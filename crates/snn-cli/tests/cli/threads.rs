//! Whole training runs give the same bytes on any number of threads, and whether or not samples stay in memory.

use crate::{run, workplace};

const YINYANG: &str = "[data]
set = 'yinyang'
encode = { kind = 'latency', steps = 25 }
train_samples = 300
test_samples = 100
[train]
epochs = 2
batch = 48
[model]
layers = [{ kind = 'dense', width = 65, neuron = { model = 'MODEL' }, init = { kind = 'uniform', bound = 2.0 } },
          { kind = 'dense', width = 65, neuron = { model = 'MODEL' }, skip = true }]
";

const IMAGES: &str = "[data]
set = 'digits-sim'
encode = { kind = 'latency', steps = 6 }
augment = [{ kind = 'perspective', distortion = 0.4, prob = 0.7 }, { kind = 'noise', sigma = 0.05, prob = 0.5 }]
train_samples = 96
test_samples = 32
[train]
epochs = 2
batch = 32
[model]
layers = [{ kind = 'conv', channels = 5, kernel = 5, padding = 2 }, { kind = 'pool', window = 2 },
          { kind = 'conv', channels = 3, kernel = 3, neuron = { model = 'multi' } }, { kind = 'dense', width = 33 }]
readout = { reduce = 'max' }
";

const EVENTS: &str = "[data]
set = 'spoken-digits'
encode = { kind = 'bin', steps = 50, dt_ms = 20.0, units = 700 }
augment = [{ kind = 'jitter', sigma_ms = 6.0, prob = 0.5 }]
train_samples = 96
test_samples = 32
[train]
epochs = 2
batch = 32
[model]
layers = [{ kind = 'dense', width = 40 }]
";

#[test]
fn threads_and_streaming_do_not_show_in_the_result() {
    let directory = workplace();
    let directory = directory.path();
    let experiments = ["block", "single", "multi"].map(|m| (m, YINYANG.replace("MODEL", m)));
    let more = [("conv", IMAGES.to_owned()), ("events", EVENTS.to_owned())];
    for (name, text) in experiments.into_iter().chain(more) {
        std::fs::write(directory.join(format!("{name}.toml")), text).unwrap();
        let mut models = ["--threads 1", "--threads 2", "--threads 3 --stream"].map(|how| {
            let out = format!("{name}{}", how.replace(' ', ""));
            run(directory, &format!("train {name}.toml --quiet --out {out} {how}")).fine();
            std::fs::read(directory.join(out).join("model.safetensors")).unwrap()
        });
        let first = std::mem::take(&mut models[0]);
        assert!(models[1..].iter().all(|m| *m == first), "{name}: threads or streaming change the result");
    }
}
