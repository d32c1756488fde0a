//! The few shapes every figure is made of, at absolute places; the unit is 1/2 point in print at full page width.

use super::colour::{INK, Rgb, WHITE};

/// One shape; later ones cover earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mark {
    /// A line through points.
    Line { points: Vec<(f64, f64)>, colour: Rgb, width: f64 },
    /// Unconnected straight strokes, each from a first to a second end.
    Strokes { ends: Vec<[(f64, f64); 2]>, colour: Rgb, width: f64 },
    /// A filled outline.
    Area { points: Vec<(f64, f64)>, fill: Rgb, opacity: f64, outline: Option<(Rgb, f64)> },
    /// A rectangle.
    Rect { at: (f64, f64), size: (f64, f64), fill: Rgb, outline: Option<(Rgb, f64)> },
    /// A circle.
    Dot { at: (f64, f64), radius: f64, fill: Rgb, outline: Option<(Rgb, f64)> },
    /// Text with its baseline at a place; `turn` in degrees, clockwise.
    Text { at: (f64, f64), text: String, size: u32, anchor: Anchor, bold: bool, turn: f64, colour: Rgb },
    /// What follows shows only inside the rectangle.
    Clip { at: (f64, f64), size: (f64, f64) },
    /// Ends the last clip.
    EndClip,
}

/// Which part of a text is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Text in ink, not bold, not turned.
pub(super) fn text(at: (f64, f64), text: impl Into<String>, size: u32, anchor: Anchor) -> Mark {
    Mark::Text { at, text: text.into(), size, anchor, bold: false, turn: 0.0, colour: INK }
}

impl Mark {
    /// Makes a text bold.
    pub(super) fn bold(mut self) -> Self {
        if let Self::Text { bold, .. } = &mut self {
            *bold = true;
        }
        self
    }

    /// Turns a text.
    pub(super) fn turned(mut self, degrees: f64) -> Self {
        if let Self::Text { turn, .. } = &mut self {
            *turn = degrees;
        }
        self
    }

    /// Colours a text.
    pub(super) fn tinted(mut self, tint: Rgb) -> Self {
        if let Self::Text { colour, .. } = &mut self {
            *colour = tint;
        }
        self
    }
}

/// Cuts a line into dashes of equal length along it, however dense its points are.
pub(super) fn dashes(points: &[(f64, f64)], on: f64, off: f64) -> Vec<Vec<(f64, f64)>> {
    let mut dashes = Vec::new();
    let mut current: Vec<(f64, f64)> = points.first().copied().into_iter().collect();
    let (mut drawing, mut left) = (true, on);
    for pair in points.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        let mut length = (to.0 - from.0).hypot(to.1 - from.1);
        while length > left {
            let share = left / length;
            from = (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share);
            length -= left;
            if drawing {
                current.push(from);
                dashes.push(std::mem::take(&mut current));
            } else {
                current.push(from);
            }
            drawing = !drawing;
            left = if drawing { on } else { off };
        }
        left -= length;
        if drawing {
            current.push(to);
        }
    }
    if drawing && current.len() > 1 {
        dashes.push(current);
    }
    dashes
}

/// Thins a long line to what can be seen: per column of half a unit its first, lowest, highest and last point.
pub(super) fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let forward = points.windows(2).all(|pair| pair[0].0 <= pair[1].0);
    if points.len() < 2_000 || !forward {
        return points;
    }
    let column = |point: &(f64, f64)| (point.0 * 2.0).floor();
    let mut kept = Vec::new();
    for run in points.chunk_by(|a, b| column(a) == column(b)) {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let mut indices: Vec<usize> = [run.iter().min_by(by_height), run.iter().max_by(by_height)]
            .into_iter()
            .flatten()
            .filter_map(|extreme| run.iter().position(|point| point == extreme))
            .chain([0, run.len() - 1])
            .collect();
        indices.sort_unstable();
        indices.dedup();
        kept.extend(indices.into_iter().map(|i| run[i]));
    }
    kept
}

/// A hollow shape's filling.
pub(super) const HOLLOW: Rgb = WHITE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_do_not_depend_on_the_density_of_points() {
        let coarse = [(0.0, 0.0), (100.0, 0.0)];
        let dense: Vec<(f64, f64)> = (0..=1000).map(|i| (f64::from(i) / 10.0, 0.0)).collect();
        let ends = |dashes: Vec<Vec<(f64, f64)>>| -> Vec<(f64, f64)> {
            dashes.iter().map(|d| (d[0].0.round(), d[d.len() - 1].0.round())).collect()
        };
        let expected = ends(dashes(&coarse, 6.0, 4.0));
        assert_eq!(expected.len(), 10);
        assert_eq!(expected[1], (10.0, 16.0));
        assert_eq!(ends(dashes(&dense, 6.0, 4.0)), expected);
    }

    #[test]
    fn thinning_keeps_the_extremes() {
        let points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i) / 1e3, f64::from(i % 7))).collect();
        let kept = thinned(points.clone());
        assert!(kept.len() < 1_000 && kept.iter().any(|p| p.1 == 6.0) && kept.iter().any(|p| p.1 == 0.0));
        assert_eq!((kept[0], kept[kept.len() - 1]), (points[0], points[99_999]));
        let short = vec![(0.0, 1.0), (1.0, 2.0)];
        assert_eq!(thinned(short.clone()), short);
    }
}
