//! Sizes: lanes of a scan, maps of an image, geometry of a convolution, and what a layer takes or gives.
//!
//! Layout everywhere: batch, then time, then neurons; neurons contiguous. A map is stored channel-last,
//! `(row, column, channel)`, so a map is also a row of `height * width * channels` neurons.

use std::fmt;
use std::ops::Range;

use crate::error::{Error, Result};

/// The size of an activity over time, `[B, T, N]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lanes {
    /// Samples, B.
    pub batch: usize,
    /// Time steps, T.
    pub steps: usize,
    /// Neurons, N.
    pub width: usize,
}

impl Lanes {
    /// `[batch, steps, width]`.
    #[must_use]
    pub const fn new(batch: usize, steps: usize, width: usize) -> Self {
        Self { batch, steps, width }
    }

    /// Entries in all, `B * T * N`.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.batch * self.steps * self.width
    }

    /// Whether any axis is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows, `B * T`: time folds into the batch for every linear stage.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.batch * self.steps
    }

    /// The same batch and steps with another width.
    #[must_use]
    pub const fn with_width(self, width: usize) -> Self {
        Self { width, ..self }
    }
}

/// The size of one map, channel-last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Map {
    /// Rows, H.
    pub height: usize,
    /// Columns, W.
    pub width: usize,
    /// Channels, C.
    pub channels: usize,
}

impl Map {
    /// `(height, width, channels)`.
    #[must_use]
    pub const fn new(height: usize, width: usize, channels: usize) -> Self {
        Self { height, width, channels }
    }

    /// Neurons in the map.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether the map has no neuron.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.height, self.width, self.channels)
    }
}

/// A two-dimensional convolution of channel-last maps, cross-correlation orientation.
///
/// Kernels are square unless made by [`Conv::rectangle`]; one of width 1 convolves along columns alone, which is the
/// one-dimensional convolution of a map of width 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv {
    /// The input map.
    pub input: Map,
    /// Output channels.
    pub channels: usize,
    /// Rows of the kernel.
    pub kernel: usize,
    /// Columns of the kernel.
    pub kernel_width: usize,
    /// Step between output positions.
    pub stride: usize,
    /// Zeros added above and below.
    pub padding: usize,
    /// Zeros added left and right.
    pub padding_width: usize,
}

impl Conv {
    /// A square kernel with the same padding on each side.
    ///
    /// # Errors
    ///
    /// As [`Conv::rectangle`].
    pub fn new(input: Map, channels: usize, kernel: usize, stride: usize, padding: usize) -> Result<Self> {
        Self::rectangle(input, channels, [kernel; 2], stride, [padding; 2])
    }

    /// A kernel of `[rows, columns]` with padding `[above and below, left and right]`.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`] for a kernel, stride or channel count of zero; [`Error::Shape`] if the kernel does not fit
    /// into the padded map.
    pub fn rectangle(
        input: Map,
        channels: usize,
        [kernel, kernel_width]: [usize; 2],
        stride: usize,
        [padding, padding_width]: [usize; 2],
    ) -> Result<Self> {
        const OP: &str = "conv";
        let counts = [("channels", channels), ("kernel", kernel), ("kernel_width", kernel_width), ("stride", stride)];
        for (param, value) in counts {
            if value == 0 {
                return Err(Error::Domain { op: OP, param, value: 0.0, range: "[1, inf)" });
            }
        }
        let conv = Self { input, channels, kernel, kernel_width, stride, padding, padding_width };
        let fits = input.height + 2 * padding >= kernel && input.width + 2 * padding_width >= kernel_width;
        if !fits || input.is_empty() {
            let got = [input.height, input.width, input.channels];
            let padded =
                if padding == padding_width { padding.to_string() } else { format!("{padding}x{padding_width}") };
            let want = format_args!("at least {kernel}x{kernel_width} after padding {padded}");
            return Err(Error::shape(OP, "input map", &got, want));
        }
        Ok(conv)
    }

    /// The output map.
    #[must_use]
    pub const fn output(&self) -> Map {
        let rows = (self.input.height + 2 * self.padding - self.kernel) / self.stride + 1;
        let columns = (self.input.width + 2 * self.padding_width - self.kernel_width) / self.stride + 1;
        Map::new(rows, columns, self.channels)
    }

