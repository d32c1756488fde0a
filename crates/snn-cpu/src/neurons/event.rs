//! Event-driven neurons: a tile of neurons walks the events of a sample together.
//!
//! Forward, an event costs one row of weights: state decays, the row is added, and a test without roots or divisions says
//! which neurons may fire before the next event. Only those take the scalar path, in double precision. Backward, the
//! same walk goes the other way with two traces per neuron, which every own spike raises and every input reads.
//!
//! A dense layer is one site that all events reach; a convolution has a site for each output position, reached by the
//! events in its field, with all positions sharing their weights. Work is cut by sizes alone, and sums go in a fixed
//! order.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;
use snn_core::backend::{EventOps, TrainReadout};
use snn_core::error::{Result, check_len};
use snn_core::neurons::event::EventNeuron;
use snn_core::{Pool, Synapses, Trains};

use crate::math;
use crate::memory::Cpu;
use crate::simd;

/// Neurons that walk together: their state lies in registers or next to them, and their part of the weights of a layer
/// of a thousand inputs in the second-level cache.
const TILE: usize = 64;
/// Neurons that one test covers.
const GROUP: usize = 16;
/// Samples that one task walks with the same part of the weights, where there are many tiles.
const SAMPLES: usize = 16;
/// Parts of the batch with sums of their own, where there are few tiles.
const PARTS: usize = 8;

/// Relative error of the state after many events.
const ROUNDING: f64 = 1e-6;
/// Relative slack of the test for candidates, above the rounding errors in it.
const SLACK: f32 = 1e-6;

/// Calls a function that is generic over the groups of a tile.
macro_rules! for_groups {
    ($lanes:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match usize::div_ceil($lanes, GROUP) {
            1 => $function::<1>($($argument),*),
            2 => $function::<2>($($argument),*),
            3 => $function::<3>($($argument),*),
            _ => $function::<4>($($argument),*),
        }
    };
}

/// The events of one sample as the sites of a layer see them, site after site.
#[derive(Debug, Default)]
struct Walks {
    /// Where each site begins, and the end of the last.
    sites: Vec<u32>,
    /// The event among those of the sample.
    events: Vec<u32>,
    /// The row of its weights.
    rows: Vec<u32>,
    times: Vec<f32>,
    /// `e^(-dt / tau)` from the event before at the same site; 0 for the first.
    decays: Vec<f32>,
    /// `e^(dt / tau)` to the end of what a spike may come in: the next event or the end of time.
    reaches: Vec<f32>,
    /// That end, s.
    limits: Vec<f32>,
}

/// One site of [`Walks`].
struct Walk<'a> {
    events: &'a [u32],
    rows: &'a [u32],
    times: &'a [f32],
    decays: &'a [f32],
    reaches: &'a [f32],
    limits: &'a [f32],
}

impl Walks {
    fn new(neuron: &EventNeuron, synapses: &Synapses, times: &[f32], units: &[u32]) -> Self {
        let end = neuron.end as f32;
        // What comes at the end or later makes no spike.
        let count = times.partition_point(|&t| t < end);
        let (times, units) = (&times[..count], &units[..count]);
        let sites = synapses.sites().0;
        let mut walks = Self { sites: vec![0; sites + 1], ..Self::default() };
        for &unit in units {
            synapses.reach(unit as usize, |site, _| walks.sites[site + 1] += 1);
        }
        for site in 0..sites {
            walks.sites[site + 1] += walks.sites[site];
        }
        let total = walks.sites[sites] as usize;
        walks.events.resize(total, 0);
        walks.rows.resize(total, 0);
        walks.times.resize(total, 0.0);
        let mut next: Vec<u32> = walks.sites[..sites].to_vec();
        for (event, (&time, &unit)) in times.iter().zip(units).enumerate() {
            synapses.reach(unit as usize, |site, row| {
                let at = next[site] as usize;
                next[site] += 1;
                walks.events[at] = event as u32;
                walks.rows[at] = row as u32;
                walks.times[at] = time;
            });
        }
        walks.limits.resize(total, end);
        for site in walks.sites.windows(2) {
            let site = site[0] as usize..site[1] as usize;
            let times = &walks.times[site.clone()];
            if let Some((_, after)) = times.split_first() {
                walks.limits[site][..after.len()].copy_from_slice(after);
            }
        }
        let rate = (1.0 / neuron.tau()) as f32;
        walks.decays.resize(total, 0.0);
        walks.reaches.resize(total, 0.0);
        let Self { sites, times, decays, reaches, limits, .. } = &mut walks;
        simd::run(
            #[inline(always)]
            || {
                for ((reach, &limit), &time) in reaches.iter_mut().zip(&*limits).zip(&*times) {
                    *reach = if limit.is_finite() { math::exp((limit - time) * rate) } else { f32::INFINITY };
                }
                for site in sites.windows(2) {
                    let (from, to) = (site[0] as usize, site[1] as usize);
                    for at in from + 1..to {
                        decays[at] = math::exp((times[at - 1] - times[at]) * rate);
                    }
                }
            },
        );
        walks
    }

