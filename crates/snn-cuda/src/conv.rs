//! Convolution of channel-last maps, every step for itself: matrix products over patches.
//!
//! The patches of some maps, `[positions of these maps, taps and channels]`, are gathered at a time, from the bits of
//! spikes as from dense maps:
//!
//! * forward, `out = patches weight`;
//! * weight gradient, `patches^T gradient`, summed over the maps in order: in parts of the positions, because weights are
//!   few and positions many;
//! * input gradient, `gradient weight^T` are patches of gradients, and every unit of a map sums what they hold of it.
//!
//! How many maps go together depends on sizes alone.

use snn_core::Conv;
use snn_core::backend::{Gemm, LinAlg};
use snn_core::error::{Result, check_len};

use crate::device::{Cuda, Matrix};
use crate::kernels::CONV;
use crate::launch::{Fields, Launch};
use crate::memory::Buffer;
use crate::spikes::CudaSpikes;

/// Entries of the patches that are there at a time, unless those of one map are more: 32 MiB, which a large device's
/// second-level cache holds, so that a product finds them there.
const PATCHES: usize = 1 << 23;

/// Entries of the output of a product that a multiprocessor works on at a time, about.
const TILE: usize = 128 * 64;

/// Such pieces of work that keep a large device busy.
const TILES: usize = 256;

/// Positions of a part of a weight gradient, at least.
const POSITIONS: usize = 256;

/// Entries of all parts of it, at most: 64 MiB.
const PARTIAL: usize = 1 << 24;

