//! Activity: what flows between layers.

use crate::backend::{Backend, Memory};
use crate::error::{Error, Result, check_len};
use crate::real::Real;
use crate::shape::{Kind, Lanes};
use crate::tensor::Tensor;

/// Spikes or event counts `[B, T, N]` as row lists, on the host.
///
/// Row `b * T + t` lists the units that are active in step `t` of sample `b`, ascending. A unit that is listed k times
/// counts k: event counts need no separate values, and the sum of two activities is the union of their lists.
///
/// ```
/// use snn_core::Spikes;
/// // one sample, two steps, three units: unit 2 once in step 0, unit 1 twice in step 1
/// let spikes = Spikes::from_rows(1, 2, 3, [vec![2], vec![1, 1]])?;
/// assert_eq!(spikes.to_dense::<f32>(), [0.0, 0.0, 1.0, 0.0, 2.0, 0.0]);
/// # Ok::<(), snn_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spikes {
    batch: usize,
    steps: usize,
    width: usize,
    offsets: Vec<usize>,
    units: Vec<u32>,
}

impl Spikes {
    /// No sample at all; a buffer to be filled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Builds the lists from rows in order.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if there are not `batch * steps` rows, [`Error::Unit`] if a unit is not below `width`.
    pub fn from_rows<R: AsRef<[u32]>>(
        batch: usize,
        steps: usize,
        width: usize,
        rows: impl IntoIterator<Item = R>,
    ) -> Result<Self> {
        let mut spikes = Self::new();
        spikes.start(steps, width);
        for row in rows {
            spikes.push_row(row.as_ref());
        }
        spikes.finish(batch)?;
        Ok(spikes)
    }

    /// Takes lists that are already laid out: `offsets` holds `batch * steps + 1` entries.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the offsets do not describe `units`, [`Error::Unit`] if a unit is not below `width`.
    pub fn from_parts(batch: usize, steps: usize, width: usize, offsets: Vec<usize>, units: Vec<u32>) -> Result<Self> {
        let mut spikes = Self { batch, steps, width, offsets, units };
        spikes.check()?;
        spikes.sort_rows();
        Ok(spikes)
    }

    /// Converts a dense array `[B, T, N]` of small whole numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the length is wrong, [`Error::Domain`] for an entry that is no count.
    pub fn from_dense(lanes: Lanes, dense: &[f64]) -> Result<Self> {
        check_len("spikes::from_dense", "dense", dense.len(), lanes.len())?;
        let mut spikes = Self::new();
        spikes.start(lanes.steps, lanes.width);
        let mut row = Vec::new();
        for values in dense.chunks(lanes.width.max(1)) {
            row.clear();
            for (unit, &count) in values.iter().enumerate() {
                if !(0.0..=65_535.0).contains(&count) || count.fract() != 0.0 {
                    let range = "the whole numbers 0..=65535";
                    return Err(Error::Domain { op: "spikes::from_dense", param: "count", value: count, range });
                }
                row.extend(std::iter::repeat_n(unit as u32, count as usize));
            }
            spikes.push_row(&row);
        }
        spikes.finish(lanes.batch)?;
        Ok(spikes)
    }

    /// Empties the buffer for `steps` steps of `width` units; rows follow with [`Spikes::push_row`].
    pub fn start(&mut self, steps: usize, width: usize) {
        (self.batch, self.steps, self.width) = (0, steps, width);
        self.offsets.clear();
        self.offsets.push(0);
        self.units.clear();
    }

    /// Appends the next row.
    pub fn push_row(&mut self, units: &[u32]) {
        self.units.extend_from_slice(units);
        self.offsets.push(self.units.len());
    }

    /// Declares the buffer complete with `batch` samples, and puts every row in ascending order.
    ///
    /// # Errors
    ///
    /// As [`Spikes::from_rows`].
    pub fn finish(&mut self, batch: usize) -> Result<()> {
        self.batch = batch;
        self.check()?;
        self.sort_rows();
        Ok(())
    }

    /// Puts every row in ascending order; rows that are so already cost one look.
    pub fn sort_rows(&mut self) {
        for row in self.offsets.windows(2) {
            let units = &mut self.units[row[0]..row[1]];
            if !units.is_sorted() {
                units.sort_unstable();
            }
        }
    }

    fn check(&self) -> Result<()> {
        const OP: &str = "spikes";
        if self.offsets.len() != self.batch * self.steps + 1
            || self.offsets.first() != Some(&0)
            || self.offsets.last() != Some(&self.units.len())
            || !self.offsets.is_sorted()
        {
            let want = format!("[{}] ascending from 0 to {}", self.batch * self.steps + 1, self.units.len());
            return Err(Error::shape(OP, "offsets", &[self.offsets.len()], want));
        }
        match self.units.iter().find(|&&u| u as usize >= self.width) {
            Some(&unit) => Err(Error::Unit { op: OP, unit, width: self.width }),
            None => Ok(()),
        }
    }

