//! Adaptive neurons as one pass over time, forward and reverse; equations in [`snn_core::neurons::alif`].
//!
//! The forward pass keeps the membrane alone. A reverse pass first replays adaptation and refractory periods from it,
//! tile by tile, so that the state it reads a second time is still in the cache.

use rayon::prelude::*;
use snn_core::backend::{AlifGrad, AlifOps, AlifParameters};
use snn_core::error::{Error, Result, check_len};
use snn_core::neurons::alif::{AlifGradient, AlifNeuron};
use snn_core::neurons::lif::Path;
use snn_core::{Lanes, Spikes};

use super::filters::add_row;
use super::{SILENT, TILE, pack_row, spikes_from_bits, transposed_product, with_slope, words};
use crate::memory::Cpu;
use crate::simd;

/// Neurons that a reverse pass takes at a time: replay, membrane and gradient of many steps stay in the second-level
/// cache.
const BACK: usize = 128;

/// A population, checked and spelled out.
#[derive(Debug)]
struct Plan<'a> {
    neuron: &'a AlifNeuron,
    lanes: Lanes,
    constants: Constants,
    /// `[source, target]`; empty without recurrence.
    weight: &'a [f32],
}

/// The constants of every neuron, as used; without adaptation p and b are 0.
#[derive(Debug)]
struct Constants {
    beta: Vec<f32>,
    decay: Vec<f32>,
    strength: Vec<f32>,
}

/// The same for a tile.
#[derive(Clone, Copy)]
struct Slices<'a> {
    beta: &'a [f32],
    decay: &'a [f32],
    strength: &'a [f32],
}

impl Constants {
    fn cut(&self, cut: std::ops::Range<usize>) -> Slices<'_> {
        Slices { beta: &self.beta[cut.clone()], decay: &self.decay[cut.clone()], strength: &self.strength[cut] }
    }
}

/// What a neuron remembers from step to step, a row each.
#[derive(Debug)]
struct Carry {
    /// The membrane, after a reset or of the block.
    membrane: Vec<f32>,
    /// The adaptation with every spike in it.
    risen: Vec<f32>,
    /// The adaptation without the spike of the block at hand.
    fallen: Vec<f32>,
    /// Steps to wait; in blocks, the first step of the block that is not refractory.
    wait: Vec<u32>,
    /// The step of the block's spike, [`SILENT`] without one.
    first: Vec<u32>,
    /// How far the membrane lies above the threshold, not positive where nothing fires.
    over: Vec<f32>,
}

impl Carry {
    fn new(width: usize) -> Self {
        let zeros = || vec![0.0; width];
        Self {
            membrane: zeros(),
            risen: zeros(),
            fallen: zeros(),
            wait: vec![0; width],
            first: vec![SILENT; width],
            over: zeros(),
        }
    }

    /// What is carried from one block to the next.
    #[inline(always)]
    fn close_block(&mut self) {
        close_row(&mut self.membrane, &mut self.wait, &mut self.first);
        self.fallen.copy_from_slice(&self.risen);
    }
}

impl<'a> Plan<'a> {
    fn new(
        op: &'static str,
        neuron: &'a AlifNeuron,
        lanes: Lanes,
        parameters: &AlifParameters<'a, Cpu>,
    ) -> Result<Self> {
        let width = lanes.width;
        for (name, list) in [("beta", parameters.beta), ("decay", parameters.decay), ("strength", parameters.strength)]
        {
            check_len(op, name, list.len(), width)?;
        }
        let weight: &[f32] = match (neuron.recurrent, parameters.recurrent) {
            (false, None) => &[],
            (true, Some(weight)) => {
                check_len(op, "recurrent weight", weight.len(), width * width)?;
                weight
            }
            (_, got) => {
                let want = "weights exactly if the neuron is recurrent";
                return Err(Error::shape(op, "recurrent", &[usize::from(got.is_some())], want));
            }
        };
        let limits = neuron.limits;
        let if_adapting = |x: f32| if neuron.adapts { x } else { 0.0 };
        let constants = Constants {
            beta: parameters.beta.iter().map(|&x| limits.beta(x)).collect(),
            decay: parameters.decay.iter().map(|&x| if_adapting(limits.decay(x))).collect(),
            strength: parameters.strength.iter().map(|&x| if_adapting(limits.strength(x))).collect(),
        };
        Ok(Self { neuron, lanes, constants, weight })
    }

