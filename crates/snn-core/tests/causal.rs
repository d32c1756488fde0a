//! The filters are causal; the published ones, multiplied as spectra of length 2 T, are not.

use std::path::Path;

use snn_core::neurons::paralif::filter;
use snn_core::testkit::golden::{Array, read_npz};
use snn_core::testkit::relative_difference;

/// What the published code computes: the product of three spectra of length 2 T, which is a circular convolution.
fn published(alpha: f64, beta: f64, current: &[f64]) -> Vec<f64> {
    let steps = current.len();
    let power = |base: f64, i: usize| base.powi(i as i32);
    let mut kernel = vec![0.0; 2 * steps];
    for i in 0..steps {
        for j in 0..steps {
            kernel[i + j] += power(alpha, i) * (1.0 - beta) * power(beta, j);
        }
    }
    let at = |t: usize| (0..steps).map(|j| current[j] * kernel[(t + 2 * steps - j) % (2 * steps)]).sum();
    (0..steps).map(at).collect()
}

/// The current of every lane of a golden layer, `W x + c`, and one of its results.
fn lanes(file: &str, result: &str) -> Vec<(Vec<f64>, Vec<f64>)> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/paralif"));
    let arrays = read_npz(&folder.join(file)).unwrap();
    let array = |name: &str| -> &Array { &arrays[name] };
    let (x, weight, bias) = (array("in/x"), array("in/weight"), array("in/bias"));
    let (steps, inputs, width) = (x.shape[1], x.shape[2], weight.shape[0]);
    let drive = |b: usize, t: usize, n: usize| {
        let row = &x.data[(b * steps + t) * inputs..][..inputs];
        bias.data[n] + row.iter().zip(&weight.data[n * inputs..]).map(|(x, w)| x * w).sum::<f64>()
    };
    let lane = |b: usize, n: usize| {
        let current = (0..steps).map(|t| drive(b, t, n)).collect();
        let want = (0..steps).map(|t| array(result).data[(b * steps + t) * width + n]).collect();
        (current, want)
    };
    (0..x.shape[0]).flat_map(|b| (0..width).map(move |n| lane(b, n))).collect()
}

#[test]
fn exact_filters_agree_with_the_original_once_its_padding_is_long_enough() {
    let decay = (-1.0_f64 / 20.0).exp();
    for (current, want) in lanes("spsn_readout.npz", "out/mem") {
        assert!(relative_difference(&filter(decay, decay, &current).1, &want) < 1e-6);
    }
}

#[test]
fn unpatched_original_lets_the_future_leak_into_the_past() {
    let decay = (-1.0_f64 / 20.0).exp();
    let mut largest = 0.0_f64;
    for (current, want) in lanes("spsn_readout.npz", "out/asis/mem") {
        assert!(relative_difference(&published(decay, decay, &current), &want) < 1e-6);
        largest = largest.max(relative_difference(&filter(decay, decay, &current).1, &want));
    }
    assert!(largest > 1e-3, "for so short a sequence the two differ visibly: {largest}");
}

/// The table of docs/papers/paralif.md: what a constant input of 1 adds at the first step, where 0.049 is right.
#[test]
fn leak_falls_with_the_length_of_the_sequence() {
    let extra = |tau: f64, steps: usize| {
        let decay = (-1.0 / tau).exp();
        let ones = vec![1.0; steps];
        published(decay, decay, &ones)[0] - filter(decay, decay, &ones).1[0]
    };
    for (tau, steps, want) in
        [(20.0, 32, 2.9), (20.0, 60, 1.9), (20.0, 100, 0.50), (20.0, 250, 8e-4), (5.0, 32, 0.035), (5.0, 100, 1.58e-7)]
    {
        let got = extra(tau, steps);
        assert!((got / want - 1.0).abs() < 0.1, "tau {tau}, T {steps}: {got}");
    }
}