    fn site(&self, site: usize) -> Walk<'_> {
        let cut = self.sites[site] as usize..self.sites[site + 1] as usize;
        Walk {
            events: &self.events[cut.clone()],
            rows: &self.rows[cut.clone()],
            times: &self.times[cut.clone()],
            decays: &self.decays[cut.clone()],
            reaches: &self.reaches[cut.clone()],
            limits: &self.limits[cut],
        }
    }
}

/// A spike of a sample before it has its place in the layer's output: time and unit as a key to sort by, and the slope.
#[derive(Debug, Clone, Copy)]
struct Spike {
    key: u64,
    slope: f32,
}

impl Spike {
    fn new(time: f32, unit: u32, slope: f32) -> Self {
        // Bits of numbers that are not negative are in the order of the numbers.
        Self { key: u64::from(time.to_bits()) << 32 | u64::from(unit), slope }
    }

    fn time(self) -> f32 {
        f32::from_bits((self.key >> 32) as u32)
    }

    fn unit(self) -> u32 {
        self.key as u32
    }
}

/// The constants of a walk.
struct Constants {
    tau: f64,
    c: f64,
    d: f64,
    capacity: u32,
}

/// Weights whose rows are whole groups of lanes: those of the layer, or a copy with zeros behind each row.
struct Rows<'a> {
    weights: Cow<'a, [f32]>,
    /// Entries of a row.
    stride: usize,
}

impl<'a> Rows<'a> {
    fn new(weight: &'a [f32], lanes: usize) -> Self {
        let stride = lanes.next_multiple_of(GROUP);
        if stride == lanes || lanes == 0 {
            return Self { weights: Cow::Borrowed(weight), stride };
        }
        let mut padded = vec![0.0; weight.len() / lanes * stride];
        padded.chunks_mut(stride).zip(weight.chunks(lanes)).for_each(|(to, from)| to[..lanes].copy_from_slice(from));
        Self { weights: Cow::Owned(padded), stride }
    }
}

/// Walks one site with a tile of neurons and appends their spikes. `unit` is the first neuron; the tile's weights begin at
/// `lane` of every row.
#[inline(always)]
fn walk_forward<const GROUPS: usize>(
    k: &Constants,
    walk: &Walk<'_>,
    rows: &Rows<'_>,
    lane: usize,
    unit: u32,
    out: &mut Vec<Spike>,
) {
    // Rows come in no order that hardware foresees: ask for them some events ahead.
    const AHEAD: usize = 6;
    let (mut a, mut b) = ([[0.0_f32; GROUP]; GROUPS], [[0.0_f32; GROUP]; GROUPS]);
    let mut counts = [[0_u32; GROUP]; GROUPS];
    let c = k.c as f32;
    let row = |at: usize| &rows.weights[walk.rows[at] as usize * rows.stride + lane..][..GROUPS * GROUP];
    for at in 0..walk.rows.len() {
        if at + AHEAD < walk.rows.len() {
            simd::prefetch(row(at + AHEAD));
        }
        let (slow, reach) = (walk.decays[at], walk.reaches[at]);
        let (fast, peak, rise) = (slow * slow, (2.0 + SLACK) * c * reach, c * reach);
        let mut candidates = [[0_u8; GROUP]; GROUPS];
        for (group, w) in row(at).chunks_exact(GROUP).enumerate() {
            let (a, b) = (&mut a[group], &mut b[group]);
            for i in 0..GROUP {
                a[i] = a[i] * fast + w[i];
                b[i] = b[i] * slow + w[i];
                // A crossing must exist, and lie before the limit: the membrane is above the threshold there, or past
                // its peak, which is at y = b / 2c.
                let square = b[i] * b[i];
                let exists = (b[i] > 0.0) & (a[i] > 0.0) & (square - 4.0 * c * a[i] >= -SLACK * square);
                let above = (rise - b[i]) * reach + a[i] <= SLACK * b[i] * reach;
                candidates[group][i] = u8::from(exists & (above | (b[i] <= peak)));
            }
        }
        let candidates = candidates.map(u128::from_le_bytes);
        if candidates.iter().fold(0, |any, group| any | group) == 0 {
            continue;
        }
        let interval = Interval {
            now: walk.times[at].into(),
            limit: walk.limits[at].into(),
            reach: f64::from(reach) * (1.0 + ROUNDING),
        };
        for (group, mut candidates) in candidates.into_iter().enumerate() {
            while candidates != 0 {
                let i = candidates.trailing_zeros() as usize / 8;
                candidates &= candidates - 1;
                let n = unit + (group * GROUP + i) as u32;
                fire(k, &interval, (&mut a[group][i], &mut b[group][i]), &mut counts[group][i], n, out);
            }
        }
    }
}