    /// One sample forward, all its neurons or those of a tile. Recurrent neurons are taken all together and a block at
    /// a time: what arrives in a block was sent in the one before.
    #[inline(always)]
    fn forward(&self, cut: std::ops::Range<usize>, state: &mut [f32], bits: &mut [u32]) {
        let (width, row_words) = (self.lanes.width, words(self.lanes.width));
        let (c, mut carry) = (self.constants.cut(cut.clone()), Carry::new(cut.len()));
        let block = self.neuron.block();
        for start in (0..self.lanes.steps).step_by(block) {
            for t in start..(start + block).min(self.lanes.steps) {
                let row = &mut state[t * width..(t + 1) * width];
                if let (true, Some(sent)) = (self.neuron.recurrent, t.checked_sub(block)) {
                    add_fired(self.weight, &bits[sent * row_words..(sent + 1) * row_words], row);
                }
                let row = &mut row[cut.clone()];
                if self.neuron.in_blocks() {
                    block_row((t - start) as u32, &c, &mut carry, row);
                } else {
                    step_row(self.neuron.refractory, &c, &mut carry, row);
                }
                pack_row(0.0, &carry.over, &mut bits[t * row_words + cut.start / 32..]);
            }
            if self.neuron.in_blocks() {
                carry.close_block();
            }
        }
    }
}

/// Adds the weight rows of the neurons that fired.
#[inline(always)]
fn add_fired(weight: &[f32], fired: &[u32], row: &mut [f32]) {
    let width = row.len();
    for (w, &word) in fired.iter().enumerate() {
        let mut rest = word;
        while rest != 0 {
            let m = w * 32 + rest.trailing_zeros() as usize;
            add_row(&weight[m * width..(m + 1) * width], row);
            rest &= rest - 1;
        }
    }
}

#[inline(always)]
fn step_row(refractory: u32, c: &Slices<'_>, carry: &mut Carry, row: &mut [f32]) {
    let Carry { membrane, risen, wait, over, .. } = carry;
    step_lanes(refractory, c.beta, c.decay, c.strength, membrane, risen, wait, over, row);
}

/// One step of every neuron: the current becomes the membrane before the reset.
#[expect(clippy::too_many_arguments, reason = "only arguments are known not to overlap")]
#[inline(always)]
fn step_lanes(
    refractory: u32,
    beta: &[f32],
    decay: &[f32],
    strength: &[f32],
    membrane: &mut [f32],
    adaptation: &mut [f32],
    wait: &mut [u32],
    over: &mut [f32],
    row: &mut [f32],
) {
    let n = row.len();
    let (beta, decay, strength) = (&beta[..n], &decay[..n], &strength[..n]);
    let (membrane, adaptation, wait, over) = (&mut membrane[..n], &mut adaptation[..n], &mut wait[..n], &mut over[..n]);
    for k in 0..n {
        let drive = if wait[k] > 0 { 0.0 } else { row[k] };
        let v = beta[k] * membrane[k] + drive;
        over[k] = v - (1.0 + strength[k] * adaptation[k]);
        let fires = over[k] > 0.0;
        row[k] = v;
        membrane[k] = if fires { 0.0 } else { v };
        adaptation[k] = decay[k] * adaptation[k] + if fires { 1.0 } else { 0.0 };
        wait[k] = if fires { refractory } else { wait[k].saturating_sub(1) };
    }
}

#[inline(always)]
fn block_row(j: u32, c: &Slices<'_>, carry: &mut Carry, row: &mut [f32]) {
    let Carry { membrane, risen, fallen, wait, first, over } = carry;
    block_lanes(j, c.beta, c.decay, c.strength, membrane, risen, fallen, wait, first, over, row);
}

/// Step `j` of a block of every neuron: the current becomes the membrane without reset.
#[expect(clippy::too_many_arguments, reason = "only arguments are known not to overlap")]
#[inline(always)]
fn block_lanes(
    j: u32,
    beta: &[f32],
    decay: &[f32],
    strength: &[f32],
    membrane: &mut [f32],
    risen: &mut [f32],
    fallen: &mut [f32],
    wait: &[u32],
    first: &mut [u32],
    over: &mut [f32],
    row: &mut [f32],
) {
    let n = row.len();
    let (beta, decay, strength, wait) = (&beta[..n], &decay[..n], &strength[..n], &wait[..n]);
    let (membrane, risen, fallen) = (&mut membrane[..n], &mut risen[..n], &mut fallen[..n]);
    let (first, over) = (&mut first[..n], &mut over[..n]);
    for k in 0..n {
        let drive = if j < wait[k] { 0.0 } else { row[k] };
        let u = beta[k] * membrane[k] + drive;
        let above = u - (1.0 + strength[k] * fallen[k]);
        let fires = above > 0.0 && first[k] == SILENT;
        over[k] = if fires { 1.0 } else { 0.0 };
        first[k] = if fires { j } else { first[k] };
        (row[k], membrane[k]) = (u, u);
        risen[k] = decay[k] * risen[k] + over[k];
        fallen[k] *= decay[k];
    }
}

