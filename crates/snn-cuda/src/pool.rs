//! Max pooling of spikes and of values, whose gradient goes to the first maximum of a window, row-major; mean pooling of
//! both.

use snn_core::Pool;
use snn_core::error::{Result, check_len};

use crate::conv::int_fields;
use crate::device::Cuda;
use crate::kernels::POOL;
use crate::launch::Fields;
use crate::memory::Buffer;
use crate::spikes::CudaSpikes;

/// Pooling as kernels take it.
pub(crate) fn shape(device: &Cuda, pool: &Pool) -> Result<Fields> {
    let (m, o) = (pool.input, pool.output());
    // Units of a map are counted in integers too.
    int_fields(device, "Map", &[m.len()])?;
    int_fields(device, "Pool", &[m.height, m.width, m.channels, pool.window, pool.window_width, o.height, o.width])
}

impl Cuda {
    pub(crate) fn largest_counts(&self, pool: &Pool, spikes: &CudaSpikes, out: &mut CudaSpikes) -> Result<()> {
        let lanes = spikes.lanes();
        check_len("pool", "spikes", lanes.width, pool.input.len())?;
        let words = out.overwrite(self, lanes.with_width(pool.output().len()), spikes.planes() as usize)?;
        let shape = shape(self, pool)?;
        if spikes.planes() == 1 && pool.input.channels.is_multiple_of(32) {
            let launch = self.launch(&POOL, "pool_words").threads(words.len()).arg(spikes.words());
            return launch.arg(spikes.rows()).arg(shape).arg(words).run();
        }
        self.launch(&POOL, "pool_spikes")
            .warps(words.len() / (spikes.planes() as usize).max(1))
            .arg(spikes.words())
            .arg(spikes.planes())
            .arg(spikes.rows())
            .arg(shape)
            .arg(words)
            .run()
    }

    pub(crate) fn largest_counts_grad(
        &self,
        pool: &Pool,
        spikes: &CudaSpikes,
        grad: &Buffer<f32>,
        grad_input: &mut Buffer<f32>,
    ) -> Result<()> {
        let lanes = spikes.lanes();
        let (n_in, n_out) = (pool.input.len(), pool.output().len());
        check_len("pool", "spikes", lanes.width, n_in)?;
        check_len("pool", "grad", grad.len(), lanes.rows() * n_out)?;
        check_len("pool", "grad_input", grad_input.len(), lanes.rows() * n_in)?;
        self.launch(&POOL, "pool_spikes_grad")
            .threads(grad_input.len())
            .arg(spikes.words())
            .arg(spikes.planes())
            .arg(spikes.rows())
            .arg(grad)
            .arg(grad_input)
            .arg(shape(self, pool)?)
            .run()
    }

    pub(crate) fn means(&self, pool: &Pool, rows: usize, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        check_len("pool_mean", "x", x.len(), rows * pool.input.len())?;
        check_len("pool_mean", "out", out.len(), rows * pool.output().len())?;
        let len = out.len();
        self.launch(&POOL, "pool_mean").threads(len).arg(x).arg(out).arg(len as i64).arg(shape(self, pool)?).run()
    }

    pub(crate) fn mean_counts(&self, pool: &Pool, spikes: &CudaSpikes, out: &mut Buffer<f32>) -> Result<()> {
        let lanes = spikes.lanes();
        check_len("pool_spikes_mean", "spikes", lanes.width, pool.input.len())?;
        check_len("pool_spikes_mean", "out", out.len(), lanes.rows() * pool.output().len())?;
        self.launch(&POOL, "pool_spikes_mean")
            .threads(out.len())
            .arg(spikes.words())
            .arg(spikes.planes())
            .arg(spikes.rows())
            .arg(out)
            .arg(shape(self, pool)?)
            .run()
    }

    pub(crate) fn means_grad(
        &self,
        pool: &Pool,
        rows: usize,
        grad: &Buffer<f32>,
        grad_input: &mut Buffer<f32>,
    ) -> Result<()> {
        check_len("pool_mean", "grad", grad.len(), rows * pool.output().len())?;
        check_len("pool_mean", "grad_input", grad_input.len(), rows * pool.input.len())?;
        let len = grad_input.len();
        let launch = self.launch(&POOL, "pool_mean_grad").threads(len).arg(grad).arg(grad_input);
        launch.arg(len as i64).arg(shape(self, pool)?).run()
    }

    /// Max pooling of values, with a sign for each channel.
    pub(crate) fn maxima(
        &self,
        pool: &Pool,
        rows: usize,
        sign: Option<&Buffer<f32>>,
        x: &Buffer<f32>,
        out: &mut Buffer<f32>,
        at: &mut Buffer<u32>,
    ) -> Result<()> {
        const OP: &str = "pool_max";
        check_len(OP, "x", x.len(), rows * pool.input.len())?;
        check_len(OP, "out", out.len(), rows * pool.output().len())?;
        check_len(OP, "at", at.len(), rows * pool.output().len())?;
        sign.map_or(Ok(()), |sign| check_len(OP, "sign", sign.len(), pool.input.channels))?;
        let len = out.len();
        let launch = self.launch(&POOL, OP).threads(len).arg(sign).arg(x).arg(out).arg(at);
        launch.arg(len as i64).arg(shape(self, pool)?).run()
    }

    /// Adjoint of [`Cuda::maxima`].
    pub(crate) fn maxima_grad(
        &self,
        pool: &Pool,
        rows: usize,
        at: &Buffer<u32>,
        grad: &Buffer<f32>,
        grad_input: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "pool_max_grad";
        check_len(OP, "at", at.len(), rows * pool.output().len())?;
        check_len(OP, "grad", grad.len(), rows * pool.output().len())?;
        check_len(OP, "grad_input", grad_input.len(), rows * pool.input.len())?;
        let len = grad_input.len();
        let launch = self.launch(&POOL, OP).threads(len).arg(at).arg(grad).arg(grad_input);
        launch.arg(len as i64).arg(shape(self, pool)?).run()
    }
}
