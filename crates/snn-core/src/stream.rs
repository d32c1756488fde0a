//! Inference of one sample at a time, event by event, with plastic synapses: the manner of EvSpikeSim.
//!
//! The neuron is the one of BATS: a leaky integrator with exponential synapses whose membrane decays half as fast as
//! they do, `tau = 2 tau_s`. After every input the state is taken relative to that input's time `t0`:
//!
//! ```text
//! a = sum_j w_j e^((t_j - t0) / tau_s)                                          (STREAM-1)
//! b = sum_j w_j e^((t_j - t0) / tau) - d sum_k e^((t_k - t0) / tau)             inputs t_j, own spikes t_k
//! V(t) / tau = b / y - a / y^2,   y = e^((t - t0) / tau)                        (STREAM-2)
//! y* = 2 a / (b + sqrt(b^2 - 4 a c)),   t* = t0 + tau ln y*                     (STREAM-3)
//! ```
//!
//! A time step of `dt` takes `b` to `b e^(-dt / tau)` and `a` to `a e^(-2 dt / tau)`, so nothing grows with time.
//! `t*` is a spike if it lies strictly between the neuron's last event and the next input; otherwise it is computed
//! again with that input. A crossing at the very time of the next input is no spike, here as in EvSpikeSim.
//! The number of spikes has no limit.
//!
//! Threshold `c` and reset `d` are those of EvSpikeSim: potentials are in units of `V / tau`, so that one input of
//! weight `w` lifts a resting neuron to `w / 4` at most. BATS divides by `tau` itself: its `theta` and `delta_theta`
//! are `c tau` and `d tau`, see [`StreamNeuron::from_potential`].
//!
//! A [`Plasticity`] sees every event of a neuron. All its traces decay by the time that has passed, then its hooks are
//! called:
//!
//! ```text
//! input j     the weight is integrated; on_pre_synapse for j; on_pre_neuron; then the neuron may fire
//! own spike   on_post_neuron; then on_post_synapse for every input
//! ```
//!
//! Decay is lazy: a synapse is touched by its own inputs and by spikes of its neuron alone, and each time makes up for
//! what has passed since the last. So an input costs O(neurons) and a spike O(inputs), with one exponential for each input
//! since the neuron's last spike.
//!
//! Layout: weights `[I, N]`, one row per input; synapse traces `[N, I]`, one row per neuron. Units: seconds.
//! Source: EvSpikeSim (Bacho), and arXiv 2212.09500 for the equations.
//!
//! ```
//! use snn_core::stream::{Event, StreamLayer, StreamNeuron};
//!
//! let neuron = StreamNeuron::new(0.02, 0.1);
//! let mut layer = StreamLayer::new(neuron, 2, 1, &[1.0_f64, -2.0])?;
//! let input = [Event::new(0, 0.0), Event::new(1, 0.015)];
//! let spikes = layer.infer(&input)?;
//! assert_eq!(spikes.len(), 2);          // the inhibition at 15 ms cancels the third
//! # Ok::<(), snn_core::Error>(())
//! ```

use std::cmp::Ordering;
use std::fmt::Debug;

use crate::error::{Error, Result, check_len};
use crate::real::Real;

/// A spike: which unit, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event<R> {
    /// The input or the neuron.
    pub unit: u32,
    /// Seconds from the beginning of the sample.
    pub time: R,
}

impl<R> Event<R> {
    /// A spike of `unit` at `time` seconds.
    #[must_use]
    pub const fn new(unit: u32, time: R) -> Self {
        Self { unit, time }
    }
}

/// The constants of a layer's neurons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamNeuron {
    /// Synaptic time constant, seconds; the membrane's is twice as long.
    pub tau_s: f64,
    /// `c`, in units of `V / tau`.
    pub threshold: f64,
    /// `d`, what an own spike takes from the potential, in units of `V / tau`.
    pub reset: f64,
}

impl StreamNeuron {
    /// A neuron whose spike takes as much as the threshold, as in EvSpikeSim.
    #[must_use]
    pub const fn new(tau_s: f64, threshold: f64) -> Self {
        Self { tau_s, threshold, reset: threshold }
    }

    /// The neuron with `theta` and `delta_theta` of BATS, which are in units of `V`.
    #[must_use]
    pub const fn from_potential(tau_s: f64, theta: f64, delta_theta: f64) -> Self {
        let tau = 2.0 * tau_s;
        Self { tau_s, threshold: theta / tau, reset: delta_theta / tau }
    }

    /// Membrane time constant, seconds.
    #[must_use]
    pub const fn tau(&self) -> f64 {
        2.0 * self.tau_s
    }

    fn check(&self) -> Result<()> {
        for (param, value) in [("tau_s", self.tau_s), ("threshold", self.threshold), ("reset", self.reset)] {
            check_positive(param, value, value.is_finite(), "(0, inf)")?;
        }
        Ok(())
    }
}

fn check_positive(param: &'static str, value: f64, allowed: bool, range: &'static str) -> Result<()> {
    let ok = allowed && value > 0.0;
    if ok { Ok(()) } else { Err(Error::Domain { op: "StreamLayer::new", param, value, range }) }
}

/// A fixed number of traces that decay, one time constant each: an array.
pub trait Traces<R: Real>: Copy + Debug + PartialEq + AsRef<[R]> {
    /// All traces at rest.
    const ZERO: Self;

    /// What remains of each trace after `elapsed` seconds; `self` are the time constants.
    fn remains(&self, elapsed: R) -> Self;

    /// Multiplies each trace by its factor.
    fn scale(&mut self, factors: &Self);
}

