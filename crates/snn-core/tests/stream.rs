//! Streaming inference: golden files of EvSpikeSim, and properties of neurons and traces.

use std::path::Path;

use proptest::prelude::*;
use snn_core::Real;
use snn_core::stream::{BasicTrace, Event, PairStdp, Plasticity, StreamLayer, StreamNet, StreamNeuron};
use snn_core::testkit::golden::{Case, ExactWord, Precision, Tolerance, read_index};

/// An array of a golden file against ours: +inf must meet +inf, the rest is relative to the largest finite entry.
fn check(case: &Case, precision: Precision, name: &str, got: &[f64]) {
    let Some(want) = case.find(name) else { return };
    let tolerances = case.entry.arrays[name].tol.unwrap();
    let tolerance = if precision == Precision::Single { tolerances.f32 } else { tolerances.f64 };
    let relative = match tolerance {
        Tolerance::Relative(x) => x,
        Tolerance::Exact(ExactWord::Exact) => 0.0,
    };
    assert_eq!(got.len(), want.data.len(), "{name}");
    let scale = want.data.iter().filter(|v| v.is_finite()).fold(0.0_f64, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(&want.data).enumerate() {
        assert!(g == w || (g - w).abs() <= relative * scale, "{} {name}[{i}]: {g}, expected {w}", case.path.display());
    }
}

/// Runs a case with a rule whose second synapse trace is compared.
fn run<R: Real, P: Plasticity<R, Synapse = [R; 2]>>(case: &Case, precision: Precision, rule: P) {
    let number = |name: &str| case.option::<f64>(name).unwrap();
    let (pre, weights) = (case.array("pre_times").unwrap(), case.array("weights").unwrap());
    let (neurons, inputs, slots) = (weights.shape[0], weights.shape[1], case.option::<usize>("slots").unwrap());
    let mut events: Vec<Event<R>> = pre
        .data
        .iter()
        .enumerate()
        .filter(|(_, t)| t.is_finite())
        .map(|(i, &t)| Event::new((i / pre.shape[1]) as u32, R::lit(t)))
        .collect();
    events.sort_by(|x, y| x.time.partial_cmp(&y.time).unwrap());
    let weights: Vec<R> = weights.permuted(&[1, 0]).data.iter().map(|&w| R::lit(w)).collect();
    let neuron = StreamNeuron { tau_s: number("tau_s"), threshold: number("threshold_c"), reset: number("reset_c") };
    let mut layer = StreamLayer::plastic(neuron, inputs, neurons, &weights, rule).unwrap();
    layer.infer(&events).unwrap();

    let mut times = vec![f64::INFINITY; neurons * slots];
    for n in 0..neurons {
        let own = layer.spikes().iter().filter(|s| s.unit as usize == n);
        for (slot, spike) in times[n * slots..][..slots].iter_mut().zip(own) {
            *slot = spike.time.value();
        }
    }
    let counts: Vec<f64> = layer.counts().iter().map(|&c| f64::from(c)).collect();
    let traces: Vec<f64> = layer.synapse_traces().iter().map(|s| s[1].value()).collect();
    check(case, precision, "post_counts", &counts);
    for suffix in ["", "_f64"] {
        check(case, precision, &format!("post_times{suffix}"), &times);
        check(case, precision, &format!("trace{suffix}"), &traces);
    }
}

#[test]
fn golden_files_of_evspikesim() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/bats"));
    let index = read_index(folder).unwrap();
    let mut rules = Vec::new();
    for entry in index.cases.iter().filter(|c| c.kind == "event_infer") {
        for precision in [Precision::Single, Precision::Double] {
            let case = Case::open(folder, entry, precision).unwrap();
            let tau = |name: &str| case.option::<Option<f64>>(name).unwrap().unwrap_or(f64::INFINITY);
            let rule: String = case.option("rule").unwrap();
            let (tau_pre, tau_sum) = (tau("tau_s0"), tau("tau_s1"));
            let basic = BasicTrace { tau_pre, tau_sum };
            match (&*rule, precision) {
                ("basic", Precision::Single) => run::<f32, _>(&case, precision, basic),
                ("basic", Precision::Double) => run::<f64, _>(&case, precision, basic),
                ("pair_stdp", _) => {
                    let pair = PairStdp { tau_pre, tau_post: tau("tau_n0"), tau_sum };
                    match precision {
                        Precision::Single => run::<f32, _>(&case, precision, pair),
                        Precision::Double => run::<f64, _>(&case, precision, pair),
                    }
                }
                other => panic!("no rule {other:?}"),
            }
            case.finish().unwrap();
            rules.push(rule.clone());
        }
    }
    assert_eq!(rules, ["basic", "basic", "pair_stdp", "pair_stdp"]);
}

