//! Event lists like those of spoken digits, in the style of SHD: 700 channels, 20 words, some 2000 events each.
//!
//! A word is a sequence of sounds: vowels and nasals are three bands of channels (formants), fricatives a broad band at the
//! high end, channel 0 being the highest frequency. The words come in five groups of four, each group the same sounds
//! in another order: how often a channel fires says little more than the group, when it fires says the word. Speakers
//! differ in pitch, length of the vocal tract and tempo; every utterance is warped in time, begins after 5 to 120 ms and
//! has background events. As in SHD, two of the twelve speakers are heard in the test split only.

use std::f32::consts::TAU;
use std::sync::Arc;

use rand_distr::{Distribution, Exp1, StandardNormal};
use snn_core::random::{Purpose, Stream};

use crate::error::Result;
use crate::source::{Sample, Source, SourceKind, check_index};
use crate::synth::Recipe;

/// Channels.
pub const UNITS: usize = 700;
/// Words.
pub const CLASSES: usize = 20;
const SPEAKERS: u32 = 12;
/// Heard in the test split only.
const UNHEARD: [u32; 2] = [4, 5];

/// Three bands: centre in Hz, width in channels, events per millisecond.
type Sound = [(f32, f32, f32); 3];

const SOUNDS: [Sound; 8] = [
    [(280.0, 14.0, 1.6), (2250.0, 12.0, 1.1), (2900.0, 12.0, 0.7)], // 0: i
    [(400.0, 14.0, 1.7), (2000.0, 12.0, 1.1), (2550.0, 12.0, 0.6)], // 1: e
    [(710.0, 15.0, 1.9), (1100.0, 13.0, 1.4), (2450.0, 12.0, 0.5)], // 2: a
    [(450.0, 14.0, 1.8), (850.0, 13.0, 1.2), (2400.0, 12.0, 0.4)],  // 3: o
    [(310.0, 14.0, 1.7), (870.0, 13.0, 0.9), (2250.0, 12.0, 0.4)],  // 4: u
    [(250.0, 12.0, 1.2), (1100.0, 16.0, 0.4), (2200.0, 16.0, 0.3)], // 5: n
    [(7500.0, 30.0, 1.6), (5500.0, 25.0, 1.0), (4300.0, 20.0, 0.3)], // 6: s
    [(3500.0, 70.0, 0.6), (6500.0, 70.0, 0.7), (1500.0, 60.0, 0.3)], // 7: f
];

/// Five groups of four orders of the same three sounds.
const WORDS: [[[usize; 3]; 4]; CLASSES / 4] = [
    [[6, 0, 4], [4, 0, 6], [0, 6, 4], [4, 6, 0]],
    [[7, 2, 1], [1, 2, 7], [2, 7, 1], [1, 7, 2]],
    [[5, 3, 0], [0, 3, 5], [3, 5, 0], [0, 5, 3]],
    [[6, 1, 3], [3, 1, 6], [1, 6, 3], [3, 6, 1]],
    [[7, 2, 5], [5, 2, 7], [2, 7, 5], [5, 7, 2]],
];

/// The channel of a frequency: 10.5 kHz is 0, 110 Hz is 699, logarithmic in between.
fn channel(hz: f32) -> f32 {
    const TOP: f32 = 10_500.0;
    699.0 * (TOP / hz).ln() / (TOP / 110.0).ln()
}

#[derive(Debug)]
struct Spoken {
    name: String,
    class_names: Vec<String>,
    samples: usize,
    train: bool,
    seed: u64,
}

/// The split that `recipe` describes.
pub(crate) fn source(recipe: Recipe) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Spoken {
        name: recipe.name("spoken-digits"),
        class_names: (0..CLASSES).map(|c| format!("word {c}")).collect(),
        samples: recipe.samples,
        train: recipe.train,
        seed: recipe.seed.unwrap_or(0),
    }))
}

impl Spoken {
    /// Speaker and word of a sample; both splits hold all words equally often.
    fn who_says_what(&self, index: usize) -> (u32, usize) {
        let (word, turn) = (index % CLASSES, (index / CLASSES) as u32);
        let speaker = if self.train {
            let known = turn % (SPEAKERS - 2);
            if known < UNHEARD[0] { known } else { known + 2 }
        } else {
            turn % SPEAKERS
        };
        (speaker, word)
    }

