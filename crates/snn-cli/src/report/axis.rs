//! From values to places along an axis, and the ticks that say so.

use super::figure::Scale;

/// A mapping of values to 0..1.
#[derive(Clone, Debug)]
pub(super) struct Ruler {
    scale: Scale,
    from: f64,
    to: f64,
    /// Whether ticks belong on whole numbers only, because all data do.
    whole: bool,
}

/// A labelled position.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) value: f64,
    pub(super) label: String,
}

impl Ruler {
    /// A ruler with exactly these ends; ends that make no axis are moved apart.
    pub(super) fn fixed(scale: Scale, from: f64, to: f64) -> Self {
        let (mut from, mut to) = if from.is_finite() && to.is_finite() { (from, to) } else { (0.0, 1.0) };
        if scale != Scale::Linear {
            if to <= 0.0 {
                (from, to) = (0.1, 1.0);
            } else if from <= 0.0 {
                from = to / 1_000.0;
            }
        }
        if to <= from {
            (from, to) = match scale {
                Scale::Linear => (from - from.abs().max(1.0) * 0.5, from + from.abs().max(1.0) * 0.5),
                Scale::Log2 => (from / 2.0, from * 2.0),
                Scale::Log10 => (from / 10.0, from * 10.0),
            };
        }
        Self { scale, from, to, whole: false }
    }

