//! Dense products: cuBLAS.

use std::ffi::c_void;

use cudarc::cublas::{result as blas, sys as blas_sys};
use cudarc::driver::{CudaStream, result as driver, sys};
use snn_core::backend::Gemm;
use snn_core::error::Result;

use super::{Cuda, Precision, describe};

/// cuBLAS at work on the device's queue.
pub(super) struct Products {
    handle: blas_sys::cublasHandle_t,
    /// Scratch of fixed size: with it the library chooses the same algorithm every time.
    workspace: u64,
}

/// Bytes of that scratch, as NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;

impl Products {
    pub(super) fn new(stream: &CudaStream, precision: Precision) -> Result<Self, String> {
        let failed = |e| format!("cuBLAS does not start: {e:?}");
        let mode = match precision {
            Precision::Single => blas_sys::cublasMath_t::CUBLAS_DEFAULT_MATH,
            Precision::Tensor => blas_sys::cublasMath_t::CUBLAS_TF32_TENSOR_OP_MATH,
        };
        let handle = blas::create_handle().map_err(failed)?;
        // SAFETY: the handle was created just now, the queue is alive as long as the device, and so is the scratch.
        unsafe {
            let workspace = driver::malloc_async(stream.cu_stream(), WORKSPACE).map_err(describe)?;
            blas::set_stream(handle, stream.cu_stream() as blas_sys::cudaStream_t).map_err(failed)?;
            blas_sys::cublasSetWorkspace_v2(handle, workspace as *mut c_void, WORKSPACE).result().map_err(failed)?;
            blas_sys::cublasSetMathMode(handle, mode).result().map_err(failed)?;
            Ok(Self { handle, workspace })
        }
    }

    /// Gives handle and scratch back.
    ///
    /// # Safety
    ///
    /// The queue has finished, and nothing uses either any more.
    pub(super) unsafe fn release(&self, stream: sys::CUstream) {
        // SAFETY: the caller's promise. Errors at the end have nobody to go to.
        unsafe {
            let _ = blas::destroy_handle(self.handle);
            let _ = driver::free_async(self.workspace, stream);
        }
    }
}
/// A row-major matrix in the device's memory, or several at equal distances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix {
    /// Where the first begins.
    pub(crate) address: u64,
    /// Entries from one row to the next.
    pub(crate) row: usize,
    /// Entries from one matrix to the next.
    pub(crate) step: usize,
}
impl Cuda {
    /// Queues dense products of row-major matrices, `c = op(a) op(b) (+ c)`.
    pub(crate) fn queue_products(&self, g: Gemm, [a, b, c]: [Matrix; 3], batch: usize) -> Result<()> {
        self.bind()?;
        let operation = |transposed| {
            if transposed { blas_sys::cublasOperation_t::CUBLAS_OP_T } else { blas_sys::cublasOperation_t::CUBLAS_OP_N }
        };
        let size = |len: usize| {
            i32::try_from(len)
                .map_err(|_| self.error(format!("gemm: {len} entries of one axis are too many for cuBLAS")))
        };
        let (one, beta) = (1.0_f32, if g.accumulate { 1.0_f32 } else { 0.0 });
        let (m, n, k, batch) = (size(g.m)?, size(g.n)?, size(g.k)?, size(batch)?);
        let row = [size(a.row)?, size(b.row)?, size(c.row)?];
        let handle = self.inner.products.handle;
        let (op_a, op_b) = (operation(g.transpose_a), operation(g.transpose_b));
        let at = [a.address as *const f32, b.address as *const f32, c.address as *const f32];
        // cuBLAS stores columns: seen so, our c is its own transpose, (a b)^T = b^T a^T.
        // SAFETY: callers have checked the lengths of all three buffers; the scalars are read before the call returns.
        let done = unsafe {
            if batch == 1 {
                let c = at[2].cast_mut();
                blas::sgemm(handle, op_b, op_a, n, m, k, &one, at[1], row[1], at[0], row[0], &beta, c, row[2])
            } else {
                let step = [a.step as i64, b.step as i64, c.step as i64];
                blas::sgemm_strided_batched(
                    handle,
                    op_b,
                    op_a,
                    n,
                    m,
                    k,
                    &one,
                    at[1],
                    row[1],
                    step[1],
                    at[0],
                    row[0],
                    step[0],
                    &beta,
                    at[2].cast_mut(),
                    row[2],
                    step[2],
                    batch,
                )
            }
        };
        done.map_err(|e| self.error(format!("cuBLAS: {e:?}")))
    }
}