/// What lies between two events.
struct Interval {
    /// The event, s.
    now: f64,
    /// The end of the interval, s.
    limit: f64,
    /// No less than `e^((limit - now) / tau)`.
    reach: f64,
}

/// The spikes of one neuron between two events.
#[inline(never)]
fn fire(
    k: &Constants,
    interval: &Interval,
    (a, b): (&mut f32, &mut f32),
    count: &mut u32,
    unit: u32,
    out: &mut Vec<Spike>,
) {
    let &Interval { now, limit, reach } = interval;
    let (wide_a, mut wide_b) = (f64::from(*a), f64::from(*b));
    let (mut last, mut fired) = (now, false);
    loop {
        let square = wide_b * wide_b - 4.0 * wide_a * k.c;
        let x = if square > 0.0 { square.sqrt() } else { 0.0 };
        let y = 2.0 * wide_a / (wide_b + x);
        // Most end here, without a logarithm.
        let may = x > 0.0 && y > 0.0 && y <= reach;
        if !may {
            break;
        }
        let mut time = now + k.tau * y.ln();
        // Where a crossing fell between two intervals by rounding, the second one begins with it.
        let between = !fired && y > 1.0 - ROUNDING && time <= now && k.d > 0.0;
        if between {
            time = now;
        }
        let comes = (time > last || between) && time <= limit;
        if !comes {
            break;
        }
        fired = true;
        out.push(Spike::new(time as f32, unit, (x / y) as f32));
        *count += 1;
        if *count == k.capacity {
            // No weight can raise this state: the neuron is finished.
            (*a, *b) = (0.0, f32::NEG_INFINITY);
            return;
        }
        last = time;
        wide_b -= k.d * y;
        *b = wide_b as f32;
    }
}

/// What an own spike does to the traces on the way back.
#[derive(Debug, Clone, Copy)]
struct Drive {
    /// Inputs of the site before the spike, at least 1.
    before: u32,
    /// The neuron in its tile.
    lane: u32,
    /// What it adds to the slow and to the fast trace, as of the last of these inputs.
    slow: f32,
    fast: f32,
}

/// The own spikes of one sample, by site and tile, each in descending order of time.
#[derive(Debug)]
struct Drives {
    /// Where those of each site and tile begin, and the end of the last.
    cuts: Vec<u32>,
    list: Vec<Drive>,
}

/// The sizes of a layer and how its work is cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    sites: usize,
    /// Neurons of a site.
    lanes: usize,
    /// Tiles of a site.
    tiles: usize,
}

impl Cut {
    fn new(synapses: &Synapses) -> Self {
        let (sites, lanes) = synapses.sites();
        Self { sites, lanes, tiles: lanes.div_ceil(TILE) }
    }

    /// The neurons of a tile at its site.
    fn tile(self, tile: usize) -> Range<usize> {
        tile * TILE..((tile + 1) * TILE).min(self.lanes)
    }

    /// Samples per task of a forward pass.
    fn samples(self) -> usize {
        if self.tiles >= 4 { SAMPLES } else { 1 }
    }

