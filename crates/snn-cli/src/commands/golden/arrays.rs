//! Golden arrays on a device and back.

use anyhow::{Context, Result};
use snn_core::testkit::golden::Array;
use snn_core::{Activity, Backend, Lanes, Parameter, Real, Spikes, Tensor};

pub(super) fn lift<B: Backend>(values: &[f64]) -> Vec<B::Real> {
    values.iter().map(|&v| B::Real::lit(v)).collect()
}

pub(super) fn values<R: Real>(x: &[R]) -> Vec<f64> {
    x.iter().map(|v| v.value()).collect()
}

pub(super) fn upload<B: Backend>(device: &B, array: &Array) -> Result<B::Buffer<B::Real>> {
    Ok(device.buffer_from(&lift::<B>(&array.data))?)
}

pub(super) fn host<B: Backend>(device: &B, buffer: &B::Buffer<B::Real>) -> Result<Vec<f64>> {
    Ok(values(&device.to_host(buffer)?))
}

/// The input of a case as activity: spikes where all entries are counts, a sequence otherwise.
pub(super) fn activity<B: Backend>(device: &B, lanes: Lanes, x: &[f64]) -> Result<Activity<B>> {
    match Spikes::from_dense(lanes, x) {
        Ok(host) => {
            let mut spikes = device.spikes();
            device.upload_spikes(&host, &mut spikes)?;
            Ok(Activity::Spikes(spikes))
        }
        Err(_) => {
            let data = device.buffer_from(&lift::<B>(x))?;
            Ok(Activity::Sequence(Tensor { shape: vec![lanes.batch, lanes.steps, lanes.width], data }))
        }
    }
}

/// Weights `[N, M]` of golden files as the `[M, N]` of ours.
pub(super) fn dense_weight(array: &Array) -> Vec<f64> {
    array.permuted(&[1, 0]).data
}

/// Sets a projection's or a cell's parameter.
pub(super) fn set<B: Backend>(device: &B, parameter: &mut Parameter<B>, data: &[f64]) -> Result<()> {
    device.upload(&lift::<B>(data), &mut parameter.value.data).with_context(|| parameter.name)
}

/// `[N]`-gradients in the `[M, N]` layout back to `[N, M]`.
pub(super) fn weight_back(inputs: usize, outputs: usize, data: Vec<f64>) -> Vec<f64> {
    Array { shape: vec![inputs, outputs], data }.permuted(&[1, 0]).data
}
