//! Adaptive leaky integrate-and-fire neurons with an absolute refractory period (arXiv 2311.11390).
//!
//! With the refractory period of `L` steps, `K = L + 1`, current `I`, and all sums over time from nothing:
//!
//! ```text
//! q[t] = I[t] + W s[t-K]        recurrent connections take K steps
//! q[t] = 0 if the neuron fired in one of the L steps before t
//! v[t] = beta v[t-1] (1 - s[t-1]) + q[t]                                                  (ALF-1)
//! theta[t] = 1 + b a[t];   s[t] = 1 if v[t] > theta[t] else 0                             (ALF-2)
//! a[t+1] = p a[t] + s[t]                                                                  (ALF-3)
//! ```
//!
//! In K steps in a row a neuron fires at most once, which is what the block model rests on: it looks at K steps at a
//! time. With `u` the membrane that is not reset inside a block and `al` the adaptation without the block's own spike,
//!
//! ```text
//! u[j] = beta u[j-1] + q[j];   f[j] = 1 if u[j] > 1 + b al[j];   al[j] = p al[j-1]        (ALF-4)
//! z[j] = sum over l <= j of (j - l + 1) f[l];   s[j] = 1 if z[j] = 1                      (ALF-5)
//! ```
//!
//! and the next block begins with the membrane of the last step, 0 after a spike, and the adaptation with the spike in
//! it. Both give the same spikes; their gradients differ ([`AlifGradient`]). Backward, with `g` the incoming gradient
//! and `t` falling, the steps give
//!
//! ```text
//! ds = g[t] + da - v[t] dr + W dq[t+K];   e = ds S'(v[t] - theta[t]);   dv = e + (1 - s[t]) dr
//! da = p da - b e;   dq[t] = dv unless refractory;   dr = beta dv
//! dL/dbeta += dv v[t-1] (1 - s[t-1]);   dL/dp += da a[t], the da of before;   dL/db -= e a[t]
//! ```
//!
//! without the terms `da`, `v dr`, `W dq` of detached paths, and the blocks
//!
//! ```text
//! e[j] = c2 S'(u[j] - theta[j]),   c2 the gradient summed twice from the block's end back to j
//! lam = e[j] + beta lam;   dq[j] = lam unless refractory
//! ```
//!
//! so that their gradients are larger by about `K^2 / 2`. The published block model divides by `p` to carry the
//! adaptation over a spike and is not a number at `p = 0`; the carry here is that of (ALF-3).

use crate::neurons::lif::Path;
use crate::real::Real;
use crate::surrogate::Surrogate;

/// What the gradient of a constant does where the constant is at a limit or beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitGradient {
    /// It is 0 there, as published: what has left its range never comes back, and what starts at a limit never learns.
    Open,
    /// It passes where its descent leads back inside.
    Inward,
}

/// The ranges that stored constants are clipped to when they are used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Of beta.
    pub beta: [f64; 2],
    /// Of p, after taking the magnitude.
    pub decay: [f64; 2],
    /// Of b, after taking the magnitude.
    pub strength: [f64; 2],
    /// What gradients do there.
    pub gradient: LimitGradient,
}

impl Limits {
    /// The published ranges.
    pub const PUBLISHED: Self =
        Self { beta: [0.001, 0.999], decay: [0.0, 0.999], strength: [0.001, 1.0], gradient: LimitGradient::Open };

    /// Beta as used; a dual number keeps its derivative strictly inside.
    pub fn beta<R: Real>(&self, raw: R) -> R {
        clip(raw, self.beta)
    }

    /// p as used.
    pub fn decay<R: Real>(&self, raw: R) -> R {
        clip(raw.abs(), self.decay)
    }

    /// b as used.
    pub fn strength<R: Real>(&self, raw: R) -> R {
        clip(raw.abs(), self.strength)
    }

    /// The gradient on a stored beta from that on the one in use.
    pub fn on_beta<R: Real>(&self, raw: R, grad: R) -> R {
        grad * self.pass(raw, grad, self.beta)
    }

    /// The gradient on a stored p.
    pub fn on_decay<R: Real>(&self, raw: R, grad: R) -> R {
        grad * self.sign(raw) * self.pass(raw.abs(), grad, self.decay)
    }

    /// The gradient on a stored b.
    pub fn on_strength<R: Real>(&self, raw: R, grad: R) -> R {
        grad * self.sign(raw) * self.pass(raw.abs(), grad, self.strength)
    }

