//! Figure 5 of the adaptive block paper: adaptive neurons fitted to recorded ones, by the length of a step and by the
//! refractory period, and the time that a fit takes.
//!
//! Published are fits with the gradient of the block model, and of the steps at one setting. Here every setting also has
//! our fit, which begins from several points and learns at a rate that fits each constant.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;
use snn_core::backend::Memory as _;
use snn_cpu::Cpu;
use snn_data::ephys::{ReadOptions, Recording, allen, session};
use snn_train::config::AlifGradientConfig;
use snn_train::fit::recorded::{Outcome, Protocol, SIGMAS_MS, fit_recorded};
use snn_train::fit::{FitConfig, GRID_MS};

use super::study::asked;
use super::ttfs_chain::{Demand, demands_summary, demands_table};
use super::{command, publish};
use crate::args::Reproduce;
use crate::bench::timing::show;
use crate::commands::fit_neuron::{in_view, liveliest, name};
use crate::console::{self, Transfers};
use crate::report::figure::BoxStatistics;
use crate::report::{
    Axis, Bars, Cell, Column, Comparison, ComparisonRow, DataLabel, Deviation, Figure, Jobs, Lines, Measured, Panel,
    Profile, Record, Report, Series, Table,
};
use crate::usage;

/// The command's name of this target.
pub(super) const TARGET: &str = "blocks-figure5";

/// The published recordings, and what stands in for them.
const SETS: [&str; 2] = ["allen-cells", session::NAME];

/// Published medians over cells by the length of a step, ms, at a refractory period of 2 ms; read off a figure.
const BY_STEP: [(f64, f64); 7] =
    [(0.05, 0.780), (0.1, 0.798), (0.5, 0.761), (1.0, 0.746), (2.0, 0.720), (4.0, 0.670), (8.0, 0.645)];

/// Published medians by the refractory period, ms, at steps of 0.1 ms; read off a figure.
const BY_PERIOD: [(f64, f64); 6] =
    [(1.0, 0.808), (2.0, 0.798), (4.0, 0.785), (6.0, 0.780), (8.0, 0.770), (16.0, 0.718)];

/// The published median of the control at the reference, read off a figure.
const CONTROL: f64 = 0.791;

/// What the demand asks of an explained variance at the widest smoothing, and of how many cells in ten.
const ENOUGH: f64 = 0.9;
const OF_TEN: usize = 8;

/// How cells are fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Way {
    /// Our protocol.
    Ours,
    /// The published protocol with the gradient of the block model.
    Blocks,
    /// The published protocol with the gradient of the steps.
    Control,
}

impl Way {
    const ALL: [Self; 3] = [Self::Ours, Self::Blocks, Self::Control];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Blocks => "blocks as published",
            Self::Control => "steps as published",
        }
    }

    /// The published seconds of all forward and backward passes of a cell.
    fn published_seconds(self) -> Option<f64> {
        match self {
            Self::Ours => None,
            Self::Blocks => Some(15.56),
            Self::Control => Some(108.36),
        }
    }

    fn config(self, profile: Profile, at: Setting) -> FitConfig {
        let mut config = match self {
            Self::Ours => FitConfig::default(),
            Self::Blocks => FitConfig::published(),
            Self::Control => FitConfig { gradient: AlifGradientConfig::Steps, ..FitConfig::published() },
        };
        (config.dt_ms, config.refractory_ms) = (at.dt_ms(), at.refractory_ms());
        if profile == Profile::Smoke {
            config.epochs = 4;
            config.starts = config.starts.min(2);
        }
        config
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Ours => Protocol::default(),
            Self::Blocks | Self::Control => Protocol::published(),
        }
    }
}

/// Length of a step and refractory period, each in µs: whole numbers that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Setting {
    dt_us: u32,
    refractory_us: u32,
}

/// Steps of 0.1 ms, a refractory period of 2 ms: where both courses meet.
const REFERENCE: Setting = Setting { dt_us: 100, refractory_us: 2000 };

impl Setting {
    fn step(dt_ms: f64) -> Self {
        Self { dt_us: (dt_ms * 1e3).round() as u32, ..REFERENCE }
    }

