//! What a device can do: the [`Backend`] trait and the coarse traits that it is the sum of.
//!
//! Rules that every operation keeps:
//!
//! * results go into buffers of the caller; nothing is allocated inside a time loop;
//! * reductions have a fixed order, so the bits do not depend on the number of threads;
//! * no hidden synchronisation: only what gives numbers to the host waits, [`Memory::synchronise`], and operations that
//!   say so;
//! * buffers are flat, sizes are arguments, and a wrong size is an [`Error`](crate::Error), never a panic;
//! * `out` is overwritten unless a name ends in `_accumulate` or the documentation says "adds".

use std::fmt::Debug;

use crate::error::Result;
use crate::fit::{Raster, VanRossum};
use crate::neurons::alif::AlifNeuron;
use crate::neurons::block::BlockNeuron;
use crate::neurons::cuba::CubaNeuron;
use crate::neurons::event::EventNeuron;
use crate::neurons::lif::LifNeuron;
use crate::neurons::paralif::Firing;
use crate::neurons::ttfs::{Grid, Perturbation, TtfsNeuron};
use crate::random::SpikeDraws;
use crate::real::{Element, Real};
use crate::shape::{Borders, Conv, Lanes, Pool, Synapses};
use crate::signal::{Spikes, Trains};

/// Device memory.
pub trait Memory: Clone + Debug + Send + Sync + 'static {
    /// The scalar in which the device computes.
    type Real: Real;
    /// A flat array on the device.
    type Buffer<T: Element>: Debug + Send + Sync;
    /// Work that was queued once and can be queued again as a whole.
    type Recording: Debug + Send;

    /// The device in words, for reports: `cpu, 2 threads, avx2`.
    fn describe(&self) -> String;

    /// `len` zeros.
    ///
    /// # Errors
    ///
    /// [`Error::Device`](crate::Error::Device) if there is no memory left.
    fn zeros<T: Element>(&self, len: usize) -> Result<Self::Buffer<T>>;

    /// Entries of a buffer.
    fn len<T: Element>(&self, buffer: &Self::Buffer<T>) -> usize;

    /// Changes the length. Capacity only grows; contents are unspecified afterwards.
    ///
    /// # Errors
    ///
    /// As [`Memory::zeros`].
    fn resize<T: Element>(&self, buffer: &mut Self::Buffer<T>, len: usize) -> Result<()>;

    /// Copies from the host.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if the lengths differ.
    fn upload<T: Element>(&self, host: &[T], device: &mut Self::Buffer<T>) -> Result<()>;

    /// Copies to the host, after all work queued before.
    ///
    /// # Errors
    ///
    /// As [`Memory::upload`].
    fn download<T: Element>(&self, device: &Self::Buffer<T>, host: &mut [T]) -> Result<()>;

    /// Copies one buffer to another of the same length.
    ///
    /// # Errors
    ///
    /// As [`Memory::upload`].
    fn copy<T: Element>(&self, from: &Self::Buffer<T>, to: &mut Self::Buffer<T>) -> Result<()>;

    /// Sets every entry.
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn fill<T: Element>(&self, buffer: &mut Self::Buffer<T>, value: T) -> Result<()>;

    /// Waits for all queued work.
    ///
    /// # Errors
    ///
    /// If queued work failed.
    fn synchronise(&self) -> Result<()>;

    /// Records the work that a function queues, without doing it; nothing on a device that gains nothing by it, where the
    /// function is not called. A recording has the buffers and numbers of its making, and does not keep the buffers.
    ///
    /// The function must not wait for the device, copy from or to the host, or keep buffers that it makes. Nothing else may
    /// use the device meanwhile.
    ///
    /// # Errors
    ///
    /// The function's own, and if it did what cannot be recorded.
    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self::Recording>> {
        let _ = work;
        Ok(None)
    }

    /// Queues recorded work.
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn replay(&self, recording: &Self::Recording) -> Result<()>;

    /// Where a buffer lies, for telling whether a recording is of this buffer.
    fn place<T: Element>(&self, buffer: &Self::Buffer<T>) -> u64 {
        let _ = buffer;
        0
    }

    /// How many times a buffer grew out of its memory so far: recordings from before may have lost theirs.
    fn moves(&self) -> u64 {
        0
    }

    /// A new buffer with the host's values.
    ///
    /// # Errors
    ///
    /// As [`Memory::zeros`].
    fn buffer_from<T: Element>(&self, host: &[T]) -> Result<Self::Buffer<T>> {
        let mut buffer = self.zeros(host.len())?;
        self.upload(host, &mut buffer)?;
        Ok(buffer)
    }

    /// The buffer's values on the host.
    ///
    /// # Errors
    ///
    /// As [`Memory::download`].
    fn to_host<T: Element>(&self, buffer: &Self::Buffer<T>) -> Result<Vec<T>> {
        let mut host = vec![T::default(); self.len(buffer)];
        self.download(buffer, &mut host)?;
        Ok(host)
    }
}

/// Spikes on a device.
pub trait SpikeMemory: Memory {
    /// Sparse spikes or event counts `[B, T, N]`.
    type Spikes: Debug + Send + Sync;

    /// An empty container, to be written by the first operation that gives spikes.
    fn spikes(&self) -> Self::Spikes;

    /// Copies from the host.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    fn upload_spikes(&self, host: &Spikes, device: &mut Self::Spikes) -> Result<()>;

    /// Copies to the host.
    ///
    /// # Errors
    ///
    /// If queued work failed.
    fn download_spikes(&self, device: &Self::Spikes) -> Result<Spikes>;

    /// The size `[B, T, N]`.
    fn spike_lanes(&self, spikes: &Self::Spikes) -> Lanes;

    /// Events of each sample, `[B]`.
    ///
    /// # Errors
    ///
    /// If queued work failed.
    fn events_per_sample(&self, spikes: &Self::Spikes) -> Result<Vec<u32>>;

    /// Where spikes lie and in which form, for telling whether a recording is of these; see [`Memory::place`].
    fn place_of_spikes(&self, spikes: &Self::Spikes) -> Vec<u64> {
        let _ = spikes;
        vec![]
    }

    /// `out = a + b`, for skip connections.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if the sizes differ.
    fn add_spikes(&self, a: &Self::Spikes, b: &Self::Spikes, out: &mut Self::Spikes) -> Result<()>;

    /// `out[b, t] = spikes[b, t - late]`, nothing before step `late`: what a recurrent connection carries.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    fn delay_spikes(&self, spikes: &Self::Spikes, late: usize, out: &mut Self::Spikes) -> Result<()>;
}

