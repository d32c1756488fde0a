//! A model: a chain of layers, built from a config and checked before any data is read.

use snn_core::neurons::block::{BlockNeuron, Start};
use snn_core::neurons::lif::{LifKind, LifNeuron, Path};
use snn_core::{Activity, Backend, Conv, Kind, Layer, Mode, Parameter, Pass, Signal, Tensor, Trains};

use crate::config::{
    CachePolicy, LayerConfig, LeakyConfig, ModelConfig, NeuronConfig, NormConfig, ReadoutNeuron, ResetPath, SlopeConfig,
};
use crate::error::{Error, Result};
use crate::layers::alif::AlifCell;
use crate::layers::block::BlockCell;
use crate::layers::cuba::CubaCell;
use crate::layers::decay::Decay;
use crate::layers::lif::LifCell;
use crate::layers::paralif::ParaLifCell;
use crate::layers::project::{self, Around, Past};
use crate::layers::ttfs;
use crate::layers::{
    AvgPool, Cell, Clocked, Dropout, EventLayer, MaxPool, MergeLayer, NormLayer, PoolLayer, Projection, Readout,
    ReluLayer, TrainReader, TtfsLayer,
};
use crate::recordings::{self, Direction, Key, Recordings};

/// A chain of layers on a device.
#[derive(Debug)]
pub struct Stack<B: Backend> {
    input: Signal,
    layers: Vec<Box<dyn Layer<B>>>,
    // Gradients on activities, two by turns: the layer in work reads one and fills the other.
    grads: [Tensor<B>; 2],
    recordings: Recordings<B>,
    // Whether passes have numbers in them that the caller sets for each.
    regularised: bool,
}