impl<R: Real, const K: usize> Traces<R> for [R; K] {
    const ZERO: Self = [R::ZERO; K];

    #[inline]
    fn remains(&self, elapsed: R) -> Self {
        std::array::from_fn(|k| {
            let share = elapsed / self[k];
            if share == R::ZERO { R::ONE } else { (-share).exp() }
        })
    }

    #[inline]
    fn scale(&mut self, factors: &Self) {
        for (trace, factor) in self.iter_mut().zip(factors) {
            *trace *= *factor;
        }
    }
}

/// What synapses and neurons remember of their spikes, and what they make of it.
///
/// The [module](self) says in which order the hooks are called. They see traces as they are at that time, and may
/// change traces and weights; a changed weight counts from the next input on. At the start of an inference all traces
/// are 0.
pub trait Plasticity<R: Real> {
    /// The traces of a neuron, for example `[R; 1]`.
    type Neuron: Traces<R>;
    /// The traces of a synapse.
    type Synapse: Traces<R>;

    /// Time constants of both in seconds; infinity for a trace that does not decay.
    fn time_constants(&self) -> (Self::Neuron, Self::Synapse);

    /// Whether no hook does anything; then there are no traces either.
    fn is_idle(&self) -> bool {
        false
    }

    /// An input has come over this synapse.
    fn on_pre_synapse(&self, weight: &mut R, neuron: &Self::Neuron, synapse: &mut Self::Synapse) {
        let _ = (weight, neuron, synapse);
    }

    /// An input has come to this neuron.
    fn on_pre_neuron(&self, neuron: &mut Self::Neuron) {
        let _ = neuron;
    }

    /// This neuron has fired.
    fn on_post_neuron(&self, neuron: &mut Self::Neuron) {
        let _ = neuron;
    }

    /// The neuron behind this synapse has fired.
    fn on_post_synapse(&self, weight: &mut R, neuron: &Self::Neuron, synapse: &mut Self::Synapse) {
        let _ = (weight, neuron, synapse);
    }
}

/// No plasticity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fixed;

impl<R: Real> Plasticity<R> for Fixed {
    type Neuron = [R; 0];
    type Synapse = [R; 0];

    fn time_constants(&self) -> ([R; 0], [R; 0]) {
        ([], [])
    }

    fn is_idle(&self) -> bool {
        true
    }
}

/// A rule or none: lets plastic and fixed layers form one [`StreamNet`].
impl<R: Real, P: Plasticity<R>> Plasticity<R> for Option<P> {
    type Neuron = P::Neuron;
    type Synapse = P::Synapse;

    fn time_constants(&self) -> (P::Neuron, P::Synapse) {
        self.as_ref().map_or((P::Neuron::ZERO, P::Synapse::ZERO), P::time_constants)
    }

    fn is_idle(&self) -> bool {
        self.as_ref().is_none_or(P::is_idle)
    }

    fn on_pre_synapse(&self, weight: &mut R, neuron: &P::Neuron, synapse: &mut P::Synapse) {
        if let Some(rule) = self {
            rule.on_pre_synapse(weight, neuron, synapse);
        }
    }

    fn on_pre_neuron(&self, neuron: &mut P::Neuron) {
        if let Some(rule) = self {
            rule.on_pre_neuron(neuron);
        }
    }

    fn on_post_neuron(&self, neuron: &mut P::Neuron) {
        if let Some(rule) = self {
            rule.on_post_neuron(neuron);
        }
    }

    fn on_post_synapse(&self, weight: &mut R, neuron: &P::Neuron, synapse: &mut P::Synapse) {
        if let Some(rule) = self {
            rule.on_post_synapse(weight, neuron, synapse);
        }
    }
}

/// The basic trace: a synapse sums what is left of its inputs at every spike of its neuron.
///
/// Synapse traces: `s0 += 1` on an input, `s1 += s0` on a spike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BasicTrace {
    /// Time constant of `s0`, seconds.
    pub tau_pre: f64,
    /// Time constant of `s1`, seconds.
    pub tau_sum: f64,
}

impl BasicTrace {
    /// Inputs decay with `tau` seconds, the sum does not.
    #[must_use]
    pub const fn new(tau: f64) -> Self {
        Self { tau_pre: tau, tau_sum: f64::INFINITY }
    }
}

impl<R: Real> Plasticity<R> for BasicTrace {
    type Neuron = [R; 0];
    type Synapse = [R; 2];

    fn time_constants(&self) -> ([R; 0], [R; 2]) {
        ([], [R::lit(self.tau_pre), R::lit(self.tau_sum)])
    }

    #[inline]
    fn on_pre_synapse(&self, _: &mut R, _: &[R; 0], synapse: &mut [R; 2]) {
        synapse[0] += R::ONE;
    }

    #[inline]
    fn on_post_synapse(&self, _: &mut R, _: &[R; 0], synapse: &mut [R; 2]) {
        synapse[1] += synapse[0];
    }
}

/// Pair-based STDP, summed up in a trace: potentiation for an input before a spike, depression for one after it.
///
/// Synapse traces `s0`, `s1`, neuron trace `n0`: `s0 += 1; s1 -= n0` on an input; `n0 += 1`, then `s1 += s0`, on a
/// spike. Every pair of an input and a spike counts. The weights stay as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairStdp {
    /// Time constant of `s0`, seconds: how long an input is remembered.
    pub tau_pre: f64,
    /// Time constant of `n0`, seconds: how long a spike is remembered.
    pub tau_post: f64,
    /// Time constant of the sum `s1`, seconds.
    pub tau_sum: f64,
}

