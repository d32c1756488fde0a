//! Every hand-written reverse pass is the adjoint of its forward pass.
//!
//! The forward pass on dual numbers gives the exact directional derivative, surrogates included; the reverse pass gives
//! the gradient. Their inner products with random directions must agree to rounding.

use proptest::prelude::*;
use snn_core::backend::{BlockOps, EventOps, Leak, LeakGrad, LifOps, LinAlg, Memory, SpikeMemory, TtfsOps};
use snn_core::neurons::block::{self, BlockNeuron, Start};
use snn_core::neurons::cuba::{self, Constants, CubaNeuron, Recurrence};
use snn_core::neurons::event::EventNeuron;
use snn_core::neurons::lif::{self, LifKind, LifNeuron, Path};
use snn_core::neurons::paralif::{self, BernoulliGradient, Firing, FiringMode, Generator};
use snn_core::neurons::ttfs::{Grid, Perturbation, TtfsNeuron};
use snn_core::random::SpikeDraws;
use snn_core::reference::{DenseSpikes, Reference};
use snn_core::testkit::{Inputs, wide};
use snn_core::{Borders, Conv, Dual, Events, Lanes, Map, Pool, Surrogate, Synapses, Trains};

const SURROGATES: [Surrogate; 6] = [
    Surrogate::BLOCK,
    Surrogate::FastSigmoid { scale: 1.0 },
    Surrogate::FastSigmoid { scale: 100.0 },
    Surrogate::BOXCAR,
    Surrogate::MULTI_GAUSSIAN,
    Surrogate::ARCTAN,
];

const KINDS: [LifKind; 5] = [
    LifKind::Multi { reset: Path::Attached },
    LifKind::Multi { reset: Path::Detached },
    LifKind::Single { mask: Path::Attached },
    LifKind::Single { mask: Path::Detached },
    LifKind::Integrator,
];

/// One lane: what goes in, in which direction it moves, and the gradient that comes back.
#[derive(Debug, Clone)]
struct Case {
    beta: f64,
    initial: f64,
    current: Vec<f64>,
    to_beta: f64,
    to_initial: f64,
    to_current: Vec<f64>,
    grad_spikes: Vec<f64>,
    grad_membrane: Vec<f64>,
}

fn case() -> impl Strategy<Value = Case> {
    let beta = prop_oneof![4 => 0.0..=1.0_f64, 1 => Just(0.0), 1 => Just(1.0)];
    // Scales from silence to several spikes in a row.
    let scale = prop_oneof![Just(0.05), Just(0.5), Just(1.5)];
    (1_usize..48, beta, -1.0..1.5_f64, scale).prop_flat_map(|(steps, beta, initial, scale)| {
        let direction = || prop::collection::vec(-1.0..1.0_f64, steps);
        (
            prop::collection::vec(-0.6 * scale..scale, steps),
            (-1.0..1.0_f64, -1.0..1.0_f64),
            direction(),
            direction(),
            direction(),
        )
            .prop_map(move |(current, (to_beta, to_initial), to_current, grad_spikes, grad_membrane)| Case {
                beta,
                initial,
                current,
                to_beta,
                to_initial,
                to_current,
                grad_spikes,
                grad_membrane,
            })
    })
}

impl Case {
    fn dual_current(&self) -> Vec<Dual> {
        self.current.iter().zip(&self.to_current).map(|(&x, &d)| Dual::new(x, d)).collect()
    }

    /// The derivative along the direction of the outputs weighted with the incoming gradients.
    fn forward_product(&self, spikes: &[Dual], membrane: &[Dual]) -> f64 {
        let spikes = self.grad_spikes.iter().zip(spikes).map(|(g, s)| g * s.derivative);
        let membrane = self.grad_membrane.iter().zip(membrane).map(|(g, v)| g * v.derivative);
        spikes.chain(membrane).sum()
    }