const NEURON: StreamNeuron = StreamNeuron::new(0.02, 0.1);
const INPUTS: usize = 4;
const NEURONS: usize = 3;

/// A small layer's weights, `[I, N]`, and a sample in ascending time.
#[derive(Debug, Clone)]
struct Sample {
    weights: Vec<f64>,
    events: Vec<Event<f64>>,
}

fn sorted(mut events: Vec<Event<f64>>) -> Vec<Event<f64>> {
    events.sort_by(|x, y| x.time.total_cmp(&y.time));
    events
}

fn samples() -> impl Strategy<Value = Sample> {
    let weights = prop::collection::vec(-1.0..1.5, INPUTS * NEURONS);
    let events = prop::collection::vec((0..INPUTS as u32, 0.0..0.15), 0..12);
    (weights, events).prop_map(|(weights, events)| Sample {
        weights,
        events: sorted(events.into_iter().map(|(unit, time)| Event::new(unit, time)).collect()),
    })
}

fn fixed<R: Real>(neuron: StreamNeuron, weights: &[f64]) -> StreamLayer<R> {
    let weights: Vec<R> = weights.iter().map(|&w| R::lit(w)).collect();
    StreamLayer::new(neuron, INPUTS, NEURONS, &weights).unwrap()
}

/// Times by neuron.
fn trains<R: Real>(spikes: &[Event<R>]) -> Vec<Vec<f64>> {
    let own = |n: usize| spikes.iter().filter(|s| s.unit as usize == n).map(|s| s.time.value()).collect();
    (0..NEURONS).map(own).collect()
}

fn infer(sample: &Sample) -> Vec<Vec<f64>> {
    trains(fixed(NEURON, &sample.weights).infer(&sample.events).unwrap())
}

fn same(got: &[Vec<f64>], want: &[Vec<f64>], tolerance: f64) -> bool {
    let near =
        |g: &Vec<f64>, w: &Vec<f64>| g.len() == w.len() && g.iter().zip(w).all(|(a, b)| (a - b).abs() <= tolerance);
    got.len() == want.len() && got.iter().zip(want).all(|(g, w)| near(g, w))
}

/// `V / tau` of a neuron at `t`, the limit from before: a sum of potentials less the resets, all in absolute time.
fn potential(sample: &Sample, neuron: usize, own: &[f64], t: f64) -> f64 {
    let left = |since: f64, tau: f64| (-(t - since) / tau).exp();
    let inputs = sample.events.iter().filter(|e| e.time < t).map(|e| {
        let w = sample.weights[e.unit as usize * NEURONS + neuron];
        w * (left(e.time, NEURON.tau()) - left(e.time, NEURON.tau_s))
    });
    let resets = own.iter().filter(|&&s| s < t).map(|&s| NEURON.reset * left(s, NEURON.tau()));
    inputs.sum::<f64>() - resets.sum::<f64>()
}

/// Uses every hook, several time constants, and changes weights while it runs.
#[derive(Debug, Clone, Copy)]
struct Everything;

impl<R: Real> Plasticity<R> for Everything {
    type Neuron = [R; 2];
    type Synapse = [R; 3];

    fn time_constants(&self) -> ([R; 2], [R; 3]) {
        ([R::lit(0.01), R::lit(f64::INFINITY)], [R::lit(0.03), R::lit(0.2), R::lit(f64::INFINITY)])
    }