    /// Parts of a batch with weight gradients of their own.
    fn parts(self, batch: usize) -> usize {
        PARTS.div_ceil(self.tiles).min(batch.max(1))
    }
}

impl Drives {
    /// Sends the gradients of one sample's spikes through their resets, in place, and sorts what they do to the traces.
    fn new(neuron: &EventNeuron, cut: Cut, walks: &Walks, sample: Own<'_>, grad: &mut [f32]) -> Self {
        let Own { times, units, slopes } = sample;
        let (rate, drop, tau) = (-1.0 / neuron.tau(), neuron.drop(), neuron.tau());
        // Of every neuron: the share of its later spikes, as of the last one seen.
        let mut later = vec![(0.0_f64, 0.0_f64); cut.sites * cut.lanes];
        for at in (0..times.len()).rev() {
            let (share, seen) = &mut later[units[at] as usize];
            let time = f64::from(times[at]);
            if *share != 0.0 {
                *share *= ((*seen - time) * rate).exp();
            }
            let total = f64::from(grad[at]) + *share;
            grad[at] = total as f32;
            *share += total * drop / f64::from(neuron.guarded(slopes[at]));
            *seen = time;
        }
        let bucket = |unit: u32| {
            let (site, lane) = (unit as usize / cut.lanes, unit as usize % cut.lanes);
            (site, site * cut.tiles + lane / TILE, (lane % TILE) as u32)
        };
        let mut cuts = vec![0_u32; cut.sites * cut.tiles + 1];
        for &unit in units {
            cuts[bucket(unit).1 + 1] += 1;
        }
        for i in 1..cuts.len() {
            cuts[i] += cuts[i - 1];
        }
        let mut next = cuts.clone();
        let mut list = vec![Drive { before: 0, lane: 0, slow: 0.0, fast: 0.0 }; times.len()];
        for at in (0..times.len()).rev() {
            let (site, bucket, lane) = bucket(units[at]);
            let inputs = walks.site(site).times;
            let before = inputs.partition_point(|&t| t < times[at]);
            let pull = f64::from(grad[at]) * tau / f64::from(neuron.guarded(slopes[at]));
            let decay = match before.checked_sub(1) {
                Some(input) => ((f64::from(times[at]) - f64::from(inputs[input])) * rate).exp(),
                None => 0.0,
            };
            list[next[bucket] as usize] =
                Drive { before: before as u32, lane, slow: (pull * decay) as f32, fast: (pull * decay * decay) as f32 };
            next[bucket] += 1;
        }
        Self { cuts, list }
    }

    fn of(&self, cut: Cut, site: usize, tile: usize) -> &[Drive] {
        let at = site * cut.tiles + tile;
        &self.list[self.cuts[at] as usize..self.cuts[at + 1] as usize]
    }
}

/// The spikes of one sample.
#[derive(Debug, Clone, Copy)]
struct Own<'a> {
    times: &'a [f32],
    units: &'a [u32],
    slopes: &'a [f32],
}

/// One value for each neuron of a tile.
type Lanes<const GROUPS: usize> = [[f32; GROUP]; GROUPS];

/// Walks one site backwards with the traces of one tile; `visit` is called for every input before an own spike, with its
/// place in the walk and the slow and the fast trace.
#[inline(always)]
fn walk_back<const GROUPS: usize>(
    walk: &Walk<'_>,
    drives: &[Drive],
    mut visit: impl FnMut(usize, &Lanes<GROUPS>, &Lanes<GROUPS>),
) {
    let (mut slow, mut fast) = ([[0.0_f32; GROUP]; GROUPS], [[0.0_f32; GROUP]; GROUPS]);
    let mut drives = drives.iter().peekable();
    let Some(first) = drives.peek() else { return };
    for at in (0..first.before as usize).rev() {
        while let Some(drive) = drives.next_if(|d| d.before as usize == at + 1) {
            slow.as_flattened_mut()[drive.lane as usize] += drive.slow;
            fast.as_flattened_mut()[drive.lane as usize] += drive.fast;
        }
        visit(at, &slow, &fast);
        let decay = walk.decays[at];
        let square = decay * decay;
        slow.as_flattened_mut().iter_mut().for_each(|s| *s *= decay);
        fast.as_flattened_mut().iter_mut().for_each(|f| *f *= square);
    }
}