    /// The same from the reverse pass, and the sum of its terms' magnitudes: what rounding is relative to.
    fn reverse_product(&self, grad_current: &[f64], beta: f64, initial: f64) -> (f64, f64) {
        let mut terms: Vec<f64> = grad_current.iter().zip(&self.to_current).map(|(g, d)| g * d).collect();
        terms.extend([beta * self.to_beta, initial * self.to_initial]);
        (terms.iter().sum(), terms.iter().map(|t| t.abs()).sum())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn block_reverse_pass_is_the_adjoint(case in case(), which in 0..SURROGATES.len(), undecayed: bool, threshold in 0.3..1.5_f64) {
        let start = if undecayed { Start::Undecayed } else { Start::Decayed };
        let neuron = BlockNeuron { surrogate: SURROGATES[which], threshold, start };
        let (beta, initial) = (Dual::new(case.beta, case.to_beta), Dual::new(case.initial, case.to_initial));
        let dual = block::stages(&neuron, beta, initial, &case.dual_current());
        let want = case.forward_product(&dual.spikes, &dual.membrane);
        let plain = block::stages(&neuron, case.beta, case.initial, &case.current);
        let mut grad = vec![0.0; case.current.len()];
        let (gs, gm) = (&case.grad_spikes, Some(&case.grad_membrane[..]));
        let g = block::adjoint(&neuron, case.beta, case.initial, &plain.membrane, gs, gm, &mut grad);
        let (got, scale) = case.reverse_product(&grad, g.beta, g.initial);
        prop_assert!((got - want).abs() <= 1e-10 * (scale + want.abs()), "{got} against {want}");
    }

    #[test]
    fn lif_reverse_passes_are_the_adjoints(case in case(), kind in 0..KINDS.len(), which in 0..SURROGATES.len(), threshold in 0.3..1.5_f64) {
        let neuron = LifNeuron { kind: KINDS[kind], surrogate: SURROGATES[which], threshold };
        let (beta, initial) = (Dual::new(case.beta, case.to_beta), Dual::new(case.initial, case.to_initial));
        let dual = lif::trace(&neuron, beta, initial, &case.dual_current());
        let want = case.forward_product(&dual.spikes, &dual.membrane);
        let plain = lif::trace(&neuron, case.beta, case.initial, &case.current);
        let mut grad = vec![0.0; case.current.len()];
        let (gs, gm) = (&case.grad_spikes, Some(&case.grad_membrane[..]));
        let g = lif::adjoint(&neuron, case.beta, case.initial, &plain.state, gs, gm, &mut grad);
        let (got, scale) = case.reverse_product(&grad, g.beta, g.initial);
        prop_assert!((got - want).abs() <= 1e-10 * (scale + want.abs()), "{neuron:?}: {got} against {want}");
    }

    /// The threshold function replaced by `x / (1 + k |x|)`, whose derivative is the surrogate, and the latency code
    /// given out as it is: a smooth function, of which the reverse pass is the exact gradient.
    #[test]
    fn block_reverse_pass_is_the_gradient_of_its_smooth_twin(case in case(), scale in 1.0..12.0_f64) {
        let neuron = BlockNeuron { surrogate: Surrogate::FastSigmoid { scale }, ..BlockNeuron::default() };
        let twin = |beta: f64, initial: f64, current: &[f64]| {
            let (mut v, mut count, mut z, mut loss) = (initial, 0.0, 0.0, 0.0);
            let mut membrane = Vec::new();
            for (t, &i) in current.iter().enumerate() {
                v = beta * v + i;
                let x = v - neuron.threshold;
                count += x / (1.0 + scale * x.abs());
                z += count;
                loss += case.grad_spikes[t] * z + case.grad_membrane[t] * v;
                membrane.push(v);
            }
            (loss, membrane)
        };
        let (_, membrane) = twin(case.beta, case.initial, &case.current);
        let mut grad = vec![0.0; case.current.len()];
        let (gs, gm) = (&case.grad_spikes, Some(&case.grad_membrane[..]));
        let g = block::adjoint(&neuron, case.beta, case.initial, &membrane, gs, gm, &mut grad);
        let h = 1e-6;
        let size = grad.iter().fold(1.0_f64, |m, g| m.max(g.abs()));
        let quotient = |up: f64, down: f64| (up - down) / (2.0 * h);
        for t in 0..case.current.len() {
            let moved = |by: f64| {
                let mut current = case.current.clone();
                current[t] += by;
                twin(case.beta, case.initial, &current).0
            };
            let numeric = quotient(moved(h), moved(-h));
            prop_assert!((numeric - grad[t]).abs() <= 1e-4 * size, "step {t}: {numeric} against {}", grad[t]);
        }
        let by_initial = |by: f64| twin(case.beta, case.initial + by, &case.current).0;
        prop_assert!((quotient(by_initial(h), by_initial(-h)) - g.initial).abs() <= 1e-4 * size);
        let by_beta = |by: f64| twin(case.beta + by, case.initial, &case.current).0;
        let numeric = quotient(by_beta(h), by_beta(-h));
        let largest = membrane.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
        let steps = case.current.len() as f64;
        prop_assert!((numeric - g.beta).abs() <= 1e-4 * size * largest * steps, "{numeric} against {}", g.beta);
    }
}

/// Either family through the backend's operations, where the decay is clamped and several lanes share it.
#[derive(Debug, Clone, Copy)]
enum Neuron {
    Block(BlockNeuron),
    Lif(LifNeuron),
}

impl Neuron {
    fn forward<R: snn_core::Real>(&self, lanes: Lanes, beta: &Vec<R>, initial: &Vec<R>, state: &mut Vec<R>) -> Vec<R> {
        let device = Reference::<R>::new();
        let leak = Leak { beta_raw: beta, initial: Some(initial) };
        let mut spikes = device.spikes();
        match self {
            Self::Block(n) => device.block_forward(n, lanes, leak, state, &mut spikes).unwrap(),
            Self::Lif(n) => device.lif_forward(n, lanes, leak, state, &mut spikes).unwrap(),
        }
        let DenseSpikes { values, .. } = spikes;
        if values.is_empty() { vec![R::ZERO; lanes.len()] } else { values }
    }
}

/// Random numbers without a dependency on order: a draw per place.
struct Draw(u64);

impl Draw {
    fn next(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        low + (high - low) * ((z ^ z >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn list(&mut self, len: usize, low: f64, high: f64) -> Vec<f64> {
        (0..len).map(|_| self.next(low, high)).collect()
    }
}

/// Raw decays below, on, inside and above the bounds; the state that a membrane gradient belongs to is the block's and
/// the integrator's own, so the single-spike neuron is left to the lane tests above.
#[test]
fn clamped_and_shared_decays_have_their_adjoint() {
    let device = Reference::<f64>::new();
    let multi = LifNeuron::new(LifKind::Multi { reset: Path::Attached });
    for neuron in [Neuron::Block(BlockNeuron::default()), Neuron::Lif(multi), Neuron::Lif(LifNeuron::INTEGRATOR)] {
        for (seed, beta) in [vec![0.7], vec![1.0], vec![-0.2], vec![-0.1, 0.0, 0.4, 1.0, 1.3]].into_iter().enumerate() {
            let (lanes, mut draw) = (Lanes::new(3, 17, 5), Draw(seed as u64));
            let lane_count = lanes.batch * lanes.width;
            let (initial, current) = (draw.list(lane_count, -0.5, 0.9), draw.list(lanes.len(), -0.5, 0.9));
            let (to_beta, to_initial) = (draw.list(beta.len(), -1.0, 1.0), draw.list(lane_count, -1.0, 1.0));
            let to_current = draw.list(lanes.len(), -1.0, 1.0);
            let (gs, gm) = (draw.list(lanes.len(), -1.0, 1.0), draw.list(lanes.len(), -1.0, 1.0));
            let dual = |x: &[f64], d: &[f64]| x.iter().zip(d).map(|(&x, &d)| Dual::new(x, d)).collect::<Vec<_>>();

            let mut moved = dual(&current, &to_current);
            let spikes = neuron.forward(lanes, &dual(&beta, &to_beta), &dual(&initial, &to_initial), &mut moved);
            let product = |g: &[f64], x: &[Dual]| g.iter().zip(x).map(|(g, x)| g * x.derivative).sum::<f64>();
            let silent = matches!(neuron, Neuron::Lif(LifNeuron { kind: LifKind::Integrator, .. }));
            let want = product(&gm, &moved) + if silent { 0.0 } else { product(&gs, &spikes) };

            let mut state = current.clone();
            neuron.forward(lanes, &beta, &initial, &mut state);
            let mut grad = if silent { vec![0.0; lanes.len()] } else { gs.clone() };
            let (mut g_beta, mut g_initial) = (vec![0.0; lane_count], vec![0.0; lane_count]);
            let leak = Leak { beta_raw: &beta, initial: Some(&initial) };
            let leak_grad = LeakGrad {
                membrane: Some(&gm),
                beta: Some(&mut g_beta),
                initial: Some(&mut g_initial),
                current_sum: None,
            };
            match &neuron {
                Neuron::Block(n) => device.block_backward(n, lanes, leak, &state, &mut grad, leak_grad).unwrap(),
                Neuron::Lif(n) => device.lif_backward(n, lanes, leak, &state, &mut grad, leak_grad).unwrap(),
            }
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let to_lanes: Vec<f64> = (0..lane_count).map(|l| to_beta[l % lanes.width % beta.len()]).collect();
            let got = dot(&grad, &to_current) + dot(&g_initial, &to_initial) + dot(&g_beta, &to_lanes);
            assert!((got - want).abs() < 1e-9 * (1.0 + want.abs()), "{neuron:?}, decay {beta:?}: {got} against {want}");
            for (lane, g) in g_beta.iter().enumerate() {
                let raw = beta[lane % lanes.width % beta.len()];
                assert!((0.0..=1.0).contains(&raw) || *g == 0.0, "a decay of {raw} is clamped, its gradient is 0");
            }
            assert_eq!(device.len(&grad), lanes.len());
        }
    }
}

/// A population of current-based neurons over time: plain values and the direction in which each moves.
#[derive(Debug, Clone)]
struct Population {
    width: usize,
    values: Vec<f64>,
    to: Vec<f64>,
    grads: Vec<f64>,
}

/// Three neurons: decays, thresholds, recurrent weights and biases, then the current.
fn population() -> impl Strategy<Value = Population> {
    (1_usize..24, 0.1..2.0_f64).prop_flat_map(|(steps, scale)| {
        let width = 3;
        let decays = prop::collection::vec(0.0..0.95_f64, 2 * width);
        let thresholds = prop::collection::vec(0.1..0.8_f64, width);
        let rest = prop::collection::vec(-0.6 * scale..scale, width * width + width + steps * width);
        let count = 3 * width + width * width + width + steps * width;
        let direction = prop::collection::vec(-1.0..1.0_f64, count);
        let grads = prop::collection::vec(-1.0..1.0_f64, 2 * steps * width);
        (decays, thresholds, rest, direction, grads).prop_map(move |(decays, thresholds, rest, to, grads)| Population {
            width,
            values: [decays, thresholds, rest].concat(),
            to,
            grads,
        })
    })
}

/// The constants and the current that lie one after the other in `values`.
fn split<R>(width: usize, values: &[R]) -> (Constants<'_, R>, &[R]) {
    let (alpha, rest) = values.split_at(width);
    let (beta, rest) = rest.split_at(width);
    let (threshold, rest) = rest.split_at(width);
    let (weight, rest) = rest.split_at(width * width);
    let (bias, current) = rest.split_at(width);
    (Constants { alpha, beta, threshold, weight, bias }, current)
}

fn firing(mode: usize, variant: bool, surrogate: Surrogate) -> Firing {
    let mut firing = FiringMode::ALL[mode].firing(surrogate);
    firing.generator = match firing.generator {
        Generator::Bernoulli(_) if variant => Generator::Bernoulli(BernoulliGradient::Identity),
        Generator::Gumbel { .. } if variant => Generator::Gumbel { temperature: 0.7 },
        Generator::Delta { surrogate, .. } => Generator::Delta { surrogate, pad_normalised: variant },
        other => other,
    };
    firing
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn paralif_reverse_pass_is_the_adjoint(
        case in case(),
        mode in 0..FiringMode::ALL.len(),
        which in 0..SURROGATES.len(),
        variant: bool,
        delayed: bool,
        (alpha, to_alpha) in (0.0..1.0_f64, -1.0..1.0_f64),
        (threshold, to_threshold) in (0.01..0.9_f64, -1.0..1.0_f64),
        noise in prop::collection::vec(0.0..1.0_f64, 48),
    ) {
        let firing = Firing { delayed, ..firing(mode, variant, SURROGATES[which]) };
        let beta = case.beta.min(0.98);
        let (a, b) = (Dual::new(alpha, to_alpha), Dual::new(beta, case.to_beta));
        let (_, v) = paralif::filter(a, b, &case.dual_current());
        let z = paralif::fire(&firing, Dual::new(threshold, to_threshold), &noise, &v);
        let want = case.forward_product(&z, &v);

        let (_, v) = paralif::filter(alpha, beta, &case.current);
        let (mut g, g_threshold) = paralif::fire_adjoint(&firing, threshold, &noise, &v, &case.grad_spikes);
        g.iter_mut().zip(&case.grad_membrane).for_each(|(g, given)| *g += given);
        let adjoint = paralif::filter_adjoint(alpha, beta, &v, &g);
        let (got, scale) = case.reverse_product(&adjoint.current, adjoint.beta, 0.0);
        let more = [adjoint.alpha * to_alpha, g_threshold * if firing.generator.is_stochastic() { 0.0 } else { to_threshold }];
        let got = got + more.iter().sum::<f64>();
        let scale = scale + more.iter().map(|x| x.abs()).sum::<f64>();
        prop_assert!((got - want).abs() <= 1e-9 * (scale + want.abs()), "{firing:?}: {got} against {want}");
    }

    #[test]
    fn cuba_reverse_pass_is_the_adjoint(
        case in population(),
        which in 0..SURROGATES.len(),
        kind in 0..3_usize,
        refractory in 0..5_u32,
        fires: bool,
    ) {
        let recurrence = [Recurrence::None, Recurrence::Spike, Recurrence::Relu][kind];
        let neuron = CubaNeuron { surrogate: SURROGATES[which], refractory, fires, recurrence };
        let Population { width, values, to, grads } = &case;
        let dual: Vec<Dual> = values.iter().zip(to).map(|(&x, &d)| Dual::new(x, d)).collect();
        let (constants, current) = split(*width, &dual);
        let moved = cuba::trace(&neuron, &constants, current);
        let (grad_spikes, grad_membrane) = grads.split_at(current.len());
        let after = |i: usize| if moved.spikes[i].value > 0.0 { 0.0 } else { moved.state[i].derivative };
        let want: f64 = (0..current.len()).map(|i| grad_spikes[i] * moved.spikes[i].derivative + grad_membrane[i] * after(i)).sum();

        let (constants, current) = split(*width, values);
        let plain = cuba::trace(&neuron, &constants, current);
        let g = cuba::adjoint(&neuron, &constants, &plain, grad_spikes, Some(grad_membrane));
        let on_bias: Vec<f64> = (0..*width)
            .map(|n| if kind == 0 { 0.0 } else { g.current.iter().skip(n).step_by(*width).sum() })
            .collect();
        let all = [&g.alpha, &g.beta, &g.threshold, &g.weight, &on_bias, &g.current].map(|x| &x[..]).concat();
        let terms: Vec<f64> = all.iter().zip(to).map(|(g, d)| g * d).collect();
        let (got, scale) = (terms.iter().sum::<f64>(), terms.iter().map(|t| t.abs()).sum::<f64>());
        prop_assert!((got - want).abs() <= 1e-10 * (scale + want.abs()), "{neuron:?}: {got} against {want}");
    }
}

/// A layer of event-driven neurons with directions for its weights and input times.
#[derive(Debug, Clone)]
struct EventCase {
    neuron: EventNeuron,
    synapses: Synapses,
    batch: usize,
    seed: u64,
}

fn event_case() -> impl Strategy<Value = EventCase> {
    let map = Map::new(4, 5, 2);
    let synapses = prop_oneof![
        (1_usize..9, 1_usize..9).prop_map(|(inputs, outputs)| Synapses::Dense { inputs, outputs }),
        (1_usize..4, 1_usize..3, 0_usize..2).prop_map(move |(kernel, stride, padding)| Synapses::Conv(
            Conv::new(map, 3, kernel, stride, padding).unwrap()
        )),
    ];
    let neuron = (0.01..0.1_f64, 0.2..1.5_f64, 1_u32..12, any::<bool>()).prop_map(|(tau_s, drop, capacity, ends)| {
        let threshold = 0.3 * tau_s;
        let end = if ends { 0.15 } else { f64::INFINITY };
        EventNeuron { reset: drop * threshold, ..EventNeuron::new(tau_s, threshold, end, capacity) }
    });
    (neuron, synapses, 1_usize..3, any::<u64>()).prop_map(|(neuron, synapses, batch, seed)| EventCase {
        neuron,
        synapses,
        batch,
        seed,
    })
}

proptest! {
    #[test]
    fn event_neurons(case in event_case()) {
        let EventCase { neuron, synapses, batch, seed } = case;
        let mut inputs = Inputs::new(seed);
        let width = synapses.inputs();
        let mut host = Events::new(width);
        for _ in 0..batch {
            let mut times = inputs.uniform(12, 0.0, 0.1);
            times.sort_by(f32::total_cmp);
            let units = inputs.uniform(12, 0.0, width as f32);
            host.push(&times.into_iter().zip(units.into_iter().map(|u| u as u32)).collect::<Vec<_>>()).unwrap();
        }
        let count = synapses.rows() * synapses.sites().1;
        let (weight, to_weight) = (wide(&inputs.uniform(count, -0.8, 1.6)), wide(&inputs.uniform(count, -1.0, 1.0)));
        let to_times = wide(&inputs.uniform(host.len(), -0.1, 0.1));

        let duals = Reference::<Dual>::new();
        let mut moving = Trains::empty(&duals, 0).unwrap();
        moving.upload(&duals, &host).unwrap();
        moving.times.iter_mut().zip(&to_times).for_each(|(t, &d)| t.derivative = d);
        let moved: Vec<Dual> = weight.iter().zip(&to_weight).map(|(&w, &d)| Dual::new(w, d)).collect();
        let (mut spikes, mut slopes) = (Trains::empty(&duals, 0).unwrap(), vec![]);
        duals.event_forward(&neuron, &synapses, &moved, &moving, &mut spikes, &mut slopes).unwrap();

        let plain = Reference::<f64>::new();
        let mut input = Trains::empty(&plain, 0).unwrap();
        input.upload(&plain, &host).unwrap();
        let (mut out, mut slopes) = (Trains::empty(&plain, 0).unwrap(), vec![]);
        plain.event_forward(&neuron, &synapses, &weight, &input, &mut out, &mut slopes).unwrap();
        prop_assert_eq!(&out.units, &spikes.units);
        let grad = wide(&inputs.uniform(out.times.len(), -1.0, 1.0));
        let forward: f64 = grad.iter().zip(&spikes.times).map(|(g, t)| g * t.derivative).sum();
        let (mut on_times, mut on_weight, mut on_input) = (grad, vec![0.0; count], vec![0.0; host.len()]);
        plain
            .event_backward(
                &neuron, &synapses, &weight, &input, &out, &slopes, &mut on_times, &mut on_weight, Some(&mut on_input),
            )
            .unwrap();
        let terms = on_weight.iter().zip(&to_weight).chain(on_input.iter().zip(&to_times)).map(|(g, d)| g * d);
        let (reverse, size) = terms.fold((0.0, 0.0), |(sum, size): (f64, f64), t| (sum + t, size + t.abs()));
        prop_assert!((forward - reverse).abs() <= 1e-10 * (1.0 + size), "{forward} {reverse} of {size}");
    }
}

/// A direction for the values of a list.
fn moving(values: &[f64], to: &[f64]) -> Vec<Dual> {
    values.iter().zip(to).map(|(&x, &d)| Dual::new(x, d)).collect()
}

/// `sum of weights times derivatives`, and `sum of gradients times directions` with the size of its terms.
fn products(grad_out: &[f64], moved: &[Dual], pairs: &[(&[f64], &[f64])]) -> (f64, f64, f64) {
    let forward = grad_out.iter().zip(moved).map(|(g, x)| g * x.derivative).sum();
    let terms = pairs.iter().flat_map(|(grad, to)| grad.iter().zip(*to)).map(|(g, d)| g * d);
    let (reverse, size) = terms.fold((0.0, 0.0), |(sum, size): (f64, f64), t| (sum + t, size + t.abs()));
    (forward, reverse, 1e-10 * (1.0 + size))
}

proptest! {
    #[test]
    fn first_spike_layers(kernel in 1_usize..6, side in 1_usize..6, limited: bool, bits in 0_u32..5, seed: u64) {
        let mut inputs = Inputs::new(seed);
        let mut draw = |len: usize, bound: f32| wide(&inputs.uniform(len, -bound, bound));
        let map = Map::new(side, side + 1, 2);
        let Ok(conv) = Conv::new(map, 3, kernel, 1, kernel / 2) else { return Ok(()) };
        let (batch, borders, width) = (2, Borders::of(&conv), conv.output().len());
        let (neuron, perturbation) = (TtfsNeuron { limited }, Perturbation { noise: 0.1, bits, limited });
        let draws = SpikeDraws { seed, pass: 0, population: 0 };
        let (x, to_x) = (draw(batch * width, 1.0), draw(batch * width, 1.0));
        let (shift, to_shift) = (draw(borders.regions() * 3, 0.5), draw(borders.regions() * 3, 1.0));
        let grad = draw(batch * width, 1.0);

        let (duals, window) = (Reference::<Dual>::new(), vec![Dual::new(0.6, 0.0)]);
        let (mut moved, mut arrives) = (moving(&x, &to_x), vec![Dual::default(); x.len()]);
        duals.ttfs_forward(&neuron, &borders, &moving(&shift, &to_shift), None, &window, &mut moved).unwrap();
        duals.ttfs_perturb(&perturbation, draws, batch, &window, &moved, &mut arrives).unwrap();

        let (plain, window) = (Reference::<f64>::new(), vec![0.6]);
        let (mut earliness, mut on_x, mut on_shift) = (x, grad.clone(), vec![0.0; shift.len()]);
        plain.ttfs_forward(&neuron, &borders, &shift, None, &window, &mut earliness).unwrap();
        plain.ttfs_perturb_grad(&perturbation, draws, batch, &window, &earliness, &mut on_x).unwrap();
        plain.ttfs_backward(&neuron, &borders, &window, &earliness, &mut on_x, &mut on_shift).unwrap();
        let (forward, reverse, tolerance) = products(&grad, &arrives, &[(&on_x, &to_x), (&on_shift, &to_shift)]);
        prop_assert!((forward - reverse).abs() <= tolerance, "{forward} {reverse}");
    }

    #[test]
    fn slopes_of_first_spike_neurons(inputs in 1_usize..20, width in 1_usize..9, seed: u64) {
        let mut source = Inputs::new(seed);
        let mut draw = |bound: f32| wide(&source.uniform(inputs * width, -bound, bound));
        let (current, to, grad) = (draw(0.4), draw(1.0), draw(1.0));
        let (mut slope, mut weight) = (vec![Dual::default(); width], vec![Dual::default(); current.len()]);
        Reference::<Dual>::new().ttfs_slope(&moving(&current, &to), &mut slope, &mut weight).unwrap();
        let (plain, mut slopes, mut weights) = (Reference::<f64>::new(), vec![0.0; width], vec![0.0; current.len()]);
        plain.ttfs_slope(&current, &mut slopes, &mut weights).unwrap();
        let mut on_current = grad.clone();
        plain.ttfs_slope_grad(&slopes, &weights, &mut on_current).unwrap();
        let (forward, reverse, tolerance) = products(&grad, &weight, &[(&on_current, &to)]);
        // A slope near 0 makes large numbers of small differences.
        let least = slopes.iter().fold(1.0_f64, |least, b| if *b > 0.0 { least.min(*b) } else { least });
        prop_assert!((forward - reverse).abs() <= tolerance / (least * least), "{forward} {reverse}");
    }

    #[test]
    fn signed_maximum_and_quantised_weights(seed: u64, window in 1_usize..4, bits in 1_u32..9) {
        let mut inputs = Inputs::new(seed);
        let mut draw = |len: usize, bound: f32| wide(&inputs.uniform(len, -bound, bound));
        let pool = Pool::new(Map::new(5, 6, 2), window).unwrap();
        let (n_in, n_out) = (2 * pool.input.len(), 2 * pool.output().len());
        let (x, to_x, grad) = (draw(n_in, 1.5), draw(n_in, 1.0), draw(n_out, 1.0));
        let (duals, plain) = (Reference::<Dual>::new(), Reference::<f64>::new());
        let sign = [1.0, -1.0];
        let (mut out, mut at) = (vec![Dual::default(); n_out], vec![0; n_out]);
        let dual_sign = sign.map(|s| Dual::new(s, 0.0)).to_vec();
        duals.pool_max(&pool, 2, Some(&dual_sign), &moving(&x, &to_x), &mut out, &mut at).unwrap();
        let mut on_x = vec![0.0; n_in];
        plain.pool_max_grad(&pool, 2, &at, &grad, &mut on_x).unwrap();
        let (forward, reverse, tolerance) = products(&grad, &out, &[(&on_x, &to_x)]);
        prop_assert!((forward - reverse).abs() <= tolerance, "{forward} {reverse}");

        let grid = Grid::new(bits, -1.0, 0.8).unwrap();
        let (grad, mut quantised) = (draw(n_in, 1.0), vec![Dual::default(); n_in]);
        duals.quantise(&grid, &moving(&x, &to_x), &mut quantised).unwrap();
        let mut on_x = grad.clone();
        plain.quantise_grad(&grid, &x, &mut on_x).unwrap();
        let (forward, reverse, tolerance) = products(&grad, &quantised, &[(&on_x, &to_x)]);
        prop_assert!((forward - reverse).abs() <= tolerance, "{forward} {reverse}");
    }
}