    fn period(refractory_ms: f64) -> Self {
        Self { refractory_us: (refractory_ms * 1e3).round() as u32, ..REFERENCE }
    }

    fn dt_ms(self) -> f64 {
        f64::from(self.dt_us) / 1e3
    }

    fn refractory_ms(self) -> f64 {
        f64::from(self.refractory_us) / 1e3
    }

    /// The published median of the block model.
    fn published(self) -> Option<f64> {
        let steps = BY_STEP.iter().map(|&(dt, x)| (Self::step(dt), x));
        steps.chain(BY_PERIOD.iter().map(|&(p, x)| (Self::period(p), x))).find(|(s, _)| *s == self).map(|(_, x)| x)
    }

    fn words(self) -> String {
        format!("steps of {} ms, refractory period {} ms", self.dt_ms(), self.refractory_ms())
    }
}

/// What is fitted: every setting with a way.
fn fits(profile: Profile) -> Vec<(Setting, Way)> {
    let mut settings: Vec<Setting> = match profile {
        Profile::Smoke => vec![REFERENCE, Setting::step(1.0), Setting::period(8.0)],
        Profile::Quick | Profile::Paper => {
            let steps = BY_STEP.iter().map(|(dt, _)| Setting::step(*dt));
            steps.chain(BY_PERIOD.iter().map(|(p, _)| Setting::period(*p))).collect()
        }
    };
    settings.sort();
    settings.dedup();
    let ways = |s: Setting| {
        let taken = move |way: &Way| match way {
            Way::Ours => true,
            Way::Blocks => s == REFERENCE || profile == Profile::Paper,
            Way::Control => s == REFERENCE,
        };
        Way::ALL.into_iter().filter(taken).map(move |way| (s, way))
    };
    settings.into_iter().flat_map(ways).collect()
}

/// The generated cells of a profile.
fn sessions(profile: Profile) -> session::SessionOptions {
    let all = session::SessionOptions { cells: 20, seed: 5, ..session::SessionOptions::default() };
    match profile {
        Profile::Smoke => session::SessionOptions { cells: 2, fit_sweeps: 1, test_sweeps: 2, ..all },
        Profile::Quick | Profile::Paper => all,
    }
}

/// The recordings that a run uses.
struct Cells {
    cells: Vec<Recording>,
    label: DataLabel,
    synthetic: bool,
    /// Where they lie.
    folder: std::path::PathBuf,
    notes: Vec<String>,
}

fn read(rate_hz: f64) -> ReadOptions {
    ReadOptions { rate_hz, voltage: false, ..ReadOptions::default() }
}

/// The recordings of the data directory if there are any, else generated ones.
fn cells(args: &Reproduce, directory: &Path, quiet: bool) -> Result<Cells> {
    let downloaded = allen::folder(&args.place.open_options().data_dir);
    let there = allen::specimens(&downloaded);
    let real = match asked(TARGET, &SETS, args)?[..] {
        [] => !there.is_empty(),
        [set] if set == SETS[0] && there.is_empty() => {
            let folder = downloaded.display();
            return Err(usage(format!(
                "--sets {set}: no recordings in {folder}; get them with `snn data download {set}`"
            )));
        }
        [set] => set == SETS[0],
        _ => return Err(usage(format!("--sets: {TARGET} runs on one of {}", SETS.join(", ")))),
    };
    let mut notes = Vec::new();
    let (folder, ids) = if real {
        (downloaded, there)
    } else {
        let options = sessions(args.profile);
        let folder = directory.join("sessions").join(format!("{}-cells-seed-{}", options.cells, options.seed));
        let ids: Vec<u64> = (1..=options.cells as u64).collect();
        if allen::specimens(&folder) != ids || allen::read_cells(&folder)?.len() != ids.len() {
            session::write(&folder, &options, &mut Transfers::new(quiet))?;
        }
        (folder, ids)
    };
    let mut cells = Vec::new();
    for id in ids {
        match Recording::open_specimen(&folder, id, &read(1e3 / GRID_MS)) {
            Ok(cell) => cells.push(cell),
            // One recording that lacks a stimulus does not stop all others.
            Err(error) if real => notes.push(format!("specimen {id} was left out: {error}")),
            Err(error) => return Err(error.into()),
        }
    }
    if cells.is_empty() {
        return Err(usage(format!("{}: no recording can be used: {}", folder.display(), notes.join("; "))));
    }
    let synthetic = cells.iter().any(|c| c.label.is_some());
    let label = match synthetic {
        true => format!("{} neurons, {} (not the published recordings)", cells.len(), session::LABEL),
        false => format!("{} cells of the Allen Cell Types Database", cells.len()),
    };
    let label = DataLabel { task: "recorded neurons".into(), label, as_published: !synthetic };
    Ok(Cells { cells, label, synthetic, folder, notes })
}