    /// Resizes to `lanes` with the lengths of all rows given, and hands out the offsets and the unit list to fill.
    ///
    /// This is how a backend writes spikes in parallel: the row lengths are known, the lists are not yet.
    /// Units must be below `lanes.width` and ascend in every row: that is the caller's promise
    /// ([`Spikes::sort_rows`] keeps its second half).
    ///
    /// # Panics
    ///
    /// If there are not `lanes.rows()` lengths.
    pub fn reserve(&mut self, lanes: Lanes, lengths: impl IntoIterator<Item = usize>) -> (&[usize], &mut [u32]) {
        (self.batch, self.steps, self.width) = (lanes.batch, lanes.steps, lanes.width);
        self.offsets.clear();
        self.offsets.push(0);
        let mut total = 0;
        self.offsets.extend(lengths.into_iter().map(|n| {
            total += n;
            total
        }));
        assert_eq!(self.offsets.len(), lanes.rows() + 1, "one length per row");
        self.units.resize(total, 0);
        (&self.offsets, &mut self.units)
    }

    /// The size `[B, T, N]`.
    #[must_use]
    pub fn lanes(&self) -> Lanes {
        Lanes::new(self.batch, self.steps, self.width)
    }

    /// Events in all.
    #[must_use]
    pub fn events(&self) -> usize {
        self.units.len()
    }

    /// Events per entry of the dense array, in `[0, inf)`.
    #[must_use]
    pub fn density(&self) -> f64 {
        self.units.len() as f64 / (self.lanes().len().max(1)) as f64
    }

    /// The units active in row `b * T + t`.
    #[inline(always)]
    #[must_use]
    pub fn row(&self, row: usize) -> &[u32] {
        &self.units[self.offsets[row]..self.offsets[row + 1]]
    }

    /// Where each row starts in [`Spikes::units`]; `B * T + 1` entries.
    #[must_use]
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// All rows, one after the other.
    #[must_use]
    pub fn units(&self) -> &[u32] {
        &self.units
    }

    /// Events of each sample.
    pub fn events_per_sample(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.batch).map(|b| self.offsets[(b + 1) * self.steps] - self.offsets[b * self.steps])
    }

    /// The dense array `[B, T, N]`.
    #[must_use]
    pub fn to_dense<R: Real>(&self) -> Vec<R> {
        let mut dense = vec![R::ZERO; self.lanes().len()];
        for (row, out) in dense.chunks_mut(self.width.max(1)).enumerate() {
            for &unit in self.row(row) {
                out[unit as usize] += R::ONE;
            }
        }
        dense
    }

    /// Makes `self` the sum of two activities of the same size: the union of their row lists.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the sizes differ.
    pub fn merge(&mut self, a: &Self, b: &Self) -> Result<()> {
        if a.lanes() != b.lanes() {
            let got = [b.batch, b.steps, b.width];
            return Err(Error::shape("spikes::merge", "b", &got, format_args!("{:?}", [a.batch, a.steps, a.width])));
        }
        self.start(a.steps, a.width);
        for row in 0..a.lanes().rows() {
            self.units.extend_from_slice(a.row(row));
            self.units.extend_from_slice(b.row(row));
            self.offsets.push(self.units.len());
        }
        self.batch = a.batch;
        self.sort_rows();
        Ok(())
    }
}

/// Spikes in continuous time, on the host: the events of each sample in ascending time.
///
/// Events at one instant come in ascending order of their units, so that the order in which they were given makes no
/// difference.
///
/// ```
/// use snn_core::Events;
/// let mut events = Events::new(3);
/// events.push(&[(0.01, 2), (0.04, 0), (0.04, 2)])?;
/// let error = events.push(&[(0.5, 1), (0.25, 0)]).unwrap_err();
/// assert_eq!(error.to_string(), "events: `time[1]` is 0.25, expected no less than the time before it");
/// assert_eq!((events.batch(), events.len()), (1, 3));
/// # Ok::<(), snn_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Events {
    width: usize,
    offsets: Vec<u32>,
    units: Vec<u32>,
    times: Vec<f32>,
}