/// A dense matrix product `c = op(a) op(b) (+ c)`, row-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gemm {
    /// Rows of `c`.
    pub m: usize,
    /// Columns of `c`.
    pub n: usize,
    /// Inner size.
    pub k: usize,
    /// `a` is stored `[k, m]`.
    pub transpose_a: bool,
    /// `b` is stored `[n, k]`.
    pub transpose_b: bool,
    /// Adds to `c` instead of overwriting it.
    pub accumulate: bool,
}

impl Gemm {
    /// `c[m, n] = a[m, k] b[k, n]`.
    #[must_use]
    pub const fn new(m: usize, n: usize, k: usize) -> Self {
        Self { m, n, k, transpose_a: false, transpose_b: false, accumulate: false }
    }

    /// With `a` stored `[k, m]`.
    #[must_use]
    pub const fn a_transposed(self) -> Self {
        Self { transpose_a: true, ..self }
    }

    /// With `b` stored `[n, k]`.
    #[must_use]
    pub const fn b_transposed(self) -> Self {
        Self { transpose_b: true, ..self }
    }

    /// Adding to `c`.
    #[must_use]
    pub const fn accumulating(self) -> Self {
        Self { accumulate: true, ..self }
    }
}

/// How a sequence is reduced over time in a readout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeReduction {
    /// The sum over all steps.
    Sum,
    /// The maximum over all steps; the gradient goes to the first step that attains it.
    Max,
    /// The mean over all steps.
    Mean,
    /// The last step.
    Last,
    /// The sum over all steps of the softmax over the neurons.
    SoftmaxSum,
}

/// What channels are normalised with; slices of one entry for each channel.
#[derive(Debug)]
pub struct ChannelNorm<'a, M: Memory> {
    /// Added to the variance.
    pub eps: f64,
    /// Subtracted.
    pub mean: &'a M::Buffer<M::Real>,
    /// Divides, its root.
    pub variance: &'a M::Buffer<M::Real>,
    /// Multiplies after that.
    pub gain: &'a M::Buffer<M::Real>,
    /// Is added last.
    pub offset: &'a M::Buffer<M::Real>,
}

impl<M: Memory> Clone for ChannelNorm<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Memory> Copy for ChannelNorm<'_, M> {}

