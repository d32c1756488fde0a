//! Event-driven neurons: what holds for any input, on the reference and on exact numbers.

use proptest::prelude::*;
use snn_core::backend::EventOps;
use snn_core::neurons::event::{self, EventNeuron, Fired};
use snn_core::reference::Reference;
use snn_core::testkit::Inputs;
use snn_core::{Events, Synapses, Trains};

/// A neuron without a buffer's limit and its inputs, ascending in time, some at one instant.
#[derive(Debug, Clone)]
struct Case {
    neuron: EventNeuron,
    inputs: Vec<(f64, f64)>,
}

fn case() -> impl Strategy<Value = Case> {
    let neuron = (0.005..0.2_f64, 0.1..3.0_f64, 0.02..0.6_f64).prop_map(|(tau_s, drop, level)| {
        // Thresholds from a third of what one input reaches to several times that.
        let threshold = 2.0 * tau_s * level;
        EventNeuron { reset: drop * threshold, ..EventNeuron::new(tau_s, threshold, f64::INFINITY, u32::MAX) }
    });
    let inputs = prop::collection::vec((0.0..0.3_f64, -1.0..2.0_f64, any::<bool>()), 1..25);
    (neuron, inputs).prop_map(|(neuron, mut inputs)| {
        inputs.sort_by(|x, y| x.0.total_cmp(&y.0));
        for i in 1..inputs.len() {
            if inputs[i].2 {
                inputs[i].0 = inputs[i - 1].0;
            }
        }
        Case { neuron, inputs: inputs.into_iter().map(|(t, w, _)| (t, w)).collect() }
    })
}

fn times(fired: &[Fired<f64>]) -> Vec<f64> {
    fired.iter().map(|f| f.time).collect()
}

/// Spikes that hardly come into being may come and go with rounding.
fn is_touchy(case: &Case, fired: &[Fired<f64>]) -> bool {
    fired.iter().any(|f| f.slope < 1e-4 * case.neuron.level())
}

proptest! {
    #[test]
    fn membrane_meets_the_threshold_at_spikes_and_stays_below_between(case in case()) {
        let Case { neuron, inputs } = &case;
        let fired = event::spikes(neuron, inputs);
        for (i, f) in fired.iter().enumerate() {
            let v = event::membrane(neuron, inputs, &fired[..i], f.time);
            prop_assert!((v - neuron.threshold).abs() < 1e-9 * (1.0 + neuron.threshold), "{v} {}", neuron.threshold);
            prop_assert!(f.slope > 0.0);
        }
        let mut events: Vec<f64> = inputs.iter().map(|i| i.0).chain(times(&fired)).collect();
        events.push(0.3 + 20.0 * neuron.tau());
        events.sort_by(f64::total_cmp);
        for pair in events.windows(2) {
            for k in 1..40 {
                let t = pair[0] + (pair[1] - pair[0]) * f64::from(k) / 40.0;
                if t <= pair[0] || t >= pair[1] {
                    continue;
                }
                let v = event::membrane(neuron, inputs, &fired, t);
                prop_assert!(v < neuron.threshold * (1.0 + 1e-9), "{v} at {t}, threshold {}", neuron.threshold);
            }
        }
    }

    #[test]
    fn later_inputs_make_later_spikes_and_nothing_else(case in case(), by in 0.0..1000.0_f64) {
        let fired = event::spikes(&case.neuron, &case.inputs);
        prop_assume!(!is_touchy(&case, &fired));
        let later: Vec<(f64, f64)> = case.inputs.iter().map(|&(t, w)| (t + by, w)).collect();
        let moved = event::spikes(&case.neuron, &later);
        prop_assert_eq!(moved.len(), fired.len());
        for (a, b) in fired.iter().zip(&moved) {
            prop_assert!((a.time + by - b.time).abs() < 1e-7 && (a.slope - b.slope).abs() < 1e-5 * (1.0 + a.slope));
        }
    }

    #[test]
    fn times_and_thresholds_scale_together(case in case(), factor in 0.01..100.0_f64) {
        let Case { neuron, inputs } = &case;
        let fired = event::spikes(neuron, inputs);
        prop_assume!(!is_touchy(&case, &fired));
        let slow = EventNeuron {
            tau_s: neuron.tau_s * factor,
            threshold: neuron.threshold * factor,
            reset: neuron.reset * factor,
            ..*neuron
        };
        let stretched: Vec<(f64, f64)> = inputs.iter().map(|&(t, w)| (t * factor, w)).collect();
        let found = event::spikes(&slow, &stretched);
        prop_assert_eq!(found.len(), fired.len());
        for (a, b) in fired.iter().zip(&found) {
            prop_assert!((a.time * factor - b.time).abs() < 1e-9 * factor);
        }
    }

    #[test]
    fn order_of_inputs_at_one_instant_changes_nothing(case in case(), seed in any::<u64>()) {
        let fired = event::spikes(&case.neuron, &case.inputs);
        prop_assume!(!is_touchy(&case, &fired));
        let mut shuffled = case.inputs.clone();
        let keys = Inputs::new(seed).uniform(shuffled.len(), 0.0, 1.0);
        let mut order: Vec<usize> = (0..shuffled.len()).collect();
        order.sort_by(|&x, &y| case.inputs[x].0.total_cmp(&case.inputs[y].0).then(keys[x].total_cmp(&keys[y])));
        shuffled.iter_mut().zip(order).for_each(|(input, at)| *input = case.inputs[at]);
        let found = event::spikes(&case.neuron, &shuffled);
        prop_assert_eq!(found.len(), fired.len());
        prop_assert!(times(&fired).iter().zip(times(&found)).all(|(a, b)| (a - b).abs() < 1e-9));
    }

    /// What moves all inputs moves all outputs: gradients on the one side sum to those on the other.
    #[test]
    fn time_shifts_pass_through_gradients(case in case()) {
        let Case { neuron, inputs } = &case;
        let device = Reference::<f64>::new();
        let mut host = Events::new(inputs.len());
        host.push(&inputs.iter().zip(0..).map(|(i, unit)| (i.0 as f32, unit)).collect::<Vec<_>>()).unwrap();
        let weight: Vec<f64> = inputs.iter().map(|i| i.1).collect();
        let mut input = Trains::empty(&device, 0).unwrap();
        input.upload(&device, &host).unwrap();
        let synapses = Synapses::Dense { inputs: inputs.len(), outputs: 1 };
        let (mut out, mut slopes) = (Trains::empty(&device, 0).unwrap(), vec![]);
        device.event_forward(neuron, &synapses, &weight, &input, &mut out, &mut slopes).unwrap();
        let mut grad: Vec<f64> = (0..slopes.len()).map(|k| 1.0 - 0.3 * k as f64).collect();
        let given: f64 = grad.iter().sum();
        let (mut on_weight, mut on_input) = (vec![0.0; weight.len()], vec![0.0; host.len()]);
        device
            .event_backward(
                neuron, &synapses, &weight, &input, &out, &slopes, &mut grad, &mut on_weight, Some(&mut on_input),
            )
            .unwrap();
        let size: f64 = on_input.iter().map(|g| g.abs()).sum::<f64>() + grad.iter().map(|g| g.abs()).sum::<f64>();
        prop_assert!((on_input.iter().sum::<f64>() - given).abs() < 1e-8 * (1.0 + size));
    }
}