/// The end of a block: whoever fired begins the next one from 0 and waits until the place of its spike.
#[inline(always)]
fn close_row(membrane: &mut [f32], wait: &mut [u32], first: &mut [u32]) {
    let n = membrane.len();
    let (wait, first) = (&mut wait[..n], &mut first[..n]);
    for k in 0..n {
        let fired = first[k] != SILENT;
        membrane[k] = if fired { 0.0 } else { membrane[k] };
        wait[k] = if fired { first[k] } else { 0 };
        first[k] = SILENT;
    }
}

/// What one sample's reverse pass gives beside the gradient on the current: a row each.
#[derive(Debug, Default)]
struct Sums {
    current: Vec<f32>,
    beta: Vec<f32>,
    decay: Vec<f32>,
    strength: Vec<f32>,
}

impl Sums {
    fn new(width: usize) -> Self {
        let zeros = || vec![0.0; width];
        Self { current: zeros(), beta: zeros(), decay: zeros(), strength: zeros() }
    }
}

/// What one sample's reverse pass reads.
#[derive(Clone, Copy)]
struct Given<'a> {
    state: &'a [f32],
    membrane: Option<&'a [f32]>,
    /// W `[target, source]` if gradients flow back through it, otherwise empty.
    transposed: &'a [f32],
}

impl Given<'_> {
    /// What of the gradient on the membrane belongs to a tile of step `t`, if there is one.
    #[inline(always)]
    fn on_membrane<'a>(&'a self, at: usize, zeros: &'a [f32]) -> &'a [f32] {
        self.membrane.map_or(zeros, |m| &m[at..at + zeros.len()])
    }
}