fn samples(trains: &Trains<Cpu>) -> Vec<Range<usize>> {
    trains.offsets.windows(2).map(|w| w[0] as usize..w[1] as usize).collect()
}

fn all_walks(neuron: &EventNeuron, synapses: &Synapses, input: &Trains<Cpu>) -> Vec<Walks> {
    let of = |r: Range<usize>| Walks::new(neuron, synapses, &input.times[r.clone()], &input.units[r]);
    samples(input).into_par_iter().map(of).collect()
}

/// Cuts a slice into pieces of the given lengths.
fn pieces<T>(mut slice: &mut [T], lengths: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    let cut = |length: usize| {
        let (piece, rest) = std::mem::take(&mut slice).split_at_mut(length);
        slice = rest;
        piece
    };
    lengths.map(cut).collect()
}

/// Sorts the spikes of every sample and writes them one sample after the other.
fn write(out: &mut Trains<Cpu>, width: usize, mut per_sample: Vec<Vec<Spike>>, slopes: &mut Vec<f32>) {
    per_sample.par_iter_mut().for_each(|spikes| spikes.sort_unstable_by_key(|s| s.key));
    out.width = width;
    out.offsets.clear();
    out.offsets.push(0);
    let mut total = 0;
    out.offsets.extend(per_sample.iter().map(|spikes| {
        total += spikes.len();
        total as u32
    }));
    out.times.resize(total, 0.0);
    out.units.resize(total, 0);
    slopes.resize(total, 0.0);
    let lengths = || per_sample.iter().map(Vec::len);
    let places = pieces(&mut out.times, lengths())
        .into_par_iter()
        .zip(pieces(&mut out.units, lengths()))
        .zip(pieces(slopes, lengths()));
    places.zip(&per_sample).for_each(|(((times, units), slopes), spikes)| {
        for (i, spike) in spikes.iter().enumerate() {
            (times[i], units[i], slopes[i]) = (spike.time(), spike.unit(), spike.slope);
        }
    });
}

fn check(op: &'static str, synapses: &Synapses, weight: &[f32], input: &Trains<Cpu>) -> Result<()> {
    check_len(op, "input neurons", input.width, synapses.inputs())?;
    check_len(op, "weight", weight.len(), synapses.rows() * synapses.sites().1)
}

impl EventOps for Cpu {
    fn event_forward(
        &self,
        neuron: &EventNeuron,
        synapses: &Synapses,
        weight: &Vec<f32>,
        input: &Trains<Self>,
        out: &mut Trains<Self>,
        slopes: &mut Vec<f32>,
    ) -> Result<()> {
        neuron.check()?;
        check("event_forward", synapses, weight, input)?;
        let cut = Cut::new(synapses);
        let k = Constants { tau: neuron.tau(), c: neuron.level(), d: neuron.drop(), capacity: neuron.capacity };
        self.install(|| {
            let walks = all_walks(neuron, synapses, input);
            let rows = Rows::new(weight, cut.lanes);
            // A task is a tile with some samples; tasks of the same samples are neighbours.
            let found: Vec<Vec<Vec<Spike>>> = (0..walks.len().div_ceil(cut.samples()) * cut.tiles)
                .into_par_iter()
                .map(|task| {
                    let (group, tile) = (task / cut.tiles, task % cut.tiles);
                    let from = group * cut.samples();
                    let lanes = cut.tile(tile);
                    let of = |walks: &Walks| {
                        let mut spikes = Vec::new();
                        simd::run(
                            #[inline(always)]
                            || {
                                for site in 0..cut.sites {
                                    let unit = (site * cut.lanes + lanes.start) as u32;
                                    let walk = walks.site(site);
                                    for_groups!(
                                        lanes.len(),
                                        walk_forward(&k, &walk, &rows, lanes.start, unit, &mut spikes)
                                    );
                                }
                            },
                        );
                        spikes
                    };
                    walks[from..(from + cut.samples()).min(walks.len())].iter().map(of).collect()
                })
                .collect();
            let spikes_of = |sample: usize| {
                let (group, place) = (sample / cut.samples(), sample % cut.samples());
                let tiles = &found[group * cut.tiles..(group + 1) * cut.tiles];
                let mut spikes = Vec::with_capacity(tiles.iter().map(|samples| samples[place].len()).sum());
                tiles.iter().for_each(|samples| spikes.extend_from_slice(&samples[place]));
                spikes
            };
            let per_sample = (0..walks.len()).into_par_iter().map(spikes_of).collect();
            write(out, synapses.outputs(), per_sample, slopes);
        });
        Ok(())
    }