impl<B: Backend> Stack<B> {
    /// Builds the model for inputs of `input` and `classes` classes, with weights drawn from `seed`.
    ///
    /// # Errors
    ///
    /// [`Error::Fit`] or [`Error::Config`] naming the layer, and what it takes and is given.
    pub fn build(device: &B, config: &ModelConfig, input: Signal, classes: usize, seed: u64) -> Result<Self> {
        let mut layers: Vec<Box<dyn Layer<B>>> = Vec::new();
        let mut signal = input;
        // What dropout of spikes has left to the next projection to make up for.
        let mut gain = 1.0;
        // What neurons with a slope of their own, which begin as rectifiers, have left to the next weights to make up for.
        let mut outgoing = None;
        for (i, layer) in config.layers.iter().enumerate() {
            let at = |e: snn_core::Error| Error::config(format!("model.layers.{i}"), e.to_string());
            let (id, steps) = ((seed, i), signal.steps);
            let misfit = |name: String, takes: String| Error::Fit {
                first: previous(i),
                second: i,
                name,
                takes,
                gives: signal.to_string(),
            };
            let mut built: Box<dyn Layer<B>> = match layer {
                LayerConfig::Dense {
                    width, neuron: NeuronConfig::Event(c), init, skip, norm, delays, field, ..
                } => {
                    let past = [("delays", delays.is_some()), ("field", *field != 1)];
                    let foreign = [&[("skip", *skip), ("norm", norm.is_some())], &past[..]].concat();
                    in_continuous_time(i, signal, &foreign)?;
                    Box::new(EventLayer::dense(device, signal, *width, c, *init, id).map_err(at)?)
                }
                LayerConfig::Dense { width, neuron: NeuronConfig::Ttfs(c), init, skip, bias, norm, delays, field } => {
                    let past = [("delays", delays.is_some()), ("field", *field != 1)];
                    let foreign = [("skip", *skip), ("norm", norm.is_some()), ("bias = false", !*bias)];
                    without_time(i, signal, &[&foreign[..], &past].concat())?;
                    Box::new(TtfsLayer::dense(device, signal, *width, c, *init, id).map_err(at)?)
                }
                LayerConfig::Pool { window, window_width, signed: false } if signal.kind == Kind::Trains => {
                    let sides = [*window, window_width.unwrap_or(*window)];
                    let merge = MergeLayer::new(device, signal, sides);
                    let wide = |e| misfit(format!("pool {}x{}", sides[0], sides[1]), format!("a map; {e}"));
                    Box::new(merge.map_err(wide)?)
                }
                LayerConfig::Dense { width, neuron, init, skip, bias, norm, delays, field } => {
                    in_time_steps(i, signal)?;
                    let output = Signal::flat(Kind::Spikes, steps, *width);
                    if *skip && (signal.kind != Kind::Spikes || signal.width() != *width) {
                        return Err(Error::Fit {
                            first: format!("{} and the layer's own spikes", previous(i)),
                            second: i,
                            name: "skip".into(),
                            takes: output.to_string(),
                            gives: signal.to_string(),
                        });
                    }
                    if *skip && gain != 1.0 {
                        let reason =
                            "a skip connection cannot follow dropout: the spikes that it adds would not be scaled";
                        return Err(Error::config(format!("model.layers.{i}.skip"), reason));
                    }
                    if delays.is_some() && signal.kind != Kind::Spikes {
                        return Err(misfit("delays".into(), "spikes".into()));
                    }
                    if *field != 1 && !matches!(signal.kind, Kind::Spikes | Kind::Sequence) {
                        return Err(misfit("field".into(), "spikes or a sequence".into()));
                    }
                    let around = Around { bias: *bias, norm: *norm, gain: std::mem::replace(&mut gain, 1.0) };
                    let sizes = (signal.width(), *width);
                    let past = match (delays, *field) {
                        (Some(delays), _) => Past::Delays(delays),
                        (None, 1) => Past::None,
                        (None, steps) => Past::Field(steps),
                    };
                    let dense = project::dense(device, sizes, *init, past, around, id).map_err(at)?;
                    clocked(device, signal, output, (dense, neuron), (*skip, config.cache), id).map_err(at)?
                }
                LayerConfig::Conv {
                    channels,
                    kernel,
                    kernel_width,
                    stride,
                    padding,
                    padding_width,
                    neuron,
                    init,
                    bias,
                    norm,
                } => {
                    let sides = [*kernel, kernel_width.unwrap_or(*kernel)];
                    let zeros = [*padding, padding_width.unwrap_or(*padding)];
                    let conv = Conv::rectangle(signal.map, *channels, sides, *stride, zeros)
                        .map_err(|e| misfit(format!("conv {}x{}", sides[0], sides[1]), format!("a map; {e}")))?;
                    if let NeuronConfig::Event(c) = neuron {
                        in_continuous_time(i, signal, &[("norm", norm.is_some())])?;
                        let layer = EventLayer::convolution(device, signal, conv, c, *init, id).map_err(at)?;
                        signal = layer.output_signal();
                        layers.push(Box::new(layer));
                        continue;
                    }
                    if let NeuronConfig::Ttfs(c) = neuron {
                        without_time(i, signal, &[("norm", norm.is_some()), ("bias = false", !*bias)])?;
                        if c.slope != SlopeConfig::One {
                            let reason = "must be `one` in convolutions: the sum of a kernel is none of its borders'";
                            return Err(Error::config(format!("model.layers.{i}.neuron.slope"), reason));
                        }
                        let layer = TtfsLayer::convolution(device, signal, conv, c, *init, id).map_err(at)?;
                        signal = layer.output_signal();
                        layers.push(Box::new(layer));
                        continue;
                    }
                    if let NeuronConfig::Alif(c) = neuron
                        && c.recurrent
                    {
                        let reason = "must be false in a convolution: every unit of the map would feed every other";
                        return Err(Error::config(format!("model.layers.{i}.neuron.recurrent = true"), reason));
                    }
                    in_time_steps(i, signal)?;
                    let output = Signal { kind: Kind::Spikes, steps, map: conv.output() };
                    let around = Around { bias: *bias, norm: *norm, gain: std::mem::replace(&mut gain, 1.0) };
                    let conv = project::convolution(device, conv, *init, around, id).map_err(at)?;
                    clocked(device, signal, output, (conv, neuron), (false, config.cache), id).map_err(at)?
                }
                LayerConfig::Pool { window, window_width, signed } => {
                    let sides = [*window, window_width.unwrap_or(*window)];
                    let misfit = |takes: String| misfit(format!("pool {}x{}", sides[0], sides[1]), takes);
                    let wide = |e: snn_core::Error| misfit(format!("a map; {e}"));
                    match signal.kind {
                        Kind::Values | Kind::Times => {
                            Box::new(MaxPool::new(device, signal, sides, *signed).map_err(wide)?)
                        }
                        Kind::Spikes if !signed => Box::new(PoolLayer::rectangle(device, signal, sides).map_err(wide)?),
                        Kind::Spikes | Kind::Trains => {
                            return Err(misfit("values or spike times, if it is signed".into()));
                        }
                        _ => return Err(misfit("spikes, values or spike times".into())),
                    }
                }
                LayerConfig::Norm { momentum, eps } => {
                    if signal.kind != Kind::Values {
                        return Err(misfit("norm".into(), "values: put it behind a rectifier".into()));
                    }
                    let config = NormConfig::Batch { momentum: *momentum, eps: *eps };
                    Box::new(NormLayer::new(device, signal, config).map_err(at)?)
                }
                LayerConfig::AvgPool { window, window_width } => {
                    let sides = [*window, window_width.unwrap_or(*window)];
                    let misfit = |takes: String| misfit(format!("average pool {}x{}", sides[0], sides[1]), takes);
                    if !matches!(signal.kind, Kind::Spikes | Kind::Sequence) {
                        return Err(misfit("spikes or a sequence".into()));
                    }
                    let pool = AvgPool::new(device, signal, sides, std::mem::replace(&mut gain, 1.0));
                    Box::new(pool.map_err(|e| misfit(format!("a map; {e}")))?)
                }
                LayerConfig::Dropout { p } => {
                    in_time_steps(i, signal)?;
                    if signal.kind == Kind::Spikes {
                        gain *= Dropout::<B>::gain(*p);
                    }
                    Box::new(Dropout::new(device, signal, *p, id).map_err(at)?)
                }
            };
            make_up(device, &mut *built, outgoing.take())?;
            if layer.ttfs().is_some_and(|c| c.slope == SlopeConfig::AlphaSmart) {
                outgoing = weight_of(&mut *built).map(|w| ttfs::rectifiers_to_currents(device, w)).transpose()?;
            }
            signal = built.output_signal();
            layers.push(built);
        }
        let last = layers.len();
        if let ReadoutNeuron::Event(c) = &config.readout.neuron {
            in_continuous_time(last, signal, &[("delays", config.readout.delays.is_some())])?;
            let at = |e: snn_core::Error| Error::config("model.readout", e.to_string());
            let neurons = EventLayer::dense(device, signal, classes, &c.cell, config.readout.init, (seed, last));
            let neurons = neurons.map_err(at)?;
            let reader = TrainReader::new(device, neurons.output_signal(), c.read.into())?;
            layers.push(Box::new(neurons));
            layers.push(Box::new(reader));
            return Self::new(device, input, layers);
        }
        let without_time = matches!(signal.kind, Kind::Values | Kind::Times);
        if without_time && !matches!(config.readout.neuron, ReadoutNeuron::None(_)) {
            return Err(Error::Fit {
                first: previous(last),
                second: last,
                name: "readout".into(),
                takes: "spikes: put a hidden layer before it; with the neuron `none` also values and spike times"
                    .into(),
                gives: signal.to_string(),
            });
        }
        if !without_time && !matches!(signal.kind, Kind::Spikes | Kind::Sequence) {
            return Err(Error::Fit {
                first: previous(last),
                second: last,
                name: "readout".into(),
                takes: "spikes: put a hidden layer before it".into(),
                gives: signal.to_string(),
            });
        }
        let readout = &config.readout;
        let misfit = |name: &str, takes: String| Error::Fit {
            first: previous(last),
            second: last,
            name: name.into(),
            takes,
            gives: signal.to_string(),
        };
        if let ReadoutNeuron::Vote(_) = readout.neuron
            && !signal.width().is_multiple_of(classes)
        {
            return Err(misfit("vote", format!("as many neurons for each of the {classes} classes")));
        }
        if readout.delays.is_some() && signal.kind != Kind::Spikes {
            return Err(misfit("delays", "spikes".into()));
        }
        let projection = project::readout(device, signal, classes, readout, gain, (seed, last))?;
        let mut readout = Readout::with_projection(device, signal, classes, readout, projection)?;
        make_up(device, &mut readout, outgoing)?;
        layers.push(Box::new(readout));
        Self::new(device, input, layers)
    }