impl Plan<'_> {
    /// Adds what flows back over the recurrent weights to the gradient of step `t`.
    #[inline(always)]
    fn fed_back(&self, transposed: &[f32], t: usize, grad: &mut [f32], back: &mut [f32]) {
        let (width, later) = (self.lanes.width, t + self.neuron.block());
        if !transposed.is_empty() && later < self.lanes.steps {
            let (head, tail) = grad.split_at_mut(later * width);
            transposed_product(transposed, &tail[..width], back);
            add_row(back, &mut head[t * width..(t + 1) * width]);
        }
    }

    /// One sample of the steps, back. `held` has room for the adaptation of every step of a tile.
    #[inline(always)]
    fn back_by_step(
        &self,
        cut: std::ops::Range<usize>,
        slope: impl Fn(f32) -> f32 + Copy,
        given: Given<'_>,
        grad: &mut [f32],
        sums: &mut Sums,
        held: &mut [f32],
    ) {
        let AlifGradient::Steps { spikes, adaptation } = self.neuron.gradient else { return };
        let attached = |path| if path == Path::Attached { 1.0 } else { 0.0 };
        let paths = [attached(spikes), attached(adaptation)];
        let (width, n) = (self.lanes.width, cut.len());
        let c = self.constants.cut(cut.clone());
        let mut wait = vec![0_u32; n];
        let mut now = vec![0.0_f32; n];
        for t in 0..self.lanes.steps {
            let u = &given.state[t * width + cut.start..t * width + cut.end];
            hold_row(
                self.neuron.refractory,
                c.decay,
                c.strength,
                u,
                &mut now,
                &mut wait,
                &mut held[t * n..(t + 1) * n],
            );
        }
        let zeros = vec![0.0; n];
        let (mut on_reset, mut on_adaptation) = (zeros.clone(), zeros.clone());
        let mut before = zeros.clone();
        let mut back = vec![0.0; if given.transposed.is_empty() { 0 } else { width }];
        for t in (0..self.lanes.steps).rev() {
            self.fed_back(given.transposed, t, grad, &mut back);
            let at = t * width + cut.start;
            if t > 0 {
                let u = &given.state[at - width..at - width + n];
                reset_row(c.strength, u, &held[(t - 1) * n..t * n], &mut before);
            } else {
                before.fill(0.0);
            }
            step_back_row(
                slope,
                paths,
                &c,
                &given.state[at..at + n],
                &held[t * n..(t + 1) * n],
                &before,
                given.on_membrane(at, &zeros),
                &mut on_reset,
                &mut on_adaptation,
                &mut grad[at..at + n],
                [&mut sums.current, &mut sums.beta, &mut sums.decay, &mut sums.strength].map(|s| &mut s[cut.clone()]),
            );
        }
    }

    /// One sample of the block model, back. `held` has room for two rows for each step of a block and each block.
    #[inline(always)]
    fn back_by_block(
        &self,
        cut: std::ops::Range<usize>,
        slope: impl Fn(f32) -> f32 + Copy,
        given: Given<'_>,
        grad: &mut [f32],
        sums: &mut Sums,
        held: &mut [f32],
    ) {
        let attached =
            if self.neuron.gradient == (AlifGradient::Blocks { spikes: Path::Attached }) { 1.0 } else { 0.0 };
        let (width, n, block) = (self.lanes.width, cut.len(), self.neuron.block().min(self.lanes.steps));
        let blocks = self.lanes.steps.div_ceil(block);
        let c = self.constants.cut(cut.clone());
        let row_of = |t: usize| t * width + cut.start..t * width + cut.end;
        // Where blocks begin: the adaptation, and until which step they wait (SILENT: there was no spike before).
        let (starts, rows) = held.split_at_mut(blocks * n);
        let mut waits = vec![SILENT; blocks * n];
        let (mut risen, mut fallen) = (vec![0.0_f32; n], vec![0.0_f32; n]);
        for i in 0..blocks {
            starts[i * n..(i + 1) * n].copy_from_slice(&risen);
            fallen.copy_from_slice(&risen);
            let mut first = vec![SILENT; n];
            for (j, t) in (i * block..((i + 1) * block).min(self.lanes.steps)).enumerate() {
                crossing_row(
                    j as u32,
                    c.decay,
                    c.strength,
                    &given.state[row_of(t)],
                    &mut risen,
                    &mut fallen,
                    &mut first,
                );
            }
            if i + 1 < blocks {
                waits[(i + 1) * n..(i + 2) * n].copy_from_slice(&first);
            }
        }
        let zeros = vec![0.0; n];
        let [mut lam, mut mu, mut on_risen, mut once, mut twice, mut e, mut power, mut before, mut on_carry] =
            std::array::from_fn(|_| zeros.clone());
        let mut first = vec![SILENT; n];
        let mut back = vec![0.0; if given.transposed.is_empty() { 0 } else { width }];
        let (fallen_rows, risen_rows) = rows.split_at_mut(block * n);
        for i in (0..blocks).rev() {
            let span = i * block..((i + 1) * block).min(self.lanes.steps);
            risen.copy_from_slice(&starts[i * n..(i + 1) * n]);
            fallen.copy_from_slice(&risen);
            first.fill(SILENT);
            power.fill(1.0);
            for (j, t) in span.clone().enumerate() {
                fallen_rows[j * n..(j + 1) * n].copy_from_slice(&fallen);
                risen_rows[j * n..(j + 1) * n].copy_from_slice(&risen);
                crossing_row(
                    j as u32,
                    c.decay,
                    c.strength,
                    &given.state[row_of(t)],
                    &mut risen,
                    &mut fallen,
                    &mut first,
                );
                power_row(c.decay, &first, &mut power);
            }
            open_row(&first, &mut lam, &mut mu, &mut on_risen, &mut on_carry, &mut power);
            once.fill(0.0);
            twice.fill(0.0);
            for (j, t) in span.clone().enumerate().rev() {
                self.fed_back(given.transposed, t, grad, &mut back);
                let at = t * width + cut.start;
                let wait = &waits[i * n..(i + 1) * n];
                match (t.checked_sub(1), j) {
                    (None, _) => before.fill(0.0),
                    (Some(t), 0) => unspent_row(wait, &given.state[row_of(t)], &mut before),
                    (Some(t), _) => before.copy_from_slice(&given.state[row_of(t)]),
                }
                block_back_row(
                    j as u32,
                    slope,
                    attached,
                    &c,
                    [&given.state[at..at + n], &fallen_rows[j * n..(j + 1) * n], &risen_rows[j * n..(j + 1) * n]],
                    &before,
                    given.on_membrane(at, &zeros),
                    [wait, &first],
                    [&power, &on_carry],
                    [&mut lam, &mut mu, &mut on_risen, &mut once, &mut twice, &mut e],
                    &mut grad[at..at + n],
                    [&mut sums.current, &mut sums.beta, &mut sums.decay, &mut sums.strength]
                        .map(|s| &mut s[cut.clone()]),
                );
            }
        }
    }
}