impl PairStdp {
    /// Inputs and spikes are remembered for `tau` seconds; the sum does not decay.
    #[must_use]
    pub const fn new(tau: f64) -> Self {
        Self { tau_pre: tau, tau_post: tau, tau_sum: f64::INFINITY }
    }
}

impl<R: Real> Plasticity<R> for PairStdp {
    type Neuron = [R; 1];
    type Synapse = [R; 2];

    fn time_constants(&self) -> ([R; 1], [R; 2]) {
        ([R::lit(self.tau_post)], [R::lit(self.tau_pre), R::lit(self.tau_sum)])
    }

    #[inline]
    fn on_pre_synapse(&self, _: &mut R, neuron: &[R; 1], synapse: &mut [R; 2]) {
        synapse[0] += R::ONE;
        synapse[1] -= neuron[0];
    }

    #[inline]
    fn on_post_neuron(&self, neuron: &mut [R; 1]) {
        neuron[0] += R::ONE;
    }

    #[inline]
    fn on_post_synapse(&self, _: &mut R, _: &[R; 1], synapse: &mut [R; 2]) {
        synapse[1] += synapse[0];
    }
}

/// Reward-modulated STDP for classification: the summed pairs of [`PairStdp`] become a weight step once the label is
/// known, see [`StreamLayer::reward`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardStdp {
    /// What synapses remember.
    pub stdp: PairStdp,
    /// Weight per missing spike and unit of the trace.
    pub learning_rate: f64,
    /// Wanted number of spikes of the label's neuron.
    pub target: f64,
    /// Wanted number of spikes of every other neuron.
    pub other: f64,
}

impl<R: Real> Plasticity<R> for RewardStdp {
    type Neuron = [R; 1];
    type Synapse = [R; 2];

    fn time_constants(&self) -> ([R; 1], [R; 2]) {
        self.stdp.time_constants()
    }

    #[inline]
    fn on_pre_synapse(&self, weight: &mut R, neuron: &[R; 1], synapse: &mut [R; 2]) {
        self.stdp.on_pre_synapse(weight, neuron, synapse);
    }

    #[inline]
    fn on_post_neuron(&self, neuron: &mut [R; 1]) {
        Plasticity::<R>::on_post_neuron(&self.stdp, neuron);
    }

    #[inline]
    fn on_post_synapse(&self, weight: &mut R, neuron: &[R; 1], synapse: &mut [R; 2]) {
        self.stdp.on_post_synapse(weight, neuron, synapse);
    }
}

/// The later of two times.
#[inline]
fn later<R: Real>(a: R, b: R) -> R {
    if a > b { a } else { b }
}

/// The traces of a layer, and when each was last brought up to date: a neuron's at the last input or its own last
/// spike, a synapse's at its own last input or its neuron's last spike.
#[derive(Debug, Clone)]
struct Memory<R: Real, P: Plasticity<R>> {
    rule: P,
    taus: (P::Neuron, P::Synapse),
    /// `[N]`; empty for an idle rule.
    neurons: Vec<P::Neuron>,
    /// `[N, I]`; empty for an idle rule.
    synapses: Vec<P::Synapse>,
    /// Time of the last input, 0 before the first.
    last_input: R,
    /// Of each input, `[I]`.
    last_pre: Vec<R>,
    /// Of each neuron's spikes, `[N]`.
    last_post: Vec<R>,
    /// The inputs of this inference in their order, for a rule that is not idle.
    log: Vec<u32>,
    /// Length of `log` at each neuron's last spike, `[N]`.
    read: Vec<usize>,
    /// Scratch of `catch_up`.
    recent: Vec<P::Synapse>,
}

impl<R: Real, P: Plasticity<R>> Memory<R, P> {
    fn new(rule: P, inputs: usize, neurons: usize) -> Result<Self> {
        let mut taus = rule.time_constants();
        let plastic = usize::from(!rule.is_idle());
        if plastic == 0 {
            taus = (P::Neuron::ZERO, P::Synapse::ZERO);
        } else {
            for tau in taus.0.as_ref().iter().chain(taus.1.as_ref()) {
                check_positive("time constant of a trace", tau.value(), true, "(0, inf]")?;
            }
        }
        Ok(Self {
            rule,
            taus,
            neurons: vec![P::Neuron::ZERO; plastic * neurons],
            synapses: vec![P::Synapse::ZERO; plastic * neurons * inputs],
            last_input: R::ZERO,
            last_pre: vec![R::ZERO; inputs],
            last_post: vec![R::ZERO; neurons],
            log: Vec::new(),
            read: vec![0; neurons],
            recent: Vec::new(),
        })
    }

    fn reset(&mut self) {
        self.neurons.fill(P::Neuron::ZERO);
        self.synapses.fill(P::Synapse::ZERO);
        self.last_input = R::ZERO;
        self.last_pre.fill(R::ZERO);
        self.last_post.fill(R::ZERO);
        self.log.clear();
        self.read.fill(0);
    }

    /// An input at `time`; `row` are its weights.
    fn pre(&mut self, input: usize, time: R, row: &mut [R]) {
        if !self.rule.is_idle() {
            let (before, before_here) = (self.last_input, self.last_pre[input]);
            // Most neurons have not fired since: they share these.
            let (quiet, quiet_here) = (self.taus.0.remains(time - before), self.taus.1.remains(time - before_here));
            let synapses = self.synapses[input..].iter_mut().step_by(self.last_pre.len());
            let neurons = self.neurons.iter_mut().zip(&self.last_post);
            for (((neuron, &fired), synapse), weight) in neurons.zip(synapses).zip(row) {
                neuron.scale(&if fired > before { self.taus.0.remains(time - fired) } else { quiet });
                synapse.scale(&if fired > before_here { self.taus.1.remains(time - fired) } else { quiet_here });
                self.rule.on_pre_synapse(weight, neuron, synapse);
                self.rule.on_pre_neuron(neuron);
            }
            self.log.push(input as u32);
        }
        self.last_pre[input] = time;
        self.last_input = time;
    }