    /// A chain of layers that were built one by one; the last one is the readout.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn new(device: &B, input: Signal, layers: Vec<Box<dyn Layer<B>>>) -> Result<Self> {
        let grads = [Tensor::zeros(device, &[0])?, Tensor::zeros(device, &[0])?];
        Ok(Self { input, layers, grads, recordings: Recordings::default(), regularised: false })
    }

    /// What the model takes for one sample.
    #[must_use]
    pub fn input(&self) -> Signal {
        self.input
    }

    /// The layers, from the input on.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &dyn Layer<B>> {
        self.layers.iter().map(|l| &**l)
    }

    /// Whether the model works in continuous time: its last layer reads spike trains.
    #[must_use]
    pub fn is_event_driven(&self) -> bool {
        self.layers.last().is_some_and(|l| l.input().kind == Kind::Trains)
    }

    /// The spike trains of the output neurons of a model in continuous time, after a forward pass.
    #[must_use]
    pub fn output_trains(&self) -> Option<&Trains<B>> {
        self.layers.iter().rev().find_map(|l| l.trains()).filter(|_| self.is_event_driven())
    }

    /// All parameters with the index of their layer, in a fixed order.
    pub fn parameters(&self) -> impl Iterator<Item = (usize, &Parameter<B>)> {
        self.layers.iter().enumerate().flat_map(|(i, l)| l.parameters().into_iter().map(move |p| (i, p)))
    }

    /// All parameters in the same order, to be updated.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter<B>> {
        self.layers.iter_mut().flat_map(|l| l.parameters_mut())
    }

    /// Runs the model; the output is [`Stack::output`].
    ///
    /// # Errors
    ///
    /// If the input does not fit or the device fails.
    pub fn forward(&mut self, device: &B, input: &Activity<B>, pass: Pass) -> Result<()> {
        let key = self.key(device, input, (Direction::Forward, pass.mode));
        let Self { layers, recordings, .. } = self;
        let mut work = || {
            for i in 0..layers.len() {
                let (before, rest) = layers.split_at_mut(i);
                let input = before.last().map_or(input, |l| l.output());
                rest[0].forward(device, input, pass)?;
            }
            Ok(())
        };
        match key {
            Some(key) => Ok(recordings.run(device, Direction::Forward, key, &mut work)?),
            None => Ok(work()?),
        }
    }

    /// What a recording of a pass would depend on; nothing if it cannot be recorded.
    fn key(&self, device: &B, input: &Activity<B>, (direction, mode): (Direction, Mode)) -> Option<Key> {
        if !self.recordings.are_possible() {
            return None;
        }
        let mut key = vec![direction as u64, mode as u64];
        let repeats = !self.regularised && self.layers.iter().all(|layer| layer.repeats());
        (repeats && recordings::place(device, input, &mut key)).then_some(key)
    }

    /// How many passes are recorded at the moment; see [`Layer::repeats`].
    #[must_use]
    pub fn recorded_passes(&self) -> usize {
        self.recordings.count()
    }

    /// Says how far training is; see [`Layer::set_epoch`].
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn set_epoch(&mut self, device: &B, finished: u32, epochs: u32) -> Result<()> {
        self.recordings.clear();
        self.layers.iter_mut().try_for_each(|l| l.set_epoch(device, finished, epochs))?;
        Ok(())
    }

    /// Sets the gradients on every spike that the following backward passes add; see
    /// [`Layer::set_rate_gradient`].
    pub fn set_rate_gradient(&mut self, on_spikes: f64, on_recurrent: f64) {
        self.regularised = true;
        self.layers.iter_mut().for_each(|l| l.set_rate_gradient(on_spikes, on_recurrent));
    }

    /// The output of the last forward pass.
    #[must_use]
    pub fn output(&self) -> &Activity<B> {
        self.layers.last().expect("a stack has a readout").output()
    }

    /// Computes the gradients of all parameters from the gradient on the output.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn backward(&mut self, device: &B, input: &Activity<B>, grad_output: &Tensor<B>) -> Result<()> {
        let Some(mut key) = self.key(device, input, (Direction::Backward, Mode::Train)) else {
            return self.backward_seen(device, input, grad_output, |_, _| Ok(()));
        };
        key.push(device.place(&grad_output.data));
        let Self { layers, grads, recordings, .. } = self;
        let mut work = || backward(device, layers, grads, input, grad_output, |_, _| Ok(()));
        Ok(recordings.run(device, Direction::Backward, key, &mut work)?)
    }

    /// As [`Stack::backward`]; `seen` is called with the index of each layer, the last one first, and the gradient on its
    /// output.
    ///
    /// # Errors
    ///
    /// If the device fails, and what `seen` gives.
    pub fn backward_seen(
        &mut self,
        device: &B,
        input: &Activity<B>,
        grad_output: &Tensor<B>,
        seen: impl FnMut(usize, &Tensor<B>) -> Result<()>,
    ) -> Result<()> {
        backward(device, &mut self.layers, &mut self.grads, input, grad_output, seen)
    }

    /// Bytes on the device: parameters with their gradients, activities and caches of a batch.
    #[must_use]
    pub fn memory_bytes(&self, batch: usize, mode: Mode) -> usize {
        let real = size_of::<B::Real>();
        let parameters: usize = self.parameters().map(|(_, p)| 2 * p.value.len() * real).sum();
        let activities: usize = self.layers.iter().map(|l| l.activity_bytes(batch, mode)).sum();
        let hidden = self.layers.iter().skip(1).map(|l| l.input().lanes(batch).len() * real);
        let grads: usize = match mode {
            // The two largest of the gradients that take turns.
            Mode::Train => {
                let (even, odd): (Vec<_>, Vec<_>) = hidden.enumerate().partition(|(i, _)| i % 2 == 0);
                let largest = |side: Vec<(usize, usize)>| side.into_iter().map(|(_, b)| b).max().unwrap_or(0);
                largest(even) + largest(odd)
            }
            Mode::Evaluate => 0,
        };
        parameters + activities + grads
    }
}