    /// Inputs of one output neuron, `k * k * c_in`: rows of the weight matrix `[k, k, c_in, c_out]`.
    #[must_use]
    pub const fn fan_in(&self) -> usize {
        self.kernel * self.kernel_width * self.input.channels
    }

    /// The input row under kernel row `k` of output row `o`, if it is inside a map of `side` rows; for square kernels
    /// the same for columns.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self, o: usize, k: usize, side: usize) -> Option<usize> {
        inside(o * self.stride + k, self.padding, side)
    }

    /// The input column under kernel column `k` of output column `o`, if it is inside a map of `side` columns.
    #[inline(always)]
    #[must_use]
    pub const fn source_column(&self, o: usize, k: usize, side: usize) -> Option<usize> {
        inside(o * self.stride + k, self.padding_width, side)
    }
}

/// A padded position as one of the map.
#[inline(always)]
const fn inside(padded: usize, padding: usize, side: usize) -> Option<usize> {
    if padded >= padding && padded - padding < side { Some(padded - padding) } else { None }
}

/// Pooling of channel-last maps with windows that do not overlap; a rest that fills no window is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool {
    /// The input map.
    pub input: Map,
    /// Rows of the window.
    pub window: usize,
    /// Columns of the window.
    pub window_width: usize,
}

impl Pool {
    /// A square window.
    ///
    /// # Errors
    ///
    /// As [`Pool::rectangle`].
    pub fn new(input: Map, window: usize) -> Result<Self> {
        Self::rectangle(input, [window; 2])
    }

    /// A window of `[rows, columns]`.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`] if the window is zero or larger than the map.
    pub fn rectangle(input: Map, [window, window_width]: [usize; 2]) -> Result<Self> {
        let sides = [("window", window, input.height), ("window_width", window_width, input.width)];
        for (param, value, side) in sides {
            if value == 0 || value > side {
                return Err(Error::Domain { op: "pool", param, value: value as f64, range: "[1, side of the map]" });
            }
        }
        Ok(Self { input, window, window_width })
    }

    /// The output map.
    #[must_use]
    pub const fn output(&self) -> Map {
        Map::new(self.input.height / self.window, self.input.width / self.window_width, self.input.channels)
    }

    /// Units of a window.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.window * self.window_width
    }

    /// The output unit whose window holds input unit `unit`, if any does, and the rank of `unit` in that window
    /// (row-major).
    #[inline(always)]
    #[must_use]
    pub const fn target(&self, unit: usize) -> Option<(usize, usize)> {
        let (m, h, w, o) = (self.input, self.window, self.window_width, self.output());
        let (c, x, y) = (unit % m.channels, unit / m.channels % m.width, unit / (m.channels * m.width));
        let (ox, oy) = (x / w, y / h);
        if ox >= o.width || oy >= o.height {
            return None;
        }
        Some(((oy * o.width + ox) * o.channels + c, (y % h) * w + x % w))
    }

    /// The input unit of the given rank in the window of output unit `unit`: the inverse of [`Pool::target`].
    #[inline(always)]
    #[must_use]
    pub const fn source(&self, unit: usize, rank: usize) -> usize {
        let (m, h, w, o) = (self.input, self.window, self.window_width, self.output());
        let (c, x, y) = (unit % o.channels, unit / o.channels % o.width, unit / (o.channels * o.width));
        ((y * h + rank / w) * m.width + x * w + rank % w) * m.channels + c
    }
}

/// Where the kernel of a convolution leaves the map: positions over which the same kernel rows and columns lie inside
/// share a region.
///
/// A constant that reaches an output through every tap of the kernel must not do so through taps over the zeros around
/// the map: so a layer into which an offset of its inputs is fused has one shift per region and channel. A kernel of 3x3
/// with one zero around a map of at least 3x3 has nine regions.
///
/// ```
/// use snn_core::{Borders, Conv, Map};
/// let conv = Conv::new(Map::new(4, 4, 1), 2, 3, 1, 1)?;
/// let borders = Borders::of(&conv);
/// assert_eq!(borders.regions(), 9);
/// // Above the first position lies nothing, nor left of it: kernel rows and columns 1 and 2 are inside.
/// assert_eq!(borders.inside(borders.region(0)), &[1..3, 1..3]);
/// # Ok::<(), snn_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borders {
    // The region of each position, row-major.
    of_position: Vec<u32>,
    // Kernel rows and columns that lie inside the map, for each region.
    inside: Vec<[Range<usize>; 2]>,
}