    /// A spike of `neuron` at `time`; `weights` are those of the layer.
    fn post(&mut self, neuron: usize, time: R, weights: &mut [R]) {
        if !self.rule.is_idle() {
            self.catch_up(neuron, time);
            let (inputs, neurons) = (self.last_pre.len(), self.last_post.len());
            let own = &mut self.neurons[neuron];
            self.rule.on_post_neuron(own);
            let synapses = &mut self.synapses[neuron * inputs..][..inputs];
            for (synapse, row) in synapses.iter_mut().zip(weights.chunks_exact_mut(neurons)) {
                self.rule.on_post_synapse(&mut row[neuron], own, synapse);
            }
            self.read[neuron] = self.log.len();
        }
        self.last_post[neuron] = time;
    }

    /// Lets all traces decay to `time`.
    fn settle(&mut self, time: R) {
        (0..self.neurons.len()).for_each(|neuron| self.catch_up(neuron, time));
    }

    /// Lets the traces of a neuron and its synapses decay to `time`.
    fn catch_up(&mut self, neuron: usize, time: R) {
        let fired = self.last_post[neuron];
        self.neurons[neuron].scale(&self.taus.0.remains(time - later(fired, self.last_input)));
        let inputs = self.last_pre.len();
        let synapses = &mut self.synapses[neuron * inputs..][..inputs];
        // Inputs since that spike each have a time of their own; all others share one, in a loop without branches.
        let since = &self.log[self.read[neuron]..];
        self.recent.clear();
        self.recent.extend(since.iter().map(|&input| {
            let mut synapse = synapses[input as usize];
            synapse.scale(&self.taus.1.remains(time - self.last_pre[input as usize]));
            synapse
        }));
        let quiet = self.taus.1.remains(time - fired);
        synapses.iter_mut().for_each(|synapse| synapse.scale(&quiet));
        for (&input, &synapse) in since.iter().zip(&self.recent) {
            synapses[input as usize] = synapse;
        }
    }
}

/// `y*` of (STREAM-3) if it lies after the reference time.
///
/// The comparisons are false for NaN: an overflow or a NaN gives no spike.
#[inline]
fn crossing<R: Real>(a: R, b: R, threshold: R) -> Option<R> {
    let discriminant = b * b - R::lit(4.0) * a * threshold;
    if discriminant >= R::ZERO {
        let y = R::lit(2.0) * a / (b + discriminant.sqrt());
        (y > R::ONE).then_some(y)
    } else {
        None
    }
}

/// A fully connected layer that is run one sample at a time.
#[derive(Debug, Clone)]
pub struct StreamLayer<R: Real, P: Plasticity<R> = Fixed> {
    neuron: StreamNeuron,
    tau: R,
    threshold: R,
    reset: R,
    end: R,
    weights: Vec<R>,
    /// Whether all weights are known to be finite.
    checked: bool,
    /// (STREAM-1), `[N]` each, relative to the last input.
    a: Vec<R>,
    b: Vec<R>,
    memory: Memory<R, P>,
    spikes: Vec<Event<R>>,
    counts: Vec<u32>,
    received: usize,
    /// Time of the last input, those beyond the end included.
    heard: R,
    finished: bool,
}

impl<R: Real> StreamLayer<R> {
    /// A layer whose weights do not change.
    ///
    /// * `weights` — `[I, N]`, one row per input.
    ///
    /// # Errors
    ///
    /// As [`StreamLayer::plastic`].
    pub fn new(neuron: StreamNeuron, inputs: usize, neurons: usize, weights: &[R]) -> Result<Self> {
        Self::plastic(neuron, inputs, neurons, weights, Fixed)
    }
}

impl<R: Real, P: Plasticity<R>> StreamLayer<R, P> {
    /// A layer whose synapses follow `rule`.
    ///
    /// * `weights` — `[I, N]`, one row per input.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`] if a constant is not positive, [`Error::Shape`] if there is no input or no neuron or the
    /// weights are of another size, [`Error::Entry`] if one of them is not finite.
    pub fn plastic(neuron: StreamNeuron, inputs: usize, neurons: usize, weights: &[R], rule: P) -> Result<Self> {
        const OP: &str = "StreamLayer::new";
        neuron.check()?;
        if inputs == 0 || neurons == 0 {
            return Err(Error::shape(OP, "weights", &[inputs, neurons], "[I, N], no axis empty"));
        }
        check_len(OP, "weights", weights.len(), inputs * neurons)?;
        let mut this = Self {
            neuron,
            tau: R::lit(neuron.tau()),
            threshold: R::lit(neuron.threshold),
            reset: R::lit(neuron.reset),
            end: R::lit(f64::INFINITY),
            weights: weights.to_vec(),
            checked: false,
            a: vec![R::ZERO; neurons],
            b: vec![R::ZERO; neurons],
            memory: Memory::new(rule, inputs, neurons)?,
            spikes: Vec::new(),
            counts: vec![0; neurons],
            received: 0,
            heard: R::ZERO,
            finished: false,
        };
        this.check_weights(OP)?;
        Ok(this)
    }

    /// Ends every inference at `end` seconds: later inputs are not read, and no spike is later.
    ///
    /// Without it the layer runs until its neurons have come to rest.
    #[must_use]
    pub fn until(mut self, end: R) -> Self {
        self.end = end;
        self
    }

