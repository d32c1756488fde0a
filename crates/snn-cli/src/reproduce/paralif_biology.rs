//! What one parallel neuron can do: the features of biological neurons (lettered as in Izhikevich, IEEE Trans. Neural
//! Networks 15, 2004) that the ParaLIF repository explores, 13 runs of single neurons without synaptic filter.
//!
//! The stimuli are steps, ramps and pulses of 100 steps of 1 ms, written down here from their definition.

use anyhow::Result;
use snn_core::Surrogate;
use snn_core::neurons::cuba::{Constants, CubaNeuron, Recurrence, trace};
use snn_core::neurons::paralif::{FiringMode, filter, fire};

use super::figure1::steps;
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{
    Axis, Cell, Column, Comparison, ComparisonRow, Figure, Lines, Measured, Panel, Report, Series, Table,
};

/// The command's name of this figure.
pub(super) const TARGET: &str = "paralif-biology";

/// Steps of 1 ms.
const STEPS: usize = 100;

/// The course of an input current, of height 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stimulus {
    /// On from step 10.
    Step,
    /// Rising over steps 10 to 89.
    Ramp,
    /// Two pairs of pulses, 10 and 20 steps apart.
    Pairs,
    /// One pulse.
    Pulse,
    /// A pulse, later one of the other sign shortly before another.
    Three,
    /// A long slow ramp, later a short steep one.
    Ramps,
}

impl Stimulus {
    /// The course.
    fn at(self, t: usize) -> f64 {
        let rise = |from: usize, to: usize, height: f64| height * (t - from) as f64 / (to - from) as f64;
        let pulse = |from: usize| f64::from((from..from + 2).contains(&t));
        match self {
            Self::Step => f64::from(t >= 10),
            Self::Ramp if (10..90).contains(&t) => rise(10, 89, 1.0),
            Self::Pairs => pulse(10) + pulse(20) + pulse(70) + pulse(90),
            Self::Pulse => pulse(10),
            Self::Three => pulse(10) - pulse(70) + pulse(80),
            Self::Ramps if (5..50).contains(&t) => rise(5, 49, 1.0),
            Self::Ramps if (70..80).contains(&t) => rise(70, 79, 0.5),
            _ => 0.0,
        }
    }
}

/// One neuron under one stimulus.
#[derive(Debug)]
struct Run {
    /// Letter and name of the feature.
    feature: (&'static str, &'static str),
    stimulus: Stimulus,
    amplitude: f64,
    /// Membrane time constant, ms.
    tau_ms: f64,
    threshold: f64,
    /// The firing mode of a parallel neuron; the sequential neuron without one.
    mode: Option<FiringMode>,
    /// Published number of spikes.
    spikes: usize,
}

/// The published runs, in their order.
#[rustfmt::skip]
const RUNS: [Run; 13] = {
    use FiringMode::{D, T};
    use Stimulus::{Pairs, Pulse, Ramp, Ramps, Step, Three};
    const fn run(
        feature: (&'static str, &'static str), stimulus: Stimulus, amplitude: f64, tau_ms: f64, threshold: f64,
        mode: Option<FiringMode>, spikes: usize,
    ) -> Run {
        Run { feature, stimulus, amplitude, tau_ms, threshold, mode, spikes }
    }
    [
        run(("A", "tonic spiking"),          Step,  2.0,   10.7, 1.0, None,    11),
        run(("A", "tonic spiking"),          Step,  2.0,   10.7, 1.0, Some(T), 83),
        run(("B", "phasic spiking"),         Step,  2.0,   18.7, 0.1, Some(D), 1),
        run(("D", "phasic bursting"),        Step,  1.5,   7.4,  0.1, Some(D), 5),
        run(("G", "class 1 excitability"),   Ramp,  5.5,   11.5, 1.0, None,    14),
        run(("H", "class 2 excitability"),   Ramp,  5.5,   1.1,  0.9, Some(T), 67),
        run(("H", "class 2 excitability"),   Ramp,  8.5,   2.5,  0.1, Some(D), 73),
        run(("L", "coincidence detection"),  Pairs, 3.9,   9.0,  1.0, None,    1),
        run(("L", "coincidence detection"),  Pairs, 3.9,   9.0,  1.0, Some(T), 1),
        run(("M", "rebound spike"),          Pulse, -1.0,  1.0,  0.3, Some(D), 1),
        run(("N", "rebound burst"),          Pulse, -22.3, 1.0,  0.3, Some(D), 4),
        run(("O", "threshold variability"),  Three, 9.0,   9.9,  0.9, Some(D), 1),
        run(("R", "accommodation"),          Ramps, 2.2,   5.0,  0.1, Some(D), 1),
    ]
};