/// The backward passes of all layers, with two gradients by turns.
fn backward<B: Backend, E: From<snn_core::Error>>(
    device: &B,
    layers: &mut [Box<dyn Layer<B>>],
    grads: &mut [Tensor<B>; 2],
    input: &Activity<B>,
    grad_output: &Tensor<B>,
    mut seen: impl FnMut(usize, &Tensor<B>) -> Result<(), E>,
) -> Result<(), E> {
    let [mut grad, mut next] = grads.each_mut();
    grad.resize(device, &grad_output.shape)?;
    device.copy(&grad_output.data, &mut grad.data)?;
    for i in (0..layers.len()).rev() {
        seen(i, grad)?;
        let (before, rest) = layers.split_at_mut(i);
        let layer = &mut rest[0];
        match before.last() {
            None => layer.backward(device, input, grad, None)?,
            Some(previous) => {
                next.resize(device, &previous.output().shape(device))?;
                layer.backward(device, previous.output(), grad, Some(&mut *next))?;
            }
        }
        std::mem::swap(&mut grad, &mut next);
    }
    Ok(())
}

fn weight_of<B: Backend>(layer: &mut dyn Layer<B>) -> Option<&mut Parameter<B>> {
    layer.parameters_mut().into_iter().find(|p| p.name == "weight")
}

