//! Adaptive neurons: the adjoints are derivatives, the block model gives the spikes of the steps, limits hold.

use proptest::prelude::*;
use snn_core::neurons::alif::{self, AlifGradient, AlifNeuron, Constants, LimitGradient, Limits, Trace};
use snn_core::neurons::lif::Path;
use snn_core::{Dual, Surrogate};

const SURROGATES: [Surrogate; 3] = [Surrogate::BLOCK, Surrogate::BOXCAR, Surrogate::MULTI_GAUSSIAN];
const PATHS: [Path; 2] = [Path::Attached, Path::Detached];

fn steps(spikes: Path, adaptation: Path) -> AlifGradient {
    AlifGradient::Steps { spikes, adaptation }
}

fn neuron() -> impl Strategy<Value = AlifNeuron> {
    let gradient = prop_oneof![
        (0..2_usize, 0..2_usize).prop_map(|(s, a)| steps(PATHS[s], PATHS[a])),
        (0..2_usize).prop_map(|s| AlifGradient::Blocks { spikes: PATHS[s] }),
    ];
    (0..SURROGATES.len(), 0..9_u32, any::<bool>(), any::<bool>(), gradient).prop_map(
        |(which, refractory, adapts, recurrent, gradient)| AlifNeuron {
            surrogate: SURROGATES[which],
            refractory,
            adapts,
            recurrent,
            gradient,
            limits: Limits::PUBLISHED,
        },
    )
}

/// A population: beta, p, b, W, and a current of some steps, in one list; directions and incoming gradients.
#[derive(Debug, Clone)]
struct Population {
    width: usize,
    values: Vec<f64>,
    to: Vec<f64>,
    grads: Vec<f64>,
}

fn population(steps: impl Strategy<Value = usize>) -> impl Strategy<Value = Population> {
    (1..5_usize, steps).prop_flat_map(|(width, steps)| {
        let lists = (
            prop::collection::vec(0.1..0.99_f64, width),
            prop::collection::vec(prop_oneof![9 => 0.05..0.98_f64, 1 => Just(0.0)], width),
            prop::collection::vec(0.01..1.0_f64, width),
            prop::collection::vec(-0.6..0.8_f64, width * width),
            prop::collection::vec(-0.3..0.9_f64, width * steps),
        );
        let numbers = |n| prop::collection::vec(-1.0..1.0_f64, n);
        let all = 3 * width + width * width + width * steps;
        (lists, numbers(all), numbers(2 * width * steps)).prop_map(
            move |((beta, decay, strength, weight, x), to, grads)| Population {
                width,
                values: [beta, decay, strength, weight, x].concat(),
                to,
                grads,
            },
        )
    })
}