/// Linear algebra: everything without a state over time.
///
/// Weights of a dense layer are `[M, N]`, inputs by outputs, so that an input's row is contiguous; those of a
/// convolution `[k, k, c_in, c_out]`.
pub trait LinAlg: SpikeMemory {
    /// Dense matrix product; `Gemm` names the sizes.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if a buffer does not fit, as for all operations below.
    fn gemm(
        &self,
        gemm: Gemm,
        a: &Self::Buffer<Self::Real>,
        b: &Self::Buffer<Self::Real>,
        c: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// `out[r, :] = bias + sum over events (r, i) of weight[i, :]`, out `[B*T, N]`.
    ///
    /// Whether events are gathered or expanded into a dense product is the backend's choice, by density.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn spikes_gemm(
        &self,
        spikes: &Self::Spikes,
        width: usize,
        weight: &Self::Buffer<Self::Real>,
        bias: Option<&Self::Buffer<Self::Real>>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// `grad_weight[i, :] = sum over events (r, i) of grad[r, :]`, `[M, N]`.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn spikes_gemm_weight_grad(
        &self,
        spikes: &Self::Spikes,
        width: usize,
        grad: &Self::Buffer<Self::Real>,
        grad_weight: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// `out[n] = sum over rows of x[r, n]`, `x` `[rows, width]`.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn sum_rows(
        &self,
        rows: usize,
        width: usize,
        x: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// `out[b, t, :] = x[b, :]` for every step, for a constant current.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn repeat_steps(
        &self,
        lanes: Lanes,
        x: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The adjoint of [`LinAlg::repeat_steps`]: `out[b, :] = sum over t of x[b, t, :]`.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn sum_steps(&self, lanes: Lanes, x: &Self::Buffer<Self::Real>, out: &mut Self::Buffer<Self::Real>) -> Result<()>;

    /// Adds `bias[n]` to every row of `x[rows, n]`.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn add_bias(&self, rows: usize, bias: &Self::Buffer<Self::Real>, x: &mut Self::Buffer<Self::Real>) -> Result<()>;

    /// `y += x`.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn add_assign(&self, x: &Self::Buffer<Self::Real>, y: &mut Self::Buffer<Self::Real>) -> Result<()>;

    /// `y += factor * x`.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn add_scaled(&self, factor: f64, x: &Self::Buffer<Self::Real>, y: &mut Self::Buffer<Self::Real>) -> Result<()>;

    /// `x += value`, every entry.
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn add_constant(&self, value: f64, x: &mut Self::Buffer<Self::Real>) -> Result<()>;

    /// `x = max(x, 0)`.
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn relu(&self, x: &mut Self::Buffer<Self::Real>) -> Result<()>;

    /// The adjoint of [`LinAlg::relu`], from its result: `grad = 0` where `y` is not positive.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn relu_grad(&self, y: &Self::Buffer<Self::Real>, grad: &mut Self::Buffer<Self::Real>) -> Result<()>;

    /// `out[b, t, :] = x[b, t - 1, :]`, 0 at step 0.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn delay(&self, lanes: Lanes, x: &Self::Buffer<Self::Real>, out: &mut Self::Buffer<Self::Real>) -> Result<()>;

    /// The last `taps` steps of every input side by side: `out[b, t, i, d] = x[b, t - d, i]`, 0 before step 0.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn unfold_steps(
        &self,
        lanes: Lanes,
        taps: usize,
        x: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The adjoint of [`LinAlg::unfold_steps`]: `out[b, t, i]` is the sum over d of `x[b, t + d, i, d]`.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn fold_steps(
        &self,
        lanes: Lanes,
        taps: usize,
        x: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The adjoint of [`LinAlg::delay`], in place: `x[b, t, :] = x[b, t + 1, :]`, 0 at the last step.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn advance(&self, lanes: Lanes, x: &mut Self::Buffer<Self::Real>) -> Result<()>;

    /// Convolution of spikes, every step for itself: `out[r, y, x, :]`, with bias.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn conv_spikes(
        &self,
        conv: &Conv,
        spikes: &Self::Spikes,
        weight: &Self::Buffer<Self::Real>,
        bias: Option<&Self::Buffer<Self::Real>>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Weight gradient of [`LinAlg::conv_spikes`].
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn conv_spikes_weight_grad(
        &self,
        conv: &Conv,
        spikes: &Self::Spikes,
        grad: &Self::Buffer<Self::Real>,
        grad_weight: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Convolution of `rows` dense maps: `out[r, y, x, :]`, with bias.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn conv_dense(
        &self,
        conv: &Conv,
        rows: usize,
        input: &Self::Buffer<Self::Real>,
        weight: &Self::Buffer<Self::Real>,
        bias: Option<&Self::Buffer<Self::Real>>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Weight gradient of [`LinAlg::conv_dense`].
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn conv_dense_weight_grad(
        &self,
        conv: &Conv,
        rows: usize,
        input: &Self::Buffer<Self::Real>,
        grad: &Self::Buffer<Self::Real>,
        grad_weight: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Input gradient of a convolution, dense over `rows` maps: the same for spikes and dense inputs.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn conv_input_grad(
        &self,
        conv: &Conv,
        rows: usize,
        grad: &Self::Buffer<Self::Real>,
        weight: &Self::Buffer<Self::Real>,
        grad_input: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Max pooling of spikes, every step for itself.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn pool_spikes(&self, pool: &Pool, spikes: &Self::Spikes, out: &mut Self::Spikes) -> Result<()>;

    /// Adjoint of [`LinAlg::pool_spikes`]: the gradient goes to the first maximum of the window, row-major.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn pool_spikes_grad(
        &self,
        pool: &Pool,
        spikes: &Self::Spikes,
        grad: &Self::Buffer<Self::Real>,
        grad_input: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Mean pooling of `rows` dense maps.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn pool_mean(
        &self,
        pool: &Pool,
        rows: usize,
        x: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Mean pooling of spikes, every step for itself; the means are no counts, so `out[rows, N]` is dense.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn pool_spikes_mean(&self, pool: &Pool, spikes: &Self::Spikes, out: &mut Self::Buffer<Self::Real>) -> Result<()>;

    /// Adjoint of both kinds of mean pooling; units of a dropped rest get 0.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn pool_mean_grad(
        &self,
        pool: &Pool,
        rows: usize,
        grad: &Self::Buffer<Self::Real>,
        grad_input: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Max pooling of `rows` maps of values: `out = sign max(sign x)` over each window, with a sign for each channel (1
    /// without one; -1 takes the least). `at` receives the rank of the first such unit in its window, row-major.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn pool_max(
        &self,
        pool: &Pool,
        rows: usize,
        sign: Option<&Self::Buffer<Self::Real>>,
        x: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
        at: &mut Self::Buffer<u32>,
    ) -> Result<()>;

    /// Adjoint of [`LinAlg::pool_max`]: the gradient goes to the unit that was taken.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn pool_max_grad(
        &self,
        pool: &Pool,
        rows: usize,
        at: &Self::Buffer<u32>,
        grad: &Self::Buffer<Self::Real>,
        grad_input: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Mean and variance (the sum of squares divided by the number of rows) of every channel of `x[rows, C]`; `C` is
    /// the length of `mean`. Maps are channel-last, so every position of a map is a row.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn channel_moments(
        &self,
        x: &Self::Buffer<Self::Real>,
        mean: &mut Self::Buffer<Self::Real>,
        variance: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Normalises channels in place, `h = (x - mean) / sqrt(variance + eps)` and `x = gain h + offset`, and writes `h`
    /// to `normalised` if it is wanted.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn normalise_channels(
        &self,
        norm: ChannelNorm<'_, Self>,
        x: &mut Self::Buffer<Self::Real>,
        normalised: Option<&mut Self::Buffer<Self::Real>>,
    ) -> Result<()>;

    /// Adjoint of [`LinAlg::normalise_channels`] with the moments of its own input: `normalised` enters as `h` and
    /// leaves as the gradient on the input, through the moments too.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn normalise_channels_grad(
        &self,
        norm: ChannelNorm<'_, Self>,
        grad: &Self::Buffer<Self::Real>,
        normalised: &mut Self::Buffer<Self::Real>,
        grad_gain: &mut Self::Buffer<Self::Real>,
        grad_offset: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// `out[b, t, n] = spikes[b, t, n]` where `mask[b, n]` is not 0, nothing elsewhere.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn mask_spikes(&self, mask: &Self::Buffer<Self::Real>, spikes: &Self::Spikes, out: &mut Self::Spikes)
    -> Result<()>;

    /// `x[b, t, n] *= mask[b, n]`.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn mask_values(
        &self,
        lanes: Lanes,
        mask: &Self::Buffer<Self::Real>,
        x: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Reduces `x[B, T, N]` over time to `out[B, N]`; `at[B, N]` receives the step of a maximum.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn reduce_time(
        &self,
        reduction: TimeReduction,
        lanes: Lanes,
        x: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
        at: &mut Self::Buffer<u32>,
    ) -> Result<()>;

    /// Adjoint of [`LinAlg::reduce_time`]: fills `grad_x[B, T, N]`. `x` is that of the forward pass; only
    /// [`TimeReduction::SoftmaxSum`] reads it.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn reduce_time_grad(
        &self,
        reduction: TimeReduction,
        lanes: Lanes,
        x: &Self::Buffer<Self::Real>,
        grad: &Self::Buffer<Self::Real>,
        at: &Self::Buffer<u32>,
        grad_x: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Softmax cross entropy of `logits[B, K]`: `losses[b]`, and `grad[B, K]` of the *mean* loss. A logit may be minus
    /// infinity; a sample with no other has infinite loss and gradient 0.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn softmax_cross_entropy(
        &self,
        classes: usize,
        logits: &Self::Buffer<Self::Real>,
        targets: &Self::Buffer<u32>,
        losses: &mut Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The same for targets that are a share of every class, `[B, K]`, each row with the sum 1: smoothed or mixed
    /// labels. A logit of minus infinity adds nothing to the loss unless its share is the largest, which makes the loss
    /// infinite.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn soft_cross_entropy(
        &self,
        classes: usize,
        logits: &Self::Buffer<Self::Real>,
        targets: &Self::Buffer<Self::Real>,
        losses: &mut Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Mean squared error of `outputs[B, K]` against `targets[B, K]`: `losses[b]`, the mean over the classes, and `grad`
    /// of the mean over the batch.
    ///
    /// # Errors
    ///
    /// See [`LinAlg::gemm`].
    fn squared_error(
        &self,
        classes: usize,
        outputs: &Self::Buffer<Self::Real>,
        targets: &Self::Buffer<Self::Real>,
        losses: &mut Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;
}

/// The arguments that every leaky scan shares.
///
/// The decay is used as `clamp(beta_raw, 0, 1)`, with derivative 1 inside and *on* the bounds, 0 beyond.
#[derive(Debug)]
pub struct Leak<'a, M: Memory> {
    /// Decay per step before clamping: one entry (shared) or one per neuron.
    pub beta_raw: &'a M::Buffer<M::Real>,
    /// Membrane before step 0, `[B, N]`; zero if absent.
    pub initial: Option<&'a M::Buffer<M::Real>>,
}

/// Gradients of the arguments in [`Leak`], and the incoming one on the membrane.
#[derive(Debug)]
pub struct LeakGrad<'a, M: Memory> {
    /// Incoming gradient on the returned membrane, `[B, T, N]`, if it was used.
    pub membrane: Option<&'a M::Buffer<M::Real>>,
    /// Receives the gradient of the clamped decay for each lane, `[B, N]`, clamp mask applied; sum it with
    /// [`LinAlg::sum_rows`]. Absent if the decay is fixed.
    pub beta: Option<&'a mut M::Buffer<M::Real>>,
    /// Receives the gradient of the initial membrane, `[B, N]`.
    pub initial: Option<&'a mut M::Buffer<M::Real>>,
    /// Receives the gradient on the current summed over time, `[B, N]`: summed on, it is the bias gradient, and
    /// no second pass over `[B, T, N]` is needed.
    pub current_sum: Option<&'a mut M::Buffer<M::Real>>,
}

impl<M: Memory> Default for LeakGrad<'_, M> {
    fn default() -> Self {
        Self { membrane: None, beta: None, initial: None, current_sum: None }
    }
}

/// Leaky integrate-and-fire neurons, sequential models; maths in [`crate::neurons::lif`].
pub trait LifOps: SpikeMemory {
    /// Runs the neurons over a current.
    ///
    /// `state` enters as the current `[B, T, N]` and leaves as the membrane before reset or mask, which is all
    /// that [`LifOps::lif_backward`] needs. `spikes` is overwritten (left alone by the integrator).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if a buffer does not fit.
    fn lif_forward(
        &self,
        neuron: &LifNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &mut Self::Buffer<Self::Real>,
        spikes: &mut Self::Spikes,
    ) -> Result<()>;

    /// Runs the adjoint: `grad` enters as the gradient on the spikes (zeros for the integrator) and leaves as the
    /// gradient on the current.
    ///
    /// # Errors
    ///
    /// As [`LifOps::lif_forward`].
    fn lif_backward(
        &self,
        neuron: &LifNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
        leak_grad: LeakGrad<'_, Self>,
    ) -> Result<()>;

    /// The membrane that the published model returns, from the state: differs from it for the single-spike
    /// neuron only, whose membrane is 0 after the spike. In place.
    ///
    /// # Errors
    ///
    /// As [`LifOps::lif_forward`].
    fn lif_membrane(&self, neuron: &LifNeuron, lanes: Lanes, state: &mut Self::Buffer<Self::Real>) -> Result<()>;
}

/// The single-spike block model; maths in [`crate::neurons::block`].
pub trait BlockOps: SpikeMemory {
    /// Runs the neurons over a current: `state` enters as the current and leaves as the no-reset membrane.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if a buffer does not fit.
    fn block_forward(
        &self,
        neuron: &BlockNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &mut Self::Buffer<Self::Real>,
        spikes: &mut Self::Spikes,
    ) -> Result<()>;

    /// Runs the adjoint: `grad` enters as the gradient on the spikes and leaves as the gradient on the current.
    ///
    /// # Errors
    ///
    /// As [`BlockOps::block_forward`].
    fn block_backward(
        &self,
        neuron: &BlockNeuron,
        lanes: Lanes,
        leak: Leak<'_, Self>,
        state: &Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
        leak_grad: LeakGrad<'_, Self>,
    ) -> Result<()>;
}

/// How a stored decay becomes the one in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecayMap {
    /// It is the stored number.
    Direct,
    /// The logistic function of the stored number: a learned decay stays inside `(0, 1)`.
    Sigmoid,
}

/// The decays of a synaptic and a membrane filter; each one entry (shared) or one per neuron.
#[derive(Debug)]
pub struct Filters<'a, M: Memory> {
    /// Synaptic decay per step; 0 if absent.
    pub alpha: Option<&'a M::Buffer<M::Real>>,
    /// Membrane decay per step; below 1 after the map.
    pub beta: &'a M::Buffer<M::Real>,
    /// What both go through.
    pub map: DecayMap,
}

impl<M: Memory> Clone for Filters<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Memory> Copy for Filters<'_, M> {}

/// Where the adjoint of a filtered neuron puts its gradients, and the incoming one on the membrane.
///
/// Gradients on parameters are those of the stored numbers, of each lane, `[B, N]`: sum them with
/// [`LinAlg::sum_rows`]. Those of parameters that took no part are 0.
#[derive(Debug)]
pub struct FilterGrad<'a, M: Memory> {
    /// Incoming gradient on the returned membrane, `[B, T, N]`, if it was used.
    pub membrane: Option<&'a M::Buffer<M::Real>>,
    /// Receives the gradient on alpha.
    pub alpha: Option<&'a mut M::Buffer<M::Real>>,
    /// Receives the gradient on beta.
    pub beta: Option<&'a mut M::Buffer<M::Real>>,
    /// Receives the gradient on the threshold, 0 where the stored one is not positive.
    pub threshold: Option<&'a mut M::Buffer<M::Real>>,
    /// Receives the gradient on the current summed over time.
    pub current_sum: Option<&'a mut M::Buffer<M::Real>>,
}

impl<M: Memory> Default for FilterGrad<'_, M> {
    fn default() -> Self {
        Self { membrane: None, alpha: None, beta: None, threshold: None, current_sum: None }
    }
}