/// One step of the replay: the adaptation that a step began with, negative where the neuron waited.
#[inline(always)]
fn hold_row(
    refractory: u32,
    decay: &[f32],
    strength: &[f32],
    u: &[f32],
    adaptation: &mut [f32],
    wait: &mut [u32],
    held: &mut [f32],
) {
    let n = held.len();
    let (decay, strength, u) = (&decay[..n], &strength[..n], &u[..n]);
    let (adaptation, wait) = (&mut adaptation[..n], &mut wait[..n]);
    for k in 0..n {
        let fires = u[k] - (1.0 + strength[k] * adaptation[k]) > 0.0;
        held[k] = if wait[k] > 0 { -adaptation[k] } else { adaptation[k] };
        adaptation[k] = decay[k] * adaptation[k] + if fires { 1.0 } else { 0.0 };
        wait[k] = if fires { refractory } else { wait[k].saturating_sub(1) };
    }
}

/// The membrane after the reset.
#[inline(always)]
fn reset_row(strength: &[f32], u: &[f32], held: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (strength, u, held) = (&strength[..n], &u[..n], &held[..n]);
    for k in 0..n {
        let fired = u[k] - (1.0 + strength[k] * held[k].abs()) > 0.0;
        out[k] = if fired { 0.0 } else { u[k] };
    }
}

/// One step back of every neuron; `paths` are 1 where gradients flow through reset and adaptation, `sums` those over
/// the current, beta, p and b.
#[expect(clippy::too_many_arguments, reason = "only arguments are known not to overlap")]
#[inline(always)]
fn step_back_row(
    slope: impl Fn(f32) -> f32,
    paths: [f32; 2],
    c: &Slices<'_>,
    u: &[f32],
    held: &[f32],
    before: &[f32],
    on_membrane: &[f32],
    on_reset: &mut [f32],
    on_adaptation: &mut [f32],
    grad: &mut [f32],
    sums: [&mut [f32]; 4],
) {
    let [sum, on_beta, on_decay, on_strength] = sums;
    step_back_lanes(
        slope,
        paths,
        c.beta,
        c.decay,
        c.strength,
        u,
        held,
        before,
        on_membrane,
        on_reset,
        on_adaptation,
        grad,
        sum,
        on_beta,
        on_decay,
        on_strength,
    );
}

#[expect(clippy::too_many_arguments, reason = "only arguments are known not to overlap")]
#[inline(always)]
fn step_back_lanes(
    slope: impl Fn(f32) -> f32,
    [through_reset, through_adaptation]: [f32; 2],
    beta: &[f32],
    decay: &[f32],
    strength: &[f32],
    u: &[f32],
    held: &[f32],
    before: &[f32],
    on_membrane: &[f32],
    on_reset: &mut [f32],
    on_adaptation: &mut [f32],
    grad: &mut [f32],
    sum: &mut [f32],
    on_beta: &mut [f32],
    on_decay: &mut [f32],
    on_strength: &mut [f32],
) {
    let n = grad.len();
    let (beta, decay, strength) = (&beta[..n], &decay[..n], &strength[..n]);
    let (u, held, before, on_membrane) = (&u[..n], &held[..n], &before[..n], &on_membrane[..n]);
    let (on_reset, on_adaptation, sum) = (&mut on_reset[..n], &mut on_adaptation[..n], &mut sum[..n]);
    let (on_beta, on_decay, on_strength) = (&mut on_beta[..n], &mut on_decay[..n], &mut on_strength[..n]);
    for k in 0..n {
        let a = held[k].abs();
        let over = u[k] - (1.0 + strength[k] * a);
        let ds = grad[k] + through_adaptation * on_adaptation[k] - through_reset * u[k] * on_reset[k];
        let e = ds * slope(over);
        let dv = e + if over > 0.0 { 0.0 } else { on_reset[k] } + on_membrane[k];
        on_beta[k] += dv * before[k];
        on_decay[k] += on_adaptation[k] * a;
        on_strength[k] -= e * a;
        on_adaptation[k] = decay[k] * on_adaptation[k] - strength[k] * e;
        let q = if held[k].is_sign_negative() { 0.0 } else { dv };
        grad[k] = q;
        sum[k] += q;
        on_reset[k] = beta[k] * dv;
    }
}