    /// A ruler over `values` with `below` and `above` of its length left free at the ends.
    ///
    /// A linear one starts at zero where that costs little room, so that lengths mean something.
    pub(super) fn around(scale: Scale, values: impl IntoIterator<Item = f64>, below: f64, above: f64) -> Self {
        let usable = |v: &f64| v.is_finite() && (scale == Scale::Linear || *v > 0.0);
        let (low, high) = values
            .into_iter()
            .filter(usable)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return Self::fixed(
                scale,
                if scale == Scale::Linear { 0.0 } else { 1.0 },
                if scale == Scale::Log2 { 2.0 } else { 10.0 },
            );
        }
        let tight = Self::fixed(scale, low, high);
        if scale == Scale::Linear {
            let near_zero = |end: f64, far: f64| end * far > 0.0 && end.abs() < 0.4 * far.abs();
            let (mut from, mut to) = (tight.from, tight.to);
            let (mut pad_low, mut pad_high) = (below, above);
            if below > 0.0 && (near_zero(from, to) || from == 0.0) {
                (from, pad_low) = (0.0, 0.0);
            } else if above > 0.0 && (near_zero(to, from) || to == 0.0) {
                (to, pad_high) = (0.0, 0.0);
            }
            let length = (to - from) / (1.0 - pad_low - pad_high).max(0.1);
            return Self::fixed(scale, from - length * pad_low, to + length * pad_high);
        }
        let (from, to) = (tight.from.ln(), tight.to.ln());
        let length = (to - from) / (1.0 - below - above).max(0.1);
        Self::fixed(scale, (from - length * below).exp(), (to + length * above).exp())
    }

    /// A ruler over `values` with `pad` of its length left free at both ends, wherever zero is: for positions.
    pub(super) fn spanning(scale: Scale, values: impl IntoIterator<Item = f64>, pad: f64) -> Self {
        let values: Vec<f64> = values.into_iter().collect();
        let whole = values.iter().all(|v| v.fract() == 0.0);
        let tight = Self::around(scale, values, 0.0, 0.0);
        let (from, to) = match scale {
            Scale::Linear => {
                let free = (tight.to - tight.from) * pad;
                (tight.from - free, tight.to + free)
            }
            _ => {
                let free = (tight.to.ln() - tight.from.ln()) * pad;
                ((tight.from.ln() - free).exp(), (tight.to.ln() + free).exp())
            }
        };
        Self { whole, ..Self::fixed(scale, from, to) }
    }

    /// First value.
    pub(super) fn from(&self) -> f64 {
        self.from
    }

    /// Whether the scale is linear.
    pub(super) fn is_linear(&self) -> bool {
        self.scale == Scale::Linear
    }

    /// Where `value` lies: 0 at the first end, 1 at the last, beyond for values outside.
    pub(super) fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            // Differences of logarithms: the ratio of extreme values is not a number.
            _ => (value.ln() - self.from.ln()) / (self.to.ln() - self.from.ln()),
        }
    }

    /// Whether `value` can be placed at all.
    pub(super) fn can_place(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    /// About `count` labelled ticks inside the ends.
    pub(super) fn ticks(&self, count: usize) -> Vec<Tick> {
        let count = count.max(2);
        match self.scale {
            Scale::Linear => self.linear_ticks(count),
            Scale::Log2 => self.log_ticks(2.0, count),
            Scale::Log10 => self.log_ticks(10.0, count),
        }
    }

    /// Short ticks without label: 2..9 within the decades of a decimal axis.
    pub(super) fn minor_ticks(&self) -> Vec<f64> {
        let decades = (self.to / self.from).log10();
        if self.scale != Scale::Log10 || !decades.is_finite() || decades > 7.0 {
            return Vec::new();
        }
        let (first, last) = (self.from.log10().floor() as i32, self.to.log10().ceil() as i32);
        (first..last)
            .flat_map(|k| (2..10).map(move |m| f64::from(m) * 10_f64.powi(k)))
            .filter(|v| self.holds(*v))
            .collect()
    }

    fn holds(&self, value: f64) -> bool {
        (-1e-9..=1.0 + 1e-9).contains(&self.place(value))
    }

    fn linear_ticks(&self, count: usize) -> Vec<Tick> {
        let raw = (self.to - self.from) / count as f64;
        let raw = if self.whole { raw.max(1.0) } else { raw };
        let magnitude = 10_f64.powf(raw.log10().floor());
        let (factor, extra) = [(1.0, 0), (2.0, 0), (2.5, 1), (5.0, 0), (10.0, 0)]
            .into_iter()
            .find(|(factor, _)| {
                factor * magnitude >= raw * 0.999 && !(self.whole && (factor * magnitude).fract() != 0.0)
            })
            .unwrap_or((10.0, 0));
        let step = factor * magnitude;
        let decimals =
            (extra - (magnitude.log10() + f64::from(u8::from(factor == 10.0))).round() as i32).max(0) as usize;
        let (first, last) = ((self.from / step - 1e-9).ceil(), (self.to / step + 1e-9).floor());
        let largest = self.from.abs().max(self.to.abs());
        (0..=(last - first).clamp(-1.0, 200.0) as i64)
            .map(|i| {
                let value = (first + i as f64) * step;
                let value = if value.abs() < step * 1e-9 { 0.0 } else { value };
                let label = if value == 0.0 {
                    "0".to_owned()
                } else if !(1e-3..1e7).contains(&largest) {
                    scientific(value, 1)
                } else {
                    grouped(value, decimals)
                };
                Tick { value, label }
            })
            .collect()
    }

    fn log_ticks(&self, base: f64, count: usize) -> Vec<Tick> {
        let exponent = |v: f64| v.ln() / base.ln();
        let (first, last) = ((exponent(self.from) - 1e-9).ceil() as i32, (exponent(self.to) + 1e-9).floor() as i32);
        if last - first < 1 {
            return self.few_log_ticks(count);
        }
        let stride = ((last - first + 1) as usize).div_ceil(count).max(1);
        // Where 1 is on the axis it gets a tick: it usually means "equal".
        let start = if first < 0 && last > 0 { first + (-first).rem_euclid(stride as i32) } else { first };
        let plain = base == 2.0 && first >= -6 && last <= 16 || base == 10.0 && first >= -3 && last <= 4;
        (start..=last)
            .step_by(stride)
            .map(|k| {
                let value = base.powi(k);
                let label = if plain && value >= 1.0 {
                    grouped(value, 0)
                } else if plain && base == 2.0 && k < -3 {
                    format!("1/{}", base.powi(-k))
                } else if plain {
                    format!("{value}")
                } else {
                    format!("{base}{}", superscript(k))
                };
                Tick { value, label }
            })
            .collect()
    }

    /// Where hardly a power fits between the ends: the usual ticks of a linear axis, at their logarithmic places.
    fn few_log_ticks(&self, count: usize) -> Vec<Tick> {
        let linear = Self { scale: Scale::Linear, ..self.clone() };
        linear.linear_ticks(count).into_iter().filter(|tick| tick.value > 0.0).collect()
    }
}

/// `value` with `decimals` digits after the point and thin spaces between thousands from 10 000 on.
pub(super) fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').map_or((&*text, None), |(w, f)| (w, Some(f)));
    let mut result = String::new();
    if value < 0.0 {
        result.push('−');
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 && whole.len() > 4 {
            result.push('\u{2009}');
        }
        result.push(digit);
    }
    if let Some(fraction) = fraction {
        result.push('.');
        result.push_str(fraction);
    }
    result
}

/// Numbers with the same digits after the point, three significant ones in the largest, for labels on bars and cells.
///
/// A number that would lose its first digit that way is written in full length of its own.
pub(super) fn alike(values: impl IntoIterator<Item = f64>) -> impl Fn(f64) -> String {
    let largest = values.into_iter().filter(|v| v.is_finite()).map(f64::abs).fold(0.0, f64::max);
    let decimals = (2 - largest.log10().floor().clamp(-9.0, 9.0) as i32).clamp(0, 5) as usize;
    move |value| {
        let size = value.abs();
        if value == 0.0 {
            "0".to_owned()
        } else if !(1e-3..1e6).contains(&size) {
            scientific(value, 1)
        } else if size * 10_f64.powi(decimals as i32) < 1.0 {
            grouped(value, (-size.log10().floor()) as usize)
        } else {
            grouped(value, decimals)
        }
    }
}