/// Makes a layer's inputs larger by the given factors, if there are some.
fn make_up<B: Backend>(device: &B, layer: &mut dyn Layer<B>, factors: Option<Vec<f64>>) -> Result<()> {
    match (factors, weight_of(layer)) {
        (Some(factors), Some(weight)) => Ok(ttfs::enlarge_inputs(device, weight, &factors)?),
        _ => Ok(()),
    }
}

/// Checks that an event-driven layer is given spike trains and asked for nothing that needs time steps.
fn in_continuous_time(i: usize, given: Signal, foreign: &[(&str, bool)]) -> Result<()> {
    if given.kind != Kind::Trains {
        return Err(Error::Fit {
            first: previous(i),
            second: i,
            name: "event-driven neurons".into(),
            takes: "spike trains, such as data.encode = { kind = \"times\", window_ms = 100 }".into(),
            gives: given.to_string(),
        });
    }
    match foreign.iter().find(|(_, asked)| *asked) {
        Some((key, _)) => {
            Err(Error::config(format!("layer {i}: {key}"), "event-driven neurons have no such thing: leave it out"))
        }
        None => Ok(()),
    }
}

/// Checks that neurons which spike at most once are given times or values, and asked for nothing that they do not have.
fn without_time(i: usize, given: Signal, foreign: &[(&str, bool)]) -> Result<()> {
    if !(given.kind == Kind::Times || given.kind == Kind::Values && given.steps == 1) {
        return Err(Error::Fit {
            first: previous(i),
            second: i,
            name: "ttfs".into(),
            takes: "spike times, or values as of data.encode = { kind = \"values\" }".into(),
            gives: given.to_string(),
        });
    }
    match foreign.iter().find(|(_, asked)| *asked) {
        Some((key, _)) => Err(Error::config(
            format!("layer {i}: {key}"),
            "neurons of the model ttfs have no such thing: leave it out",
        )),
        None => Ok(()),
    }
}