    /// The constants of the neurons.
    #[must_use]
    pub fn neuron(&self) -> &StreamNeuron {
        &self.neuron
    }

    /// I, the number of inputs.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.memory.last_pre.len()
    }

    /// N, the number of neurons.
    #[must_use]
    pub fn neurons(&self) -> usize {
        self.a.len()
    }

    /// The weights, `[I, N]`.
    #[must_use]
    pub fn weights(&self) -> &[R] {
        &self.weights
    }

    /// The weights, `[I, N]`, to be changed; the next inference refuses one that is not finite.
    pub fn weights_mut(&mut self) -> &mut [R] {
        self.checked = false;
        &mut self.weights
    }

    /// The rule of the synapses.
    #[must_use]
    pub fn rule(&self) -> &P {
        &self.memory.rule
    }

    /// The spikes of this inference so far, in ascending time, by neuron where two have the same time.
    #[must_use]
    pub fn spikes(&self) -> &[Event<R>] {
        &self.spikes
    }

    /// How many spikes each neuron has fired in this inference, `[N]`.
    #[must_use]
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// The traces of each neuron, `[N]`, once the inference is [finished](StreamLayer::finish); empty for an idle rule.
    ///
    /// All traces of the layer are as of its last event, input or spike.
    #[must_use]
    pub fn neuron_traces(&self) -> &[P::Neuron] {
        &self.memory.neurons
    }

    /// The traces of each synapse, `[N, I]`, as [`StreamLayer::neuron_traces`].
    #[must_use]
    pub fn synapse_traces(&self) -> &[P::Synapse] {
        &self.memory.synapses
    }

    /// Runs one sample from rest.
    ///
    /// * `events` — inputs, in ascending time.
    ///
    /// Returns the spikes in ascending time.
    ///
    /// # Errors
    ///
    /// [`Error::Entry`] with the index of the first event that is no input of this layer, or whose time is negative,
    /// not finite, or before the time of the event before it; or with that of a weight that is not finite.
    pub fn infer(&mut self, events: &[Event<R>]) -> Result<&[Event<R>]> {
        const OP: &str = "StreamLayer::infer";
        let mut before = R::ZERO;
        for (index, event) in events.iter().enumerate() {
            check_event(OP, index, event, before, self.inputs())?;
            before = event.time;
        }
        self.check_weights(OP)?;
        self.reset();
        for event in events {
            self.receive(*event);
        }
        self.finish();
        Ok(&self.spikes)
    }

    /// Begins a new inference: neurons at rest, traces at 0, no spikes. Weights stay.
    pub fn reset(&mut self) {
        self.a.fill(R::ZERO);
        self.b.fill(R::ZERO);
        self.memory.reset();
        self.spikes.clear();
        self.counts.fill(0);
        (self.received, self.heard, self.finished) = (0, R::ZERO, false);
    }

    /// Takes the next input, and returns the spikes that have become certain with it: those before its time.
    ///
    /// The first input after [`StreamLayer::finish`] begins a new inference.
    ///
    /// # Errors
    ///
    /// As [`StreamLayer::infer`]; the layer has not taken the input then.
    pub fn push(&mut self, event: Event<R>) -> Result<&[Event<R>]> {
        const OP: &str = "StreamLayer::push";
        let (index, before) = if self.finished { (0, R::ZERO) } else { (self.received, self.heard) };
        check_event(OP, index, &event, before, self.inputs())?;
        if index == 0 {
            self.check_weights(OP)?;
        }
        if self.finished {
            self.reset();
        }
        let known = self.spikes.len();
        self.receive(event);
        Ok(&self.spikes[known..])
    }

    /// Ends the inference: no input follows. Returns the spikes that come after the last one.
    pub fn finish(&mut self) -> &[Event<R>] {
        let known = self.spikes.len();
        if !self.finished {
            self.fire_before(R::lit(f64::INFINITY));
            let last = self.spikes.last().map_or(R::ZERO, |spike| spike.time);
            self.memory.settle(later(last, self.memory.last_input));
            self.finished = true;
        }
        &self.spikes[known..]
    }

    fn check_weights(&mut self, op: &'static str) -> Result<()> {
        if !self.checked {
            if let Some(index) = self.weights.iter().position(|w| !w.value().is_finite()) {
                let value = self.weights[index].value();
                return Err(Error::Entry { op, arg: "weights", index, value, want: "a finite number" });
            }
            // A rule may change weights at any time.
            self.checked = self.memory.rule.is_idle();
        }
        Ok(())
    }

    /// Takes an input that has been checked.
    fn receive(&mut self, event: Event<R>) {
        self.received += 1;
        self.heard = event.time;
        self.fire_before(event.time);
        if event.time > self.end {
            return;
        }
        let (input, neurons) = (event.unit as usize, self.a.len());
        let decay = ((self.memory.last_input - event.time) / self.tau).exp();
        let row = &mut self.weights[input * neurons..][..neurons];
        for ((a, b), &w) in self.a.iter_mut().zip(&mut self.b).zip(&*row) {
            *a = *a * (decay * decay) + w;
            *b = *b * decay + w;
        }
        self.memory.pre(input, event.time, row);
    }

    /// Fires all spikes before `next`.
    fn fire_before(&mut self, next: R) {
        let known = self.spikes.len();
        let origin = self.memory.last_input;
        for (neuron, (&a, b)) in self.a.iter().zip(&mut self.b).enumerate() {
            while let Some(y) = crossing(a, *b, self.threshold) {
                let time = origin + self.tau * y.ln();
                let last = later(origin, self.memory.last_post[neuron]);
                if !(time > last && time < next && time <= self.end) {
                    break;
                }
                *b -= self.reset * y;
                self.memory.post(neuron, time, &mut self.weights);
                self.spikes.push(Event::new(neuron as u32, time));
                self.counts[neuron] += 1;
            }
        }
        self.spikes[known..]
            .sort_unstable_by(|x, y| x.time.partial_cmp(&y.time).unwrap_or(Ordering::Equal).then(x.unit.cmp(&y.unit)));
    }
}