/// Where the numbers of stochastic firing come from.
#[derive(Debug)]
pub enum Noise<'a, M: Memory> {
    /// Drawn where they are used. The uniform of Bernoulli modes is [`unit_f32`](crate::random::unit_f32) of the bits,
    /// the logistic of Gumbel-Softmax `ln(U / (1 - U))` with [`open_unit_f32`](crate::random::open_unit_f32).
    Drawn(SpikeDraws),
    /// Given, `[B, T, N]`: uniforms for Bernoulli modes, logistics for Gumbel-Softmax.
    Given(&'a M::Buffer<M::Real>),
}

impl<M: Memory> Clone for Noise<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Memory> Copy for Noise<'_, M> {}

/// How membranes of a parallel neuron become spikes.
#[derive(Debug)]
pub struct Fire<'a, M: Memory> {
    /// The firing function.
    pub firing: Firing,
    /// Thresholds, used as `max(stored, 0)`: one entry (shared) or one per neuron. Stochastic modes do not read them.
    pub threshold: &'a M::Buffer<M::Real>,
    /// The noise; only stochastic modes read it.
    pub noise: Noise<'a, M>,
}

impl<M: Memory> Clone for Fire<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Memory> Copy for Fire<'_, M> {}

/// Parallel leaky neurons; maths in [`crate::neurons::paralif`].
///
/// Both halves, the filters and firing, may be left out: the recurrent variant is put together from them.
pub trait ParaLifOps: SpikeMemory {
    /// With filters, `state` enters as the current `[B, T, N]` and leaves as the membrane; without them it is the
    /// membrane. `spikes` is overwritten if the neurons fire.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if a buffer does not fit.
    fn paralif_forward(
        &self,
        lanes: Lanes,
        filters: Option<Filters<'_, Self>>,
        fire: Option<Fire<'_, Self>>,
        state: &mut Self::Buffer<Self::Real>,
        spikes: &mut Self::Spikes,
    ) -> Result<()>;