    /// The derivative of the magnitude. Where gradients point inward, that at 0 is 1, so that 0 can be left.
    fn sign<R: Real>(&self, raw: R) -> R {
        if raw > R::ZERO {
            R::ONE
        } else if raw < R::ZERO {
            -R::ONE
        } else {
            R::lit(f64::from(u8::from(self.gradient == LimitGradient::Inward)))
        }
    }

    fn pass<R: Real>(&self, x: R, grad: R, [low, high]: [f64; 2]) -> R {
        let (low, high) = (R::lit(low), R::lit(high));
        let inside = x > low && x < high;
        let inward = x <= low && grad < R::ZERO || x >= high && grad > R::ZERO;
        if inside || inward && self.gradient == LimitGradient::Inward { R::ONE } else { R::ZERO }
    }
}

fn clip<R: Real>(x: R, [low, high]: [f64; 2]) -> R {
    let (low, high) = (R::lit(low), R::lit(high));
    if x <= low {
        low
    } else if x >= high {
        high
    } else {
        x
    }
}

/// Which function the backward pass is the gradient of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlifGradient {
    /// Of the steps, one by one.
    Steps {
        /// Spikes as they reset the membrane and feed other neurons.
        spikes: Path,
        /// Spikes as they raise thresholds; always attached in the published code.
        adaptation: Path,
    },
    /// Of the block model: every crossing of the threshold counts, with the weight of (ALF-5).
    Blocks {
        /// Spikes as they feed other neurons and raise thresholds.
        spikes: Path,
    },
}

/// The constants of a population of adaptive neurons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlifNeuron {
    /// Slope of the spike function in the backward pass.
    pub surrogate: Surrogate,
    /// The refractory period L in steps; recurrent connections take L + 1.
    pub refractory: u32,
    /// Whether thresholds rise with every spike.
    pub adapts: bool,
    /// Whether the neurons feed each other.
    pub recurrent: bool,
    /// The backward pass.
    pub gradient: AlifGradient,
    /// Clips of the stored constants.
    pub limits: Limits,
}

impl AlifNeuron {
    /// Steps in a row in which a neuron fires at most once, K.
    #[inline(always)]
    #[must_use]
    pub const fn block(&self) -> usize {
        self.refractory as usize + 1
    }

    /// Whether the membrane of the forward pass is that of the block model.
    #[must_use]
    pub const fn in_blocks(&self) -> bool {
        matches!(self.gradient, AlifGradient::Blocks { .. })
    }
}

/// What the neurons of a layer share or own, as used: slices of N entries, or `[N, N]` by source and target.
#[derive(Debug, Clone, Copy)]
pub struct Constants<'a, R> {
    /// beta of each neuron.
    pub beta: &'a [R],
    /// p of each neuron.
    pub decay: &'a [R],
    /// b of each neuron.
    pub strength: &'a [R],
    /// W, `[source, target]`; empty without recurrence.
    pub weight: &'a [R],
}

/// One sample of a forward pass, each field `[T, N]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace<R> {
    /// v, or u of the block model: what the adjoint needs.
    pub state: Vec<R>,
    /// theta.
    pub threshold: Vec<R>,
    /// s.
    pub spikes: Vec<R>,
}

/// The state of every neuron between two steps.
struct Carry<R> {
    /// The membrane after the reset.
    membrane: Vec<R>,
    /// The adaptation of the next step.
    adaptation: Vec<R>,
    /// Steps that the neuron still waits.
    wait: Vec<usize>,
}

/// Runs one sample; recurrence couples its neurons. `current` is `[T, N]`.
///
/// ```
/// use snn_core::Surrogate;
/// use snn_core::neurons::alif::{AlifGradient, AlifNeuron, Constants, Limits, trace};
/// use snn_core::neurons::lif::Path;
/// let neuron = AlifNeuron {
///     surrogate: Surrogate::MULTI_GAUSSIAN,
///     refractory: 1,
///     adapts: true,
///     recurrent: false,
///     gradient: AlifGradient::Steps { spikes: Path::Detached, adaptation: Path::Attached },
///     limits: Limits::PUBLISHED,
/// };
/// let c = Constants { beta: &[0.5], decay: &[0.5], strength: &[1.0], weight: &[] };
/// let run = trace(&neuron, &c, &[1.5_f64; 5]);
/// assert_eq!(run.spikes, [1.0, 0.0, 0.0, 1.0, 0.0]);
/// assert_eq!(run.threshold, [1.0, 2.0, 1.5, 1.25, 2.125]);
/// ```
pub fn trace<R: Real>(neuron: &AlifNeuron, c: &Constants<'_, R>, current: &[R]) -> Trace<R> {
    let width = c.beta.len().max(1);
    let steps = current.len() / width;
    let mut carry = Carry { membrane: vec![R::ZERO; width], adaptation: vec![R::ZERO; width], wait: vec![0; width] };
    let mut out = Trace { state: current.to_vec(), threshold: current.to_vec(), spikes: vec![R::ZERO; current.len()] };
    match neuron.gradient {
        AlifGradient::Steps { spikes, adaptation } => {
            for t in 0..steps {
                feed(neuron, c, spikes, t, &mut out);
                step(neuron, c, [spikes, adaptation], t, &mut carry, &mut out);
            }
        }
        AlifGradient::Blocks { spikes } => {
            for start in (0..steps).step_by(neuron.block()) {
                let end = (start + neuron.block()).min(steps);
                (start..end).for_each(|t| feed(neuron, c, spikes, t, &mut out));
                block(neuron, c, spikes, start..end, &mut carry, &mut out);
            }
        }
    }
    out
}