/// How well a cell is explained at each smoothing, and what it came from.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct OfCell {
    cell: String,
    /// By the smoothing widths; none for silent cells.
    explained: Vec<Option<f64>>,
    loss: f64,
    epochs: u32,
    start: u32,
    /// The samples with a spike in each segment of the stimulus that was not fitted to.
    spikes: Vec<Vec<usize>>,
}

/// A fit of all cells.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Found {
    cells: Vec<OfCell>,
    /// Of the whole batch.
    seconds: f64,
}

impl Found {
    fn of(cells: &[Recording], outcome: Outcome, seconds: f64) -> Self {
        let Outcome { fitted, on_test, scores, .. } = outcome;
        let list = cells.iter().zip(fitted.cells).zip(scores).enumerate().map(|(n, ((cell, fit), scores))| OfCell {
            cell: name(cell),
            explained: scores.iter().map(|s| s.explained.normalised()).collect(),
            loss: fit.loss,
            epochs: fit.epochs,
            start: fit.start,
            spikes: on_test.spikes.iter().map(|stretch| stretch[n].clone()).collect(),
        });
        Self { cells: list.collect(), seconds }
    }

    /// The explained variances at a smoothing width, silent cells left out.
    fn explained(&self, sigma: usize) -> Vec<f64> {
        self.cells.iter().filter_map(|c| *c.explained.get(sigma)?).collect()
    }

    fn median(&self, sigma: usize) -> Option<f64> {
        BoxStatistics::of(&self.explained(sigma)).map(|s| s.median)
    }

    fn seconds_per_cell(&self) -> f64 {
        self.seconds / self.cells.len().max(1) as f64
    }

    /// Cells that are explained well enough.
    fn enough(&self) -> usize {
        self.explained(WIDEST).into_iter().filter(|&x| x >= ENOUGH).count()
    }
}

/// The place of the widest smoothing, at which the published medians are given.
const WIDEST: usize = SIGMAS_MS.len() - 1;

type All = BTreeMap<(Setting, Way), Found>;

/// What names a job: everything that its numbers depend on.
#[derive(Serialize)]
struct Job<'a> {
    target: &'static str,
    way: Way,
    config: &'a FitConfig,
    protocol: &'a Protocol,
    data: &'a str,
    cells: Vec<String>,
    device: String,
}

pub(crate) fn run(args: &Reproduce, quiet: bool) -> Result<()> {
    let directory = args.out.join(TARGET);
    let device = args.place.processor()?;
    let jobs = Jobs::open(&directory, args.profile)?;
    let used = cells(args, &directory, quiet)?;
    let mut notes = used.notes.clone();
    let all = measure(args.profile, &device, &jobs, &used, quiet, &mut notes)?;
    let demands = demands(args.profile, &used, &all);
    let mut report = Report::new(TARGET, "Blocks: adaptive neurons fitted to recorded ones", args.profile);
    report.command = command(args);
    report.data = vec![used.label.clone()];
    report.summary = summary(&used, &all);
    report.summary.extend(demands_summary(&demands));
    report.deviations = deviations(args.profile, &used, &device);
    report.comparisons = vec![comparison(args.profile, &used, &all)];
    report.tables = vec![cells_table(&all), demands_table(&demands)];
    report.figures = vec![figure(&used, &all)?];
    report.records = records(args.profile, &all)?;
    notes.extend(jobs.notes());
    report.notes = notes;
    report.versions = vec![("device".into(), device.describe())];
    report.seeds = vec![FitConfig::default().seed];
    report.seconds = jobs.counts().seconds;
    publish(&report, &directory)
}