impl<R: Real> StreamLayer<R, RewardStdp> {
    /// Teaches the layer the label of the sample that it has just [inferred](StreamLayer::infer).
    ///
    /// Every weight moves by `learning_rate * (wanted - counted spikes of its neuron) * s1`.
    ///
    /// # Errors
    ///
    /// [`Error::Unit`] if there is no such neuron.
    pub fn reward(&mut self, label: u32) -> Result<()> {
        let (width, inputs) = (self.neurons(), self.inputs());
        if label as usize >= width {
            return Err(Error::Unit { op: "StreamLayer::reward", unit: label, width });
        }
        self.finish();
        let rule = self.memory.rule;
        for (neuron, traces) in self.memory.synapses.chunks_exact(inputs).enumerate() {
            let wanted = if neuron == label as usize { rule.target } else { rule.other };
            let step = R::lit(rule.learning_rate * (wanted - f64::from(self.counts[neuron])));
            for (weight, trace) in self.weights[neuron..].iter_mut().step_by(width).zip(traces) {
                *weight += step * trace[1];
            }
        }
        Ok(())
    }
}

fn check_event<R: Real>(op: &'static str, index: usize, event: &Event<R>, before: R, inputs: usize) -> Result<()> {
    let entry = |arg, value, want| Error::Entry { op, arg, index, value, want };
    let time = event.time.value();
    if !(time.is_finite() && time >= 0.0) {
        return Err(entry("time", time, "a finite number that is not negative"));
    }
    if event.time < before {
        return Err(entry("time", time, "no time before that of the entry before it"));
    }
    if event.unit as usize >= inputs {
        return Err(entry("unit", f64::from(event.unit), "an input of the layer"));
    }
    Ok(())
}

/// Layers in a chain, run one sample at a time.
///
/// All layers have the same kind of rule; with `Option<P>` some of them can have none.
#[derive(Debug, Clone)]
pub struct StreamNet<R: Real, P: Plasticity<R> = Fixed> {
    layers: Vec<StreamLayer<R, P>>,
}

impl<R: Real, P: Plasticity<R>> StreamNet<R, P> {
    /// A chain of layers, the one at the input first.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if there is no layer, or one has not as many inputs as the layer before it has neurons.
    pub fn new(layers: Vec<StreamLayer<R, P>>) -> Result<Self> {
        const OP: &str = "StreamNet::new";
        if layers.is_empty() {
            return Err(Error::shape(OP, "layers", &[0], "at least one layer"));
        }
        for pair in layers.windows(2) {
            let (got, want) = (pair[1].inputs(), pair[0].neurons());
            if got != want {
                return Err(Error::shape(OP, "layers", &[got, pair[1].neurons()], format_args!("[{want}, N]")));
            }
        }
        Ok(Self { layers })
    }

    /// The layers.
    #[must_use]
    pub fn layers(&self) -> &[StreamLayer<R, P>] {
        &self.layers
    }

    /// The layers, to change their weights.
    pub fn layers_mut(&mut self) -> &mut [StreamLayer<R, P>] {
        &mut self.layers
    }

    /// The last layer.
    #[must_use]
    pub fn output(&self) -> &StreamLayer<R, P> {
        self.layers.last().expect("a net has at least one layer")
    }

    /// Runs one sample from rest; returns the spikes of the last layer. Those of the others are in
    /// [`StreamNet::layers`].
    ///
    /// # Errors
    ///
    /// As [`StreamLayer::infer`].
    pub fn infer(&mut self, events: &[Event<R>]) -> Result<&[Event<R>]> {
        for index in 0..self.layers.len() {
            let (done, rest) = self.layers.split_at_mut(index);
            rest[0].infer(done.last().map_or(events, |layer| layer.spikes()))?;
        }
        Ok(self.output().spikes())
    }

    /// Begins a new inference in every layer.
    pub fn reset(&mut self) {
        self.layers.iter_mut().for_each(StreamLayer::reset);
    }

    /// Takes the next input, and returns the spikes of the last layer that have become certain with it: those before
    /// its time. The first input after [`StreamNet::finish`] begins a new inference.
    ///
    /// # Errors
    ///
    /// As [`StreamLayer::infer`]; the net has not taken the input then.
    pub fn push(&mut self, event: Event<R>) -> Result<&[Event<R>]> {
        let again = self.layers[0].finished;
        if self.layers[0].received == 0 || again {
            self.layers.iter_mut().skip(1).try_for_each(|layer| layer.check_weights("StreamNet::push"))?;
        }
        let known = if again { 0 } else { self.output().spikes.len() };
        self.layers[0].push(event)?;
        if again {
            self.layers.iter_mut().skip(1).for_each(StreamLayer::reset);
        }
        for index in 1..self.layers.len() {
            self.hand_on(index);
            self.layers[index].fire_before(event.time);
        }
        Ok(&self.output().spikes[known..])
    }

    /// Ends the inference: no input follows. Returns the spikes of the last layer that were still to come.
    pub fn finish(&mut self) -> &[Event<R>] {
        let known = self.output().spikes.len();
        for index in 0..self.layers.len() {
            if index > 0 {
                self.hand_on(index);
            }
            self.layers[index].finish();
        }
        &self.output().spikes[known..]
    }