impl Events {
    /// No sample yet, of `width` units.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { width, offsets: vec![0], ..Self::default() }
    }

    /// Empties the buffer for samples of `width` units.
    pub fn start(&mut self, width: usize) {
        self.width = width;
        self.offsets.clear();
        self.offsets.push(0);
        self.units.clear();
        self.times.clear();
    }

    /// Appends a sample: pairs of time (s) and unit, ascending in time.
    ///
    /// # Errors
    ///
    /// [`Error::Entry`] naming the first event whose time is not finite, negative or before its predecessor's;
    /// [`Error::Unit`] for a unit that is not below the width; [`Error::Shape`] for more than `2^32` events in all. The
    /// buffer is then as it was.
    pub fn push(&mut self, events: &[(f32, u32)]) -> Result<()> {
        const OP: &str = "events";
        let mut last = 0.0;
        for (index, &(time, unit)) in events.iter().enumerate() {
            let wrong =
                |want: &'static str| Err(Error::Entry { op: OP, arg: "time", index, value: f64::from(time), want });
            if !(time.is_finite() && time >= 0.0) {
                return wrong("a finite number of seconds, 0 or more");
            }
            if time < last {
                return wrong("no less than the time before it");
            }
            if unit as usize >= self.width {
                return Err(Error::Unit { op: OP, unit, width: self.width });
            }
            last = time;
        }
        let Ok(end) = u32::try_from(self.times.len() + events.len()) else {
            let got = [self.times.len() + events.len()];
            return Err(Error::shape(OP, "events", &got, "fewer than 2^32 events in a batch"));
        };
        let from = self.units.len();
        // Minus zero is zero.
        self.times.extend(events.iter().map(|e| e.0 + 0.0));
        self.units.extend(events.iter().map(|e| e.1));
        let mut at = from;
        while at < self.times.len() {
            let tied = self.times[at..].iter().take_while(|t| **t == self.times[at]).count();
            self.units[at..at + tied].sort_unstable();
            at += tied;
        }
        self.offsets.push(end);
        Ok(())
    }

    /// Samples.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Units of a sample.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Events of all samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Times and units of a sample.
    #[must_use]
    pub fn sample(&self, index: usize) -> (&[f32], &[u32]) {
        let range = self.offsets[index] as usize..self.offsets[index + 1] as usize;
        (&self.times[range.clone()], &self.units[range])
    }
}

/// Spikes in continuous time on a device: the events of each sample in ascending time, ties by unit.
#[derive(Debug)]
pub struct Trains<M: Memory> {
    /// Neurons, N.
    pub width: usize,
    /// Where the events of each sample begin, and the end of the last: `[B + 1]`.
    pub offsets: M::Buffer<u32>,
    /// The neuron of each event, `[E]`.
    pub units: M::Buffer<u32>,
    /// The time of each event, s, `[E]`.
    pub times: M::Buffer<M::Real>,
}

impl<M: Memory> Trains<M> {
    /// No sample.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn empty(device: &M, width: usize) -> Result<Self> {
        let (offsets, units, times) = (device.zeros(1)?, device.zeros(0)?, device.zeros(0)?);
        Ok(Self { width, offsets, units, times })
    }

    /// Samples.
    pub fn batch(&self, device: &M) -> usize {
        device.len(&self.offsets).saturating_sub(1)
    }

    /// Events of all samples.
    pub fn events(&self, device: &M) -> usize {
        device.len(&self.times)
    }

    /// Copies from the host.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn upload(&mut self, device: &M, host: &Events) -> Result<()> {
        self.width = host.width;
        device.resize(&mut self.offsets, host.offsets.len())?;
        device.upload(&host.offsets, &mut self.offsets)?;
        device.resize(&mut self.units, host.len())?;
        device.upload(&host.units, &mut self.units)?;
        let times: Vec<M::Real> = host.times.iter().map(|&t| M::Real::lit(t.into())).collect();
        device.resize(&mut self.times, host.len())?;
        device.upload(&times, &mut self.times)
    }

    /// Copies to the host, times rounded to single precision.
    ///
    /// # Errors
    ///
    /// If queued work failed.
    pub fn download(&self, device: &M) -> Result<Events> {
        let times = device.to_host(&self.times)?;
        Ok(Events {
            width: self.width,
            offsets: device.to_host(&self.offsets)?,
            units: device.to_host(&self.units)?,
            times: times.iter().map(|t| t.value() as f32).collect(),
        })
    }
}

/// What flows between two layers, for a batch.
#[derive(Debug)]
pub enum Activity<B: Backend> {
    /// Dense real values `[B, T, N]`: currents, membranes.
    Sequence(Tensor<B>),
    /// Sparse spikes or event counts `[B, T, N]`.
    Spikes(B::Spikes),
    /// One spike time per neuron `[B, N]`, as how long before the end of the layer's window it comes; 0 is no spike. See
    /// [`crate::neurons::ttfs`].
    Times(Tensor<B>),
    /// Spikes in continuous time.
    Trains(Trains<B>),
    /// One value per neuron `[B, N]`: logits, static images.
    Values(Tensor<B>),
}

