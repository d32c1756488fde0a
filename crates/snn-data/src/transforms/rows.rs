//! Spike rows of a batch, built sample by sample.

use snn_core::random::Stream;
use snn_core::{Lanes, Spikes};

use super::raster::Events;

/// From how many inputs per event on rows are sorted one by one.
const MOST_INPUTS_PER_EVENT: usize = 64;

/// Puts the events of one sample into rows: first by input, then by step, each time by counting.
///
/// Either pass keeps the order of equals, so every row ends up ascending, and the work is that of a few looks at each event.
#[derive(Debug, Default)]
pub(crate) struct Sorter {
    // Where the next event of each input or step goes.
    next: Vec<u32>,
    // The steps of all events in the order of their inputs, and where those of each input end.
    steps: Vec<u32>,
    ends: Vec<u32>,
}

impl Sorter {
    /// Fills `counts`, zeros of one entry per step, with the events of every row, and `units`, one entry per event, with the
    /// rows.
    ///
    /// # Panics
    ///
    /// If an event lies in no row, or its input is not below `width`.
    pub(crate) fn sort(&mut self, width: usize, events: &Events, counts: &mut [u32], units: &mut [u32]) {
        count(&events.steps, counts);
        if width > MOST_INPUTS_PER_EVENT * events.len() {
            return self.sort_each(events, counts, units);
        }
        self.ends.clear();
        self.ends.resize(width, 0);
        count(&events.units, &mut self.ends);
        starts(&self.ends, &mut self.next);
        self.steps.resize(events.len(), 0);
        let by_unit = events.units.iter().copied().zip(events.steps.iter().copied());
        place(by_unit, &mut self.next, &mut self.steps);
        self.ends.copy_from_slice(&self.next);
        starts(counts, &mut self.next);
        let mut first = 0;
        for (unit, &end) in (0..).zip(&self.ends) {
            let steps = &self.steps[first..end as usize];
            place(steps.iter().map(|&step| (step, unit)), &mut self.next, units);
            first = end as usize;
        }
    }

    /// As [`Sorter::sort`], of events so few that nothing must be done for each input.
    fn sort_each(&mut self, events: &Events, counts: &[u32], units: &mut [u32]) {
        starts(counts, &mut self.next);
        place(events.steps.iter().copied().zip(events.units.iter().copied()), &mut self.next, units);
        let mut rest = units;
        for &n in counts {
            let row;
            (row, rest) = rest.split_at_mut(n as usize);
            row.sort_unstable();
        }
    }

    /// As [`Sorter::sort`], of one event per input, in the steps that an iterator gives.
    fn sort_one_each(&mut self, steps: impl Iterator<Item = u32>, counts: &mut [u32], units: &mut [u32]) {
        self.steps.clear();
        self.steps.extend(steps);
        count(&self.steps, counts);
        starts(counts, &mut self.next);
        place(self.steps.iter().copied().zip(0..), &mut self.next, units);
    }
}

/// Puts every value of `(list, value)` where the next one of its list goes.
fn place(pairs: impl Iterator<Item = (u32, u32)>, next: &mut [u32], out: &mut [u32]) {
    for (list, value) in pairs {
        let to = &mut next[list as usize];
        out[*to as usize] = value;
        *to += 1;
    }
}

fn count(keys: &[u32], counts: &mut [u32]) {
    keys.iter().for_each(|&key| counts[key as usize] += 1);
}

/// Where each of several lists begins, given their lengths.
fn starts(lengths: &[u32], starts: &mut Vec<u32>) {
    let mut total = 0;
    starts.clear();
    starts.extend(lengths.iter().map(|&n| {
        total += n;
        total - n
    }));
}

/// The rows of a batch while it grows: samples one after the other, each of its own length.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    // Steps of every sample.
    lengths: Vec<usize>,
    // Events of every row of every sample.
    counts: Vec<u32>,
    // The rows themselves.
    units: Vec<u32>,
    sorter: Sorter,
}