    /// The adjoint: `grad` enters as the gradient on the spikes if the neurons fire, on the membrane otherwise; it
    /// leaves as the gradient on the current, or on the membrane without filters.
    ///
    /// # Errors
    ///
    /// As [`ParaLifOps::paralif_forward`].
    fn paralif_backward(
        &self,
        lanes: Lanes,
        filters: Option<Filters<'_, Self>>,
        fire: Option<Fire<'_, Self>>,
        membrane: &Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
        grads: FilterGrad<'_, Self>,
    ) -> Result<()>;
}

/// A recurrent connection: weights `[N, N]`, source by target, and a bias `[N]` that acts at every step.
#[derive(Debug)]
pub struct Recurrent<'a, M: Memory> {
    /// R.
    pub weight: &'a M::Buffer<M::Real>,
    /// c_r.
    pub bias: &'a M::Buffer<M::Real>,
}

impl<M: Memory> Clone for Recurrent<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Memory> Copy for Recurrent<'_, M> {}

/// What a population of current-based neurons is made of, beside its constants.
#[derive(Debug)]
pub struct CubaParameters<'a, M: Memory> {
    /// The two filters.
    pub filters: Filters<'a, M>,
    /// Thresholds, used as `max(stored, 0)`: one entry (shared) or one per neuron.
    pub threshold: &'a M::Buffer<M::Real>,
    /// The recurrent connection, exactly if the neuron has one.
    pub recurrent: Option<Recurrent<'a, M>>,
}

impl<M: Memory> Clone for CubaParameters<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Memory> Copy for CubaParameters<'_, M> {}

/// Current-based leaky integrate-and-fire neurons; maths in [`crate::neurons::cuba`].
pub trait CubaOps: SpikeMemory {
    /// `state` enters as the current `[B, T, N]` and leaves as the membrane before the reset. `synaptic`, wanted for the
    /// gradient on alpha, receives the synaptic trace. `spikes` is overwritten if the neurons fire.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if a buffer does not fit.
    fn cuba_forward(
        &self,
        neuron: &CubaNeuron,
        lanes: Lanes,
        parameters: CubaParameters<'_, Self>,
        state: &mut Self::Buffer<Self::Real>,
        synaptic: Option<&mut Self::Buffer<Self::Real>>,
        spikes: &mut Self::Spikes,
    ) -> Result<()>;

    /// The adjoint: `grad` enters as the gradient on the spikes and leaves as the gradient on the current, which is
    /// also that on the current of the recurrent connection. `synaptic` is needed if alpha's gradient is wanted.
    ///
    /// # Errors
    ///
    /// As [`CubaOps::cuba_forward`].
    #[expect(clippy::too_many_arguments, reason = "what the forward pass had, and the gradients")]
    fn cuba_backward(
        &self,
        neuron: &CubaNeuron,
        lanes: Lanes,
        parameters: CubaParameters<'_, Self>,
        state: &Self::Buffer<Self::Real>,
        synaptic: Option<&Self::Buffer<Self::Real>>,
        grad: &mut Self::Buffer<Self::Real>,
        grads: FilterGrad<'_, Self>,
    ) -> Result<()>;

    /// The membrane after the reset, from the state, in place.
    ///
    /// # Errors
    ///
    /// As [`CubaOps::cuba_forward`].
    fn cuba_membrane(
        &self,
        neuron: &CubaNeuron,
        lanes: Lanes,
        threshold: &Self::Buffer<Self::Real>,
        state: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;
}

/// The size of a projection with delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// Outputs, N.
    pub width: usize,
    /// Delays, D: an input of step `t` reaches steps `t` to `t + D - 1`.
    pub delays: usize,
}

/// How delays of synapses become a kernel over delays.
#[derive(Debug)]
pub struct DelayKernel<'a, M: Memory> {
    /// Weights `[M, N]`.
    pub weight: &'a M::Buffer<M::Real>,
    /// Positions `[M, N]`, steps, between 0 and `D - 1`.
    pub position: &'a M::Buffer<M::Real>,
    /// Width of the bell around the position, one entry, steps, above 0; absent for a single peak at the nearest whole
    /// position, a half going up.
    pub sigma: Option<&'a M::Buffer<M::Real>>,
}

impl<M: Memory> Clone for DelayKernel<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Memory> Copy for DelayKernel<'_, M> {}

