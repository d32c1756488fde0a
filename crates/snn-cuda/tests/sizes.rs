//! Sizes beyond one block, one chunk and one part of what kernels work on at a time.

mod common;

use snn_core::backend::{EventOps, LinAlg, Memory, SpikeMemory, TimeReduction};
use snn_core::neurons::event::EventNeuron;
use snn_core::reference::Reference;
use snn_core::testkit::{Inputs, assert_close, wide};
use snn_core::{Conv, Events, Lanes, Map, Pool, Synapses, Trains};
use snn_cuda::Cuda;

fn host(device: &Cuda, x: &<Cuda as Memory>::Buffer<f32>) -> Vec<f64> {
    wide(&device.to_host(x).unwrap())
}

/// `most` events in every sample but the last, many of them at one instant.
fn events(inputs: &mut Inputs, batch: usize, width: usize, most: usize) -> Events {
    let mut events = Events::new(width);
    for sample in 0..batch {
        let count = if sample + 1 < batch { most } else { 0 };
        let (times, units) = (inputs.uniform(count, 0.0, 100.0), inputs.uniform(count, 0.0, width as f32));
        let mut list: Vec<(f32, u32)> =
            times.into_iter().zip(units).map(|(time, unit)| (time.floor() * 1e-3, unit as u32)).collect();
        list.sort_by(|x, y| x.0.total_cmp(&y.0));
        events.push(&list).unwrap();
    }
    events
}

fn trains<M: Memory>(device: &M, host: &Events) -> Trains<M> {
    let mut trains = Trains::empty(device, 0).unwrap();
    trains.upload(device, host).unwrap();
    trains
}

/// The neurons that fire, sample by sample, and when, neuron by neuron.
fn by_neuron(spikes: &Events) -> (Vec<u32>, Vec<f64>) {
    let mut all = Vec::new();
    for sample in 0..spikes.batch() {
        let (times, units) = spikes.sample(sample);
        let mut list: Vec<(u32, f32)> = units.iter().copied().zip(times.iter().copied()).collect();
        list.sort_by(|x, y| x.0.cmp(&y.0).then(x.1.total_cmp(&y.1)));
        all.extend(list);
    }
    all.into_iter().map(|(unit, time)| (unit, f64::from(time))).unzip()
}

#[test]
fn sums_of_many_rows_match_the_reference() {
    let (device, reference) = (common::device(), Reference::<f64>::new());
    let mut inputs = Inputs::new(301);
    for (rows, width) in [(0, 5), (60_000, 1), (40_000, 3), (20_000, 33), (700, 3001)] {
        let x = inputs.uniform(rows * width, -1.0, 1.2);
        let (mut sum, mut want) = (device.buffer_from(&vec![f32::NAN; width]).unwrap(), vec![0.0; width]);
        device.sum_rows(rows, width, &device.buffer_from(&x).unwrap(), &mut sum).unwrap();
        reference.sum_rows(rows, width, &wide(&x), &mut want).unwrap();
        assert_close("sum", &host(&device, &sum), &want, 1e-5);
    }
}

#[test]
fn the_first_of_equal_maxima_counts_and_nan_at_the_first_step_alone() {
    let device = common::device();
    let (steps, width) = (300, 3);
    let mut x = vec![f32::NEG_INFINITY; steps * width];
    // Neuron 0 is never anything else; 1 has its maximum twice, after a NaN; 2 begins with one.
    (x[7 * width + 1], x[90 * width + 1], x[260 * width + 1]) = (f32::NAN, 2.0, 2.0);
    (x[2], x[5 * width + 2]) = (f32::NAN, 1.0);
    let (mut out, mut at) = (device.zeros(width).unwrap(), device.zeros(width).unwrap());
    let lanes = Lanes::new(1, steps, width);
    device.reduce_time(TimeReduction::Max, lanes, &device.buffer_from(&x).unwrap(), &mut out, &mut at).unwrap();
    let out = device.to_host(&out).unwrap();
    assert!(out[0] == f32::NEG_INFINITY && out[1] == 2.0 && out[2].is_nan(), "{out:?}");
    assert_eq!(device.to_host(&at).unwrap(), [0, 90, 0]);
}

#[test]
fn pools_of_whole_words_match_the_reference() {
    let (device, reference) = (common::device(), Reference::<f64>::new());
    let mut inputs = Inputs::new(302);
    let pool = Pool::rectangle(Map::new(7, 6, 64), [2, 3]).unwrap();
    let lanes = Lanes::new(2, 3, pool.input.len());
    let ones: Vec<f64> = inputs.spikes(lanes, 0.2).to_dense::<f64>().iter().map(|count| count.min(1.0)).collect();
    let spikes = snn_core::Spikes::from_dense(lanes, &ones).unwrap();
    let (mut x, mut out) = (device.spikes(), device.spikes());
    device.upload_spikes(&spikes, &mut x).unwrap();
    device.pool_spikes(&pool, &x, &mut out).unwrap();
    let (mut x, mut want) = (reference.spikes(), reference.spikes());
    reference.upload_spikes(&spikes, &mut x).unwrap();
    reference.pool_spikes(&pool, &x, &mut want).unwrap();
    assert_eq!(device.download_spikes(&out).unwrap().to_dense::<f64>(), want.values);
}

