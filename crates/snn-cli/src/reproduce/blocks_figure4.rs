//! Figure 4 of the adaptive block paper: test accuracy and the time of an epoch over refractory periods, on SHD and
//! N-MNIST; surrogates and attached spikes on SHD.
//!
//! Published are the control, which has no refractory period, and the block model from 10 steps on. Here every period
//! also runs with the gradient of the steps: the spikes are the same, what differs is what is learned from them.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use snn_core::backend::Memory as _;
use snn_train::Experiment;
use snn_train::config::{AlifConfig, LayerConfig, NeuronConfig};
use snn_train::presets::{self, Preset};

use super::digits::differences;
use super::study::{Study, Trained, asked, is_here, label};
use super::{command, publish};
use crate::args::Reproduce;
use crate::report::{
    Axis, Bars, Comparison, ComparisonRow, DataLabel, Deviation, Figure, Lines, Measured, Panel, Profile, Record,
    Report, Series,
};

/// The command's name of this target.
pub(super) const TARGET: &str = "blocks-figure4";

/// The published sets, what stands in for them, and what they are called.
const SETS: [(&str, &str, &str); 2] = [("shd", "spoken-digits", "SHD"), ("nmnist", "nmnist-sim", "N-MNIST")];

/// A way of learning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
enum Form {
    /// The block model as published.
    Blocks,
    /// The same constants with the gradient of the steps.
    Steps,
    /// The gradient of the steps and an adaptation that can learn, by our schedule.
    Sound,
}

const FORMS: [(Form, &str); 3] =
    [(Form::Blocks, "blocks, as published"), (Form::Steps, "steps"), (Form::Sound, "steps, sound")];

/// One network: what is published of it, its form, its refractory period in steps.
struct Row {
    preset: Preset,
    form: Form,
    refractory: u32,
    /// Where it is shown: over periods, or beside others by surrogate and path.
    extra: Option<&'static str>,
}

fn alif(e: &mut Experiment, change: impl Fn(&mut AlifConfig)) {
    for layer in &mut e.model.layers {
        if let LayerConfig::Dense { neuron: NeuronConfig::Alif(neuron), .. } = layer {
            change(neuron);
        }
    }
}

/// The networks of a set.
fn rows(set: &str, profile: Profile) -> Result<Vec<Row>> {
    let periods: &[u32] = match profile {
        Profile::Smoke => &[0, 30],
        Profile::Quick | Profile::Paper => &[0, 10, 20, 30, 40, 50],
    };
    let find = |name: String| presets::find(&name);
    let mut all = Vec::new();
    for &refractory in periods {
        let published = match refractory {
            0 => find(format!("blocks-{set}-control"))?,
            steps => find(format!("blocks-{set}-{steps}"))?,
        };
        let gradient = snn_train::config::AlifGradientConfig::Steps;
        let mut steps = published.clone();
        alif(&mut steps.experiment, |neuron| neuron.gradient = gradient);
        if refractory > 0 {
            all.push(Row { preset: published, form: Form::Blocks, refractory, extra: None });
            steps.published = None;
        }
        // The control is one of these; the others take as long again.
        if refractory == 0 || profile != Profile::Quick {
            all.push(Row { preset: steps, form: Form::Steps, refractory, extra: None });
        }
        let mut sound = find(format!("alif-{set}"))?;
        alif(&mut sound.experiment, |neuron| neuron.refractory = refractory);
        all.push(Row { preset: sound, form: Form::Sound, refractory, extra: None });
    }
    if set == "shd" {
        let extras: &[(&str, &str)] = match profile {
            Profile::Smoke => &[("blocks-shd-30-attached", "multi-Gaussian, attached")],
            Profile::Quick | Profile::Paper => &[
                ("blocks-shd-30-fast-sigmoid", "fast sigmoid"),
                ("blocks-shd-30-boxcar", "boxcar"),
                ("blocks-shd-30-attached", "multi-Gaussian, attached"),
                ("blocks-shd-30-fast-sigmoid-attached", "fast sigmoid, attached"),
                ("blocks-shd-30-boxcar-attached", "boxcar, attached"),
            ],
        };
        for (name, what) in extras {
            let preset = find((*name).to_owned())?;
            all.push(Row { preset, form: Form::Blocks, refractory: 30, extra: Some(what) });
        }
    }
    Ok(all)
}

fn seeds(profile: Profile) -> Vec<u64> {
    match profile {
        Profile::Smoke | Profile::Quick => vec![1],
        Profile::Paper => vec![1, 2, 3],
    }
}