/// The times of the output spikes of two layers.
fn two_layers(first: &[f64], second: &[f64], times: &[f64], units: &[u32]) -> Vec<f64> {
    let device = Reference::<f64>::new();
    let neuron = EventNeuron::new(0.1, 0.04, f64::INFINITY, 8);
    let input = Trains { width: 6, offsets: vec![0, times.len() as u32], units: units.to_vec(), times: times.to_vec() };
    let (mut hidden, mut out) = (Trains::empty(&device, 0).unwrap(), Trains::empty(&device, 0).unwrap());
    let mut slopes = vec![];
    let sizes = [Synapses::Dense { inputs: 6, outputs: 5 }, Synapses::Dense { inputs: 5, outputs: 3 }];
    device.event_forward(&neuron, &sizes[0], &first.to_vec(), &input, &mut hidden, &mut slopes).unwrap();
    device.event_forward(&neuron, &sizes[1], &second.to_vec(), &hidden, &mut out, &mut slopes).unwrap();
    out.times
}

/// Central differences of two layers with several spikes each, by every weight and every input time.
#[test]
fn gradients_equal_finite_differences() {
    const STEP: f64 = 1e-7;
    let device = Reference::<f64>::new();
    let neuron = EventNeuron::new(0.1, 0.04, f64::INFINITY, 8);
    let sizes = [Synapses::Dense { inputs: 6, outputs: 5 }, Synapses::Dense { inputs: 5, outputs: 3 }];
    let mut inputs = Inputs::new(8);
    let wide = |x: Vec<f32>| x.into_iter().map(f64::from).collect::<Vec<_>>();
    let (mut first, mut second) = (wide(inputs.uniform(30, -0.2, 1.0)), wide(inputs.uniform(15, -0.1, 0.6)));
    let mut times: Vec<f64> = (0..12).map(|i| 0.01 * f64::from(i) + 0.003 * f64::from(i % 3)).collect();
    let units: Vec<u32> = (0..12).map(|i| i % 6).collect();

    let input = Trains { width: 6, offsets: vec![0, 12], units: units.clone(), times: times.clone() };
    let (mut hidden, mut out) = (Trains::empty(&device, 0).unwrap(), Trains::empty(&device, 0).unwrap());
    let (mut slopes, mut out_slopes) = (vec![], vec![]);
    device.event_forward(&neuron, &sizes[0], &first, &input, &mut hidden, &mut slopes).unwrap();
    device.event_forward(&neuron, &sizes[1], &second, &hidden, &mut out, &mut out_slopes).unwrap();
    assert!(hidden.times.len() > 10 && out.times.len() > 6, "{} {}", hidden.times.len(), out.times.len());
    let pull: Vec<f64> = (0..out.times.len()).map(|k| 1.0 + 0.5 * (k as f64).sin()).collect();
    let (mut grad, mut on_second, mut on_hidden) = (pull.clone(), vec![0.0; 15], vec![0.0; hidden.times.len()]);
    device
        .event_backward(
            &neuron,
            &sizes[1],
            &second,
            &hidden,
            &out,
            &out_slopes,
            &mut grad,
            &mut on_second,
            Some(&mut on_hidden),
        )
        .unwrap();
    let (mut on_first, mut on_times) = (vec![0.0; 30], vec![0.0; 12]);
    device
        .event_backward(
            &neuron,
            &sizes[0],
            &first,
            &input,
            &hidden,
            &slopes,
            &mut on_hidden,
            &mut on_first,
            Some(&mut on_times),
        )
        .unwrap();

    let value = |first: &[f64], second: &[f64], times: &[f64]| -> f64 {
        let found = two_layers(first, second, times, &units);
        assert_eq!(found.len(), pull.len(), "a spike came or went");
        found.iter().zip(&pull).map(|(t, p)| t * p).sum()
    };
    let mut compared = 0;
    let mut compare = |what: &str, at: usize, got: f64, high: f64, low: f64| {
        let want = (high - low) / (2.0 * STEP);
        assert!((got - want).abs() < 2e-6 * (1.0 + want.abs()), "{what} {at}: {got}, differences say {want}");
        compared += 1;
    };
    macro_rules! every {
        ($what:literal, $array:ident, $grads:ident) => {
            for i in 0..$array.len() {
                let old = $array[i];
                $array[i] = old + STEP;
                let high = value(&first, &second, &times);
                $array[i] = old - STEP;
                let low = value(&first, &second, &times);
                $array[i] = old;
                compare($what, i, $grads[i], high, low);
            }
        };
    }
    every!("weight of the first layer", first, on_first);
    every!("weight of the second layer", second, on_second);
    every!("input time", times, on_times);
    assert_eq!(compared, 57);
}