fn split<R>(width: usize, values: &[R]) -> (Constants<'_, R>, &[R]) {
    let (beta, rest) = values.split_at(width);
    let (decay, rest) = rest.split_at(width);
    let (strength, rest) = rest.split_at(width);
    let (weight, current) = rest.split_at(width * width);
    (Constants { beta, decay, strength, weight }, current)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_reverse_pass_is_the_adjoint(neuron in neuron(), case in population(1..40_usize)) {
        let Population { width, values, to, grads } = &case;
        let width = *width;
        let dual: Vec<Dual> = values.iter().zip(to).map(|(&x, &d)| Dual::new(x, d)).collect();
        let (constants, current) = split(width, &dual);
        let moved = alif::trace(&neuron, &constants, current);
        let (grad_spikes, grad_membrane) = grads.split_at(current.len());
        let product = |g: &[f64], x: &[Dual]| g.iter().zip(x).map(|(g, x)| g * x.derivative).sum::<f64>();
        let want = product(grad_spikes, &moved.spikes) + product(grad_membrane, &moved.state);

        let (constants, current) = split(width, values);
        let plain = alif::trace(&neuron, &constants, current);
        let g = alif::adjoint(&neuron, &constants, &plain.state, grad_spikes, Some(grad_membrane));
        let mut on_weight = vec![0.0; width * width];
        if neuron.recurrent {
            let late = neuron.block() * width;
            for (dq, s) in g.current.iter().skip(late).collect::<Vec<_>>().chunks(width).zip(plain.spikes.chunks(width)) {
                for (i, w) in on_weight.iter_mut().enumerate() {
                    *w += s[i / width] * dq[i % width];
                }
            }
        }
        let all = [&g.beta, &g.decay, &g.strength, &on_weight, &g.current].map(|x| &x[..]).concat();
        let terms: Vec<f64> = all.iter().zip(to).map(|(g, d)| g * d).collect();
        let (got, scale) = (terms.iter().sum::<f64>(), terms.iter().map(|t| t.abs()).sum::<f64>());
        prop_assert!((got - want).abs() <= 1e-10 * (scale + want.abs()), "{neuron:?}: {got} against {want}");
    }

    /// Any latency, any number of steps: mostly no multiple of the block, often less than one.
    #[test]
    fn blocks_give_the_spikes_of_the_steps(
        refractory in 0..=100_u32,
        adapts: bool,
        recurrent: bool,
        case in population(1..260_usize),
    ) {
        let of = |gradient| AlifNeuron {
            surrogate: Surrogate::MULTI_GAUSSIAN,
            refractory,
            adapts,
            recurrent,
            gradient,
            limits: Limits::PUBLISHED,
        };
        let (constants, current) = split(case.width, &case.values);
        let by_step = of(steps(Path::Detached, Path::Attached));
        let by_block = of(AlifGradient::Blocks { spikes: Path::Detached });
        let [step, block] = [&by_step, &by_block].map(|neuron| alif::trace(neuron, &constants, current));
        prop_assert_eq!(&step.spikes, &block.spikes);
        // Up to its spike a block has the membrane and the threshold of the steps.
        for n in 0..case.width {
            let lane = |list: &[f64]| list.iter().skip(n).step_by(case.width).copied().collect::<Vec<_>>();
            let lists = |t: &Trace<f64>| [lane(&t.state), lane(&t.threshold), lane(&t.spikes)];
            let ([v, above, s], [u, below, _]) = (lists(&step), lists(&block));
            for start in (0..v.len()).step_by(by_block.block()) {
                for t in start..(start + by_block.block()).min(v.len()) {
                    prop_assert!((v[t] - u[t]).abs() <= 1e-12 && (above[t] - below[t]).abs() <= 1e-12);
                    if s[t] > 0.0 {
                        break;
                    }
                }
            }
        }
        // Whoever reads the state again finds the same.
        for (neuron, trace) in [(&by_step, &step), (&by_block, &block)] {
            for n in 0..case.width {
                let state = trace.state.iter().skip(n).step_by(case.width).copied();
                let replay = alif::replay(neuron, constants.decay[n], constants.strength[n], state);
                let spikes: Vec<f64> = replay.fired.iter().map(|&f| f64::from(u8::from(f))).collect();
                prop_assert_eq!(spikes, trace.spikes.iter().skip(n).step_by(case.width).copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn nobody_fires_while_refractory(neuron in neuron(), case in population(1..80_usize)) {
        let (constants, current) = split(case.width, &case.values);
        let trace = alif::trace(&neuron, &constants, current);
        for n in 0..case.width {
            let times: Vec<usize> =
                (0..trace.spikes.len() / case.width).filter(|t| trace.spikes[t * case.width + n] > 0.0).collect();
            prop_assert!(times.windows(2).all(|t| t[1] - t[0] >= neuron.block()), "{times:?}");
        }
    }

    #[test]
    fn gradients_pass_limits_as_they_should(raw in -2.0..2.0_f64, grad in -1.0..1.0_f64) {
        let open = Limits::PUBLISHED;
        let inward = Limits { gradient: LimitGradient::Inward, ..open };
        // Open: what a dual number says.
        let moved = Dual::new(raw, 1.0);
        prop_assert_eq!(open.on_beta(raw, grad), grad * open.beta(moved).derivative);
        prop_assert_eq!(open.on_decay(raw, grad), grad * open.decay(moved).derivative);
        prop_assert_eq!(open.on_strength(raw, grad), grad * open.strength(moved).derivative);
        // Inward: a small step of descent never leads further out.
        let far = |x: f64| (x.abs() - 1.0).max(0.001 - x.abs()).max(0.0);
        prop_assert!(far(raw - 1e-6 * inward.on_strength(raw, grad)) <= far(raw));
        if raw.abs() < 0.001 || raw.abs() > 1.0 {
            prop_assert_eq!(open.on_strength(raw, grad), 0.0);
            prop_assert!(inward.on_strength(raw, grad) != 0.0 || inward.on_strength(raw, -grad) != 0.0 || grad == 0.0);
        }
    }
}

#[test]
fn the_published_strength_of_adaptation_never_learns_and_ours_does() {
    let (open, inward) = (Limits::PUBLISHED, Limits { gradient: LimitGradient::Inward, ..Limits::PUBLISHED });
    assert_eq!(open.strength(1.8), 1.0);
    assert_eq!((open.on_strength(1.8, 0.3), open.on_strength(1.8, -0.3)), (0.0, 0.0));
    assert_eq!((inward.on_strength(1.8, 0.3), inward.on_strength(1.8, -0.3)), (0.3, 0.0));
}
