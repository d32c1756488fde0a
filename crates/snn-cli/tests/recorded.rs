//! Training steps that a device records and queues again as a whole, on the emulated GPU.

use snn_core::backend::Memory;
use snn_core::testkit::Inputs;
use snn_core::{Activity, Backend, Kind, Lanes, Pass, Real, Signal};
use snn_cuda::{Cuda, Options};
use snn_train::losses::Loss;
use snn_train::optim::Optimiser;
use snn_train::{Experiment, Stack};

const CLASSES: usize = 3;
const STEPS: usize = 20;
const WIDTH: usize = 33;

/// A network in training.
struct Run<'a, B: Backend> {
    device: &'a B,
    stack: Stack<B>,
    loss: Loss<B>,
    optimiser: Optimiser<B>,
    input: Activity<B>,
}

impl<'a, B: Backend> Run<'a, B> {
    fn new(device: &'a B, layers: &str) -> Self {
        let text = format!(
            "data = {{ set = 'yinyang', encode = {{ kind = 'latency', steps = {STEPS} }} }}\nmodel = {{ layers = [{layers}] }}"
        );
        let experiment = Experiment::from_toml("test", &text).unwrap();
        let signal = Signal::flat(Kind::Spikes, STEPS, WIDTH);
        let stack = Stack::build(device, &experiment.model, signal, CLASSES, 1).unwrap();
        let optimiser = Optimiser::new(device, experiment.train.optimiser, &stack).unwrap();
        let loss = Loss::new(device, experiment.train.loss).unwrap();
        Self { device, stack, loss, optimiser, input: Activity::Spikes(device.spikes()) }
    }

    /// A step on `batch` samples; gives the loss.
    fn step(&mut self, batch: usize, seed: u64) -> f64 {
        let host = Inputs::new(seed).spikes(Lanes::new(batch, STEPS, WIDTH), 0.1);
        if let Activity::Spikes(spikes) = &mut self.input {
            self.device.upload_spikes(&host, spikes).unwrap();
        }
        let labels: Vec<u32> = (0..batch as u32).map(|b| b % CLASSES as u32).collect();
        let pass = Pass::train(self.optimiser.step() as u32);
        self.stack.forward(self.device, &self.input, pass).unwrap();
        let scores = self.loss.forward(self.device, self.stack.output(), &labels).unwrap();
        self.stack.backward(self.device, &self.input, self.loss.grad()).unwrap();
        self.optimiser.update(self.device, &mut self.stack, 0.01).unwrap();
        scores.loss()
    }

    fn weights(&self) -> Vec<f64> {
        let values = self.stack.parameters().flat_map(|(_, p)| self.device.to_host(&p.value.data).unwrap());
        values.map(|x| x.value()).collect()
    }

    /// How many passes are recorded.
    fn recordings(&self) -> usize {
        format!("{:?}", self.stack).matches("Some(Recording").count()
    }
}

fn gpu() -> Cuda {
    snn_cuda::libraries::load_from([snn_cuda_emulator::directory().to_owned()]);
    let cache_dir = Some(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels"));
    Cuda::open(0, &Options { cache_dir, ..Options::default() }).unwrap()
}

/// Whole batches, a smaller one at the end of an epoch, and a larger one that moves buffers.
const BATCHES: [usize; 12] = [6, 6, 6, 4, 6, 6, 4, 6, 9, 6, 9, 9];

#[test]
fn recorded_steps_train_like_others() {
    let layers = "{ kind = 'dense', width = 40, init = { kind = 'uniform', bound = 1.0 } },
        { kind = 'dense', width = 31, init = { kind = 'uniform', bound = 1.0 },
          neuron = { model = 'cuba', recurrent = 'spike' } },
        { kind = 'dense', width = 20, init = { kind = 'uniform', bound = 1.0 },
          neuron = { model = 'paralif', mode = 'T', threshold = 0.1 } }";
    let gpu = gpu();
    let (mut recorded, mut plain) = (Run::new(&gpu, layers), Run::new(&gpu, layers));
    // A model whose caller sets numbers for each pass is not recorded; these make no difference.
    plain.stack.set_rate_gradient(0.0, 0.0);
    let before = plain.weights();
    for (i, batch) in BATCHES.into_iter().enumerate() {
        let (a, b) = (recorded.step(batch, i as u64), plain.step(batch, i as u64));
        assert_eq!(a, b, "step {i}");
    }
    assert_eq!(recorded.weights(), plain.weights());
    assert_ne!(before, plain.weights());
    assert!(recorded.recordings() >= 2, "{}", recorded.recordings());
    assert_eq!(plain.recordings(), 0);
}

#[test]
fn what_differs_from_step_to_step_is_not_recorded() {
    let layers = "{ kind = 'dense', width = 20, neuron = { model = 'paralif', mode = 'SB' } }";
    let gpu = gpu();
    let mut run = Run::new(&gpu, layers);
    for batch in BATCHES {
        run.step(batch, 1);
    }
    assert_eq!(run.recordings(), 0);
}

#[test]
fn what_the_host_takes_part_in_is_refused_by_a_recording() {
    let gpu = gpu();
    let mut x = gpu.zeros::<f32>(4).unwrap();
    let refused = gpu.record(&mut || gpu.upload(&[1.0; 4], &mut x)).unwrap_err().to_string();
    assert_eq!(refused, "cuda:0: cannot record a copy from or to the host");
    assert!(gpu.record(&mut || gpu.synchronise()).is_err());
    // Nothing is left of the attempts.
    gpu.upload(&[1.0, 2.0, 3.0, 4.0], &mut x).unwrap();
    let mut y = gpu.zeros::<f32>(4).unwrap();
    let recording = gpu.record(&mut || gpu.copy(&x, &mut y)).unwrap().unwrap();
    assert_eq!(gpu.to_host(&y).unwrap(), [0.0; 4]);
    gpu.replay(&recording).unwrap();
    assert_eq!(gpu.to_host(&y).unwrap(), [1.0, 2.0, 3.0, 4.0]);
}