/// What patches are gathered from.
#[derive(Clone, Copy)]
enum Maps<'a> {
    Dense(&'a Buffer<f32>),
    Spikes(&'a CudaSpikes),
}

/// Maps that are taken together.
#[derive(Clone, Copy)]
struct Chunk {
    /// The first map.
    from: usize,
    maps: usize,
    /// Output positions of these maps.
    positions: usize,
}

fn positions(conv: &Conv) -> usize {
    conv.output().height * conv.output().width
}

/// Cuts `rows` maps.
fn chunks(conv: &Conv, rows: usize) -> impl Iterator<Item = Chunk> + use<> {
    let positions = positions(conv);
    let together = (PATCHES / (positions * conv.fan_in())).max(1);
    (0..rows).step_by(together).map(move |from| {
        let maps = together.min(rows - from);
        Chunk { from, maps, positions: maps * positions }
    })
}

/// Whether the patches of dense maps are the maps.
fn is_product(conv: &Conv) -> bool {
    conv.kernel * conv.kernel_width * conv.stride == 1 && conv.padding + conv.padding_width == 0
}

/// A convolution as kernels take it.
pub(crate) fn shape(device: &Cuda, conv: &Conv) -> Result<Fields> {
    let (m, o) = (conv.input, conv.output());
    let Conv { kernel, kernel_width, stride, padding, padding_width, .. } = *conv;
    let sizes =
        [m.height, m.width, m.channels, kernel, kernel_width, stride, padding, padding_width, o.height, o.width];
    int_fields(device, "Conv", &sizes)
}

/// Sizes as a struct of integers.
pub(crate) fn int_fields(device: &Cuda, name: &'static str, sizes: &[usize]) -> Result<Fields> {
    sizes.iter().try_fold(Fields::new(name), |fields, &size| {
        let size = i32::try_from(size).map_err(|_| device.error(format!("{name}: {size} is too large a size")))?;
        Ok(fields.int(size))
    })
}

fn check(conv: &Conv, arg: &'static str, weight: &Buffer<f32>, bias: Option<&Buffer<f32>>) -> Result<()> {
    check_len("conv", arg, weight.len(), conv.fan_in() * conv.channels)?;
    bias.map_or(Ok(()), |b| check_len("conv", "bias", b.len(), conv.channels))
}

/// Rows of a matrix, from one of them on.
fn rows_of(matrix: &Buffer<f32>, width: usize, from: usize) -> Matrix {
    Matrix { address: matrix.address() + (from * width * size_of::<f32>()) as u64, row: width, step: 0 }
}

impl Cuda {
    /// Gathers the patches of a chunk.
    fn gather(&self, conv: &Conv, maps: Maps<'_>, chunk: Chunk, patches: &mut Buffer<f32>) -> Result<()> {
        let lanes = (conv.kernel_width * conv.input.channels).next_power_of_two().min(32);
        let launch: Launch<'_> = match maps {
            Maps::Dense(input) => self.launch(&CONV, "gather_dense").arg(input),
            Maps::Spikes(spikes) => self
                .launch(&CONV, "gather_spikes")
                .arg(spikes.words())
                .arg(spikes.planes())
                .arg(spikes.rows())
                .arg(spikes.words_per_row()),
        };
        launch
            .threads(chunk.positions * lanes)
            .arg(patches)
            .arg(shape(self, conv)?)
            .arg(chunk.from as i64)
            .arg(chunk.positions as i64)
            .arg(lanes as i32)
            .run()
    }

    /// Calls `work` with every chunk, its patches, and which row of these is its first.
    fn each_chunk(
        &self,
        conv: &Conv,
        rows: usize,
        maps: Maps<'_>,
        mut work: impl FnMut(Chunk, &Buffer<f32>, usize) -> Result<()>,
    ) -> Result<()> {
        if let (Maps::Dense(input), true) = (maps, is_product(conv)) {
            return chunks(conv, rows).try_for_each(|chunk| work(chunk, input, chunk.from * positions(conv)));
        }
        let most = chunks(conv, rows).next().map_or(0, |chunk| chunk.positions);
        let mut patches = self.scratch(most * conv.fan_in())?;
        chunks(conv, rows).try_for_each(|chunk| {
            self.gather(conv, maps, chunk, &mut patches)?;
            work(chunk, &patches, 0)
        })
    }

    /// The forward pass, lengths checked.
    fn convolve(
        &self,
        conv: &Conv,
        rows: usize,
        maps: Maps<'_>,
        weight: &Buffer<f32>,
        bias: Option<&Buffer<f32>>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        let (fan, channels) = (conv.fan_in(), conv.channels);
        self.each_chunk(conv, rows, maps, |chunk, patches, first| {
            let to = rows_of(out, channels, chunk.from * positions(conv));
            let operands = [rows_of(patches, fan, first), rows_of(weight, channels, 0), to];
            self.queue_products(Gemm::new(chunk.positions, channels, fan), operands, 1)
        })?;
        bias.map_or(Ok(()), |bias| self.add_bias(rows * positions(conv), bias, out))
    }

    /// The weight gradient, lengths checked.
    fn convolve_weight_grad(
        &self,
        conv: &Conv,
        rows: usize,
        maps: Maps<'_>,
        grad: &Buffer<f32>,
        grad_weight: &mut Buffer<f32>,
    ) -> Result<()> {
        let (fan, channels) = (conv.fan_in(), conv.channels);
        let Some(Chunk { positions: most, .. }) = chunks(conv, rows).next() else {
            return self.clear_buffer(grad_weight);
        };
        let parts = (TILES * TILE / grad_weight.len()).min(PARTIAL / grad_weight.len()).min(most / POSITIONS).max(1);
        let sums = if parts == 1 { None } else { Some(self.scratch(parts * grad_weight.len())?) };
        let to = rows_of(sums.as_ref().unwrap_or(grad_weight), channels, 0);
        self.each_chunk(conv, rows, maps, |chunk, patches, first| {
            // What is left of the positions goes to the first part.
            let each = chunk.positions / parts;
            let product = |skip: usize, positions: usize, batch: usize, accumulate: bool| {
                let a = Matrix { step: positions * fan, ..rows_of(patches, fan, first + skip) };
                let from = chunk.from * self::positions(conv) + skip;
                let b = Matrix { step: positions * channels, ..rows_of(grad, channels, from) };
                let product = Gemm { accumulate, ..Gemm::new(fan, channels, positions).a_transposed() };
                match positions {
                    0 => Ok(()),
                    _ => self.queue_products(product, [a, b, Matrix { step: fan * channels, ..to }], batch),
                }
            };
            product(0, each, parts, chunk.from > 0)?;
            product(each * parts, chunk.positions - each * parts, 1, true)
        })?;
        sums.map_or(Ok(()), |sums| self.sum_all_rows(parts, grad_weight.len(), &sums, grad_weight))
    }

    pub(crate) fn convolve_spikes(
        &self,
        conv: &Conv,
        spikes: &CudaSpikes,
        weight: &Buffer<f32>,
        bias: Option<&Buffer<f32>>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        let lanes = spikes.lanes();
        check(conv, "weight", weight, bias)?;
        check_len("conv_spikes", "spikes", lanes.width, conv.input.len())?;
        check_len("conv_spikes", "out", out.len(), lanes.rows() * conv.output().len())?;
        self.convolve(conv, lanes.rows(), Maps::Spikes(spikes), weight, bias, out)
    }

    pub(crate) fn convolve_spikes_weight_grad(
        &self,
        conv: &Conv,
        spikes: &CudaSpikes,
        grad: &Buffer<f32>,
        grad_weight: &mut Buffer<f32>,
    ) -> Result<()> {
        let lanes = spikes.lanes();
        check(conv, "grad_weight", grad_weight, None)?;
        check_len("conv_spikes", "spikes", lanes.width, conv.input.len())?;
        check_len("conv_spikes", "grad", grad.len(), lanes.rows() * conv.output().len())?;
        self.convolve_weight_grad(conv, lanes.rows(), Maps::Spikes(spikes), grad, grad_weight)
    }

    pub(crate) fn convolve_dense(
        &self,
        conv: &Conv,
        rows: usize,
        input: &Buffer<f32>,
        weight: &Buffer<f32>,
        bias: Option<&Buffer<f32>>,
        out: &mut Buffer<f32>,
    ) -> Result<()> {
        check(conv, "weight", weight, bias)?;
        check_len("conv_dense", "input", input.len(), rows * conv.input.len())?;
        check_len("conv_dense", "out", out.len(), rows * conv.output().len())?;
        self.convolve(conv, rows, Maps::Dense(input), weight, bias, out)
    }

    pub(crate) fn convolve_dense_weight_grad(
        &self,
        conv: &Conv,
        rows: usize,
        input: &Buffer<f32>,
        grad: &Buffer<f32>,
        grad_weight: &mut Buffer<f32>,
    ) -> Result<()> {
        check(conv, "grad_weight", grad_weight, None)?;
        check_len("conv_dense", "input", input.len(), rows * conv.input.len())?;
        check_len("conv_dense", "grad", grad.len(), rows * conv.output().len())?;
        self.convolve_weight_grad(conv, rows, Maps::Dense(input), grad, grad_weight)
    }

    pub(crate) fn convolve_input_grad(
        &self,
        conv: &Conv,
        rows: usize,
        grad: &Buffer<f32>,
        weight: &Buffer<f32>,
        grad_input: &mut Buffer<f32>,
    ) -> Result<()> {
        let (fan, channels) = (conv.fan_in(), conv.channels);
        check(conv, "weight", weight, None)?;
        check_len("conv", "grad", grad.len(), rows * conv.output().len())?;
        check_len("conv", "grad_input", grad_input.len(), rows * conv.input.len())?;
        let product = |chunk: Chunk, to: Matrix| {
            let from = rows_of(grad, channels, chunk.from * positions(conv));
            let operands = [from, rows_of(weight, channels, 0), to];
            self.queue_products(Gemm::new(chunk.positions, fan, channels).b_transposed(), operands, 1)
        };
        if is_product(conv) {
            return chunks(conv, rows)
                .try_for_each(|chunk| product(chunk, rows_of(grad_input, fan, chunk.from * positions(conv))));
        }
        let most = chunks(conv, rows).next().map_or(0, |chunk| chunk.positions);
        let patches = self.scratch(most * fan)?;
        chunks(conv, rows).try_for_each(|chunk| {
            product(chunk, rows_of(&patches, fan, 0))?;
            let units = chunk.maps * conv.input.len();
            self.launch(&CONV, "scatter_patches")
                .threads(units)
                .arg(&patches)
                .arg(&mut *grad_input)
                .arg(shape(self, conv)?)
                .arg(chunk.from as i64)
                .arg(units as i64)
                .run()
        })
    }
}