fn along<R: Real>(path: Path, s: R) -> R {
    match path {
        Path::Attached => s,
        Path::Detached => s.detach(),
    }
}

/// Adds what the neurons sent each other K steps ago to the current of step `t`.
fn feed<R: Real>(neuron: &AlifNeuron, c: &Constants<'_, R>, path: Path, t: usize, out: &mut Trace<R>) {
    let width = c.beta.len();
    if let (true, Some(past)) = (neuron.recurrent, t.checked_sub(neuron.block())) {
        for n in 0..width {
            for m in 0..width {
                out.state[t * width + n] += along(path, out.spikes[past * width + m]) * c.weight[m * width + n];
            }
        }
    }
}

/// theta, from b and a.
#[inline(always)]
pub fn threshold<R: Real>(neuron: &AlifNeuron, strength: R, adaptation: R) -> R {
    if neuron.adapts { R::ONE + strength * adaptation } else { R::ONE }
}

/// (ALF-1) to (ALF-3) for all neurons.
fn step<R: Real>(
    neuron: &AlifNeuron,
    c: &Constants<'_, R>,
    [spikes, adaptation]: [Path; 2],
    t: usize,
    carry: &mut Carry<R>,
    out: &mut Trace<R>,
) {
    for n in 0..c.beta.len() {
        let i = t * c.beta.len() + n;
        let drive = if carry.wait[n] > 0 { R::ZERO } else { out.state[i] };
        let v = c.beta[n] * carry.membrane[n] + drive;
        let limit = threshold(neuron, c.strength[n], carry.adaptation[n]);
        let s = v.spike(limit, &neuron.surrogate);
        carry.wait[n] = if s.value() > 0.0 { neuron.refractory as usize } else { carry.wait[n].saturating_sub(1) };
        carry.membrane[n] = v * (R::ONE - along(spikes, s));
        carry.adaptation[n] = c.decay[n] * carry.adaptation[n] + along(adaptation, s);
        (out.state[i], out.threshold[i], out.spikes[i]) = (v, limit, s);
    }
}

/// (ALF-4) and (ALF-5) for one block of all neurons.
fn block<R: Real>(
    neuron: &AlifNeuron,
    c: &Constants<'_, R>,
    path: Path,
    steps: std::ops::Range<usize>,
    carry: &mut Carry<R>,
    out: &mut Trace<R>,
) {
    let (width, len) = (c.beta.len(), steps.len());
    for n in 0..width {
        let (mut u, mut al) = (carry.membrane[n], carry.adaptation[n]);
        // How often it crossed so far, and the sum of that: z.
        let (mut crossed, mut z) = (R::ZERO, R::ZERO);
        let (mut first, mut held) = (None, R::ZERO);
        for (j, t) in steps.clone().enumerate() {
            let i = t * width + n;
            let drive = if j < carry.wait[n] { R::ZERO } else { out.state[i] };
            u = c.beta[n] * u + drive;
            let limit = threshold(neuron, c.strength[n], al);
            crossed += u.spike(limit, &neuron.surrogate);
            z += crossed;
            let fires = z.value() == 1.0;
            let s = z.straight_through(f64::from(u8::from(fires)));
            if fires {
                first = Some(j);
            }
            held += al * along(path, s);
            (out.state[i], out.threshold[i], out.spikes[i]) = (u, limit, s);
            al = c.decay[n] * al;
        }
        (carry.membrane[n], carry.adaptation[n], carry.wait[n]) = match first {
            None => (u, al, 0),
            Some(first) => {
                let power = (first + 1..len).fold(R::ONE, |power, _| power * c.decay[n]);
                (R::ZERO, c.decay[n] * power * held + power, first)
            }
        };
    }
}