/// Projections whose synapses have delays of their own: convolutions over time with kernels `[M, D, N]`.
///
/// ```text
/// K[i,d,n] = w[i,n] g[i,d,n],   g[i,:,n] = softmax over d of -(d - p[i,n])^2 / (2 sigma^2)               (DLY-1)
/// out[b,t,n] = sum over i and d of K[i,d,n] x[b,t-d,i]                                                (DLY-2)
/// dL/dw = sum over d of dL/dK g;   dL/dp = w / sigma^2 sum over d of dL/dK g (d - sum of g d)               (DLY-3)
/// ```
///
/// `g` is the bell curve at whole delays, made to sum to 1: delays are learned by moving `p` and lowering sigma
/// (Hammouamri et al., "Learning delays in spiking neural networks using dilated convolutions with learnable spacings",
/// ICLR 2024).
pub trait DelayOps: SpikeMemory {
    /// The kernel `[M, D, N]`, see (DLY-1).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if a buffer does not fit, as for all operations below.
    fn delay_kernel(
        &self,
        delays: Delays,
        parameters: DelayKernel<'_, Self>,
        kernel: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The adjoint of [`DelayOps::delay_kernel`], which must have a sigma; see (DLY-3).
    ///
    /// # Errors
    ///
    /// See [`DelayOps::delay_kernel`].
    fn delay_kernel_grad(
        &self,
        delays: Delays,
        parameters: DelayKernel<'_, Self>,
        grad_kernel: &Self::Buffer<Self::Real>,
        grad_weight: &mut Self::Buffer<Self::Real>,
        grad_position: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// `out[B, T, N]` of delayed spikes, see (DLY-2).
    ///
    /// # Errors
    ///
    /// See [`DelayOps::delay_kernel`].
    fn delay_forward(
        &self,
        delays: Delays,
        spikes: &Self::Spikes,
        kernel: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The gradient on the kernel: `grad_kernel[i, d, n] = sum over b and t of x[b,t-d,i] grad[b,t,n]`.
    ///
    /// # Errors
    ///
    /// See [`DelayOps::delay_kernel`].
    fn delay_weight_grad(
        &self,
        delays: Delays,
        spikes: &Self::Spikes,
        grad: &Self::Buffer<Self::Real>,
        grad_kernel: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The gradient on inputs of the size `lanes`: `grad_input[b,t,i] = sum over d and n of K[i,d,n] grad[b,t+d,n]`.
    ///
    /// # Errors
    ///
    /// See [`DelayOps::delay_kernel`].
    fn delay_input_grad(
        &self,
        delays: Delays,
        lanes: Lanes,
        grad: &Self::Buffer<Self::Real>,
        kernel: &Self::Buffer<Self::Real>,
        grad_input: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// `x = clamp(x, low, high)`.
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn clamp(&self, low: f64, high: f64, x: &mut Self::Buffer<Self::Real>) -> Result<()>;
}

/// What adaptive neurons are stored as: a number for each neuron, clipped by [`AlifNeuron::limits`] when it is used.
#[derive(Debug)]
pub struct AlifParameters<'a, M: Memory> {
    /// Decay of the membrane per step, `[N]`.
    pub beta: &'a M::Buffer<M::Real>,
    /// Decay p of the adaptation per step, `[N]`.
    pub decay: &'a M::Buffer<M::Real>,
    /// Strength b of the adaptation, `[N]`.
    pub strength: &'a M::Buffer<M::Real>,
    /// Recurrent weights `[N, N]`, source by target; exactly if the neuron is recurrent.
    pub recurrent: Option<&'a M::Buffer<M::Real>>,
}

impl<M: Memory> Clone for AlifParameters<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Memory> Copy for AlifParameters<'_, M> {}

/// Where the adjoint of adaptive neurons puts its gradients, and the incoming one on the membrane.
///
/// Gradients on parameters are those of the stored numbers, summed over the batch; they are 0 for a neuron that does not
/// adapt.
#[derive(Debug)]
pub struct AlifGrad<'a, M: Memory> {
    /// Incoming gradient on the state, `[B, T, N]`, if it was used.
    pub membrane: Option<&'a M::Buffer<M::Real>>,
    /// Receives the gradient on the current summed over time, `[B, N]`.
    pub current_sum: Option<&'a mut M::Buffer<M::Real>>,
    /// Receives the gradient on beta, `[N]`.
    pub beta: Option<&'a mut M::Buffer<M::Real>>,
    /// Receives the gradient on p, `[N]`.
    pub decay: Option<&'a mut M::Buffer<M::Real>>,
    /// Receives the gradient on b, `[N]`.
    pub strength: Option<&'a mut M::Buffer<M::Real>>,
}

impl<M: Memory> Default for AlifGrad<'_, M> {
    fn default() -> Self {
        Self { membrane: None, current_sum: None, beta: None, decay: None, strength: None }
    }
}

/// Adaptive neurons with a refractory period; maths in [`crate::neurons::alif`].
pub trait AlifOps: SpikeMemory {
    /// Runs the neurons: `state` enters as the current and leaves as the membrane, that of the block model if the
    /// gradient is that of blocks. The spikes are the same.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if a buffer does not fit, as for all operations below.
    fn alif_forward(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &mut Self::Buffer<Self::Real>,
        spikes: &mut Self::Spikes,
    ) -> Result<()>;

    /// Runs the adjoint: `grad` enters as the gradient on the spikes and leaves as the gradient on the current. That on
    /// recurrent weights is [`LinAlg::spikes_gemm_weight_grad`] of the spikes delayed by
    /// [`block`](AlifNeuron::block) steps.
    ///
    /// # Errors
    ///
    /// See [`AlifOps::alif_forward`].
    fn alif_backward(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
        grads: AlifGrad<'_, Self>,
    ) -> Result<()>;

    /// The threshold of every step, `[B, T, N]`, from the state.
    ///
    /// # Errors
    ///
    /// See [`AlifOps::alif_forward`].
    fn alif_thresholds(
        &self,
        neuron: &AlifNeuron,
        lanes: Lanes,
        parameters: AlifParameters<'_, Self>,
        state: &Self::Buffer<Self::Real>,
        thresholds: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;
}

/// What fitting recorded neurons needs beside the neurons: every neuron has an input and a target of its own, so that
/// many cells are one batch; maths in [`crate::fit`].
pub trait FitOps: SpikeMemory {
    /// The current of every neuron from the last `taps` steps of its own input:
    /// `out[b,t,n] = bias[n] + sum over d of weight[d,n] x[b,t-d,n]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if a buffer does not fit, as for all operations below.
    fn own_current(
        &self,
        lanes: Lanes,
        x: &Self::Buffer<Self::Real>,
        weight: &Self::Buffer<Self::Real>,
        bias: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The gradients of [`FitOps::own_current`] on weight `[taps, N]` and bias `[N]` from that on the current.
    ///
    /// # Errors
    ///
    /// See [`FitOps::own_current`].
    fn own_current_grad(
        &self,
        lanes: Lanes,
        x: &Self::Buffer<Self::Real>,
        grad: &Self::Buffer<Self::Real>,
        grad_weight: &mut Self::Buffer<Self::Real>,
        grad_bias: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The van Rossum distance of every neuron's spikes from its target's, over the whole batch, `distance [N]`, and the
    /// gradient of each neuron's distance on its spikes, `grad [B, T, N]`; that of distance 0 is 0.
    ///
    /// # Errors
    ///
    /// See [`FitOps::own_current`].
    fn van_rossum(
        &self,
        filter: &VanRossum,
        raster: Raster,
        spikes: &Self::Spikes,
        target: &Self::Spikes,
        distance: &mut Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;
}

/// How spike trains become one value per neuron.
///
/// The class of a sample is that of the largest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TrainReadout {
    /// `-t / tau` of the first spike, minus infinity if there is none: with softmax cross entropy the loss of
    /// time-to-first-spike networks.
    FirstSpike {
        /// Temperature, s.
        tau: f64,
    },
    /// `-t` of the first spike, and `-missing` if there is none.
    FirstTime {
        /// The time of a spike that did not come, s.
        missing: f64,
    },
    /// The number of spikes. It has no derivative: backwards, a neuron that should fire more is made to fire earlier,
    /// each of its spikes as if `dN/dt = -1` (Bacho and Chu 2023).
    Count,
    /// `sum of e^(-rate t)` over all spikes: early spikes count more.
    Decay {
        /// 1/s.
        rate: f64,
        /// Whether the gradient is the derivative; otherwise `-1` for every spike, as published.
        exact: bool,
    },
}

/// Event-driven neurons in continuous time; maths in [`crate::neurons::event`].
///
/// Gradients on trains have one entry per event, in the order of the events.
pub trait EventOps: Memory {
    /// The spikes of a layer and their slopes, one per event. Both are resized, for which the host waits until it knows
    /// how many there are.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if a buffer does not fit; [`Error::Domain`](crate::Error::Domain) for a
    /// constant out of range.
    fn event_forward(
        &self,
        neuron: &EventNeuron,
        synapses: &Synapses,
        weight: &Self::Buffer<Self::Real>,
        input: &Trains<Self>,
        out: &mut Trains<Self>,
        slopes: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The adjoint: `grad` enters as the gradient on the layer's spike times and leaves as the same with what each spike
    /// does to the later ones through the reset. `grad_weight` receives the sum over the batch.
    ///
    /// # Errors
    ///
    /// As [`EventOps::event_forward`].
    #[expect(clippy::too_many_arguments, reason = "what the forward pass had, and the gradients")]
    fn event_backward(
        &self,
        neuron: &EventNeuron,
        synapses: &Synapses,
        weight: &Self::Buffer<Self::Real>,
        input: &Trains<Self>,
        out: &Trains<Self>,
        slopes: &Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
        grad_weight: &mut Self::Buffer<Self::Real>,
        grad_input: Option<&mut Self::Buffer<Self::Real>>,
    ) -> Result<()>;

    /// Pooling of spike trains: a neuron has all spikes of its window. `source` receives the input event of each.
    ///
    /// # Errors
    ///
    /// As [`EventOps::event_forward`].
    fn merge_trains(
        &self,
        pool: &Pool,
        input: &Trains<Self>,
        out: &mut Trains<Self>,
        source: &mut Self::Buffer<u32>,
    ) -> Result<()>;

    /// The adjoint of [`EventOps::merge_trains`]: events that lie in no window have gradient 0.
    ///
    /// # Errors
    ///
    /// As [`EventOps::event_forward`].
    fn merge_trains_grad(
        &self,
        source: &Self::Buffer<u32>,
        grad: &Self::Buffer<Self::Real>,
        grad_input: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// One value per neuron, `[B, N]`.
    ///
    /// # Errors
    ///
    /// As [`EventOps::event_forward`].
    fn read_trains(
        &self,
        readout: &TrainReadout,
        trains: &Trains<Self>,
        values: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The adjoint of [`EventOps::read_trains`]; a gradient on a value that is not finite counts as 0.
    ///
    /// # Errors
    ///
    /// As [`EventOps::event_forward`].
    fn read_trains_grad(
        &self,
        readout: &TrainReadout,
        trains: &Trains<Self>,
        grad_values: &Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Half the squared distance of every sample's first spikes to those wanted, `losses [B]`, and the gradient of each
    /// sample's loss on every spike as published: `t - target` for spike `k` of a neuron, 0 for spikes without a target.
    /// `targets [B, N, K]` holds the times of each neuron's spikes in order; in the loss, infinity on either side counts
    /// as `missing` seconds.
    ///
    /// # Errors
    ///
    /// As [`EventOps::event_forward`].
    fn spike_time_loss(
        &self,
        trains: &Trains<Self>,
        targets: &Self::Buffer<Self::Real>,
        missing: f64,
        losses: &mut Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Synaptic scaling: `grad_weight[r, n] -= amount[n] |weight[r, n]|`; see
    /// [`scaling_amounts`](crate::neurons::event::scaling_amounts).
    ///
    /// # Errors
    ///
    /// As [`EventOps::event_forward`].
    fn scale_synapses(
        &self,
        amount: &Self::Buffer<Self::Real>,
        weight: &Self::Buffer<Self::Real>,
        grad_weight: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Spikes of every neuron, `[B, N]`.
    ///
    /// # Errors
    ///
    /// As [`EventOps::event_forward`].
    fn count_trains(&self, trains: &Trains<Self>, counts: &mut Self::Buffer<u32>) -> Result<()>;
}

/// What a layer of time-to-first-spike neurons came to; one entry for each sample.
#[derive(Debug)]
pub struct Census<M: Memory> {
    /// The largest earliness.
    pub peaks: M::Buffer<M::Real>,
    /// Neurons that fired.
    pub fired: M::Buffer<u32>,
    /// Neurons that would have fired before their window.
    pub early: M::Buffer<u32>,
}

impl<M: Memory> Census<M> {
    /// Of no sample.
    ///
    /// # Errors
    ///
    /// If the device has no memory left.
    pub fn empty(device: &M) -> Result<Self> {
        Ok(Self { peaks: device.zeros(0)?, fired: device.zeros(0)?, early: device.zeros(0)? })
    }
}

/// Neurons that spike at most once; maths in [`crate::neurons::ttfs`].
///
/// Times are earliness `[B, N]`, N neurons as positions by channels; `window` is a buffer of one entry, the length of the
/// layer's window, so that it can grow without a look from the host. A shift is `[R, C]`, one for each region of the map
/// and channel.
pub trait TtfsOps: Memory {
    /// `x` enters as the sum of the inputs and leaves as earliness, see (TTFS-3). Of neurons with a `slope` of their own,
    /// one for each channel, those without a positive one are silent.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if a buffer does not fit, as for all operations below.
    fn ttfs_forward(
        &self,
        neuron: &TtfsNeuron,
        borders: &Borders,
        shift: &Self::Buffer<Self::Real>,
        slope: Option<&Self::Buffer<Self::Real>>,
        window: &Self::Buffer<Self::Real>,
        x: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Turns the gradient on the earliness `x` into the one on the sum of the inputs, and sums it to the gradient of the
    /// shift.
    ///
    /// # Errors
    ///
    /// See [`TtfsOps::ttfs_forward`].
    fn ttfs_backward(
        &self,
        neuron: &TtfsNeuron,
        borders: &Borders,
        window: &Self::Buffer<Self::Real>,
        x: &Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
        grad_shift: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// What of the earliness `x` arrives at the next layer; noise is drawn with [`SpikeDraws::normal`].
    ///
    /// # Errors
    ///
    /// See [`TtfsOps::ttfs_forward`].
    fn ttfs_perturb(
        &self,
        perturbation: &Perturbation,
        draws: SpikeDraws,
        rows: usize,
        window: &Self::Buffer<Self::Real>,
        x: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The adjoint of [`TtfsOps::ttfs_perturb`], in place: straight through.
    ///
    /// # Errors
    ///
    /// See [`TtfsOps::ttfs_forward`].
    fn ttfs_perturb_grad(
        &self,
        perturbation: &Perturbation,
        draws: SpikeDraws,
        rows: usize,
        window: &Self::Buffer<Self::Real>,
        x: &Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// What each of `rows` samples came to.
    ///
    /// # Errors
    ///
    /// See [`TtfsOps::ttfs_forward`].
    fn ttfs_census(
        &self,
        rows: usize,
        window: &Self::Buffer<Self::Real>,
        x: &Self::Buffer<Self::Real>,
        census: &mut Census<Self>,
    ) -> Result<()>;

    /// `window = max(window, growth * largest peak)`.
    ///
    /// # Errors
    ///
    /// See [`TtfsOps::ttfs_forward`].
    fn ttfs_grow(
        &self,
        growth: f64,
        peaks: &Self::Buffer<Self::Real>,
        window: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The slope of each neuron whose currents `[M, N]` stay on, and their effective weights.
    ///
    /// # Errors
    ///
    /// See [`TtfsOps::ttfs_forward`].
    fn ttfs_slope(
        &self,
        current: &Self::Buffer<Self::Real>,
        slope: &mut Self::Buffer<Self::Real>,
        weight: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// The adjoint of [`TtfsOps::ttfs_slope`], in place: `grad` enters for the effective weights and leaves for the
    /// currents. Neurons without a positive slope have none.
    ///
    /// # Errors
    ///
    /// See [`TtfsOps::ttfs_forward`].
    fn ttfs_slope_grad(
        &self,
        slope: &Self::Buffer<Self::Real>,
        weight: &Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;

    /// Every entry by the nearest value of a grid.
    ///
    /// # Errors
    ///
    /// See [`TtfsOps::ttfs_forward`].
    fn quantise(&self, grid: &Grid, x: &Self::Buffer<Self::Real>, out: &mut Self::Buffer<Self::Real>) -> Result<()>;

    /// The adjoint of [`TtfsOps::quantise`], in place: straight through, and 0 where `x` lies beyond the grid.
    ///
    /// # Errors
    ///
    /// See [`TtfsOps::ttfs_forward`].
    fn quantise_grad(
        &self,
        grid: &Grid,
        x: &Self::Buffer<Self::Real>,
        grad: &mut Self::Buffer<Self::Real>,
    ) -> Result<()>;
}

/// One parameter with its gradient and the optimiser's moments, as an update sees it.
#[derive(Debug)]
pub struct UpdateSlot<'a, M: Memory> {
    /// The parameter, updated.
    pub value: &'a mut M::Buffer<M::Real>,
    /// Its gradient.
    pub grad: &'a M::Buffer<M::Real>,
    /// First moment or velocity, updated.
    pub first: &'a mut M::Buffer<M::Real>,
    /// Second moment or infinity norm, updated.
    pub second: &'a mut M::Buffer<M::Real>,
    /// Whether weight decay applies.
    pub decays: bool,
}

/// The rule and constants of one optimiser step; `step` counts from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UpdateRule {
    /// Stochastic gradient descent: `g += wd p; v = momentum v + g; p -= lr v` (`lr g` without momentum).
    Sgd {
        /// Momentum, 0 for none.
        momentum: f64,
        /// Nesterov's variant: `p -= lr (g + momentum v)`.
        nesterov: bool,
    },
    /// Adam (Kingma & Ba 2015) with bias correction; `decoupled` makes it AdamW (Loshchilov & Hutter 2019).
    Adam {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the denominator after the root.
        eps: f64,
        /// Weight decay acts on the parameter, not through the gradient.
        decoupled: bool,
    },
    /// Adam with Nesterov's look ahead (Dozat 2016), `beta1` constant:
    /// `p -= lr (beta1 m + (1 - beta1) g) / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)`.
    NAdam {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the denominator after the root.
        eps: f64,
    },
    /// Adamax (Kingma & Ba 2015): `u = max(beta2 u, |g| + eps)`.
    Adamax {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the infinity norm.
        beta2: f64,
        /// Added to the magnitude of the gradient.
        eps: f64,
    },
}

/// One optimiser step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// The rule.
    pub rule: UpdateRule,
    /// Learning rate.
    pub learning_rate: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Which step this is, from 1.
    pub step: u64,
}

/// Optimiser updates.
pub trait Optimise: Memory {
    /// Updates all parameters in one go.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) if the buffers of a slot differ in length.
    fn update(&self, update: &Update, slots: &mut [UpdateSlot<'_, Self>]) -> Result<()>;

    /// The sum of squares of a buffer, in `f64`, for gradient norms; synchronises.
    ///
    /// # Errors
    ///
    /// If queued work failed.
    fn sum_of_squares(&self, x: &Self::Buffer<Self::Real>) -> Result<f64>;

    /// `x *= factor`.
    ///
    /// # Errors
    ///
    /// If the device fails.
    fn scale(&self, factor: f64, x: &mut Self::Buffer<Self::Real>) -> Result<()>;
}

/// A device that trains every model: the sum of all the traits above.
///
/// A new neuron family adds its trait here and nothing else changes.
pub trait Backend:
    LinAlg + DelayOps + LifOps + BlockOps + ParaLifOps + CubaOps + AlifOps + FitOps + EventOps + TtfsOps + Optimise
{
}

impl<B> Backend for B where
    B: LinAlg + DelayOps + LifOps + BlockOps + ParaLifOps + CubaOps + AlifOps + FitOps + EventOps + TtfsOps + Optimise
{
}