    fn on_pre_synapse(&self, weight: &mut R, neuron: &[R; 2], synapse: &mut [R; 3]) {
        synapse[0] += R::ONE;
        synapse[1] -= neuron[0] + neuron[1] * synapse[0];
        synapse[2] += *weight;
        *weight += R::lit(1e-2) * synapse[1];
    }

    fn on_pre_neuron(&self, neuron: &mut [R; 2]) {
        neuron[0] -= R::lit(0.25) * neuron[1];
        neuron[1] += R::lit(0.125);
    }

    fn on_post_neuron(&self, neuron: &mut [R; 2]) {
        neuron[0] += R::ONE;
        neuron[1] = neuron[1] * R::lit(0.5) + neuron[0];
    }

    fn on_post_synapse(&self, weight: &mut R, neuron: &[R; 2], synapse: &mut [R; 3]) {
        synapse[1] += synapse[0] * neuron[0];
        synapse[2] -= synapse[1];
        *weight += R::lit(1e-2) * synapse[0];
    }
}

/// What every trace and weight comes to if all traces of a neuron decay at each of its events, one step after another.
struct Eager {
    neuron: [f64; 2],
    synapses: Vec<[f64; 3]>,
    weights: Vec<f64>,
}

fn eager(sample: &Sample, neuron: usize, own: &[f64], end: f64) -> Eager {
    let rule = Everything;
    let (neuron_taus, synapse_taus): ([f64; 2], [f64; 3]) = rule.time_constants();
    let mut this = Eager {
        neuron: [0.0; 2],
        synapses: vec![[0.0; 3]; INPUTS],
        weights: (0..INPUTS).map(|i| sample.weights[i * NEURONS + neuron]).collect(),
    };
    let mut moments: Vec<(f64, Option<usize>)> =
        sample.events.iter().map(|e| (e.time, Some(e.unit as usize))).chain(own.iter().map(|&t| (t, None))).collect();
    moments.sort_by(|x, y| x.0.total_cmp(&y.0));
    let mut now = 0.0;
    for (time, input) in moments.into_iter().map(|(t, i)| (t, Some(i))).chain([(end, None)]) {
        let left = |tau: f64| (-(time - now) / tau).exp();
        this.neuron.iter_mut().zip(neuron_taus).for_each(|(x, tau)| *x *= left(tau));
        this.synapses.iter_mut().for_each(|s| s.iter_mut().zip(synapse_taus).for_each(|(x, tau)| *x *= left(tau)));
        now = time;
        match input {
            Some(Some(i)) => {
                rule.on_pre_synapse(&mut this.weights[i], &this.neuron, &mut this.synapses[i]);
                rule.on_pre_neuron(&mut this.neuron);
            }
            Some(None) => {
                rule.on_post_neuron(&mut this.neuron);
                for (weight, synapse) in this.weights.iter_mut().zip(&mut this.synapses) {
                    rule.on_post_synapse(weight, &this.neuron, synapse);
                }
            }
            None => {}
        }
    }
    this
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn spikes_are_the_crossings_of_the_threshold(sample in samples()) {
        let c = NEURON.threshold;
        for (n, own) in infer(&sample).iter().enumerate() {
            for &t in own {
                let v = potential(&sample, n, own, t);
                prop_assert!((v - c).abs() < 1e-9, "V = {v} at the spike {t}");
            }
            let mut knots: Vec<f64> = sample.events.iter().map(|e| e.time).chain(own.iter().copied()).collect();
            knots.sort_by(f64::total_cmp);
            knots.push(knots.last().unwrap_or(&0.0) + 0.5);
            for pair in knots.windows(2) {
                for k in 1..40 {
                    let t = pair[0] + (pair[1] - pair[0]) * f64::from(k) / 40.0;
                    let v = potential(&sample, n, own, t);
                    prop_assert!(v < c + 1e-9, "V = {v} at {t}, which is no spike");
                }
            }
        }
    }

    #[test]
    fn later_inputs_give_the_same_spikes_later(sample in samples(), shift in 0.0..100.0) {
        let mut moved = sample.clone();
        moved.events.iter_mut().for_each(|e| e.time += shift);
        let mut later = infer(&moved);
        later.iter_mut().flatten().for_each(|t| *t -= shift);
        prop_assert!(same(&later, &infer(&sample), 1e-6));
    }

    #[test]
    fn the_order_of_inputs_at_one_time_does_not_matter(sample in samples()) {
        // Few distinct times, so that many inputs are tied.
        let mut sample = sample;
        sample.events.iter_mut().for_each(|e| e.time = (e.time * 50.0).floor() / 50.0);
        let mut other = sample.clone();
        other.events.sort_by(|x, y| x.time.total_cmp(&y.time).then(y.unit.cmp(&x.unit)));
        prop_assert!(same(&infer(&other), &infer(&sample), 1e-9));
    }

    #[test]
    fn single_precision_agrees_with_double(sample in samples()) {
        let infer64 = |factor: f64| {
            let neuron = StreamNeuron { threshold: NEURON.threshold * factor, ..NEURON };
            trains(fixed::<f64>(neuron, &sample.weights).infer(&sample.events).unwrap())
        };
        // Where a slightly other threshold changes the spikes, rounding may do so too.
        let (low, high) = (infer64(1.0 - 1e-4), infer64(1.0 + 1e-4));
        prop_assume!(same(&low, &high, 1e-3));
        let events: Vec<Event<f32>> = sample.events.iter().map(|e| Event::new(e.unit, e.time as f32)).collect();
        let single = trains(fixed::<f32>(NEURON, &sample.weights).infer(&events).unwrap());
        prop_assert!(same(&single, &infer64(1.0), 1e-4));
    }

    #[test]
    fn lazy_traces_are_eager_traces(sample in samples()) {
        let mut layer = StreamLayer::plastic(NEURON, INPUTS, NEURONS, &sample.weights, Everything).unwrap();
        let spikes = layer.infer(&sample.events).unwrap();
        let end = spikes.iter().chain(&sample.events).fold(0.0, |m, e| f64::max(m, e.time));
        for (n, own) in trains(spikes).iter().enumerate() {
            let want = eager(&sample, n, own, end);
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-10 * (1.0 + b.abs());
            prop_assert!(layer.neuron_traces()[n].iter().zip(want.neuron).all(|(&a, b)| near(a, b)));
            for i in 0..INPUTS {
                let synapse = layer.synapse_traces()[n * INPUTS + i];
                prop_assert!(synapse.iter().zip(want.synapses[i]).all(|(&a, b)| near(a, b)), "{synapse:?}");
                prop_assert!(near(layer.weights()[i * NEURONS + n], want.weights[i]));
            }
        }
    }

    #[test]
    fn pushing_events_one_by_one_gives_what_infer_gives(sample in samples(), second in samples()) {
        let layer = |neurons: usize, weights: &[f64]| {
            StreamLayer::plastic(NEURON, weights.len() / neurons, neurons, weights, PairStdp::new(0.04)).unwrap()
        };
        let deeper: Vec<f64> = second.weights[..NEURONS * 2].iter().map(|w| w + 0.5).collect();
        let mut whole = StreamNet::new(vec![layer(NEURONS, &sample.weights), layer(2, &deeper)]).unwrap();
        let mut parts = whole.clone();
        for events in [&sample.events, &second.events] {
            let mut pushed = Vec::new();
            for event in events {
                let certain = parts.push(*event).unwrap();
                prop_assert!(certain.iter().all(|s| s.time < event.time));
                pushed.extend_from_slice(certain);
            }
            let last = events.last().map_or(0.0, |e| e.time);
            let rest = parts.finish();
            prop_assert!(events.is_empty() || rest.iter().all(|s| s.time >= last), "spikes are handed out in time");
            pushed.extend_from_slice(rest);
            if events.is_empty() {
                // Without a push nothing begins a new inference.
                parts.reset();
                pushed.clear();
            }
            prop_assert_eq!(&pushed, whole.infer(events).unwrap());
            for (a, b) in parts.layers().iter().zip(whole.layers()) {
                if !events.is_empty() {
                    prop_assert_eq!(a.spikes(), b.spikes());
                    prop_assert_eq!(a.synapse_traces(), b.synapse_traces());
                }
            }
        }
    }
}