/// Step `j` of a block in the replay.
#[inline(always)]
fn crossing_row(
    j: u32,
    decay: &[f32],
    strength: &[f32],
    u: &[f32],
    risen: &mut [f32],
    fallen: &mut [f32],
    first: &mut [u32],
) {
    let n = u.len();
    let (decay, strength) = (&decay[..n], &strength[..n]);
    let (risen, fallen, first) = (&mut risen[..n], &mut fallen[..n], &mut first[..n]);
    for k in 0..n {
        let fires = u[k] - (1.0 + strength[k] * fallen[k]) > 0.0 && first[k] == SILENT;
        first[k] = if fires { j } else { first[k] };
        risen[k] = decay[k] * risen[k] + if fires { 1.0 } else { 0.0 };
        fallen[k] *= decay[k];
    }
}

/// One more factor p for whoever has fired.
#[inline(always)]
fn power_row(decay: &[f32], first: &[u32], power: &mut [f32]) {
    let n = power.len();
    let (decay, first) = (&decay[..n], &first[..n]);
    for k in 0..n {
        power[k] *= if first[k] == SILENT { 1.0 } else { decay[k] };
    }
}

/// The end of a block, from behind: membrane and adaptation of the next one go on from here only where nothing fired.
#[inline(always)]
fn open_row(
    first: &[u32],
    lam: &mut [f32],
    mu: &mut [f32],
    on_risen: &mut [f32],
    on_carry: &mut [f32],
    power: &mut [f32],
) {
    let n = lam.len();
    let (first, mu, on_risen) = (&first[..n], &mut mu[..n], &mut on_risen[..n]);
    let (on_carry, power) = (&mut on_carry[..n], &mut power[..n]);
    for k in 0..n {
        let fired = first[k] != SILENT;
        on_carry[k] = mu[k];
        on_risen[k] = mu[k];
        lam[k] = if fired { 0.0 } else { lam[k] };
        mu[k] = if fired { 0.0 } else { mu[k] };
        power[k] = if fired { power[k] } else { 0.0 };
    }
}

/// The membrane that a block began with.
#[inline(always)]
fn unspent_row(wait: &[u32], u: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (wait, u) = (&wait[..n], &u[..n]);
    for k in 0..n {
        out[k] = if wait[k] == SILENT { u[k] } else { 0.0 };
    }
}

/// One step of a block back.
#[expect(clippy::too_many_arguments, reason = "only arguments are known not to overlap")]
#[inline(always)]
fn block_back_row(
    j: u32,
    slope: impl Fn(f32) -> f32,
    attached: f32,
    c: &Slices<'_>,
    [u, fallen, risen]: [&[f32]; 3],
    before: &[f32],
    on_membrane: &[f32],
    [wait, first]: [&[u32]; 2],
    [power, on_carry]: [&[f32]; 2],
    [lam, mu, on_risen, once, twice, e]: [&mut [f32]; 6],
    grad: &mut [f32],
    [sum, on_beta, on_decay, on_strength]: [&mut [f32]; 4],
) {
    gather_lanes(attached, power, fallen, on_carry, grad, once, twice);
    membrane_back_lanes(
        slope,
        j,
        c.beta,
        c.strength,
        u,
        fallen,
        before,
        on_membrane,
        wait,
        twice,
        lam,
        e,
        grad,
        sum,
        on_beta,
    );
    adaptation_back_lanes(j, c.decay, c.strength, fallen, risen, first, e, mu, on_risen, on_decay, on_strength);
}

/// The gradient on the spikes, summed twice from the end of the block.
#[inline(always)]
fn gather_lanes(
    attached: f32,
    power: &[f32],
    fallen: &[f32],
    on_carry: &[f32],
    grad: &[f32],
    once: &mut [f32],
    twice: &mut [f32],
) {
    let n = grad.len();
    let (power, fallen, on_carry) = (&power[..n], &fallen[..n], &on_carry[..n]);
    let (once, twice) = (&mut once[..n], &mut twice[..n]);
    for k in 0..n {
        once[k] += grad[k] + attached * power[k] * fallen[k] * on_carry[k];
        twice[k] += once[k];
    }
}