#[test]
fn a_full_buffer_ends_a_neuron_and_the_end_ends_all() {
    let inputs: Vec<(f64, f64)> = (0..50).map(|i| (0.01 * f64::from(i), 1.0)).collect();
    let free = EventNeuron::new(0.1, 0.02, f64::INFINITY, u32::MAX);
    let all = event::spikes(&free, &inputs);
    assert!(all.len() > 40);
    let few = event::spikes(&EventNeuron { capacity: 7, ..free }, &inputs);
    assert_eq!(few, all[..7]);
    let early = event::spikes(&EventNeuron { end: 0.2, ..free }, &inputs);
    assert_eq!(early, all[..all.iter().filter(|f| f.time <= 0.2).count()]);
}

#[test]
fn weights_that_are_no_numbers_fire_never() {
    let neuron = EventNeuron::new(0.1, 0.02, f64::INFINITY, 9);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(event::spikes(&neuron, &[(0.0, bad), (0.1, 1.0)]).is_empty());
    }
}

#[test]
fn bad_events_are_refused_with_their_index() {
    let message = |list: &[(f32, u32)]| {
        let mut events = Events::new(3);
        let message = events.push(list).unwrap_err().to_string();
        assert!(events.is_empty() && events.batch() == 0, "nothing half-done");
        message
    };
    let finite = "a finite number of seconds, 0 or more";
    assert_eq!(message(&[(0.0, 0), (f32::NAN, 1)]), format!("events: `time[1]` is NaN, expected {finite}"));
    assert_eq!(message(&[(-0.5, 0)]), format!("events: `time[0]` is -0.5, expected {finite}"));
    assert_eq!(message(&[(f32::INFINITY, 0)]), format!("events: `time[0]` is inf, expected {finite}"));
    assert_eq!(
        message(&[(0.25, 0), (0.5, 1), (0.375, 2)]),
        "events: `time[2]` is 0.375, expected no less than the time before it"
    );
    assert_eq!(message(&[(0.0, 3)]), "events: unit 3 is out of range, the signal has 3 units");
}

#[test]
fn silent_neurons_of_quiet_samples_are_pulled_at() {
    let shares = event::silent_shares(&[0, 2, 0, 0, 1, 1, 1, 1], 4);
    assert_eq!(shares, [0.75, 0.0]);
    let amounts = event::scaling_amounts(&[0, 2, 0, 0, 1, 1, 1, 0], &[0.75, 0.25], (1, 4), 0.5, 0.1);
    assert_eq!(amounts, [0.05, 0.0, 0.05, 0.05]);
    // Two positions that share their two channels.
    let amounts = event::scaling_amounts(&[0, 2, 0, 0], &[0.75], (2, 2), 0.75, 0.1);
    assert_eq!(amounts, [0.2, 0.1]);
}