impl<B: Backend> Activity<B> {
    /// The kind of activity.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Sequence(_) => Kind::Sequence,
            Self::Spikes(_) => Kind::Spikes,
            Self::Times(_) => Kind::Times,
            Self::Trains(_) => Kind::Trains,
            Self::Values(_) => Kind::Values,
        }
    }

    /// The axes of a gradient on this activity: `[B, T, N]`, `[B, N]`, or one entry per event for trains.
    #[must_use]
    pub fn shape(&self, device: &B) -> Vec<usize> {
        match self {
            Self::Spikes(s) => {
                let lanes = device.spike_lanes(s);
                vec![lanes.batch, lanes.steps, lanes.width]
            }
            Self::Sequence(x) | Self::Values(x) | Self::Times(x) => x.shape.clone(),
            Self::Trains(t) => vec![t.events(device)],
        }
    }

    /// The size over time of what a clocked layer of `steps` steps makes of this: its samples and steps, or, from an
    /// activity without time, `steps`.
    #[must_use]
    pub fn lanes(&self, device: &B, steps: usize, width: usize) -> Lanes {
        let shape = self.shape(device);
        let steps = if matches!(self, Self::Spikes(_) | Self::Sequence(_)) { shape[1] } else { steps };
        Lanes::new(shape[0], steps, width)
    }

    /// The spikes, or an error that names the `layer` which wanted them.
    ///
    /// # Errors
    ///
    /// [`Error::Kind`] if this is another kind of activity.
    pub fn spikes(&self, layer: &str) -> Result<&B::Spikes> {
        match self {
            Self::Spikes(s) => Ok(s),
            other => Err(other.unwanted(layer, Kind::Spikes)),
        }
    }

    /// The values `[B, N]`, or an error that names the `layer` which wanted them.
    ///
    /// # Errors
    ///
    /// [`Error::Kind`] if this is another kind of activity.
    pub fn values(&self, layer: &str) -> Result<&Tensor<B>> {
        match self {
            Self::Values(v) => Ok(v),
            other => Err(other.unwanted(layer, Kind::Values)),
        }
    }

    /// The real numbers of an activity without time steps, values or times `[B, N]`, or an error that names the `layer`
    /// which wanted them.
    ///
    /// # Errors
    ///
    /// [`Error::Kind`] if this is another kind of activity.
    pub fn numbers(&self, layer: &str) -> Result<&Tensor<B>> {
        match self {
            Self::Values(x) | Self::Times(x) => Ok(x),
            other => Err(other.unwanted(layer, Kind::Values)),
        }
    }

    /// The spike trains, or an error that names the `layer` which wanted them.
    ///
    /// # Errors
    ///
    /// [`Error::Kind`] if this is another kind of activity.
    pub fn trains(&self, layer: &str) -> Result<&Trains<B>> {
        match self {
            Self::Trains(t) => Ok(t),
            other => Err(other.unwanted(layer, Kind::Trains)),
        }
    }

    /// The error of a `layer` that wanted another kind.
    #[must_use]
    pub fn unwanted(&self, layer: &str, want: Kind) -> Error {
        Error::Kind { layer: layer.into(), got: self.kind().to_string(), want: want.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn dense_and_back(counts in prop::collection::vec(0_u8..4, 24)) {
            let lanes = Lanes::new(2, 3, 4);
            let dense: Vec<f64> = counts.iter().map(|&c| f64::from(c)).collect();
            let spikes = Spikes::from_dense(lanes, &dense).unwrap();
            prop_assert_eq!(spikes.to_dense::<f64>(), dense);
        }

        #[test]
        fn merge_adds(a in prop::collection::vec(0_u8..3, 12), b in prop::collection::vec(0_u8..3, 12)) {
            let lanes = Lanes::new(2, 2, 3);
            let of = |x: &[u8]| Spikes::from_dense(lanes, &x.iter().map(|&c| f64::from(c)).collect::<Vec<_>>()).unwrap();
            let mut sum = Spikes::new();
            sum.merge(&of(&a), &of(&b)).unwrap();
            let want: Vec<f32> = a.iter().zip(&b).map(|(x, y)| f32::from(x + y)).collect();
            prop_assert_eq!(sum.to_dense::<f32>(), want);
        }
    }

    #[test]
    fn a_unit_beyond_the_width_is_named() {
        let e = Spikes::from_rows(1, 1, 3, [vec![3]]).unwrap_err();
        assert_eq!(e.to_string(), "spikes: unit 3 is out of range, the signal has 3 units");
    }

    #[test]
    fn offsets_that_do_not_fit_are_refused() {
        assert!(Spikes::from_parts(1, 2, 3, vec![0, 2], vec![0, 1]).is_err());
        assert!(Spikes::from_parts(1, 2, 3, vec![0, 2, 1], vec![0]).is_err());
        assert!(Spikes::from_rows(2, 1, 3, [vec![0]]).is_err());
    }
}