/// An experiment on a set, shortened as the profile says.
fn shortened(mut e: Experiment, profile: Profile, set: &str, available: usize, seed: u64) -> Experiment {
    set.clone_into(&mut e.data.set);
    e.train.seed = seed;
    e.train.evaluate_every = 0;
    let (samples, epochs) = match profile {
        Profile::Smoke => (96, 2),
        Profile::Quick => (0, 8),
        Profile::Paper => return e,
    };
    if samples > 0 && samples < available {
        (e.data.train_samples, e.data.test_samples) = (samples, samples / 2);
    }
    e.train.epochs = epochs;
    e.train.batch = 32;
    // The rate falls after the same share of the epochs.
    if let snn_train::config::ScheduleConfig::Milestones { epochs: at, .. } = &mut e.train.schedule {
        *at = vec![(epochs * 3 / 8).max(1)];
    }
    if profile == Profile::Smoke {
        for layer in &mut e.model.layers {
            if let LayerConfig::Dense { width, .. } = layer {
                *width = 64;
            }
        }
    }
    e
}

/// What was found: by set and row, each run with its seed.
type Found = Vec<(usize, Row, Vec<(u64, Experiment, Trained)>)>;

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let options = args.place.open_options();
    let known: Vec<&'static str> = SETS.iter().flat_map(|(p, s, _)| [*p, *s]).collect();
    let asked = asked(TARGET, &known, args)?;
    let mut chosen: Vec<(usize, &'static str, DataLabel)> = Vec::new();
    for (i, (published, stand_in, task)) in SETS.iter().enumerate() {
        let set = match asked.iter().find(|set| *set == published || *set == stand_in) {
            Some(set) => *set,
            None if !asked.is_empty() => continue,
            None if is_here(published, &options)? => published,
            None => stand_in,
        };
        chosen.push((i, set, label(task, published, set, &options)?));
    }
    let mut found = Found::new();
    let (mut notes, mut seconds, mut device) = (Vec::new(), 0.0, String::new());
    for (i, set, label) in &chosen {
        let study = Study::on(TARGET, set, label.clone(), args, quiet)?;
        let available = snn_data::open(set, "train", &study.data)?.len();
        let rows = rows(SETS[*i].0, args.profile)?;
        let experiments: Vec<Experiment> =
            rows.iter().map(|row| shortened(row.preset.experiment.clone(), args.profile, set, available, 1)).collect();
        study.announce(&experiments)?;
        for row in rows {
            let mut runs = Vec::new();
            for seed in seeds(args.profile) {
                let experiment = shortened(row.preset.experiment.clone(), args.profile, set, available, seed);
                let what = row.extra.map_or(String::new(), |extra| format!(", {extra}"));
                let form = FORMS.iter().find(|(form, _)| *form == row.form).map_or("", |(_, name)| name);
                let name = format!("{}, {} steps, {form}{what}, seed {seed}", SETS[*i].2, row.refractory);
                let trained = study.run(&name, &experiment, false)?;
                runs.push((seed, experiment, trained));
            }
            found.push((*i, row, runs));
        }
        notes.extend(study.jobs.notes());
        seconds += study.jobs.counts().seconds;
        device = study.device.describe();
    }
    let mut report = Report::new(TARGET, "Blocks: accuracy and time of an epoch over refractory periods", args.profile);
    report.command = command(args);
    report.data = chosen.iter().map(|(_, _, label)| label.clone()).collect();
    report.seeds = seeds(args.profile);
    report.notes = notes;
    report.seconds = seconds;
    report.versions = vec![("device".into(), device.clone())];
    report.summary = summary(&found);
    report.comparisons = vec![comparison(args.profile, &chosen, &found)];
    report.deviations = deviations(&found, &device);
    report.figures = figures(&chosen, &found);
    for (i, row, runs) in &found {
        for (seed, experiment, trained) in runs {
            let s = &trained.summary;
            report.records.push(Record {
                what: format!("{}, {}", SETS[*i].2, row.preset.name),
                configuration: serde_json::to_value(experiment)?,
                seed: Some(*seed),
                numbers: BTreeMap::from([
                    ("refractory_steps".to_owned(), f64::from(row.refractory)),
                    ("test_accuracy".to_owned(), s.test_accuracy),
                    ("epoch_seconds".to_owned(), s.epoch_seconds),
                    ("hidden_spikes_per_sample".to_owned(), s.spikes_per_sample),
                ]),
                details: serde_json::json!({ "form": row.form, "history": s.history }),
            });
        }
    }
    publish(&report, &args.out.join(TARGET))
}