    fn event_backward(
        &self,
        neuron: &EventNeuron,
        synapses: &Synapses,
        weight: &Vec<f32>,
        input: &Trains<Self>,
        out: &Trains<Self>,
        slopes: &Vec<f32>,
        grad: &mut Vec<f32>,
        grad_weight: &mut Vec<f32>,
        grad_input: Option<&mut Vec<f32>>,
    ) -> Result<()> {
        const OP: &str = "event_backward";
        check(OP, synapses, weight, input)?;
        check_len(OP, "output samples", out.offsets.len(), input.offsets.len())?;
        check_len(OP, "slopes", slopes.len(), out.times.len())?;
        check_len(OP, "grad", grad.len(), out.times.len())?;
        check_len(OP, "grad_weight", grad_weight.len(), weight.len())?;
        if let Some(grad_input) = &grad_input {
            check_len(OP, "grad_input", grad_input.len(), input.times.len())?;
        }
        let cut = Cut::new(synapses);
        self.install(|| {
            let walks = all_walks(neuron, synapses, input);
            let spikes = samples(out);
            let drives: Vec<Drives> = pieces(grad, spikes.iter().map(Range::len))
                .into_par_iter()
                .zip(&walks)
                .zip(&spikes)
                .map(|((grad, walks), r)| {
                    let own =
                        Own { times: &out.times[r.clone()], units: &out.units[r.clone()], slopes: &slopes[r.clone()] };
                    Drives::new(neuron, cut, walks, own, grad)
                })
                .collect();
            weight_grad(cut, &walks, &drives, grad_weight);
            if let Some(grad_input) = grad_input {
                let places = pieces(grad_input, samples(input).iter().map(Range::len));
                let (tau, rows) = (neuron.tau() as f32, Rows::new(weight, cut.lanes));
                places.into_par_iter().zip(&walks).zip(&drives).for_each(|((grad, walks), drives)| {
                    simd::run(
                        #[inline(always)]
                        || input_grad(cut, tau, &rows, walks, drives, grad),
                    );
                });
            }
        });
        Ok(())
    }

    fn merge_trains(
        &self,
        pool: &Pool,
        input: &Trains<Self>,
        out: &mut Trains<Self>,
        source: &mut Vec<u32>,
    ) -> Result<()> {
        check_len("merge_trains", "input neurons", input.width, pool.input.len())?;
        out.width = pool.output().len();
        out.offsets.clear();
        out.offsets.push(0);
        out.times.clear();
        out.units.clear();
        source.clear();
        let mut merged: Vec<(u64, u32)> = Vec::new();
        for sample in samples(input) {
            merged.clear();
            merged.extend(sample.filter_map(|event| {
                let (unit, _) = pool.target(input.units[event] as usize)?;
                Some((Spike::new(input.times[event], unit as u32, 0.0).key, event as u32))
            }));
            // Times ascend already; only units at one instant may have to change places.
            merged.sort_by_key(|m| m.0);
            out.times.extend(merged.iter().map(|m| f32::from_bits((m.0 >> 32) as u32)));
            out.units.extend(merged.iter().map(|m| m.0 as u32));
            source.extend(merged.iter().map(|m| m.1));
            out.offsets.push(out.times.len() as u32);
        }
        Ok(())
    }

    fn merge_trains_grad(&self, source: &Vec<u32>, grad: &Vec<f32>, grad_input: &mut Vec<f32>) -> Result<()> {
        check_len("merge_trains_grad", "grad", grad.len(), source.len())?;
        grad_input.fill(0.0);
        for (&event, &g) in source.iter().zip(grad) {
            grad_input[event as usize] = g;
        }
        Ok(())
    }

