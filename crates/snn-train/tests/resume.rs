//! Checkpoints of networks whose state is more than weights: running statistics, widths of delays, draws of dropout.

use snn_core::backend::{Memory, SpikeMemory};
use snn_core::reference::Reference;
use snn_core::testkit::Inputs;
use snn_core::{Activity, Kind, Lanes, Pass, Signal};
use snn_train::checkpoint::{Checkpoints, Progress};
use snn_train::config::{ModelConfig, OptimiserConfig};
use snn_train::losses::Loss;
use snn_train::optim::Optimiser;
use snn_train::{Experiment, Stack};

type Device = Reference<f32>;

const EPOCHS: u32 = 6;

struct Run {
    device: Device,
    stack: Stack<Device>,
    optimiser: Optimiser<Device>,
    loss: Loss<Device>,
}

impl Run {
    fn new(model: &ModelConfig, signal: Signal) -> Self {
        let device = Device::new();
        let stack = Stack::build(&device, model, signal, 3, 1).unwrap();
        let optimiser = Optimiser::new(&device, OptimiserConfig::default(), &stack).unwrap();
        Self { loss: Loss::new(&device, Default::default()).unwrap(), device, stack, optimiser }
    }

    /// An epoch of one batch.
    fn epoch(&mut self, epoch: u32, signal: Signal) {
        let Self { device, stack, optimiser, loss } = self;
        let mut spikes = device.spikes();
        let host = Inputs::new(epoch.into()).spikes(Lanes::new(4, signal.steps, signal.width()), 0.4);
        device.upload_spikes(&host, &mut spikes).unwrap();
        let input = Activity::Spikes(spikes);
        stack.set_epoch(device, epoch, EPOCHS).unwrap();
        stack.forward(device, &input, Pass::train(optimiser.step() as u32)).unwrap();
        loss.forward(device, stack.output(), &[0, 1, 2, 0]).unwrap();
        stack.backward(device, &input, loss.grad()).unwrap();
        optimiser.update(device, stack, 0.01).unwrap();
    }

    fn parameters(&self) -> Vec<(String, Vec<u32>)> {
        let bits = |x: &Vec<f32>| self.device.to_host(x).unwrap().iter().map(|v| v.to_bits()).collect();
        self.stack.parameters().map(|(i, p)| (format!("{i}.{}", p.name), bits(&p.value.data))).collect()
    }
}

#[test]
fn normalised_networks_with_delays_resume_with_the_same_bits() {
    let layer = "kind = 'dense', width = 5, norm = { kind = 'batch' }, delays = { max = 4, sigma = 2.0 }, \
                 neuron = { model = 'paralif', mode = 'T', threshold = 0.3, filter = { tau_mem = 2.0 } }";
    let text = format!(
        "data = {{ set = 'yinyang', encode = {{ kind = 'latency', steps = 2 }} }}\n\
         model = {{ layers = [{{ {layer} }}, {{ kind = 'dropout', p = 0.5 }}, {{ {layer} }}] }}"
    );
    let model = Experiment::from_toml("test", &text).unwrap().model;
    let signal = Signal::flat(Kind::Spikes, 7, 6);
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(directory.path().to_owned(), text).unwrap();

    let mut whole = Run::new(&model, signal);
    (0..3).for_each(|epoch| whole.epoch(epoch, signal));
    let progress = Progress { epoch: 3, optimiser_step: whole.optimiser.step(), ..Progress::default() };
    checkpoints.save(&whole.device, &whole.stack, &whole.optimiser, &progress, 0).unwrap();
    (3..EPOCHS).for_each(|epoch| whole.epoch(epoch, signal));

    let mut rest = Run::new(&model, signal);
    let found = checkpoints.resume(&rest.device, &mut rest.stack, &mut rest.optimiser).unwrap().unwrap();
    assert_eq!(found.0, progress);
    (3..EPOCHS).for_each(|epoch| rest.epoch(epoch, signal));
    assert_eq!(rest.parameters(), whole.parameters());

    let start = Run::new(&model, signal).parameters();
    for ((name, now), (_, before)) in whole.parameters().iter().zip(&start) {
        let fixed = name.ends_with("alpha") || name.ends_with(".beta");
        assert!(fixed || now != before, "{name} has not changed");
    }
}

#[test]
fn evaluation_takes_running_statistics_and_drops_nothing() {
    let text = "data = { set = 'yinyang', encode = { kind = 'latency', steps = 2 } }\n\
                model = { layers = [{ kind = 'dense', width = 8, norm = { kind = 'batch', momentum = 1.0 }, \
                neuron = { model = 'relu' } }, { kind = 'dropout', p = 0.5 }] }";
    let model = Experiment::from_toml("test", text).unwrap().model;
    let signal = Signal::flat(Kind::Spikes, 7, 6);
    let mut run = Run::new(&model, signal);
    run.epoch(0, signal);
    let mut output = |host: &snn_core::Spikes| {
        let mut spikes = run.device.spikes();
        run.device.upload_spikes(host, &mut spikes).unwrap();
        run.stack.forward(&run.device, &Activity::Spikes(spikes), Pass::evaluate(0)).unwrap();
        run.stack.output().values("test").unwrap().data.clone()
    };
    // A sample's output does not depend on what else is in the batch.
    let samples = Inputs::new(9).spikes(Lanes::new(2, 7, 6), 0.4);
    let both = output(&samples);
    let rows = (0..7).map(|t| samples.row(t).to_vec());
    let first = output(&snn_core::Spikes::from_rows(1, 7, 6, rows).unwrap());
    assert_eq!(both[..3], first[..]);
}