/// What an adjoint reads off the state of a neuron again, one entry for each step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replay<R> {
    /// a, or al of the block model.
    pub adaptation: Vec<R>,
    /// Whether the input was taken.
    pub taken: Vec<bool>,
    /// Whether the neuron fired.
    pub fired: Vec<bool>,
    /// The adaptation with the block's own spike in it; that of the steps is `adaptation`.
    pub risen: Vec<R>,
}

/// Replays one neuron from its state, `[T]`; `decay` and `strength` as used.
pub fn replay<R: Real>(neuron: &AlifNeuron, decay: R, strength: R, state: impl Iterator<Item = R>) -> Replay<R> {
    let mut out = Replay { adaptation: vec![], taken: vec![], fired: vec![], risen: vec![] };
    let (mut al, mut a, mut wait, mut spent) = (R::ZERO, R::ZERO, 0, false);
    for (t, x) in state.enumerate() {
        if !neuron.in_blocks() || t.is_multiple_of(neuron.block()) {
            (al, spent) = (a, false);
        }
        let fires = x > threshold(neuron, strength, al) && !spent;
        out.adaptation.push(al);
        out.risen.push(a);
        out.taken.push(wait == 0);
        out.fired.push(fires);
        // In the block of the spike the block model goes on as if there had been none.
        wait = match fires {
            true => neuron.refractory as usize,
            false => usize::saturating_sub(wait, 1),
        };
        spent |= fires;
        a = decay * a + if fires { R::ONE } else { R::ZERO };
        al = decay * al;
    }
    if neuron.in_blocks() {
        untake(neuron, &mut out);
    }
    out
}

/// The block model takes its input to the end of the block in which it fired.
fn untake<R>(neuron: &AlifNeuron, replay: &mut Replay<R>) {
    for (taken, fired) in replay.taken.chunks_mut(neuron.block()).zip(replay.fired.chunks(neuron.block())) {
        if let Some(first) = fired.iter().position(|&f| f) {
            taken[first + 1..].fill(true);
        }
    }
}

/// The gradients that the adjoint gives for one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Adjoint<R> {
    /// On the current, `[T, N]`.
    pub current: Vec<R>,
    /// On beta as used, `[N]`.
    pub beta: Vec<R>,
    /// On p as used, `[N]`.
    pub decay: Vec<R>,
    /// On b as used, `[N]`.
    pub strength: Vec<R>,
}

/// The adjoint for one sample from its state; incoming gradients `[T, N]`. The gradient on W is the sum over t of
/// `s[t-K] dq[t]`.
pub fn adjoint<R: Real>(
    neuron: &AlifNeuron,
    c: &Constants<'_, R>,
    state: &[R],
    grad_spikes: &[R],
    grad_membrane: Option<&[R]>,
) -> Adjoint<R> {
    let width = c.beta.len().max(1);
    let steps = state.len() / width;
    let replays: Vec<Replay<R>> = (0..c.beta.len())
        .map(|n| replay(neuron, c.decay[n], c.strength[n], state.iter().skip(n).step_by(width).copied()))
        .collect();
    let zeros = || vec![R::ZERO; c.beta.len()];
    let mut out = Adjoint { current: vec![R::ZERO; state.len()], beta: zeros(), decay: zeros(), strength: zeros() };
    let (spikes, in_blocks) = match neuron.gradient {
        AlifGradient::Steps { spikes, .. } => (spikes, false),
        AlifGradient::Blocks { spikes } => (spikes, true),
    };
    let fed_back = neuron.recurrent && spikes == Path::Attached;
    let mut later: [Vec<R>; 2] = [zeros(), zeros()];
    let stride = if in_blocks { neuron.block() } else { 1 };
    for start in (0..steps).step_by(stride).rev() {
        let span = start..(start + stride).min(steps);
        for n in 0..c.beta.len() {
            let grads: Vec<R> = span
                .clone()
                .map(|t| {
                    let back = t + neuron.block();
                    let fed = (0..if fed_back && back < steps { width } else { 0 })
                        .fold(R::ZERO, |sum, m| sum + c.weight[n * width + m] * out.current[back * width + m]);
                    grad_spikes[t * width + n] + fed
                })
                .collect();
            let lane = Lane { n, width, replay: &replays[n], state, grads: &grads, grad_membrane };
            match in_blocks {
                true => lane.block(neuron, c, span.clone(), &mut later, &mut out),
                false => lane.step(neuron, c, start, &mut later, &mut out),
            }
        }
    }
    out
}

/// One neuron in a reverse pass.
struct Lane<'a, R> {
    n: usize,
    width: usize,
    replay: &'a Replay<R>,
    state: &'a [R],
    /// On the spikes of the steps at hand.
    grads: &'a [R],
    grad_membrane: Option<&'a [R]>,
}