/// Refuses spike trains and first spikes where a layer works in time steps or on values.
fn in_time_steps(i: usize, given: Signal) -> Result<()> {
    if !matches!(given.kind, Kind::Trains | Kind::Times) {
        return Ok(());
    }
    Err(Error::Fit {
        first: previous(i),
        second: i,
        name: "in time steps".into(),
        takes: "spikes in steps, a sequence or values".into(),
        gives: given.to_string(),
    })
}

/// How messages call what comes before layer `i`.
fn previous(i: usize) -> String {
    i.checked_sub(1).map_or_else(|| "the input".into(), |p| format!("layer {p}"))
}

fn clocked<B: Backend>(
    device: &B,
    input: Signal,
    output: Signal,
    (projection, neuron): (Box<dyn Projection<B>>, &NeuronConfig),
    (skip, cache): (bool, CachePolicy),
    id: (u64, usize),
) -> snn_core::Result<Box<dyn Layer<B>>> {
    let width = output.width();
    let lif = |c: &LeakyConfig, kind| LifNeuron { kind, surrogate: c.surrogate.into(), threshold: c.threshold };
    let path = |c: &LeakyConfig| match c.reset_path {
        ResetPath::Attached => Path::Attached,
        ResetPath::Detached => Path::Detached,
    };
    let decay = |c: &LeakyConfig| Decay::new(device, width, c.beta, c.shared_beta, c.learn_beta);
    let cell: Box<dyn Cell<B>> = match neuron {
        NeuronConfig::Block(c) => {
            let (surrogate, threshold) = (c.surrogate.into(), c.threshold);
            Box::new(BlockCell::new(BlockNeuron { surrogate, threshold, start: Start::Decayed }, decay(c)?))
        }
        NeuronConfig::Single(c) => Box::new(LifCell::new(lif(c, LifKind::Single { mask: path(c) }), decay(c)?)),
        NeuronConfig::Multi(c) => Box::new(LifCell::new(lif(c, LifKind::Multi { reset: path(c) }), decay(c)?)),
        NeuronConfig::Paralif(c) => Box::new(ParaLifCell::new(device, c, width, id)?),
        NeuronConfig::Cuba(c) => Box::new(CubaCell::new(device, c, width, id)?),
        NeuronConfig::Alif(c) => Box::new(AlifCell::new(device, c, width, id)?),
        NeuronConfig::Event(_) | NeuronConfig::Ttfs(_) => unreachable!("layers without steps are built before"),
        NeuronConfig::Relu(_) => return Ok(Box::new(ReluLayer::new(device, input, output, projection)?)),
    };
    let layer = Clocked::new(device, input, output, projection, cell, skip)?;
    Ok(Box::new(if cache == CachePolicy::Recompute { layer.recomputing() } else { layer }))
}