/// Whether every sweep was recorded at a rate that shorter steps divide.
fn allows(cells: &[Recording], rate_hz: f64) -> bool {
    let trials = cells.iter().flat_map(|c| &c.stimuli).flat_map(|s| &s.trials);
    trials.map(|t| t.rate_hz / rate_hz).all(|every| every >= 1.0 && every.fract() == 0.0)
}

fn measure(
    profile: Profile,
    device: &Cpu,
    jobs: &Jobs,
    used: &Cells,
    quiet: bool,
    notes: &mut Vec<String>,
) -> Result<All> {
    let mut all = All::new();
    for (at, way) in fits(profile) {
        let (config, protocol) = (way.config(profile, at), way.protocol());
        let rate_hz = 1e3 / config.input_ms();
        if !allows(&used.cells, rate_hz) {
            notes.push(format!(
                "Steps of {} ms were left out: they need currents at {rate_hz} Hz, which does not divide the rate of every \
                 recording.",
                at.dt_ms()
            ));
            continue;
        }
        let names: Vec<String> = used.cells.iter().map(name).collect();
        let data = format!("{}: {:?}", used.label.label, used.synthetic.then(|| sessions(profile)));
        let job = Job {
            target: TARGET,
            way,
            config: &config,
            protocol: &protocol,
            data: &data,
            cells: names,
            device: device.describe(),
        };
        if !quiet {
            let how = if jobs.is_done(&job) { "done before" } else { "fitting" };
            console::message(format_args!("{}, {}: {how}", at.words(), way.name()));
        }
        let found = jobs.run(&job, || {
            let finer = (config.input_ms() < GRID_MS).then(|| finer(used, rate_hz)).transpose()?;
            let cells = finer.as_ref().unwrap_or(&used.cells);
            let start = Instant::now();
            let outcome = fit_recorded(device, &config, &protocol, cells, |_, _| true)?;
            Ok(Found::of(cells, outcome, start.elapsed().as_secs_f64()))
        })?;
        all.insert((at, way), found);
    }
    Ok(all)
}

/// The same recordings with more samples of the current.
fn finer(used: &Cells, rate_hz: f64) -> Result<Vec<Recording>> {
    let ids = used.cells.iter().filter_map(|c| c.specimen);
    Ok(ids.map(|id| Recording::open_specimen(&used.folder, id, &read(rate_hz))).collect::<Result<_, _>>()?)
}

/// The medians of a way over the settings of a course.
fn course(all: &All, way: Way, settings: impl Iterator<Item = (f64, Setting)>) -> Vec<(f64, f64)> {
    settings.filter_map(|(x, at)| Some((x, all.get(&(at, way))?.median(WIDEST)?))).collect()
}

fn steps() -> impl Iterator<Item = (f64, Setting)> {
    BY_STEP.iter().map(|(dt, _)| (*dt, Setting::step(*dt)))
}

fn periods() -> impl Iterator<Item = (f64, Setting)> {
    BY_PERIOD.iter().map(|(p, _)| (*p, Setting::period(*p)))
}