fn measured(runs: &[(u64, Experiment, Trained)], of: impl Fn(&Trained) -> f64) -> Option<Measured> {
    Measured::of(&runs.iter().map(|(_, _, t)| of(t)).collect::<Vec<_>>())
}

fn accuracy(t: &Trained) -> f64 {
    100.0 * t.summary.test_accuracy
}

fn epoch(t: &Trained) -> f64 {
    t.summary.epoch_seconds
}

/// The networks of a set over periods in a form.
fn course(found: &Found, set: usize, form: Form, of: impl Fn(&Trained) -> f64) -> Vec<(f64, Measured)> {
    let mine = found.iter().filter(|(i, row, _)| *i == set && row.form == form && row.extra.is_none());
    mine.filter_map(|(_, row, runs)| Some((f64::from(row.refractory), measured(runs, &of)?))).collect()
}

/// What was found, in computed sentences.
fn summary(found: &Found) -> Vec<String> {
    let mut lines = Vec::new();
    for (i, (_, _, task)) in SETS.iter().enumerate() {
        for (form, name) in FORMS {
            let accuracies = course(found, i, form, accuracy);
            let (Some(first), Some(last)) = (accuracies.first(), accuracies.last()) else { continue };
            let best = accuracies.iter().fold(first, |best, x| if x.1.mean > best.1.mean { x } else { best });
            let seconds: Vec<f64> = course(found, i, form, epoch).iter().map(|(_, m)| m.mean).collect();
            let (least, most) = seconds.iter().fold((f64::MAX, 0.0_f64), |(a, b), &s| (a.min(s), b.max(s)));
            lines.push(format!(
                "{task}, {name}: {:.1} % at {} refractory steps, {:.1} % at {}; the best is {:.1} % at {}. The time of an \
                 epoch differs by a factor of {:.2} over all periods.",
                first.1.mean,
                first.0,
                last.1.mean,
                last.0,
                best.1.mean,
                best.0,
                most / least
            ));
        }
    }
    lines.push(
        "Published epochs become shorter with the refractory period because the block model takes as many rounds of \
         operations as there are blocks. The scans here take every step once, so there is nothing to gain."
            .into(),
    );
    lines
}

fn comparison(profile: Profile, chosen: &[(usize, &str, DataLabel)], found: &Found) -> Comparison {
    let mut table = Comparison::new("table", "Accuracy and time of an epoch");
    for (i, row, runs) in found {
        let Some((_, _, data)) = chosen.iter().find(|(set, ..)| set == i) else { continue };
        let labelled = |r: ComparisonRow| match (data.as_published, profile) {
            (false, _) => r.other_data(&data.label),
            (true, Profile::Paper) => r,
            _ => r.other_data(format!("{}, shortened run", data.label)),
        };
        let form = FORMS.iter().find(|(form, _)| *form == row.form).map_or("", |(_, name)| name);
        let extra = row.extra.map_or(String::new(), |extra| format!(", {extra}"));
        let what = format!("{}, {} steps, {form}{extra}", SETS[*i].2, row.refractory);
        let published = row.preset.published;
        let mut of_accuracy = ComparisonRow::new(&what, "test accuracy", "%");
        of_accuracy.published = published.map(|p| Measured::value(p.accuracy));
        table.row(labelled(of_accuracy.ours_if(measured(runs, accuracy))));
        let mut of_time = ComparisonRow::new(&what, "epoch", "s");
        of_time.published = published.and_then(|p| p.epoch_seconds).map(Measured::value);
        if of_time.published.is_some() {
            of_time = of_time.note("published on a GPU that is not named");
        }
        table.row(labelled(of_time.ratio().ours_if(measured(runs, epoch))));
    }
    table.note("Published values were read off figures, in percent points to about 0.3; means of three seeds.");
    table
}

fn deviations(found: &Found, device: &str) -> Vec<Deviation> {
    let mut list = vec![Deviation::new("hardware", "a GPU, not named", device).why("epoch times do not compare")];
    for (i, row, runs) in found {
        if let (Form::Blocks, Some((_, here, _))) = (row.form, runs.first()) {
            for mut deviation in differences(&row.preset.experiment, here) {
                deviation.what = format!("{} ({})", deviation.what, SETS[*i].2);
                if !list.contains(&deviation) {
                    list.push(deviation);
                }
            }
        }
    }
    list.push(
        Deviation::new("adaptation over a spike", "carried with a division by p", "carried without")
            .why("the published form is not a number at p = 0 and equal elsewhere"),
    );
    list
}