    /// Gives the layer `index` what it has not yet received of the layer before.
    fn hand_on(&mut self, index: usize) {
        let (done, rest) = self.layers.split_at_mut(index);
        for at in rest[0].received..done[index - 1].spikes.len() {
            rest[0].receive(done[index - 1].spikes[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::Dual;
    use crate::testkit::assert_close;

    const WORKED: [(f64, f64); 3] = [(0.02, 3.0), (0.05, 2.0), (0.12, -4.0)];

    /// One neuron, one synapse for each input.
    fn single<R: Real>(neuron: StreamNeuron, inputs: &[(R, R)]) -> (StreamLayer<R>, Vec<Event<R>>) {
        let weights: Vec<R> = inputs.iter().map(|(_, w)| *w).collect();
        let events = inputs.iter().enumerate().map(|(i, (t, _))| Event::new(i as u32, *t)).collect();
        (StreamLayer::new(neuron, inputs.len(), 1, &weights).unwrap(), events)
    }

    fn times<R: Real>(spikes: &[Event<R>]) -> Vec<f64> {
        spikes.iter().map(|s| s.time.value()).collect()
    }

    /// The worked example of the BATS neuron: spikes, and by dual numbers the derivatives of `t_1 + 2 t_2`.
    #[test]
    fn worked_example_gives_its_spikes_and_derivatives() {
        let neuron = StreamNeuron::from_potential(0.1, 0.1, 0.1);
        assert_eq!((neuron.threshold, neuron.reset, neuron.tau()), (0.5, 0.5, 0.2));
        let slope = |moved: usize, by_weight: bool| {
            let inputs: Vec<(Dual, Dual)> = (0..3)
                .map(|i| {
                    let moves = |this| f64::from(i == moved && this);
                    (Dual::new(WORKED[i].0, moves(!by_weight)), Dual::new(WORKED[i].1, moves(by_weight)))
                })
                .collect();
            let (mut layer, events) = single(neuron, &inputs);
            let spikes = layer.infer(&events).unwrap();
            assert_close("times", &times(spikes), &[0.057_727_162, 0.090_374_797], 1e-8);
            spikes[0].time.derivative + 2.0 * spikes[1].time.derivative
        };
        let by_weight: Vec<f64> = (0..3).map(|i| slope(i, true)).collect();
        assert_close("by weight", &by_weight, &[-0.047_387_31, -0.028_681_17, 0.0], 1e-6);
        let by_time: Vec<f64> = (0..3).map(|i| slope(i, false)).collect();
        assert_close("by time", &by_time, &[1.393_305_85, 1.606_694_15, 0.0], 1e-6);
    }

    #[test]
    fn one_input_fires_above_the_critical_weight_alone() {
        let neuron = StreamNeuron::new(0.02, 0.1);
        for (weight, spikes) in [(0.399_999, 0), (0.400_001, 1), (-3.0, 0)] {
            let (mut layer, events) = single(neuron, &[(0.3, weight)]);
            assert_eq!(layer.infer(&events).unwrap().len(), spikes, "{weight}");
        }
        let (mut layer, events) = single(neuron, &[(0.3_f64, 0.400_001)]);
        let peak = 0.3 + neuron.tau() * std::f64::consts::LN_2;
        assert!((layer.infer(&events).unwrap()[0].time - peak).abs() < 1e-4);
    }

    #[test]
    fn spikes_are_unlimited_ascending_and_counted() {
        let neuron = StreamNeuron::new(0.02, 1e-3);
        let mut layer = StreamLayer::new(neuron, 1, 3, &[1.0_f64, 2.0, -1.0]).unwrap();
        layer.infer(&[Event::new(0, 0.0), Event::new(0, 0.01)]).unwrap();
        assert!(layer.spikes().windows(2).all(|p| p[0].time <= p[1].time));
        assert!(layer.counts()[0] > 500 && layer.counts()[1] > layer.counts()[0] && layer.counts()[2] == 0);
        assert_eq!(layer.counts().iter().sum::<u32>() as usize, layer.spikes().len());
    }

    #[test]
    fn nothing_is_later_than_the_end() {
        let (layer, events) = single(StreamNeuron::from_potential(0.1, 0.1, 0.1), &WORKED);
        for (end, spikes) in [(0.01, 0), (0.0578, 1), (0.11, 2), (1.0, 2)] {
            assert_eq!(layer.clone().until(end).infer(&events).unwrap().len(), spikes, "{end}");
        }
        let first = layer.clone().infer(&events).unwrap()[0].time;
        assert_eq!(layer.until(first).infer(&events).unwrap().len(), 1, "a spike at the end counts");
    }

    #[test]
    fn long_silence_and_late_samples_are_harmless() {
        let (mut layer, _) = single(StreamNeuron::new(0.02_f64, 0.1), &[(0.0_f32, 1.0)]);
        let early = times(layer.infer(&[Event::new(0, 0.0)]).unwrap());
        let spikes = times(layer.infer(&[Event::new(0, 0.0), Event::new(0, 512.0)]).unwrap());
        assert_eq!(spikes.len(), 2 * early.len());
        assert!((spikes[early.len()] - 512.0 - early[0]).abs() < 1e-4);
    }

    #[test]
    fn every_inference_begins_at_rest() {
        let rule = PairStdp::new(0.04);
        let mut layer = StreamLayer::plastic(StreamNeuron::new(0.02, 0.1), 2, 1, &[1.0_f64, 0.5], rule).unwrap();
        let events = [Event::new(0, 0.0), Event::new(1, 0.003), Event::new(0, 0.02)];
        layer.infer(&events).unwrap();
        let first = (layer.spikes().to_vec(), layer.synapse_traces().to_vec(), layer.neuron_traces().to_vec());
        assert!(first.1.iter().all(|s| s[1] != 0.0) && first.2[0][0] > 0.0);
        layer.infer(&events).unwrap();
        assert_eq!((layer.spikes(), layer.synapse_traces(), layer.neuron_traces()), (&*first.0, &*first.1, &*first.2));
        layer.infer(&[]).unwrap();
        assert_eq!((layer.spikes().len(), layer.synapse_traces()), (0, &[[0.0; 2]; 2][..]));
    }

    #[test]
    fn reward_moves_weights_by_trace_and_missing_spikes() {
        let stdp = PairStdp::new(0.02);
        let rule = RewardStdp { stdp, learning_rate: 0.01, target: 3.0, other: 1.0 };
        let before = [2.0_f64, 2.0, -1.0, 0.5];
        let mut layer = StreamLayer::plastic(StreamNeuron::new(0.01, 0.25), 2, 2, &before, rule).unwrap();
        layer.infer(&[Event::new(0, 0.0), Event::new(1, 0.004)]).unwrap();
        let (counts, traces) = (layer.counts().to_vec(), layer.synapse_traces().to_vec());
        assert!(counts.iter().all(|&c| c > 0));
        layer.reward(1).unwrap();
        for input in 0..2 {
            for neuron in 0..2 {
                let wanted = [1.0, 3.0][neuron];
                let step = 0.01 * (wanted - f64::from(counts[neuron])) * traces[neuron * 2 + input][1];
                let at = input * 2 + neuron;
                assert!((layer.weights()[at] - before[at] - step).abs() < 1e-15);
            }
        }
        let message = layer.reward(2).unwrap_err().to_string();
        assert_eq!(message, "StreamLayer::reward: unit 2 is out of range, the signal has 2 units");
    }

    #[test]
    fn bad_input_is_named() {
        let mut layer = StreamLayer::new(StreamNeuron::new(0.02, 0.1), 2, 1, &[1.0_f64, 1.0]).unwrap();
        let ok = Event::new(0, 0.5);
        for (bad, message) in [
            (Event::new(0, f64::NAN), "`time[1]` is NaN, expected a finite number that is not negative"),
            (Event::new(0, f64::INFINITY), "`time[1]` is inf, expected a finite number that is not negative"),
            (Event::new(0, -0.1), "`time[1]` is -0.1, expected a finite number that is not negative"),
            (Event::new(0, 0.4), "`time[1]` is 0.4, expected no time before that of the entry before it"),
            (Event::new(2, 0.6), "`unit[1]` is 2, expected an input of the layer"),
        ] {
            let inferred = layer.infer(&[ok, bad]).unwrap_err().to_string();
            assert_eq!(inferred, format!("StreamLayer::infer: {message}"));
            layer.reset();
            layer.push(ok).unwrap();
            assert_eq!(layer.push(bad).unwrap_err().to_string(), format!("StreamLayer::push: {message}"));
        }
        layer.weights_mut()[1] = f64::NAN;
        let message = layer.infer(&[ok]).unwrap_err().to_string();
        assert_eq!(message, "StreamLayer::infer: `weights[1]` is NaN, expected a finite number");
        layer.weights_mut()[1] = 1.0;
        assert!(layer.infer(&[ok]).is_ok());
    }

    #[test]
    fn bad_layers_are_refused() {
        let layer = |tau_s, threshold, inputs, weights: &[f64]| {
            StreamLayer::new(StreamNeuron::new(tau_s, threshold), inputs, 1, weights).map_err(|e| e.to_string())
        };
        let refused = |got: Result<StreamLayer<f64>, String>, part: &str| {
            let message = got.unwrap_err();
            assert!(message.contains(part), "{message}");
        };
        refused(layer(0.0, 1.0, 1, &[1.0]), "tau_s = 0 is outside (0, inf)");
        refused(layer(1.0, f64::NAN, 1, &[1.0]), "threshold = NaN is outside (0, inf)");
        refused(layer(1.0, 1.0, 0, &[]), "`weights` has shape [0, 1], expected [I, N], no axis empty");
        refused(layer(1.0, 1.0, 2, &[1.0]), "`weights` has shape [1], expected [2]");
        refused(layer(1.0, 1.0, 1, &[f64::INFINITY]), "`weights[0]` is inf");
        let neuron = StreamNeuron::new(1.0, 1.0);
        let traces = StreamLayer::plastic(neuron, 1, 1, &[1.0_f64], BasicTrace::new(-1.0));
        assert!(traces.unwrap_err().to_string().contains("time constant of a trace = -1 is outside (0, inf]"));
        let pair = || StreamLayer::new(neuron, 1, 2, &[1.0_f64, 1.0]).unwrap();
        let message = StreamNet::new(vec![pair(), pair()]).unwrap_err().to_string();
        assert_eq!(message, "StreamNet::new: `layers` has shape [1, 2], expected [2, N]");
        assert!(StreamNet::<f64>::new(vec![]).is_err());
    }

    #[test]
    fn a_rule_that_is_off_keeps_no_traces() {
        let layer = |rule| StreamLayer::plastic(StreamNeuron::new(0.02, 0.1), 1, 1, &[1.0_f64], rule).unwrap();
        let mut net = StreamNet::new(vec![layer(None), layer(Some(PairStdp::new(0.04)))]).unwrap();
        net.infer(&[Event::new(0, 0.0)]).unwrap();
        assert!(net.layers()[0].synapse_traces().is_empty() && !net.layers()[0].spikes().is_empty());
        assert!(net.output().synapse_traces()[0][1] != 0.0);
    }
}