/// What a run shows, each `[T]`.
#[derive(Debug)]
struct Shown {
    current: Vec<f64>,
    /// After the reset for the sequential neuron.
    membrane: Vec<f64>,
    spikes: Vec<f64>,
}

impl Run {
    fn neuron(&self) -> String {
        self.mode.map_or_else(|| "LIF".into(), |mode| format!("ParaLIF-{mode}"))
    }

    fn simulate(&self) -> Shown {
        let current: Vec<f64> = (0..STEPS).map(|t| self.amplitude * self.stimulus.at(t)).collect();
        let (beta, surrogate) = ((-1.0 / self.tau_ms).exp(), Surrogate::FastSigmoid { scale: 100.0 });
        let Some(mode) = self.mode else {
            let neuron = CubaNeuron { surrogate, refractory: 0, fires: true, recurrence: Recurrence::None };
            let constants =
                Constants { alpha: &[0.0], beta: &[beta], threshold: &[self.threshold], weight: &[], bias: &[] };
            let trace = trace(&neuron, &constants, &current);
            let membrane = trace.state.iter().zip(&trace.spikes).map(|(u, z)| u * (1.0 - z)).collect();
            return Shown { current, membrane, spikes: trace.spikes };
        };
        let (_, membrane) = filter(0.0, beta, &current);
        let spikes = fire(&mode.firing(surrogate), self.threshold, &[], &membrane);
        Shown { current, membrane, spikes }
    }

    fn panel(&self, shown: &Shown) -> Panel {
        // Three traces one above the other, each in units of its own range.
        let trace = |values: &[f64], base: f64, height: f64| {
            let low = values.iter().copied().fold(0.0, f64::min);
            let range = (values.iter().copied().fold(0.0, f64::max) - low).max(1e-9);
            steps(&values.iter().map(|v| base + height * (v - low) / range).collect::<Vec<f64>>())
        };
        let comb = shown.spikes.iter().enumerate().flat_map(|(t, z)| {
            let t = t as f64;
            [(t, SPIKES), (t, SPIKES + 0.7 * z), (t, SPIKES)]
        });
        let lines = Lines::new(vec![
            Series::new("spikes", comb).line().colour(6),
            Series::new("membrane", trace(&shown.membrane, MEMBRANE, 1.0)).line().colour(0),
            Series::new("stimulus", trace(&shown.current, STIMULUS, 0.7)).line().colour(1),
        ]);
        let count = shown.spikes.iter().sum::<f64>();
        let (letter, feature) = self.feature;
        let neuron = self.mode.map_or("LIF", FiringMode::name);
        let title = format!("{letter} {feature}, {neuron}: {count}");
        let y = Axis::linear("").limits(-0.15, SPIKES + 0.9).names([
            (STIMULUS + 0.35, "input"),
            (MEMBRANE + 0.5, "v"),
            (SPIKES + 0.35, "spikes"),
        ]);
        Panel::new(title, Axis::linear("ms").limits(0.0, STEPS as f64), y, lines).letter(" ").without_legend()
    }
}

/// Where the traces of a panel stand.
const STIMULUS: f64 = 0.0;
const MEMBRANE: f64 = 1.0;
const SPIKES: f64 = 2.3;