#[test]
fn convolutions_of_many_maps_match_the_reference() {
    let (device, reference) = (common::device(), Reference::<f64>::new());
    let mut inputs = Inputs::new(303);
    for conv in
        [Conv::new(Map::new(16, 16, 8), 2, 3, 1, 1).unwrap(), Conv::new(Map::new(9, 8, 65), 2, 1, 1, 0).unwrap()]
    {
        // A little more than the patches that are there at a time.
        let rows = (1 << 23) / (conv.output().len() / conv.channels * conv.fan_in()) + 3;
        let (n, m, k) = (rows * conv.input.len(), rows * conv.output().len(), conv.fan_in() * conv.channels);
        let [x, w, g] = [n, k, m].map(|len| inputs.uniform(len, -1.0, 1.0));
        let [dx, dw, dg] = [&x, &w, &g].map(|list| device.buffer_from(list).unwrap());
        let [x, w, g] = [x, w, g].map(|list| wide(&list));
        let [mut out, mut gw, mut gx] = [m, k, n].map(|len| device.buffer_from(&vec![f32::NAN; len]).unwrap());
        let [mut want, mut want_gw, mut want_gx] = [m, k, n].map(|len| vec![0.0; len]);
        device.conv_dense(&conv, rows, &dx, &dw, None, &mut out).unwrap();
        reference.conv_dense(&conv, rows, &x, &w, None, &mut want).unwrap();
        assert_close("out", &host(&device, &out), &want, 1e-5);
        device.conv_dense_weight_grad(&conv, rows, &dx, &dg, &mut gw).unwrap();
        reference.conv_dense_weight_grad(&conv, rows, &x, &g, &mut want_gw).unwrap();
        assert_close("weight gradient", &host(&device, &gw), &want_gw, 1e-4);
        device.conv_input_grad(&conv, rows, &dg, &dw, &mut gx).unwrap();
        reference.conv_input_grad(&conv, rows, &g, &w, &mut want_gx).unwrap();
        assert_close("input gradient", &host(&device, &gx), &want_gx, 1e-5);
    }
}

#[test]
fn layers_of_many_events_and_spikes_match_the_reference() {
    let (device, reference) = (common::device(), Reference::<f64>::new());
    let mut inputs = Inputs::new(304);
    let conv = Conv::new(Map::new(8, 9, 1), 16, 5, 2, 2).unwrap();
    for (synapses, gain) in [(Synapses::Dense { inputs: 40, outputs: 90 }, 0.6), (Synapses::Conv(conv), 0.5)] {
        // More spikes than there is room for at first.
        let neuron = EventNeuron { least_slope: 0.2, ..EventNeuron::new(0.02, 0.004, 0.09, 100_000) };
        let given = events(&mut inputs, 4, synapses.inputs(), 700);
        let weights = inputs.uniform(synapses.rows() * synapses.sites().1, -0.7 * gain, gain);
        let (input, weight) = (trains(&device, &given), device.buffer_from(&weights).unwrap());
        let (mut out, mut slopes) = (Trains::empty(&device, 0).unwrap(), device.zeros(0).unwrap());
        device.event_forward(&neuron, &synapses, &weight, &input, &mut out, &mut slopes).unwrap();
        let (input_ref, weight_ref) = (trains(&reference, &given), wide(&weights));
        let (mut out_ref, mut slopes_ref) = (Trains::empty(&reference, 0).unwrap(), vec![]);
        reference.event_forward(&neuron, &synapses, &weight_ref, &input_ref, &mut out_ref, &mut slopes_ref).unwrap();
        let spikes = out.download(&device).unwrap();
        assert!(spikes.len() > 1000, "{} spikes", spikes.len());
        assert_eq!(device.to_host(&out.offsets).unwrap(), out_ref.offsets);
        // Spikes of different neurons at nearly the same time may change places.
        let (got, want) = (by_neuron(&spikes), by_neuron(&out_ref.download(&reference).unwrap()));
        assert_eq!(got.0, want.0);
        assert_close("times", &got.1, &want.1, 2e-5);
        // From here on, both have the device's spikes.
        let (out_ref, slopes_ref) = (trains(&reference, &spikes), host(&device, &slopes));
        let grads = inputs.uniform(out_ref.times.len(), -1.0, 1.0);
        let mut grad = device.buffer_from(&grads).unwrap();
        let (mut gw, mut gi) = (device.zeros(weights.len()).unwrap(), device.zeros(given.len()).unwrap());
        device
            .event_backward(&neuron, &synapses, &weight, &input, &out, &slopes, &mut grad, &mut gw, Some(&mut gi))
            .unwrap();
        let (mut g, mut w, mut i) = (wide(&grads), vec![0.0; weights.len()], vec![0.0; given.len()]);
        let own = (&mut g, &mut w, Some(&mut i));
        reference
            .event_backward(&neuron, &synapses, &weight_ref, &input_ref, &out_ref, &slopes_ref, own.0, own.1, own.2)
            .unwrap();
        assert_close("gradient through resets", &host(&device, &grad), &g, 1e-3);
        assert_close("weight gradient", &host(&device, &gw), &w, 1e-3);
        assert_close("gradient on input times", &host(&device, &gi), &i, 1e-3);

        // The spikes of the layer, pooled with and without a rest.
        for (map, window) in [(Map::new(10, 9, 1), [3, 2]), (Map::new(4, 5, 16), [2, 1])] {
            let pool = Pool::rectangle(map, window).unwrap();
            if map.len() != spikes.width() {
                continue;
            }
            let (x, y) = (trains(&device, &spikes), trains(&reference, &spikes));
            let (mut out, mut source) = (Trains::empty(&device, 0).unwrap(), device.zeros(0).unwrap());
            device.merge_trains(&pool, &x, &mut out, &mut source).unwrap();
            let (mut want, mut want_source) = (Trains::empty(&reference, 0).unwrap(), vec![]);
            reference.merge_trains(&pool, &y, &mut want, &mut want_source).unwrap();
            assert_eq!(device.to_host(&source).unwrap(), want_source);
            assert_eq!(device.to_host(&out.units).unwrap(), want.units);
            assert_eq!(device.to_host(&out.offsets).unwrap(), want.offsets);
        }
    }
}
