//! EMNIST, the edition of IDX files in one zip archive.
//!
//! The images are transposed with respect to MNIST: pixel (row r, column c) of the upright glyph is stored at
//! `c * 28 + r`. The labels of the split `letters` begin at 1.

/// Makes a stored glyph upright, in place.
///
/// # Panics
///
/// If there are not `side * side` pixels.
pub fn transpose(pixels: &mut [u8], side: usize) {
    assert_eq!(pixels.len(), side * side, "a square image");
    for row in 0..side {
        for column in row + 1..side {
            pixels.swap(row * side + column, column * side + row);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn stored_glyphs_become_upright() {
        let mut pixels = [0, 1, 2, 3, 4, 5, 6, 7, 8];
        super::transpose(&mut pixels, 3);
        assert_eq!(pixels, [0, 3, 6, 1, 4, 7, 2, 5, 8]);
    }
}