/// What was found, in computed sentences.
fn summary(used: &Cells, all: &All) -> Vec<String> {
    let mut lines = Vec::new();
    let medians = Way::ALL.into_iter().filter_map(|way| {
        let median = all.get(&(REFERENCE, way))?.median(WIDEST)?;
        Some(format!("{} {:.1} %", way.name(), 100.0 * median))
    });
    lines.push(format!(
        "Median explained temporal variance of {} neurons ({}, spikes smoothed with {} ms): {}.",
        used.cells.len(),
        REFERENCE.words(),
        SIGMAS_MS[WIDEST],
        medians.collect::<Vec<_>>().join(", ")
    ));
    for (what, points) in
        [("steps of {} ms", course(all, Way::Ours, steps())), ("a period of {} ms", course(all, Way::Ours, periods()))]
    {
        if let (Some(first), Some(last)) = (points.first(), points.last())
            && points.len() > 1
        {
            let at = |x: f64| what.replace("{}", &x.to_string());
            lines.push(format!(
                "Our fit: {:.1} % with {}, {:.1} % with {}.",
                100.0 * first.1,
                at(first.0),
                100.0 * last.1,
                at(last.0)
            ));
        }
    }
    let times = Way::ALL.into_iter().filter_map(|way| {
        let found = all.get(&(REFERENCE, way))?;
        Some(format!("{} {}", way.name(), show(found.seconds_per_cell())))
    });
    lines.push(format!(
        "Time of a fit, all {} cells in one batch, divided by their number: {}. Published, one cell after the other on a \
         GPU that is not named: blocks 15.56 s, steps 108.36 s.",
        used.cells.len(),
        times.collect::<Vec<_>>().join(", ")
    ));
    lines
}

fn demands(profile: Profile, used: &Cells, all: &All) -> Vec<Demand> {
    let Some(found) = all.get(&(REFERENCE, Way::Ours)) else { return vec![] };
    let (enough, of) = (found.enough(), found.cells.len());
    vec![Demand {
        what: format!("neurons of which our fit explains {ENOUGH}, {}", REFERENCE.words()),
        limit: "at least 16 of 20",
        found: format!("{enough} of {of}"),
        met: enough * 10 >= OF_TEN * of,
        asked: profile != Profile::Smoke && used.synthetic,
    }]
}

fn deviations(profile: Profile, used: &Cells, device: &Cpu) -> Vec<Deviation> {
    let ours = Way::Ours.config(profile, REFERENCE);
    let mut list = vec![
        Deviation::new("hardware", "a GPU, not named", device.describe()).why("times do not compare"),
        Deviation::new("cells in a batch", "1", used.cells.len().to_string()).why("cells do not depend on each other"),
        Deviation::new("time of a fit", "forward and backward passes", "reading out and scoring too"),
        Deviation::new(
            "our fit",
            "one start, the first sweep, one learning rate, each stimulus by its own peak",
            format!("{} starts, all sweeps, rates by constant, one scale for both stimuli", ours.starts),
        )
        .why("it stands beside the published protocol"),
    ];
    if used.synthetic {
        let count = used.cells.len().to_string();
        list.push(Deviation::new("neurons", "146 cells with 4 test sweeps", format!("{count}, {}", session::LABEL)));
    }
    if profile == Profile::Smoke {
        list.push(Deviation::new("epochs", "200 at most", ours.epochs.to_string()));
    }
    list
}

fn comparison(profile: Profile, used: &Cells, all: &All) -> Comparison {
    let mut table = Comparison::new("table", "Explained temporal variance and time of a fit");
    let labelled = |row: ComparisonRow| match (used.label.as_published, profile) {
        (false, _) => row.other_data(&used.label.label),
        (true, Profile::Paper) => row,
        (true, _) => row.other_data(format!("{}, shortened run", used.label.label)),
    };
    for ((at, way), found) in all {
        let what = format!("{}, {}", at.words(), way.name());
        let mut row = ComparisonRow::new(&what, "median explained variance", "").decimals(3);
        let published = match way {
            Way::Ours | Way::Blocks => at.published(),
            Way::Control => Some(CONTROL),
        };
        if let Some(published) = published {
            row = row.published(published).note("read off a figure");
        }
        table.row(labelled(row.ours_if(found.median(WIDEST).map(Measured::value))));
    }
    for way in Way::ALL {
        let Some(found) = all.get(&(REFERENCE, way)) else { continue };
        let mut row = ComparisonRow::new(format!("{}, {}", REFERENCE.words(), way.name()), "fit of a cell", "s");
        if let Some(seconds) = way.published_seconds() {
            row = row
                .published(seconds)
                .note("published: cell by cell on a GPU; here: all in one batch, by their number");
        }
        table.row(labelled(row.ratio().ours_if(Some(Measured::value(found.seconds_per_cell())))));
    }
    table.note(format!(
        "Medians over cells, spikes smoothed with {} ms. Published are medians of the block model, and of the control \
         in rows of steps as published. As published: one start, the first sweep, a learning rate of 0.0001, each stimulus \
         scaled by its own peak, so that a fitted cell is driven too much or too little by the other one.",
        SIGMAS_MS[WIDEST]
    ));
    table
}

