//! What the monitors are told of a model on a device.

use snn_core::{Backend, Layer, Real};

use crate::error::Result;
use crate::losses::{Loss, Scores};
use crate::monitor::{Extra, LayerRaster, MonitorRecord, Monitors, Phase, Seen, Snapshot};
use crate::stack::Stack;

/// The monitors of a run of a model in continuous time.
#[derive(Debug)]
pub(crate) struct Watch<B: Backend> {
    train: Monitors,
    test: Monitors,
    /// The spikes of the test set's first sample.
    raster: Option<(u32, Vec<LayerRaster>)>,
    counts: B::Buffer<u32>,
}

/// The layers of a model that fire in continuous time.
fn firing<B: Backend>(stack: &Stack<B>) -> impl Iterator<Item = &dyn Layer<B>> {
    stack.layers().filter(|l| l.trains().is_some())
}

impl<B: Backend> Watch<B> {
    pub(crate) fn new(device: &B, stack: &Stack<B>, snapshots: bool) -> Result<Self> {
        let widths: Vec<usize> = firing(stack).map(|l| l.output_signal().width()).collect();
        let monitors = Monitors::new(&widths, widths.last().copied().unwrap_or_default())?;
        let test = if snapshots { monitors.clone().with_heat() } else { monitors.clone() };
        Ok(Self { train: monitors, test, raster: None, counts: device.zeros(0)? })
    }

    /// Tells the monitors of a phase what a batch gave.
    pub(crate) fn batch(
        &mut self,
        device: &B,
        phase: Phase,
        stack: &Stack<B>,
        labels: &[u32],
        (scores, loss): (Scores, &Loss<B>),
    ) -> Result<()> {
        let mut counts = Vec::new();
        for trains in firing(stack).filter_map(|l| l.trains()) {
            device.resize(&mut self.counts, labels.len() * trains.width)?;
            device.count_trains(trains, &mut self.counts)?;
            counts.push(device.to_host(&self.counts)?);
        }
        let losses: Vec<f64> = device.to_host(loss.losses())?.iter().map(|l| l.value()).collect();
        let spikes = counts.iter().map(Vec::as_slice).collect();
        let seen = Seen { labels, correct: scores.correct, losses: &losses, spikes };
        match phase {
            Phase::Train => self.train.batch(&seen),
            Phase::Test => self.test.batch(&seen),
        }
    }

    /// Keeps the spikes of the first sample of the last forward pass for a snapshot.
    pub(crate) fn keep_raster(&mut self, device: &B, stack: &Stack<B>, label: u32) -> Result<()> {
        let mut rasters = Vec::new();
        for trains in firing(stack).filter_map(|l| l.trains()) {
            let events = trains.download(device)?;
            let (times, units) = events.sample(0);
            rasters.push(LayerRaster { times: times.to_vec(), units: units.to_vec() });
        }
        self.raster = Some((label, rasters));
        Ok(())
    }

    /// What the batches since the last record came to.
    pub(crate) fn record(
        &mut self,
        device: &B,
        phase: Phase,
        stack: &Stack<B>,
        epoch: f64,
        (seconds, learning_rate): (f64, Option<f64>),
    ) -> Result<MonitorRecord> {
        let mut norms = Vec::new();
        for (layer, parameter) in stack.parameters() {
            let norm = device.sum_of_squares(&parameter.value.data)?.sqrt();
            norms.push((format!("{layer}.{}", parameter.name), norm));
        }
        let extra = Extra { weight_norms: &norms, seconds, learning_rate };
        Ok(match phase {
            Phase::Train => self.train.record(phase, epoch, extra),
            Phase::Test => self.test.record(phase, epoch, extra),
        })
    }

    /// The snapshot of an epoch; to be asked for before the test set's record, which clears its sums.
    pub(crate) fn snapshot(&mut self, epoch: u32) -> Option<Snapshot> {
        let heat = self.test.heat()?;
        let (label, raster) = self.raster.take()?;
        Some(Snapshot { epoch, label, raster, heat })
    }
}