pub(crate) fn run(args: &Reproduce) -> Result<()> {
    let mut figure = Figure::new(TARGET, "Features of biological neurons in single LIF and ParaLIF neurons", 4).caption(
        "Letters as in Izhikevich (2004). Each panel: input current, membrane v (after the reset for LIF), spikes; every \
         trace in units of its own range; above it the neuron (LIF, or the mode of ParaLIF) and its spikes in 100 ms. LIF fires and \
         resets; T fires at every step above the threshold, D wherever the membrane rises by more than the threshold \
         within a step. Without synaptic filter. Computed by the reference model.",
    );
    let mut comparison = Comparison::new("spikes", "Number of spikes in 100 ms");
    let mut table = Table::new(
        "runs",
        "The runs",
        vec![
            Column::words("feature"),
            Column::words("neuron"),
            Column::words("stimulus"),
            Column::numbers("amplitude", ""),
            Column::numbers("membrane time constant", "ms"),
            Column::numbers("threshold", ""),
            Column::numbers("first spike", "ms"),
            Column::numbers("last spike", "ms"),
        ],
    );
    let mut equal = 0;
    for run in &RUNS {
        let shown = run.simulate();
        let count = shown.spikes.iter().sum::<f64>();
        equal += usize::from(count == run.spikes as f64);
        let (letter, feature) = run.feature;
        let what = format!("{letter} {feature}, {}", run.neuron());
        comparison.row(
            ComparisonRow::new(what, "spikes", "")
                .published(run.spikes as f64)
                .ours_if(Some(Measured::value(count)))
                .decimals(0),
        );
        let number = |v: f64, decimals| Cell::number(Measured::value(v), decimals);
        let at = |t: Option<usize>| t.map_or_else(|| Cell::missing("none"), |t| number(t as f64, 0));
        table.row([
            Cell::text(format!("{letter} {feature}")),
            Cell::text(run.neuron()),
            Cell::text(format!("{:?}", run.stimulus).to_lowercase()),
            number(run.amplitude, 1),
            number(run.tau_ms, 1),
            number(run.threshold, 1),
            at(shown.spikes.iter().position(|&z| z > 0.0)),
            at(shown.spikes.iter().rposition(|&z| z > 0.0)),
        ]);
        figure = figure.panel(run.panel(&shown));
    }
    let mut report =
        Report::new(TARGET, "ParaLIF: features of biological neurons in single parallel neurons", args.profile);
    report.command = command(args);
    report.summary = vec![
        format!("{equal} of {} runs have the published number of spikes.", RUNS.len()),
        "D detects onsets: it gives one spike or a short burst after a step, fires when a negative pulse ends, and answers a \
         steep ramp but not a slow one. LIF and T do none of these; T is LIF without reset, and fires at every step above \
         its threshold."
            .into(),
        "Every profile runs the same.".into(),
    ];
    report.comparisons = vec![comparison];
    report.tables = vec![table];
    report.figures = vec![figure];
    publish(&report, &args.out.join(TARGET))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use snn_core::testkit::assert_close;
    use snn_core::testkit::golden::{read_index, read_npz};

    use super::*;

    /// Stimuli, membranes and spikes of the published script.
    #[test]
    fn runs_are_the_published_ones() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snn-core/golden/paralif");
        let index = read_index(&folder).unwrap();
        let case = index.cases.iter().find(|c| c.file == "bio_features.npz").unwrap();
        let arrays = read_npz(&folder.join(&case.file)).unwrap();
        let published = case.options["runs"].as_array().unwrap();
        assert_eq!(published.len(), RUNS.len());
        for (run, published) in RUNS.iter().zip(published) {
            let text = |key: &str| published[key].as_str().unwrap_or_default().to_owned();
            let array = |name: &str| &arrays[&format!("{}{name}", text("prefix"))].data;
            let number = |key: &str| published[key].as_f64().unwrap();
            assert_eq!((run.amplitude, run.threshold), (number("amplitude"), number("threshold")));
            assert!((run.tau_ms - 1e3 * number("tau_mem")).abs() < 1e-9);
            assert_eq!((run.feature.0, run.mode.map_or("", FiringMode::name)), (&*text("feature"), &*text("mode")));
            let stimulus: Vec<f64> = (0..STEPS).map(|t| run.stimulus.at(t)).collect();
            assert_close("stimulus", &stimulus, &arrays[&text("stimulus")].data, 1e-7);
            let shown = run.simulate();
            assert_close("membrane", &shown.membrane, array("mem"), 1e-5);
            assert_eq!(&shown.spikes, array("spk"));
            assert_eq!(shown.spikes.iter().sum::<f64>(), run.spikes as f64);
        }
    }
}