/// Every cell at the reference.
fn cells_table(all: &All) -> Table {
    let mut columns = vec![Column::words("cell")];
    columns.extend(Way::ALL.map(|way| Column::numbers(way.name(), "")));
    columns.extend([Column::numbers("distance, ours", ""), Column::numbers("start", "")]);
    let title = format!("Explained temporal variance: {}, smoothed with {} ms", REFERENCE.words(), SIGMAS_MS[WIDEST]);
    let mut table = Table::new("cells", title, columns);
    let of = |way: Way, n: usize| all.get(&(REFERENCE, way)).and_then(|found| found.cells.get(n));
    let count = all.get(&(REFERENCE, Way::Ours)).map_or(0, |found| found.cells.len());
    for n in 0..count {
        let Some(ours) = of(Way::Ours, n) else { continue };
        let explained = Way::ALL.map(|way| match of(way, n).and_then(|c| c.explained[WIDEST]) {
            Some(x) => Cell::number(Measured::value(x), 3),
            None => Cell::missing("silent"),
        });
        let rest = [Cell::number(Measured::value(ours.loss), 4), Cell::number(Measured::value(ours.start.into()), 0)];
        table.row([Cell::text(&ours.cell)].into_iter().chain(explained).chain(rest));
    }
    table
}

/// The cell that is shown: the one whose explained variance is next to the median of our fit.
fn example(found: &Found) -> usize {
    let median = found.median(WIDEST).unwrap_or(0.0);
    let far = |c: &OfCell| c.explained[WIDEST].map_or(f64::INFINITY, |x| (x - median).abs());
    let all = found.cells.iter().enumerate();
    all.min_by(|a, b| far(a.1).total_cmp(&far(b.1))).map_or(0, |(n, _)| n)
}

/// The input of a cell, and above it what was fitted and recorded.
fn example_panel(used: &Cells, all: &All) -> Option<(Panel, String)> {
    /// Where traces begin, and how high their spikes are.
    const ABOVE: f64 = 1.25;
    const ROW: f64 = 0.45;
    const HEIGHT: f64 = 0.32;
    let found = all.get(&(REFERENCE, Way::Ours))?;
    let n = example(found);
    let cell = &used.cells[n];
    let (stimulus, seconds) = (cell.stimuli.last()?, Protocol::default().seconds);
    let shown = liveliest(stimulus, seconds);
    let segment = stimulus.trials.first()?.segments.get(shown)?;
    let samples = (seconds * 1e3 / cell.step_ms) as usize;
    let current = &segment.current_pa[..samples.min(segment.current_pa.len())];
    let (low, high) = current.iter().fold((f32::MAX, f32::MIN), |(a, b), &i| (a.min(i), b.max(i)));
    let place = |i: f32| f64::from((i - low) / (high - low).max(1e-3));
    // A point for every millisecond shows all there is to see.
    let every = (1.0 / cell.step_ms).round().max(1.0) as usize;
    let input = current.iter().enumerate().step_by(every).map(|(t, &i)| (t as f64 * cell.step_ms / 1e3, place(i)));
    let mut series = vec![Series::new("input", input).line().colour(7)];
    let mut names = vec![(0.5, "input".to_owned())];
    let mut row = |what: String, times: Vec<f64>, colour: usize| {
        let base = ABOVE + ROW * (series.len() - 1) as f64;
        let marks = times.into_iter().flat_map(|t| [(t, base), (t, base + HEIGHT), (t, base)]);
        let comb = [(0.0, base)].into_iter().chain(marks).chain([(seconds, base)]);
        names.push((base + 0.5 * HEIGHT, what));
        series.push(Series::new("", comb.collect::<Vec<_>>()).line().colour(colour));
    };
    let time = |bins: &[usize]| bins.iter().map(|&t| t as f64 * GRID_MS / 1e3).collect::<Vec<_>>();
    row("fitted".into(), time(found.cells[n].spikes.get(shown)?), 0);
    for trial in &stimulus.trials {
        let times = trial.segments.get(shown).map(|s| in_view(s, seconds).collect()).unwrap_or_default();
        row(format!("sweep {}", trial.sweep), times, 1);
    }
    let top = ABOVE + ROW * (series.len() - 1) as f64;
    let explained = found.cells[n].explained[WIDEST].map_or("silent".into(), |x| format!("{:.1} %", 100.0 * x));
    let panel = Panel::new(
        format!("cell {}: {explained} explained", found.cells[n].cell),
        Axis::linear("time (s)").limits(0.0, seconds),
        Axis::linear("").limits(-0.1, top).names(names),
        Lines::new(series),
    );
    let what = format!("`{}` from {} s on, input of {low:.0} to {high:.0} pA", stimulus.name, segment.start_s);
    Some((panel.without_legend(), what))
}