impl Rows {
    /// Begins a batch.
    pub(crate) fn clear(&mut self) {
        self.lengths.clear();
        self.counts.clear();
        self.units.clear();
    }

    /// Adds a sample of `steps` rows and `events` events; gives what is to be filled.
    fn begin(&mut self, steps: usize, events: usize) -> (&mut Sorter, &mut [u32], &mut [u32]) {
        let (row, unit) = (self.counts.len(), self.units.len());
        self.lengths.push(steps);
        self.counts.resize(row + steps, 0);
        self.units.resize(unit + events, 0);
        (&mut self.sorter, &mut self.counts[row..], &mut self.units[unit..])
    }

    /// Adds a sample of which every input has one event, in the steps given.
    pub(crate) fn push_one_each(&mut self, steps: usize, at: impl ExactSizeIterator<Item = u32>) {
        let (sorter, counts, units) = self.begin(steps, at.len());
        sorter.sort_one_each(at, counts, units);
    }

    /// Adds a sample of events in any order, of inputs below `width`.
    pub(crate) fn push_events(&mut self, (steps, width): (usize, usize), events: &Events) {
        let (sorter, counts, units) = self.begin(steps, events.len());
        sorter.sort(width, events, counts, units);
    }

    /// Adds a sample whose rows are there already; row t holds `units[offsets[t]..offsets[t + 1]]`, in any order.
    pub(crate) fn push_ready(&mut self, offsets: &[usize], units: &[u32]) {
        let (_, counts, out) = self.begin(offsets.len() - 1, units.len());
        counts.iter_mut().zip(offsets.windows(2)).for_each(|(count, ends)| *count = (ends[1] - ends[0]) as u32);
        out.copy_from_slice(units);
        for ends in offsets.windows(2) {
            out[ends[0]..ends[1]].sort_unstable();
        }
    }

    /// Adds a sample in which every input spikes in every step with the probability given.
    pub(crate) fn push_rates(&mut self, steps: usize, rates: &[f32], random: &mut Stream) {
        self.lengths.push(steps);
        for _ in 0..steps {
            let before = self.units.len();
            let spiking = rates.iter().zip(0..).filter(|(rate, _)| random.unit() < **rate);
            self.units.extend(spiking.map(|(_, unit)| unit));
            self.counts.push((self.units.len() - before) as u32);
        }
    }

    /// Writes all samples, those that are shorter than the longest after empty rows.
    pub(crate) fn write(&self, width: usize, spikes: &mut Spikes) {
        let lanes = Lanes::new(self.lengths.len(), self.lengths.iter().copied().max().unwrap_or(0), width);
        let mut counts = &self.counts[..];
        let rows = self.lengths.iter().flat_map(|&steps| {
            let (own, others) = counts.split_at(steps);
            counts = others;
            std::iter::repeat_n(0, lanes.steps - steps).chain(own.iter().map(|&n| n as usize))
        });
        let (_, out) = spikes.reserve(lanes, rows);
        out.copy_from_slice(&self.units);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_ascend_and_samples_end_together(
            samples in prop::collection::vec((1_usize..9, prop::collection::vec((0_u32..8, 0_u32..6), 0..30)), 1..5),
        ) {
            let (mut rows, mut spikes) = (Rows::default(), Spikes::new());
            let longest = samples.iter().map(|s| s.0).max().unwrap();
            let mut want = Vec::new();
            for (steps, list) in &samples {
                let list: Vec<_> = list.iter().map(|&(step, unit)| (step % *steps as u32, unit)).collect();
                let (at, units) = list.iter().copied().unzip();
                rows.push_events((*steps, 6), &Events { steps: at, units });
                want.extend((0..longest).map(|t| {
                    let mut row: Vec<u32> =
                        list.iter().filter(|e| e.0 as usize + longest - steps == t).map(|e| e.1).collect();
                    row.sort_unstable();
                    row
                }));
            }
            rows.write(6, &mut spikes);
            prop_assert_eq!(spikes, Spikes::from_rows(samples.len(), longest, 6, want).unwrap());
        }
    }
}
