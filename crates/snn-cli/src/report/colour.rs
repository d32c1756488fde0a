//! Colours that stay apart for colour-blind readers and in grey print.

use super::axis::Ruler;

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

pub(super) const INK: Rgb = [0x22, 0x26, 0x2a];
pub(super) const SOFT: Rgb = [0x6a, 0x72, 0x7a];
pub(super) const GRID: Rgb = [0xe4, 0xe7, 0xea];
pub(super) const EMPTY: Rgb = [0xf1, 0xf2, 0xf4];
pub(super) const WHITE: Rgb = [0xff; 3];

/// Okabe and Ito's colours, the light yellow replaced by a dark grey that is visible on white.
const SERIES: [Rgb; 8] = [
    [0x00, 0x72, 0xb2],
    [0xd5, 0x5e, 0x00],
    [0x00, 0x9e, 0x73],
    [0xcc, 0x79, 0xa7],
    [0x56, 0xb4, 0xe9],
    [0xe6, 0x9f, 0x00],
    [0x4d, 0x4d, 0x4d],
    [0x88, 0x22, 0x55],
];

/// Viridis at equal steps: dark is low, and lightness alone carries the order.
const ONE_WAY: [Rgb; 9] = [
    [0x44, 0x01, 0x54],
    [0x47, 0x2d, 0x7b],
    [0x3b, 0x52, 0x8b],
    [0x2c, 0x72, 0x8e],
    [0x21, 0x91, 0x8c],
    [0x28, 0xae, 0x80],
    [0x5e, 0xc9, 0x62],
    [0xad, 0xdc, 0x30],
    [0xfd, 0xe7, 0x25],
];

/// Brown for below, blue for above, almost white at the centre.
const TWO_WAY: [Rgb; 9] = [
    [0xa6, 0x4a, 0x05],
    [0xd9, 0x7b, 0x1c],
    [0xf3, 0xae, 0x63],
    [0xfb, 0xdc, 0xb4],
    [0xf6, 0xf6, 0xf4],
    [0xcb, 0xe0, 0xef],
    [0x8b, 0xbd, 0xdc],
    [0x42, 0x8f, 0xc4],
    [0x1c, 0x5f, 0xa5],
];

/// The colour of series `index`, mixed with white by `fade`.
pub(super) fn series(index: usize, fade: f64) -> Rgb {
    mix(SERIES[index % SERIES.len()], WHITE, fade.clamp(0.0, 0.8))
}

fn mix(a: Rgb, b: Rgb, share: f64) -> Rgb {
    std::array::from_fn(|i| (f64::from(a[i]) * (1.0 - share) + f64::from(b[i]) * share).round() as u8)
}

/// A colour scale over a ruler.
#[derive(Clone, Debug)]
pub(super) struct ColourMap {
    pub(super) ruler: Ruler,
    centre: Option<f64>,
}

impl ColourMap {
    pub(super) fn new(ruler: Ruler, centre: Option<f64>) -> Self {
        let centre = centre.map(|value| ruler.place(value)).filter(|place| *place > 0.0 && *place < 1.0);
        Self { ruler, centre }
    }

    /// The colour at `place` in 0..1 along the scale.
    pub(super) fn at(&self, place: f64) -> Rgb {
        let place = place.clamp(0.0, 1.0);
        let (stops, place) = match self.centre {
            Some(centre) if place < centre => (&TWO_WAY, place / centre * 0.5),
            Some(centre) => (&TWO_WAY, 0.5 + (place - centre) / (1.0 - centre) * 0.5),
            None => (&ONE_WAY, place),
        };
        let scaled = place * (stops.len() - 1) as f64;
        let low = (scaled as usize).min(stops.len() - 2);
        mix(stops[low], stops[low + 1], scaled - low as f64)
    }

    /// The colour of a value.
    pub(super) fn of(&self, value: f64) -> Rgb {
        self.at(self.ruler.place(value))
    }
}

/// Black or white, whichever reads better on `background`.
pub(super) fn text_on(background: Rgb) -> Rgb {
    let [r, g, b] = background.map(f64::from);
    if 0.299 * r + 0.587 * g + 0.114 * b > 115.0 { INK } else { WHITE }
}

#[cfg(test)]
mod tests {
    use super::super::figure::Scale;
    use super::*;

    #[test]
    fn a_two_way_scale_is_pale_at_its_centre() {
        let map = ColourMap::new(Ruler::fixed(Scale::Log2, 0.25, 16.0), Some(1.0));
        assert_eq!(map.of(1.0), TWO_WAY[4]);
        assert_eq!((map.of(0.25), map.of(16.0)), (TWO_WAY[0], TWO_WAY[8]));
        assert_eq!(map.of(99.0), TWO_WAY[8]);
    }

    #[test]
    fn text_is_readable_on_both_ends() {
        assert_eq!((text_on(ONE_WAY[0]), text_on(ONE_WAY[8])), (WHITE, INK));
    }
}