impl Borders {
    /// One region for all of `positions` positions.
    #[must_use]
    pub fn none(positions: usize) -> Self {
        Self { of_position: vec![0; positions], inside: vec![[0..usize::MAX, 0..usize::MAX]] }
    }

    /// The regions of a convolution, in the order in which they come up, row by row.
    #[must_use]
    pub fn of(conv: &Conv) -> Self {
        let range = |positions: usize, kernel: usize, source: &dyn Fn(usize, usize) -> Option<usize>| {
            let taps = |o: usize| (0..kernel).filter(move |&k| source(o, k).is_some());
            let of = |o: usize| taps(o).next().map_or(0..0, |first| first..taps(o).last().unwrap_or(first) + 1);
            (0..positions).map(of).collect::<Vec<_>>()
        };
        let (m, o) = (conv.input, conv.output());
        let rows = range(o.height, conv.kernel, &|at, k| conv.source(at, k, m.height));
        let columns = range(o.width, conv.kernel_width, &|at, k| conv.source_column(at, k, m.width));
        let mut inside: Vec<[Range<usize>; 2]> = Vec::new();
        let mut of_position = Vec::with_capacity(rows.len() * columns.len());
        for (row, column) in rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column))) {
            let region = inside.iter().position(|[r, c]| r == row && c == column).unwrap_or(inside.len());
            if region == inside.len() {
                inside.push([row.clone(), column.clone()]);
            }
            of_position.push(region as u32);
        }
        Self { of_position, inside }
    }

    /// Regions, R.
    #[must_use]
    pub fn regions(&self) -> usize {
        self.inside.len()
    }

    /// Positions of the map.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.of_position.len()
    }

    /// The region of a position, row-major.
    ///
    /// # Panics
    ///
    /// If there is no such position.
    #[inline(always)]
    #[must_use]
    pub fn region(&self, position: usize) -> usize {
        self.of_position[position] as usize
    }

    /// Kernel rows and columns that lie inside the map over a region; more than the kernel has where nothing is cut.
    ///
    /// # Panics
    ///
    /// If there is no such region.
    #[must_use]
    pub fn inside(&self, region: usize) -> &[Range<usize>; 2] {
        &self.inside[region]
    }

    /// For each of the nine thresholds of the published layout the region that has it, if the map has such a region:
    /// interior, then from the top left corner clockwise. Absent for kernels other than 3x3 with one zero around, and for
    /// maps of a single row or column, which that layout cannot express.
    #[must_use]
    pub fn nine(&self) -> Option<[Option<usize>; 9]> {
        const ROW: [[usize; 3]; 3] = [[1, 2, 3], [8, 0, 4], [7, 6, 5]];
        let mut of_row = [None; 9];
        for (region, [rows, columns]) in self.inside.iter().enumerate() {
            let class = |range: &Range<usize>| match (range.start, range.end) {
                (1, 3) => Some(0),
                (0, 3) => Some(1),
                (0, 2) => Some(2),
                _ => None,
            };
            of_row[ROW[class(rows)?][class(columns)?]] = Some(region);
        }
        Some(of_row)
    }
}

/// Which neurons of one layer reach which of the next, and by which weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Synapses {
    /// Every input to every neuron; weights `[inputs, outputs]`.
    Dense {
        /// Inputs.
        inputs: usize,
        /// Neurons.
        outputs: usize,
    },
    /// A convolution; weights `[k, k, c_in, c_out]`.
    Conv(Conv),
}

impl Synapses {
    /// Inputs.
    #[must_use]
    pub const fn inputs(&self) -> usize {
        match self {
            Self::Dense { inputs, .. } => *inputs,
            Self::Conv(conv) => conv.input.len(),
        }
    }

    /// Neurons.
    #[must_use]
    pub const fn outputs(&self) -> usize {
        match self {
            Self::Dense { outputs, .. } => *outputs,
            Self::Conv(conv) => conv.output().len(),
        }
    }

    /// Positions with weights in common, and neurons at each of them: neuron `site * lanes + lane`.
    #[must_use]
    pub const fn sites(&self) -> (usize, usize) {
        match self {
            Self::Dense { outputs, .. } => (1, *outputs),
            Self::Conv(conv) => (conv.output().height * conv.output().width, conv.channels),
        }
    }

