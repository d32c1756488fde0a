//! Softmax over the neurons of a step, and losses: a warp for each row.

use snn_core::Lanes;
use snn_core::error::{Result, check_len};

use crate::device::Cuda;
use crate::kernels::LOSSES;
use crate::memory::Buffer;

impl Cuda {
    /// `out[b, :] = sum over t of the softmax of x[b, t, :]`; the lengths have been checked.
    pub(crate) fn softmax_sum(&self, lanes: Lanes, x: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<()> {
        let (mut top, mut sum) = (self.scratch(lanes.rows())?, self.scratch(lanes.rows())?);
        self.launch(&LOSSES, "softmax_rows")
            .warps(lanes.rows())
            .arg(x)
            .arg(&mut top)
            .arg(&mut sum)
            .arg(lanes.rows() as i64)
            .arg(lanes.width as i32)
            .run()?;
        self.sum_softmax(lanes, x, [&top, &sum], out)
    }

    /// The adjoint of [`Cuda::softmax_sum`].
    pub(crate) fn softmax_sum_grad(
        &self,
        lanes: Lanes,
        x: &Buffer<f32>,
        grad: &Buffer<f32>,
        grad_x: &mut Buffer<f32>,
    ) -> Result<()> {
        self.launch(&LOSSES, "softmax_rows_grad")
            .warps(lanes.rows())
            .arg(x)
            .arg(grad)
            .arg(grad_x)
            .arg(lanes.rows() as i64)
            .arg(lanes.steps as i32)
            .arg(lanes.width as i32)
            .run()
    }

    pub(crate) fn cross_entropy(
        &self,
        classes: usize,
        logits: &Buffer<f32>,
        targets: &Buffer<u32>,
        losses: &mut Buffer<f32>,
        grad: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "softmax_cross_entropy";
        check_len(OP, "logits", logits.len(), targets.len() * classes)?;
        check_len(OP, "losses", losses.len(), targets.len())?;
        check_len(OP, "grad", grad.len(), logits.len())?;
        self.launch(&LOSSES, OP)
            .warps(targets.len())
            .arg(logits)
            .arg(targets)
            .arg(losses)
            .arg(grad)
            .arg(targets.len() as i32)
            .arg(classes as i32)
            .run()
    }

    /// A loss with a target for every class, by its kernel of the same name.
    pub(crate) fn soft_loss(
        &self,
        op: &'static str,
        classes: usize,
        outputs: &Buffer<f32>,
        targets: &Buffer<f32>,
        losses: &mut Buffer<f32>,
        grad: &mut Buffer<f32>,
    ) -> Result<()> {
        check_len(op, "outputs", outputs.len(), losses.len() * classes)?;
        check_len(op, "targets", targets.len(), outputs.len())?;
        check_len(op, "grad", grad.len(), outputs.len())?;
        let batch = losses.len();
        self.launch(&LOSSES, op)
            .warps(batch)
            .arg(outputs)
            .arg(targets)
            .arg(losses)
            .arg(grad)
            .arg(batch as i32)
            .arg(classes as i32)
            .run()
    }
}