    fn utter(&self, index: usize, into: &mut Sample) {
        let (speaker, word) = self.who_says_what(index);
        let mut voice = Stream::new(self.seed, Purpose::Synthesis, [4, speaker]);
        let pitch_hz = 90.0 + 130.0 * voice.unit();
        let tract = 0.85 + 0.3 * voice.unit();
        let tempo = 0.8 + 0.4 * voice.unit();

        let split = u32::from(!self.train);
        let mut random = Stream::new(self.seed, Purpose::Synthesis, [split, index as u32]);
        let mut between = |low: f32, high: f32| low + (high - low) * random.unit();
        let start_s = between(0.005, 0.12);
        let length_s = between(0.42, 0.62) * tempo;
        let pitch_hz = pitch_hz * between(0.9, 1.1);
        let tract = tract * between(0.97, 1.03);
        let (warp, level) = (between(-0.35, 0.35), between(0.7, 1.2));
        // Where one sound gives way to the next, as a share of the word.
        let (first, second) = (between(0.26, 0.4), between(0.6, 0.74));
        let background_hz = between(60.0, 240.0);

        let sounds = WORDS[word / 4][word % 4]
            .map(|sound| SOUNDS[sound].map(|(hz, width, rate)| (channel(hz * tract), width, rate)));
        // The three bands, each as it is in the three sounds.
        let bands = [0, 1, 2].map(|band| sounds.map(|sound| sound[band]));
        let mut events: Vec<(f32, u32)> = Vec::with_capacity(3000);
        let mut fire = |time: f32, unit: f32| {
            if (0.0..UNITS as f32).contains(&unit) {
                events.push((time, unit as u32));
            }
        };
        let steps = (length_s * 1000.0) as usize;
        for step in 0..steps {
            let share = step as f32 / steps as f32;
            let progress = share + warp * (TAU * share).sin() / TAU;
            // Sounds glide into each other over a tenth of the word.
            let glide = |at: f32| ((progress - at) / 0.1 + 0.5).clamp(0.0, 1.0);
            let (a, b) = (glide(first), glide(second));
            let edge = (share.min(1.0 - share) * 12.0).min(1.0);
            // Voiced sounds pulse with the pitch.
            let pulse = 1.0 + 0.8 * (TAU * pitch_hz * step as f32 * 1e-3).sin();
            for [before, middle, after] in &bands {
                let blend = |f: fn(&(f32, f32, f32)) -> f32| {
                    let [x, y, z] = [before, middle, after].map(f);
                    (x + (y - x) * a) * (1.0 - b) + z * b
                };
                let (centre, width) = (blend(|f| f.0), blend(|f| f.1));
                let rate = blend(|f| f.2) * level * edge * pulse;
                // A Poisson number of events within the millisecond.
                let mut at: f32 = Exp1.sample(&mut random);
                while at < rate {
                    let spread: f32 = StandardNormal.sample(&mut random);
                    fire(start_s + (step as f32 + at / rate) * 1e-3, centre + width * spread);
                    let gap: f32 = Exp1.sample(&mut random);
                    at += gap;
                }
            }
        }
        let end_s = start_s + length_s + 0.05;
        let mut at: f32 = 0.0;
        loop {
            let gap: f32 = Exp1.sample(&mut random);
            at += gap / background_hz;
            if at >= end_s {
                break;
            }
            fire(at, UNITS as f32 * random.unit());
        }
        events.sort_by(|x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)));
        into.label = word as u32;
        into.times.extend(events.iter().map(|e| e.0));
        into.units.extend(events.iter().map(|e| e.1));
    }
}

impl Source for Spoken {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.samples
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self) -> Option<&str> {
        Some("generated look-alike")
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Events { units: UNITS, sensor: None }
    }

    fn read(&self, index: usize, into: &mut Sample) -> Result<()> {
        check_index(self, index)?;
        into.clear();
        self.utter(index, into);
        Ok(())
    }

    fn memory(&self) -> Option<u64> {
        // A unit and a time for each event, of which there are 1,400 on average.
        Some(self.samples as u64 * 8 * 1400)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &dyn Source, index: usize) -> Sample {
        let mut sample = Sample::default();
        set.read(index, &mut sample).unwrap();
        sample
    }

    /// Accuracy of the nearest class mean of square-rooted counts in groups of ten channels and `bins` of 70 ms.
    fn nearest_mean_accuracy(bins: usize) -> f64 {
        let features = |sample: &Sample| {
            let mut counts = vec![0.0_f64; 70 * bins];
            for (&unit, &time) in sample.units.iter().zip(&sample.times) {
                let bin = ((time / 0.07) as usize).min(bins - 1);
                counts[bin * 70 + unit as usize / 10] += 1.0;
            }
            counts.iter().map(|c| c.sqrt()).collect::<Vec<_>>()
        };
        let make = |train, samples| source(Recipe { train, samples, seed: None }).unwrap();
        let mut means = vec![vec![0.0; 70 * bins]; CLASSES];
        let train = make(true, 600);
        for index in 0..train.len() {
            let sample = read(&*train, index);
            let share = 600 / CLASSES;
            means[sample.label as usize].iter_mut().zip(features(&sample)).for_each(|(m, f)| *m += f / share as f64);
        }
        let test = make(false, 240);
        let right = (0..test.len()).filter(|&index| {
            let sample = read(&*test, index);
            let x = features(&sample);
            let distance = |m: &[f64]| m.iter().zip(&x).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            let best = (0..CLASSES).min_by(|&a, &b| distance(&means[a]).total_cmp(&distance(&means[b])));
            best == Some(sample.label as usize)
        });
        right.count() as f64 / test.len() as f64
    }

    #[test]
    fn when_says_more_than_how_often() {
        let (counts, times) = (nearest_mean_accuracy(1), nearest_mean_accuracy(10));
        assert!((0.1..0.45).contains(&counts), "counts alone: {counts}");
        assert!(times > counts + 0.25, "with time: {times}, counts alone: {counts}");
    }

    #[test]
    fn samples_look_like_those_of_shd() {
        let set = source(Recipe { train: true, samples: 100, seed: None }).unwrap();
        let all: Vec<_> = (0..100).map(|i| read(&*set, i)).collect();
        let events = all.iter().map(|s| s.units.len()).sum::<usize>() / 100;
        assert!((800..4000).contains(&events), "{events} events on average");
        assert!(all.iter().all(|s| s.times.is_sorted() && s.units.iter().all(|&u| u < 700)));
        assert!(all.iter().all(|s| (200..8000).contains(&s.units.len()) && s.times[s.times.len() - 1] < 1.2));
        assert_eq!(read(&*set, 41), all[41], "a sample is a function of its index");
    }

    #[test]
    fn two_speakers_are_heard_in_the_test_split_only() {
        let speakers = |train| {
            let set = Spoken { name: String::new(), class_names: vec![], samples: 0, train, seed: 0 };
            let mut all: Vec<_> = (0..600).map(|i| set.who_says_what(i).0).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        assert_eq!(speakers(true), [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]);
        assert_eq!(speakers(false), (0..12).collect::<Vec<_>>());
    }
}