fn figure(used: &Cells, all: &All) -> Result<Figure> {
    let (example, what) = match example_panel(used, all) {
        Some(found) => found,
        None => anyhow::bail!("no cell was fitted"),
    };
    let explained = || Axis::linear("median explained variance").limits(0.0, 1.02);
    let lines = |settings: fn() -> Vec<(f64, Setting)>, published: &[(f64, f64)]| -> Lines {
        let ways = [Way::Ours, Way::Blocks].into_iter().enumerate();
        let mut list: Vec<Series> = ways
            .map(|(k, way)| Series::new(way.name(), course(all, way, settings().into_iter())).colour(k))
            .filter(|s| !s.points.is_empty())
            .collect();
        list.push(Series::new("print: blocks", published.to_vec()).published().colour(3));
        Lines::new(list)
    };
    let mut smoothing: Vec<Series> = Way::ALL
        .into_iter()
        .enumerate()
        .filter_map(|(k, way)| {
            let found = all.get(&(REFERENCE, way))?;
            let points = SIGMAS_MS.iter().enumerate().filter_map(|(i, &sigma)| Some((sigma, found.median(i)?)));
            Some(Series::new(way.name(), points).colour(k))
        })
        .collect();
    let at = SIGMAS_MS[WIDEST];
    for (name, value, colour) in
        [("print: blocks", REFERENCE.published().unwrap_or_default(), 3), ("print: steps", CONTROL, 4)]
    {
        smoothing.push(Series::new(name, [(at, value)]).published().colour(colour));
    }
    let times = Bars::new(["ours", "blocks", "steps"])
        .group("here, all in one batch", Way::ALL.map(|w| Some((all.get(&(REFERENCE, w))?.seconds_per_cell(), None))))
        .published("published, cell by cell on a GPU", Way::ALL.map(|w| Some((w.published_seconds()?, None))));
    let seconds = Way::ALL.into_iter().filter_map(|w| Some(all.get(&(REFERENCE, w))?.seconds_per_cell()));
    let least = seconds.fold(15.56_f64, f64::min);
    Ok(Figure::new(TARGET, "Adaptive neurons fitted to recorded ones", 3)
        .caption(format!(
            "Data: {}. a: a cell next to our median; {what}, which was not fitted to; spikes of the fitted neuron and of every \
             sweep. b, c, e: at a refractory period of 2 ms and steps of 0.1 ms unless the axis says otherwise; b, c: \
             spikes smoothed with {at} ms. e: the time of the whole batch by its {} cells. Hollow: what is in \
             print, read off a figure but for the times.",
            used.label.label,
            used.cells.len()
        ))
        .panel(example)
        .panel(Panel::new(
            "length of a step",
            Axis::log2("step (ms)"),
            explained(),
            lines(|| steps().collect(), &BY_STEP),
        ))
        .panel(Panel::new(
            "refractory period",
            Axis::log2("refractory period (ms)"),
            explained(),
            lines(|| periods().collect(), &BY_PERIOD),
        ))
        .panel(Panel::new("smoothing", Axis::linear("width of the bell (ms)").limits(4.0, 16.0), explained(), Lines::new(smoothing)))
        // Bars on a logarithmic axis need a foot.
        .panel(
            Panel::new("time of a fit", "", Axis::log10("seconds per cell").limits(least / 3.0, 300.0), times).span(2),
        ))
}