impl<R: Real> Lane<'_, R> {
    fn slope(&self, neuron: &AlifNeuron, c: &Constants<'_, R>, t: usize) -> R {
        let limit = threshold(neuron, c.strength[self.n], self.replay.adaptation[t]);
        neuron.surrogate.slope(self.state[t * self.width + self.n] - limit)
    }

    fn on_membrane(&self, t: usize) -> R {
        self.grad_membrane.map_or(R::ZERO, |g| g[t * self.width + self.n])
    }

    /// One step back; `later` holds dr and da.
    fn step(&self, neuron: &AlifNeuron, c: &Constants<'_, R>, t: usize, later: &mut [Vec<R>; 2], out: &mut Adjoint<R>) {
        let AlifGradient::Steps { spikes, adaptation } = neuron.gradient else { return };
        let (n, i, a) = (self.n, t * self.width + self.n, self.replay.adaptation[t]);
        let [dr, da] = later.each_mut().map(|list| &mut list[n]);
        let mut ds = self.grads[0];
        if neuron.adapts && adaptation == Path::Attached {
            ds += *da;
        }
        if spikes == Path::Attached {
            ds -= self.state[i] * *dr;
        }
        let e = ds * self.slope(neuron, c, t);
        let kept = if self.replay.fired[t] { R::ZERO } else { *dr };
        let dv = e + kept + self.on_membrane(t);
        let before = t.checked_sub(1).filter(|&t| !self.replay.fired[t]);
        out.beta[n] += dv * before.map_or(R::ZERO, |t| self.state[t * self.width + n]);
        if neuron.adapts {
            out.decay[n] += *da * a;
            out.strength[n] -= e * a;
            *da = c.decay[n] * *da - c.strength[n] * e;
        }
        out.current[i] = if self.replay.taken[t] { dv } else { R::ZERO };
        *dr = c.beta[n] * dv;
    }

    /// One block back; `later` holds the gradients on the membrane and the adaptation that the next one began with.
    fn block(
        &self,
        neuron: &AlifNeuron,
        c: &Constants<'_, R>,
        steps: std::ops::Range<usize>,
        later: &mut [Vec<R>; 2],
        out: &mut Adjoint<R>,
    ) {
        let (n, end) = (self.n, steps.end);
        let [on_membrane, on_adaptation] = later.each_mut().map(|list| &mut list[n]);
        let (p, b, given) = (c.decay[n], c.strength[n], *on_adaptation);
        let first = steps.clone().find(|&t| self.replay.fired[t]);
        // p^(K - j0): what the adaptation at the spike is multiplied by.
        let power = first.map_or(R::ZERO, |first| (first..end).fold(R::ONE, |power, _| power * p));
        let attached = neuron.adapts && neuron.gradient == (AlifGradient::Blocks { spikes: Path::Attached });
        // The gradient on the adaptation with the spike in it, from the block's end back to the spike.
        let mut risen = given;
        let (mut lam, mut mu) = if first.is_some() { (R::ZERO, R::ZERO) } else { (*on_membrane, given) };
        let (mut once, mut twice) = (R::ZERO, R::ZERO);
        for t in steps.clone().rev() {
            let (i, al) = (t * self.width + n, self.replay.adaptation[t]);
            let extra = if attached { power * al * given } else { R::ZERO };
            once += self.grads[t - steps.start] + extra;
            twice += once;
            let e = twice * self.slope(neuron, c, t);
            lam = if t + 1 == end { lam } else { c.beta[n] * lam } + e + self.on_membrane(t);
            let before = match t.checked_sub(1) {
                Some(before) if t > steps.start => self.state[before * self.width + n],
                Some(before) if !self.spent_before(neuron, t) => self.state[before * self.width + n],
                _ => R::ZERO,
            };
            out.beta[n] += lam * before;
            out.current[i] = if self.replay.taken[t] { lam } else { R::ZERO };
            if neuron.adapts {
                out.strength[n] -= e * al;
                out.decay[n] += mu * al;
                mu = p * mu - b * e;
                if first.is_some_and(|first| t >= first) {
                    out.decay[n] += risen * self.replay.risen[t];
                    risen = p * risen;
                }
                if first == Some(t) {
                    mu += risen;
                }
            }
        }
        (*on_membrane, *on_adaptation) = (c.beta[n] * lam, mu);
    }

    /// Whether the neuron fired in the block that ends before step `start`.
    fn spent_before(&self, neuron: &AlifNeuron, start: usize) -> bool {
        self.replay.fired[start - neuron.block().min(start)..start].contains(&true)
    }
}