fn figures(chosen: &[(usize, &'static str, DataLabel)], found: &Found) -> Vec<Figure> {
    let data: Vec<&str> = chosen.iter().map(|(_, _, label)| &*label.label).collect();
    let mut figure = Figure::new(TARGET, "Accuracy and time of an epoch over refractory periods", 3).caption(format!(
        "Data: {}. The refractory period is in steps; 0 is the control. Hollow: published, read off a figure, with epochs \
         on a GPU that is not named. Blocks: the published gradient; steps: the exact gradient of the same neurons; \
         sound: also an adaptation that learns, and a rate that falls to 0.",
        data.join("; ")
    ));
    for (i, _, label) in chosen {
        let published = |of: &dyn Fn(&Row) -> Option<f64>| -> Vec<(f64, f64)> {
            let mine = found.iter().filter(|(set, row, _)| set == i && row.extra.is_none());
            mine.filter_map(|(_, row, _)| Some((f64::from(row.refractory), of(row)?))).collect()
        };
        let lines = |of: fn(&Trained) -> f64, scale: f64| -> Vec<Series> {
            FORMS
                .iter()
                .enumerate()
                .map(|(k, (form, name))| {
                    let points = course(found, *i, *form, of);
                    let points = points.into_iter().map(move |(x, m)| (x, scale * m.mean, scale * m.sd.unwrap_or(0.0)));
                    Series::new(*name, points).colour(k)
                })
                .collect()
        };
        let x = || Axis::linear("refractory period (steps)");
        let mut accuracies = lines(accuracy, 1.0);
        accuracies.push(
            Series::new("published", published(&|row| Some(row.preset.published?.accuracy))).published().colour(3),
        );
        let task = SETS[*i].2;
        let short = if label.as_published { task.to_owned() } else { format!("{task} stand-in") };
        figure = figure
            .panel(Panel::new(
                format!("{short}: accuracy"),
                x(),
                Axis::linear("test accuracy (%)").limits(0.0, 102.0),
                Lines::new(accuracies),
            ))
            .panel(
                Panel::new(
                    format!("{short}: epoch, ours"),
                    x(),
                    Axis::linear("seconds").limits(0.0, 1.2 * most(&lines(epoch, 1.0))),
                    Lines::new(lines(epoch, 1.0)),
                )
                .without_legend(),
            )
            .panel(Panel::new(
                format!("{task}: epoch, published"),
                x(),
                Axis::log10("seconds"),
                Lines::new(vec![
                    Series::new("published", published(&|row| row.preset.published?.epoch_seconds))
                        .published()
                        .colour(3),
                ]),
            ));
    }
    let mut all = vec![figure];
    let extras: Vec<_> = found.iter().filter(|(_, row, _)| row.extra.is_some()).collect();
    if !extras.is_empty() {
        let names = || extras.iter().filter_map(|(_, row, _)| row.extra);
        let bars = Bars::new(names())
            .group("ours", extras.iter().map(|(_, _, runs)| measured(runs, accuracy).map(|m| (m.mean, m.sd))))
            .published("published", extras.iter().map(|(_, row, _)| Some((row.preset.published?.accuracy, None))));
        all.push(
            Figure::new(format!("{TARGET}-surrogates"), "Surrogates and attached spikes on SHD, 30 steps", 1)
                .caption(format!("Data of ours: {}. Published values were read off a figure.", data[0]))
                .panel(Panel::new("", "", Axis::linear("test accuracy (%)").limits(0.0, 112.0), bars)),
        );
    }
    all
}

/// The largest value that is drawn.
fn most(series: &[Series]) -> f64 {
    series.iter().flat_map(|s| &s.points).map(|p| p.high.unwrap_or(p.y).max(p.y)).fold(1e-9, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_value_has_a_row() {
        for (set, counted) in [("shd", 6 + 5), ("nmnist", 6)] {
            let rows = rows(set, Profile::Paper).unwrap();
            assert_eq!(rows.iter().filter(|r| r.preset.published.is_some()).count(), counted, "{set}");
        }
    }

    #[test]
    fn shortened_rates_fall_after_the_same_share_of_epochs() {
        let e = presets::find("blocks-shd-10").unwrap().experiment;
        let short = shortened(e.clone(), Profile::Quick, "spoken-digits", 2000, 3);
        short.check().unwrap();
        assert!(short.to_toml().contains("epochs = [3]"), "{}", short.to_toml());
        assert_eq!(shortened(e.clone(), Profile::Paper, "shd", 8000, 3).train.epochs, e.train.epochs);
    }
}