/// The membrane's part of a step of a block back; `e` receives what comes through the crossing of the threshold.
#[expect(clippy::too_many_arguments, reason = "only arguments are known not to overlap")]
#[inline(always)]
fn membrane_back_lanes(
    slope: impl Fn(f32) -> f32,
    j: u32,
    beta: &[f32],
    strength: &[f32],
    u: &[f32],
    fallen: &[f32],
    before: &[f32],
    on_membrane: &[f32],
    wait: &[u32],
    twice: &[f32],
    lam: &mut [f32],
    e: &mut [f32],
    grad: &mut [f32],
    sum: &mut [f32],
    on_beta: &mut [f32],
) {
    let n = grad.len();
    let (beta, strength, u, fallen, before) = (&beta[..n], &strength[..n], &u[..n], &fallen[..n], &before[..n]);
    let (on_membrane, wait, twice) = (&on_membrane[..n], &wait[..n], &twice[..n]);
    let (lam, e, sum, on_beta) = (&mut lam[..n], &mut e[..n], &mut sum[..n], &mut on_beta[..n]);
    for k in 0..n {
        e[k] = twice[k] * slope(u[k] - (1.0 + strength[k] * fallen[k]));
        let l = e[k] + beta[k] * lam[k] + on_membrane[k];
        let q = if wait[k] != SILENT && j < wait[k] { 0.0 } else { l };
        on_beta[k] += l * before[k];
        lam[k] = l;
        grad[k] = q;
        sum[k] += q;
    }
}

/// The adaptation's part of a step of a block back.
#[expect(clippy::too_many_arguments, reason = "only arguments are known not to overlap")]
#[inline(always)]
fn adaptation_back_lanes(
    j: u32,
    decay: &[f32],
    strength: &[f32],
    fallen: &[f32],
    risen: &[f32],
    first: &[u32],
    e: &[f32],
    mu: &mut [f32],
    on_risen: &mut [f32],
    on_decay: &mut [f32],
    on_strength: &mut [f32],
) {
    let n = mu.len();
    let (decay, strength, fallen, risen) = (&decay[..n], &strength[..n], &fallen[..n], &risen[..n]);
    let (first, e, on_risen) = (&first[..n], &e[..n], &mut on_risen[..n]);
    let (on_decay, on_strength) = (&mut on_decay[..n], &mut on_strength[..n]);
    for k in 0..n {
        let since = j >= first[k];
        let jump = decay[k] * on_risen[k];
        on_strength[k] -= e[k] * fallen[k];
        on_decay[k] += mu[k] * fallen[k] + if since { on_risen[k] * risen[k] } else { 0.0 };
        mu[k] = decay[k] * mu[k] - strength[k] * e[k] + if j == first[k] { jump } else { 0.0 };
        on_risen[k] = if since { jump } else { on_risen[k] };
    }
}

/// The threshold of every step of a tile.
#[inline(always)]
fn threshold_row(strength: &[f32], adaptation: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (strength, adaptation) = (&strength[..n], &adaptation[..n]);
    for k in 0..n {
        out[k] = 1.0 + strength[k] * adaptation[k].abs();
    }
}

impl AlifOps for Cpu {
    fn alif_forward(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &mut Vec<f32>,
        spikes: &mut Spikes,
    ) -> Result<()> {
        const OP: &str = "alif_forward";
        check_len(OP, "state", state.len(), lanes.len())?;
        let plan = Plan::new(OP, neuron, lanes, &parameters)?;
        let row_words = words(lanes.width);
        let mut bits = vec![0_u32; lanes.rows() * row_words];
        if !lanes.is_empty() {
            let tile = if neuron.recurrent { lanes.width } else { TILE };
            self.install(|| {
                let samples = state.par_chunks_mut(lanes.steps * lanes.width);
                samples.zip(bits.par_chunks_mut(lanes.steps * row_words)).for_each(|(state, bits)| {
                    for at in (0..lanes.width).step_by(tile) {
                        let cut = at..(at + tile).min(lanes.width);
                        simd::run(
                            #[inline(always)]
                            || plan.forward(cut.clone(), state, bits),
                        );
                    }
                });
            });
        }
        spikes_from_bits(self, lanes, &bits, spikes);
        Ok(())
    }