fn scientific(value: f64, decimals: usize) -> String {
    let exponent = value.abs().log10().floor() as i32;
    let mantissa = value / 10_f64.powi(exponent);
    let text = format!("{mantissa:.decimals$}").replace('-', "−");
    let text = text.strip_suffix(".0").unwrap_or(&text).to_owned();
    format!("{text}×10{}", superscript(exponent))
}

fn superscript(number: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let sign = if number < 0 { "⁻" } else { "" };
    let digits = number.unsigned_abs().to_string().into_bytes().into_iter().map(|b| DIGITS[usize::from(b - b'0')]);
    sign.chars().chain(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ruler: &Ruler, count: usize) -> Vec<String> {
        ruler.ticks(count).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn linear_ticks_are_round_numbers() {
        assert_eq!(labels(&Ruler::fixed(Scale::Linear, 0.0, 1.0), 5), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Ruler::fixed(Scale::Linear, -3.0, 21.0), 5), ["0", "5", "10", "15", "20"]);
        assert_eq!(labels(&Ruler::fixed(Scale::Linear, 0.0, 1.0), 4), ["0", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(
            labels(&Ruler::fixed(Scale::Linear, 2e3, 20e3), 4),
            ["5000", "10\u{2009}000", "15\u{2009}000", "20\u{2009}000"]
        );
        assert_eq!(labels(&Ruler::fixed(Scale::Linear, 0.0, 3e-5), 3), ["0", "1×10⁻⁵", "2×10⁻⁵", "3×10⁻⁵"]);
        assert_eq!(labels(&Ruler::fixed(Scale::Linear, 97.2, 98.4), 5), ["97.25", "97.50", "97.75", "98.00", "98.25"]);
    }

    #[test]
    fn whole_data_have_whole_ticks() {
        assert_eq!(labels(&Ruler::spanning(Scale::Linear, [1.0, 2.0, 5.0], 0.04), 9), ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn logarithmic_ticks_are_powers_thinned_to_the_room() {
        assert_eq!(
            labels(&Ruler::fixed(Scale::Log2, 8.0, 2048.0), 9),
            ["8", "16", "32", "64", "128", "256", "512", "1024", "2048"]
        );
        assert_eq!(labels(&Ruler::fixed(Scale::Log2, 8.0, 2048.0), 5), ["8", "32", "128", "512", "2048"]);
        assert_eq!(labels(&Ruler::fixed(Scale::Log2, 0.125, 9.0), 4), ["0.25", "1", "4"]);
        assert_eq!(labels(&Ruler::fixed(Scale::Log2, 0.25, 4.0), 5), ["0.25", "0.5", "1", "2", "4"]);
        assert_eq!(labels(&Ruler::fixed(Scale::Log10, 1e-5, 1.0), 9), ["10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "10⁰"]);
        assert_eq!(labels(&Ruler::fixed(Scale::Log10, 0.1, 100.0), 5), ["0.1", "1", "10", "100"]);
    }

    #[test]
    fn a_ruler_of_nothing_or_one_value_is_still_a_ruler() {
        for scale in [Scale::Linear, Scale::Log2, Scale::Log10] {
            for values in [vec![], vec![3.0], vec![f64::NAN, 0.0], vec![-1.0], vec![5.0, 5.0]] {
                let ruler = Ruler::around(scale, values, 0.05, 0.05);
                assert!(ruler.from < ruler.to && !ruler.ticks(5).is_empty(), "{ruler:?}");
            }
        }
    }

    #[test]
    fn axes_start_at_zero_where_it_costs_little() {
        assert_eq!(Ruler::around(Scale::Linear, [1.0, 9.0], 0.05, 0.05).from, 0.0);
        assert!(Ruler::around(Scale::Linear, [97.0, 98.0], 0.05, 0.05).from > 96.0);
    }

    #[test]
    fn labels_of_one_panel_have_the_same_digits() {
        let show = |values: &[f64]| -> Vec<String> { values.iter().map(|v| alike(values.to_vec())(*v)).collect() };
        assert_eq!(show(&[13.98, 4.6, 21.0]), ["14.0", "4.6", "21.0"]);
        assert_eq!(show(&[0.27, -0.29, 1.7, 0.0]), ["0.27", "−0.29", "1.70", "0"]);
        assert_eq!(show(&[120_000.0, 56.0, 0.02]), ["120\u{2009}000", "56", "0.02"]);
        assert_eq!(show(&[1.2e7, 2e-5]), ["1.2×10⁷", "2×10⁻⁵"]);
    }
}