    fn read_trains(&self, readout: &TrainReadout, trains: &Trains<Self>, values: &mut Vec<f32>) -> Result<()> {
        check_len("read_trains", "values", values.len(), samples(trains).len() * trains.width)?;
        let empty = match *readout {
            TrainReadout::FirstSpike { .. } => f32::NEG_INFINITY,
            TrainReadout::FirstTime { .. } => f32::NAN,
            TrainReadout::Count | TrainReadout::Decay { .. } => 0.0,
        };
        values.fill(empty);
        for (values, events) in values.chunks_mut(trains.width.max(1)).zip(samples(trains)) {
            for event in events {
                let (value, time) = (&mut values[trains.units[event] as usize], trains.times[event]);
                match *readout {
                    TrainReadout::FirstSpike { tau } if *value == f32::NEG_INFINITY => *value = -time / tau as f32,
                    TrainReadout::FirstTime { .. } if value.is_nan() => *value = -time,
                    TrainReadout::FirstSpike { .. } | TrainReadout::FirstTime { .. } => {}
                    TrainReadout::Count => *value += 1.0,
                    TrainReadout::Decay { rate, .. } => *value += (-rate as f32 * time).exp(),
                }
            }
        }
        if let TrainReadout::FirstTime { missing } = *readout {
            values.iter_mut().filter(|v| v.is_nan()).for_each(|v| *v = -missing as f32);
        }
        Ok(())
    }

    fn read_trains_grad(
        &self,
        readout: &TrainReadout,
        trains: &Trains<Self>,
        grad_values: &Vec<f32>,
        grad: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "read_trains_grad";
        check_len(OP, "grad_values", grad_values.len(), samples(trains).len() * trains.width)?;
        check_len(OP, "grad", grad.len(), trains.times.len())?;
        let mut fired = vec![false; trains.width];
        for (values, events) in grad_values.chunks(trains.width.max(1)).zip(samples(trains)) {
            fired.fill(false);
            for event in events {
                let (unit, time) = (trains.units[event] as usize, trains.times[event]);
                let g = if values[unit].is_finite() { values[unit] } else { 0.0 };
                let later = std::mem::replace(&mut fired[unit], true);
                grad[event] = match *readout {
                    TrainReadout::FirstSpike { .. } | TrainReadout::FirstTime { .. } if later => 0.0,
                    TrainReadout::FirstSpike { tau } => -g / tau as f32,
                    TrainReadout::Decay { rate, exact: true } => -g * rate as f32 * (-rate as f32 * time).exp(),
                    TrainReadout::FirstTime { .. } | TrainReadout::Count | TrainReadout::Decay { .. } => -g,
                };
            }
        }
        Ok(())
    }

    fn spike_time_loss(
        &self,
        trains: &Trains<Self>,
        targets: &Vec<f32>,
        missing: f64,
        losses: &mut Vec<f32>,
        grad: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "spike_time_loss";
        let rows = samples(trains).len() * trains.width;
        let slots = targets.len() / rows.max(1);
        check_len(OP, "targets", targets.len(), rows * slots.max(1))?;
        check_len(OP, "losses", losses.len(), samples(trains).len())?;
        check_len(OP, "grad", grad.len(), trains.times.len())?;
        let or_missing = |t: f32| if t.is_finite() { t } else { missing as f32 };
        let mut counts = vec![0_usize; trains.width];
        for (b, events) in samples(trains).into_iter().enumerate() {
            let target = |unit: usize, k: usize| or_missing(targets[(b * trains.width + unit) * slots + k]);
            counts.fill(0);
            let mut firsts = vec![missing as f32; trains.width];
            for event in events {
                let (unit, time) = (trains.units[event] as usize, trains.times[event]);
                let k = counts[unit];
                counts[unit] += 1;
                if k == 0 {
                    firsts[unit] = time;
                }
                grad[event] = if k < slots { time - target(unit, k) } else { 0.0 };
            }
            losses[b] = firsts.iter().enumerate().map(|(n, t)| 0.5 * (target(n, 0) - t) * (target(n, 0) - t)).sum();
        }
        Ok(())
    }

    fn scale_synapses(&self, amount: &Vec<f32>, weight: &Vec<f32>, grad_weight: &mut Vec<f32>) -> Result<()> {
        check_len("scale_synapses", "grad_weight", grad_weight.len(), weight.len())?;
        let rows = grad_weight.chunks_mut(amount.len().max(1)).zip(weight.chunks(amount.len().max(1)));
        for (grad, weight) in rows {
            grad.iter_mut().zip(weight).zip(amount).for_each(|((g, w), a)| *g -= a * w.abs());
        }
        Ok(())
    }

