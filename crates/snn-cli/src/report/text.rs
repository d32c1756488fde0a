//! How wide text is, and where it may break.
//!
//! Widths are those of DejaVu Sans, which the PNG pictures use; the fonts an SVG viewer picks are as wide or narrower,
//! so that what fits here fits there.

/// Advance of the printable ASCII characters from the space on, in thousandths of the font size.
#[rustfmt::skip]
const ADVANCE: [u16; 95] = [
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337,
    636, 636, 636, 636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531,
    1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863, 748, 787,
    603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500,
    500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612,
    635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
];

/// Bold letters are wider by about this factor.
const BOLD: f64 = 1.13;

/// Width of `text` at `size`.
pub(super) fn width(text: &str, size: u32) -> f64 {
    let thousandths: u32 = text
        .chars()
        .map(|c| match c {
            ' '..='~' => u32::from(ADVANCE[c as usize - ' ' as usize]),
            '\u{2009}' => 200,
            '⁰'..='⁹' | '¹' | '²' | '³' => 401,
            '⁻' => 528,
            '×' | '±' | '−' => 838,
            'α'..='ω' | 'µ' | 'À'..='ÿ' => 640,
            _ => 1000,
        })
        .sum();
    f64::from(thousandths) / 1000.0 * f64::from(size)
}

/// Width of bold `text` at `size`.
pub(super) fn bold_width(text: &str, size: u32) -> f64 {
    width(text, size) * BOLD
}

/// The widest of `texts`.
pub(super) fn widest<'a>(texts: impl IntoIterator<Item = &'a str>, size: u32) -> f64 {
    texts.into_iter().map(|text| width(text, size)).fold(0.0, f64::max)
}

/// Breaks `text` at spaces and hyphens into lines of at most `limit`; a longer word keeps a line of its own.
///
/// A hyphen breaks only between longer parts: not `N-MNIST`, not `--profile`.
pub(super) fn wrap(text: &str, limit: f64, measure: impl Fn(&str) -> f64) -> Vec<String> {
    let mut pieces = Vec::new();
    for word in text.split_whitespace() {
        let mut piece = String::new();
        for (at, c) in word.char_indices() {
            piece.push(c);
            let after = &word[at + c.len_utf8()..];
            let long = |part: &str| part.chars().take_while(|c| c.is_alphanumeric()).count() > 1;
            let before = piece.len() > 2 && piece[..piece.len() - 1].chars().all(char::is_alphanumeric);
            if c == '-' && before && long(after) {
                pieces.push(std::mem::take(&mut piece));
            }
        }
        piece.push(' ');
        pieces.push(piece);
    }
    let mut lines: Vec<String> = Vec::new();
    for piece in pieces {
        match lines.last_mut() {
            Some(line) if measure(format!("{line}{piece}").trim_end()) <= limit => line.push_str(&piece),
            _ => lines.push(piece),
        }
    }
    for line in &mut lines {
        line.truncate(line.trim_end().len());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_hyphens() {
        let count = |text: &str| text.chars().count() as f64;
        assert_eq!(wrap("one two three", 7.0, count), ["one two", "three"]);
        assert_eq!(wrap("Fashion-MNIST", 8.0, count), ["Fashion-", "MNIST"]);
        assert_eq!(wrap("N-MNIST a", 9.0, count), ["N-MNIST a"]);
        assert_eq!(wrap("N-MNIST run with --profile", 6.0, count), ["N-MNIST", "run", "with", "--profile"]);
        assert!(wrap("  ", 3.0, count).is_empty());
    }

    #[test]
    fn widths_grow_with_the_text() {
        assert!(width("WW", 12) > width("ii", 12));
        assert_eq!(width("0", 1000), 636.0);
        assert!(bold_width("a", 12) > width("a", 12));
    }
}