fn records(profile: Profile, all: &All) -> Result<Vec<Record>> {
    let record = |(&(at, way), found): (&(Setting, Way), &Found)| {
        let mut numbers = BTreeMap::from([
            ("dt_ms".to_owned(), at.dt_ms()),
            ("refractory_ms".to_owned(), at.refractory_ms()),
            ("seconds_per_cell".to_owned(), found.seconds_per_cell()),
        ]);
        for (i, sigma) in SIGMAS_MS.iter().enumerate() {
            numbers.extend(found.median(i).map(|m| (format!("median_explained_{sigma}_ms"), m)));
        }
        let config = way.config(profile, at);
        let cells = found.cells.iter().map(|c| {
            json!({ "cell": c.cell, "explained": c.explained, "loss": c.loss, "epochs": c.epochs, "start": c.start })
        });
        Ok(Record {
            what: format!("{}, {}", at.words(), way.name()),
            configuration: json!({ "fit": config, "protocol": way.protocol() }),
            seed: Some(config.seed),
            numbers,
            details: json!({ "cells": cells.collect::<Vec<_>>() }),
        })
    };
    all.iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[Option<f64>]) -> Found {
        let cell = |(n, x): (usize, &Option<f64>)| OfCell {
            cell: n.to_string(),
            explained: vec![*x; SIGMAS_MS.len()],
            loss: 1.0,
            epochs: 3,
            start: 0,
            spikes: vec![],
        };
        Found { cells: values.iter().enumerate().map(cell).collect(), seconds: 8.0 }
    }

    #[test]
    fn every_published_setting_is_fitted() {
        let paper = fits(Profile::Paper);
        // Seven steps and six periods share the reference, with two ways; and the control.
        assert_eq!(paper.len(), 2 * (7 + 6 - 1) + 1);
        for (at, way) in &paper {
            way.config(Profile::Paper, *at).check().unwrap();
            assert!(at.published().is_some(), "{at:?}");
        }
        assert_eq!(fits(Profile::Quick).len(), 12 + 2);
        assert_eq!(REFERENCE.published(), Some(0.798));
        assert_eq!([Way::Blocks, Way::Control].map(Way::protocol), [Protocol::published(), Protocol::published()]);
        assert_eq!(Way::Blocks.config(Profile::Quick, Setting::step(0.05)).dt_ms, 0.05);
    }

    #[test]
    fn silent_cells_are_left_out_and_the_example_is_the_middle() {
        let found = found(&[Some(0.95), None, Some(0.2), Some(0.91)]);
        assert_eq!((found.median(WIDEST), found.enough(), example(&found)), (Some(0.91), 2, 3));
        assert_eq!(found.seconds_per_cell(), 2.0);
    }

    #[test]
    fn demand_holds_for_generated_cells_in_longer_profiles() {
        let used = |synthetic| Cells {
            cells: vec![],
            label: DataLabel::default(),
            synthetic,
            folder: std::path::PathBuf::new(),
            notes: vec![],
        };
        let all = |good: usize| {
            let values: Vec<_> = (0..20).map(|n| Some(if n < good { 0.93 } else { 0.5 })).collect();
            All::from([((REFERENCE, Way::Ours), found(&values))])
        };
        let one = |profile, synthetic, good| demands(profile, &used(synthetic), &all(good)).remove(0);
        assert!(one(Profile::Quick, true, 16).met && !one(Profile::Quick, true, 15).met);
        assert!(one(Profile::Paper, true, 16).asked);
        assert!(!one(Profile::Smoke, true, 16).asked && !one(Profile::Paper, false, 16).asked);
    }
}
