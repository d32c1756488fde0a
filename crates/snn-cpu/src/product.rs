//! The dense matrix product and the sum of rows, on one thread: what the operations above are made of.

use gemm::Parallelism;

use crate::simd;

/// Distance between neighbours along the two axes of a matrix, in entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strides {
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl Strides {
    /// Row-major with `width` entries per row.
    pub(crate) const fn rows(width: usize) -> Self {
        Self { row: width, column: 1 }
    }
}

/// The last entry that a matrix reaches, plus one.
fn extent(rows: usize, columns: usize, s: Strides) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * s.row + (columns - 1) * s.column + 1 }
}

/// `c[m, n] = a[m, k] b[k, n]`, or `c +=` that, on one thread: the single entry to the matrix product.
#[expect(unsafe_code, reason = "the matrix product takes raw pointers")]
pub(crate) fn sgemm(
    m: usize,
    n: usize,
    k: usize,
    (a, sa): (&[f32], Strides),
    (b, sb): (&[f32], Strides),
    (c, sc): (&mut [f32], Strides),
    accumulate: bool,
) {
    assert!(
        a.len() >= extent(m, k, sa) && b.len() >= extent(k, n, sb) && c.len() >= extent(m, n, sc),
        "sgemm: short buffer"
    );
    // SAFETY: every index `i * row + j * column` of the three matrices lies below the extents checked above; `c` is
    // borrowed mutably, so it does not overlap the others; strides are positive and far below `isize::MAX`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            sc.column as isize,
            sc.row as isize,
            accumulate,
            a.as_ptr(),
            sa.column as isize,
            sa.row as isize,
            b.as_ptr(),
            sb.column as isize,
            sb.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `y += x` on one thread.
pub(crate) fn add(x: &[f32], y: &mut [f32]) {
    simd::run(
        #[inline(always)]
        || y.iter_mut().zip(x).for_each(|(y, &x)| *y += x),
    );
}
