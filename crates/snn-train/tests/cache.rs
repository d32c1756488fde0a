//! What layers keep between the passes makes no difference to gradients.

use snn_core::backend::{Memory, SpikeMemory};
use snn_core::reference::Reference;
use snn_core::testkit::Inputs;
use snn_core::{Activity, Kind, Lanes, Mode, Pass, Signal};
use snn_train::config::CachePolicy;
use snn_train::losses::Loss;
use snn_train::{Experiment, Stack};

type Device = Reference<f32>;

const LAYERS: &str = "
    { kind = 'dense', width = 9, neuron = { model = 'block' } },
    { kind = 'dropout', p = 0.3 },
    { kind = 'dense', width = 9, neuron = { model = 'multi' }, init = { kind = 'uniform', bound = 2.0 } },
    { kind = 'dense', width = 9, skip = true, neuron = { model = 'paralif', mode = 'SB', recurrent = 'spike' } },
    { kind = 'dense', width = 7, neuron = { model = 'cuba', recurrent = 'spike' } },
    { kind = 'dense', width = 6, neuron = { model = 'alif' }, init = { kind = 'uniform', bound = 2.0 } }";

fn experiment(layers: &str, cache: &str) -> snn_train::Result<Experiment> {
    let data = "data = { set = 'yinyang', encode = { kind = 'latency', steps = 12 } }";
    Experiment::from_toml("test", &format!("{data}\n[model]\ncache = '{cache}'\nlayers = [{layers}]\n"))
}

/// The gradients of two passes, as bits, and the bytes that the model says it needs.
fn gradients(cache: &str) -> (Vec<Vec<u32>>, usize) {
    let (device, signal) = (Device::new(), Signal::flat(Kind::Spikes, 12, 8));
    let model = experiment(LAYERS, cache).unwrap().model;
    let mut stack: Stack<Device> = Stack::build(&device, &model, signal, 3, 1).unwrap();
    let mut loss = Loss::new(&device, Default::default()).unwrap();
    let mut all = Vec::new();
    for pass in 0..2 {
        let mut spikes = device.spikes();
        device.upload_spikes(&Inputs::new(pass).spikes(Lanes::new(4, 12, 8), 0.5), &mut spikes).unwrap();
        let input = Activity::Spikes(spikes);
        stack.forward(&device, &input, Pass::train(pass as u32)).unwrap();
        loss.forward(&device, stack.output(), &[0, 1, 2, 0]).unwrap();
        stack.backward(&device, &input, loss.grad()).unwrap();
        let bits = |x: &Vec<f32>| device.to_host(x).unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        all.extend(stack.parameters().map(|(_, p)| bits(&p.grad.data)));
    }
    (all, stack.memory_bytes(100, Mode::Train))
}

#[test]
fn layers_that_compute_their_state_again_give_the_same_gradients() {
    let ((stored, bytes), (again, fewer)) = (gradients("store"), gradients("recompute"));
    assert!(stored.iter().flatten().any(|&bits| bits != 0));
    assert_eq!(stored, again);
    // The states of all layers of neurons but none else.
    assert_eq!(bytes - fewer, 100 * 12 * (9 + 9 + 9 + 7 + 6) * 4);
}

#[test]
fn layers_that_count_their_passes_are_not_run_twice() {
    let layer = "{ kind = 'dense', width = 9, norm = { kind = 'batch' } }";
    assert_eq!(experiment(layer, "store").unwrap().model.cache, CachePolicy::Store);
    let error = experiment(layer, "recompute").unwrap_err().to_string();
    assert!(error.contains("model.cache") && error.contains("must be `store` with normalised layers"), "{error}");
}