    fn count_trains(&self, trains: &Trains<Self>, counts: &mut Vec<u32>) -> Result<()> {
        check_len("count_trains", "counts", counts.len(), samples(trains).len() * trains.width)?;
        counts.fill(0);
        for (counts, events) in counts.chunks_mut(trains.width.max(1)).zip(samples(trains)) {
            trains.units[events].iter().for_each(|&unit| counts[unit as usize] += 1);
        }
        Ok(())
    }
}

/// The gradient on the weights: every task sums a tile over a part of the batch, in a buffer of that tile.
fn weight_grad(cut: Cut, walks: &[Walks], drives: &[Drives], grad_weight: &mut [f32]) {
    let parts = cut.parts(walks.len());
    let rows = grad_weight.len() / cut.lanes.max(1);
    let sums: Vec<Vec<f32>> = (0..cut.tiles * parts)
        .into_par_iter()
        .map(|task| {
            let (tile, part) = (task / parts, task % parts);
            let lanes = cut.tile(tile).len();
            let mut sums = vec![0.0_f32; rows * lanes.next_multiple_of(GROUP)];
            let batch = walks.len() * part / parts..walks.len() * (part + 1) / parts;
            simd::run(
                #[inline(always)]
                || {
                    for (walks, drives) in walks[batch.clone()].iter().zip(&drives[batch]) {
                        for site in 0..cut.sites {
                            let (walk, drives) = (walks.site(site), drives.of(cut, site, tile));
                            for_groups!(lanes, sum_back(&walk, drives, &mut sums));
                        }
                    }
                },
            );
            sums
        })
        .collect();
    grad_weight.par_chunks_mut(cut.lanes).enumerate().for_each(|(row, out)| {
        for (tile, parts) in sums.chunks(parts).enumerate() {
            let lanes = cut.tile(tile);
            let stride = lanes.len().next_multiple_of(GROUP);
            let own = row * stride..row * stride + lanes.len();
            let out = &mut out[lanes];
            out.copy_from_slice(&parts[0][own.clone()]);
            for part in &parts[1..] {
                out.iter_mut().zip(&part[own.clone()]).for_each(|(o, p)| *o += p);
            }
        }
    });
}

/// Adds what one site and tile of a sample contribute to the gradient on the weights.
#[inline(always)]
fn sum_back<const GROUPS: usize>(walk: &Walk<'_>, drives: &[Drive], sums: &mut [f32]) {
    walk_back::<GROUPS>(
        walk,
        drives,
        #[inline(always)]
        |at, slow, fast| {
            let row = &mut sums[walk.rows[at] as usize * GROUPS * GROUP..][..GROUPS * GROUP];
            for ((row, slow), fast) in row.chunks_exact_mut(GROUP).zip(slow).zip(fast) {
                for i in 0..GROUP {
                    row[i] += fast[i] - slow[i];
                }
            }
        },
    );
}

/// The gradient on the times of one sample's input events.
#[inline(always)]
fn input_grad(cut: Cut, tau: f32, rows: &Rows<'_>, walks: &Walks, drives: &Drives, grad: &mut [f32]) {
    grad.fill(0.0);
    for site in 0..cut.sites {
        let walk = walks.site(site);
        for tile in 0..cut.tiles {
            let (lanes, drives) = (cut.tile(tile), drives.of(cut, site, tile));
            for_groups!(lanes.len(), pull_back(&walk, drives, rows, lanes.start, tau, grad));
        }
    }
}

/// Adds what one site and tile contribute to it.
#[inline(always)]
fn pull_back<const GROUPS: usize>(
    walk: &Walk<'_>,
    drives: &[Drive],
    rows: &Rows<'_>,
    lane: usize,
    tau: f32,
    grad: &mut [f32],
) {
    walk_back::<GROUPS>(
        walk,
        drives,
        #[inline(always)]
        |at, slow, fast| {
            let row = &rows.weights[walk.rows[at] as usize * rows.stride + lane..][..GROUPS * GROUP];
            let mut sums = [0.0_f32; GROUP];
            for ((row, slow), fast) in row.chunks_exact(GROUP).zip(slow).zip(fast) {
                for i in 0..GROUP {
                    sums[i] += row[i] * (2.0 * fast[i] - slow[i]);
                }
            }
            grad[walk.events[at] as usize] += sums.iter().sum::<f32>() / tau;
        },
    );
}