#[cfg(test)]
mod tests {
    use snn_core::Map;
    use snn_core::reference::Reference;

    use super::*;
    use crate::Experiment;

    fn build(model: &str) -> Result<Stack<Reference<f32>>> {
        let text = format!("data = {{ set = 'x', encode = {{ kind = 'ready' }} }}\nmodel = {{ {model} }}");
        let model = Experiment::from_toml("test", &text).unwrap().model;
        let maps = Signal { kind: Kind::Spikes, steps: 4, map: Map::new(8, 6, 3) };
        Stack::build(&Reference::new(), &model, maps, 4, 1)
    }

    #[test]
    fn layers_that_do_not_fit_are_named() {
        let dense = |width: usize, more: &str| format!("{{ kind = 'dense', width = {width}{more} }}");
        let pool = "{ kind = 'avg-pool', window = 2 }";
        for (layers, readout, want) in [
            (format!("{pool}, {}", dense(3, ", delays = {}")), "", "layer 1 (delays) takes spikes, but layer 0 gives"),
            (dense(10, ""), ", readout = { neuron = { model = 'vote' } }", "as many neurons for each of the 4 classes"),
            (format!("{{ kind = 'dropout', p = 0.5 }}, {}", dense(144, ", skip = true")), "", "cannot follow dropout"),
            (
                "{ kind = 'conv', channels = 2, kernel = 3, neuron = { model = 'alif' } }".into(),
                "",
                "must be false in a convolution",
            ),
            ("{ kind = 'avg-pool', window = 7 }".into(), "", "layer 0 (average pool 7x7) takes a map"),
            (format!("{pool}, {{ kind = 'pool', window = 2 }}"), "", "layer 1 (pool 2x2) takes spikes"),
        ] {
            let message = build(&format!("layers = [{layers}]{readout}")).unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
    }

    #[test]
    fn what_differs_from_pass_to_pass_is_not_recorded() {
        let repeats = |layer: &str| build(&format!("layers = [{layer}]")).unwrap().layers().all(|l| l.repeats());
        let dense = |more: &str| repeats(&format!("{{ kind = 'dense', width = 10{more} }}"));
        assert!(dense("") && dense(", delays = { max = 7 }"));
        assert!(dense(", neuron = { model = 'paralif', mode = 'T' }"));
        assert!(!dense(", neuron = { model = 'paralif', mode = 'SB' }"));
        assert!(!dense(", norm = { kind = 'batch' }"));
        assert!(!repeats("{ kind = 'dense', width = 10 }, { kind = 'dropout', p = 0.5 }"));
    }

    #[test]
    fn memory_grows_with_what_a_layer_keeps() {
        let bytes = |more: &str, mode| {
            let stack = build(&format!("layers = [{{ kind = 'dense', width = 10{more} }}]")).unwrap();
            stack.memory_bytes(5, mode)
        };
        let (norm, delays) = (", norm = { kind = 'batch' }", ", delays = { max = 7 }");
        // Four lists of a value for each neuron, with gradients, in place of the bias, and a trace in training.
        let lists = (4 - 1) * 2 * 10 * 4;
        assert_eq!(bytes(norm, Mode::Train) - bytes("", Mode::Train), lists + 5 * 4 * 10 * 4);
        assert_eq!(bytes(norm, Mode::Evaluate) - bytes("", Mode::Evaluate), lists);
        // Positions and a width with gradients, and the kernel with its own in training.
        let (positions, kernel) = (2 * (144 * 10 + 1) * 4, 144 * 7 * 10 * 4);
        assert_eq!(bytes(delays, Mode::Train) - bytes("", Mode::Train), positions + 2 * kernel);
        assert_eq!(bytes(delays, Mode::Evaluate) - bytes("", Mode::Evaluate), positions + kernel);
    }
}