    fn alif_backward(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &Vec<f32>,
        grad: &mut Vec<f32>,
        grads: AlifGrad<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "alif_backward";
        check_len(OP, "state", state.len(), lanes.len())?;
        check_len(OP, "grad", grad.len(), lanes.len())?;
        let plan = Plan::new(OP, neuron, lanes, &parameters)?;
        let AlifGrad { membrane, current_sum, beta, decay, strength } = grads;
        if let Some(m) = membrane {
            check_len(OP, "grad_membrane", m.len(), lanes.len())?;
        }
        if let Some(sum) = &current_sum {
            check_len(OP, "current_sum", sum.len(), lanes.batch * lanes.width)?;
        }
        let (sample, width) = (lanes.steps * lanes.width, lanes.width);
        let (AlifGradient::Steps { spikes, .. } | AlifGradient::Blocks { spikes }) = neuron.gradient;
        let coupled = neuron.recurrent && spikes == Path::Attached;
        let transposed: Vec<f32> = match coupled {
            true => (0..width * width).map(|i| plan.weight[i % width * width + i / width]).collect(),
            false => Vec::new(),
        };
        // Neurons that gradients couple go back together.
        let tile = if coupled { width } else { BACK.min(width) };
        let block = neuron.block().min(lanes.steps);
        let rows = if neuron.in_blocks() { 2 * block + lanes.steps.div_ceil(block.max(1)) } else { lanes.steps };
        let mut sums: Vec<Sums> = (0..lanes.batch).map(|_| Sums::new(width)).collect();
        if !lanes.is_empty() {
            with_slope!(neuron.surrogate, slope => self.install(|| {
                grad.par_chunks_mut(sample).zip(&mut sums).enumerate().for_each(|(b, (grad, sums))| {
                    let own = b * sample..(b + 1) * sample;
                    let given = Given {
                        state: &state[own.clone()],
                        membrane: membrane.map(|m| &m[own]),
                        transposed: &transposed,
                    };
                    self.with_scratch(rows * tile, |held| {
                        for at in (0..width).step_by(tile) {
                            let cut = at..(at + tile).min(width);
                            simd::run(
                                #[inline(always)]
                                || match neuron.in_blocks() {
                                    true => plan.back_by_block(cut.clone(), slope, given, grad, sums, held),
                                    false => plan.back_by_step(cut.clone(), slope, given, grad, sums, held),
                                },
                            );
                        }
                    });
                });
            }));
        }
        if let Some(out) = current_sum {
            out.chunks_mut(width.max(1)).zip(&sums).for_each(|(out, s)| out.copy_from_slice(&s.current));
        }
        let total = |n: usize, of: fn(&Sums) -> &[f32]| sums.iter().map(|s| of(s)[n]).sum::<f32>();
        let limits = neuron.limits;
        if let Some(out) = beta {
            check_len(OP, "grad_beta", out.len(), width)?;
            (0..width).for_each(|n| out[n] = limits.on_beta(parameters.beta[n], total(n, |s| &s.beta)));
        }
        // What is not used has no gradient.
        let if_adapting = |x: f32| if neuron.adapts { x } else { 0.0 };
        if let Some(out) = decay {
            check_len(OP, "grad_decay", out.len(), width)?;
            let one = |n: usize| limits.on_decay(parameters.decay[n], if_adapting(total(n, |s| &s.decay)));
            (0..width).for_each(|n| out[n] = one(n));
        }
        if let Some(out) = strength {
            check_len(OP, "grad_strength", out.len(), width)?;
            let one = |n: usize| limits.on_strength(parameters.strength[n], if_adapting(total(n, |s| &s.strength)));
            (0..width).for_each(|n| out[n] = one(n));
        }
        Ok(())
    }

    fn alif_thresholds(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &Vec<f32>,
        thresholds: &mut Vec<f32>,
    ) -> Result<()> {
        const OP: &str = "alif_thresholds";
        check_len(OP, "state", state.len(), lanes.len())?;
        check_len(OP, "thresholds", thresholds.len(), lanes.len())?;
        let plan = Plan::new(OP, neuron, lanes, &parameters)?;
        let (sample, width) = (lanes.steps * lanes.width, lanes.width);
        let c = plan.constants.cut(0..width);
        let work = |state: &[f32], out: &mut [f32]| {
            let mut carry = Carry::new(width);
            for (t, (u, out)) in state.chunks(width).zip(out.chunks_mut(width)).enumerate() {
                let Carry { risen, fallen, wait, first, .. } = &mut carry;
                if neuron.in_blocks() {
                    if t % neuron.block() == 0 {
                        fallen.copy_from_slice(risen);
                        first.fill(SILENT);
                    }
                    threshold_row(c.strength, fallen, out);
                    crossing_row((t % neuron.block()) as u32, c.decay, c.strength, u, risen, fallen, first);
                } else {
                    hold_row(neuron.refractory, c.decay, c.strength, u, risen, wait, fallen);
                    threshold_row(c.strength, fallen, out);
                }
            }
        };
        if !lanes.is_empty() {
            self.install(|| {
                thresholds.par_chunks_mut(sample).zip(state.par_chunks(sample)).for_each(|(out, state)| {
                    simd::run(
                        #[inline(always)]
                        || work(state, out),
                    );
                });
            });
        }
        Ok(())
    }
}