    /// Rows of the weights: one for each input, or for each tap and channel of a kernel.
    #[must_use]
    pub const fn rows(&self) -> usize {
        match self {
            Self::Dense { inputs, .. } => *inputs,
            Self::Conv(conv) => conv.fan_in(),
        }
    }

    /// Calls `visit` for every site that input `unit` reaches, with the row of its weights there.
    #[inline(always)]
    pub fn reach(&self, unit: usize, mut visit: impl FnMut(usize, usize)) {
        match self {
            Self::Dense { .. } => visit(0, unit),
            Self::Conv(conv) => {
                let (m, o) = (conv.input, conv.output());
                let (c, x, y) = (unit % m.channels, unit / m.channels % m.width, unit / (m.channels * m.width));
                // Output position `p` has the input under kernel position `k` where `p stride + k` is the padded input.
                for ky in 0..conv.kernel {
                    let Some(row) = position(y + conv.padding, ky, conv.stride, o.height) else { continue };
                    for kx in 0..conv.kernel_width {
                        let Some(column) = position(x + conv.padding_width, kx, conv.stride, o.width) else { continue };
                        visit(row * o.width + column, (ky * conv.kernel_width + kx) * m.channels + c);
                    }
                }
            }
        }
    }
}

/// The output position whose kernel position `k` lies on a padded input position.
#[inline(always)]
const fn position(padded: usize, k: usize, stride: usize, side: usize) -> Option<usize> {
    if padded < k || !(padded - k).is_multiple_of(stride) || (padded - k) / stride >= side {
        return None;
    }
    Some((padded - k) / stride)
}

/// The kind of activity that flows between two layers; see [`crate::Activity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Dense real values over time.
    Sequence,
    /// Sparse spikes or event counts over time.
    Spikes,
    /// One spike time per neuron.
    Times,
    /// Spikes in continuous time.
    Trains,
    /// One real value per neuron, no time.
    Values,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sequence => "a sequence of real values",
            Self::Spikes => "spikes",
            Self::Times => "spike times",
            Self::Trains => "spike trains",
            Self::Values => "values",
        })
    }
}

/// What a layer takes or gives for one sample: the kind of activity and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal {
    /// The kind of activity.
    pub kind: Kind,
    /// Time steps of a clocked kind; 1 for values and times; the capacity per neuron for trains.
    pub steps: usize,
    /// The neurons, as a map where they form one (`1 x 1 x N` otherwise).
    pub map: Map,
}

impl Signal {
    /// `steps` steps of `width` neurons without a spatial order.
    #[must_use]
    pub const fn flat(kind: Kind, steps: usize, width: usize) -> Self {
        Self { kind, steps, map: Map::new(1, 1, width) }
    }

    /// Neurons.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.map.len()
    }

    /// The size for a batch.
    #[must_use]
    pub const fn lanes(&self, batch: usize) -> Lanes {
        Lanes::new(batch, self.steps, self.map.len())
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.map.height == 1 && self.map.width == 1 {
            write!(f, "{} of {} neurons", self.kind, self.map.channels)?;
        } else {
            write!(f, "{} of {} neurons", self.kind, self.map)?;
        }
        match self.kind {
            Kind::Sequence | Kind::Spikes => write!(f, " over {} steps", self.steps),
            Kind::Trains if self.steps == 1 => f.write_str(", at most one spike each"),
            Kind::Trains => write!(f, ", at most {} spikes each", self.steps),
            Kind::Times | Kind::Values => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_source_inverts_target() {
        let pool = Pool::new(Map::new(5, 4, 3), 2).unwrap();
        let mut reached = 0;
        for unit in 0..pool.input.len() {
            if let Some((out, rank)) = pool.target(unit) {
                assert_eq!(pool.source(out, rank), unit);
                reached += 1;
            }
        }
        assert_eq!(reached, 4 * 4 * 3, "the fifth row is dropped");
        let pool = Pool::rectangle(Map::new(7, 1, 2), [3, 1]).unwrap();
        assert_eq!((pool.output(), pool.target(9)), (Map::new(2, 1, 2), Some((3, 1))));
        assert_eq!(pool.source(3, 1), 9);
    }

    #[test]
    fn conv_that_does_not_fit_is_refused() {
        let e = Conv::new(Map::new(3, 3, 1), 8, 5, 1, 0).unwrap_err();
        assert_eq!(e.to_string(), "conv: `input map` has shape [3, 3, 1], expected at least 5x5 after padding 0");
    }
}
