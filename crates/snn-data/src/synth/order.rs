//! Two samples that differ in the order of two spikes: the toy of BATS' convergence study.
//!
//! Four inputs fire once each. Two fire at 0 in both samples; of the other two, one fires at 1 s and one at 2 s, and
//! which of them is first is the class. Training and test split are the same.

use std::sync::Arc;

use super::Recipe;
use crate::error::Result;
use crate::source::{InMemory, Sample, Source, SourceKind};

/// When the inputs of each class fire, s.
const TIMES: [[f32; 4]; 2] = [[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 2.0, 1.0]];

pub(super) fn source(recipe: Recipe) -> Result<Arc<dyn Source>> {
    let names = ["third input first", "fourth input first"].map(str::to_owned).to_vec();
    let mut set = InMemory::empty(&recipe.name("spike-order"), SourceKind::Events { units: 4, sensor: None }, names);
    for index in 0..recipe.samples {
        let label = index % TIMES.len();
        let mut events: Vec<(f32, u32)> = TIMES[label].into_iter().zip(0..).collect();
        events.sort_by(|x, y| x.0.total_cmp(&y.0));
        let (times, units) = events.into_iter().unzip();
        set.push(&Sample { times, units, label: label as u32, ..Sample::default() });
    }
    Ok(Arc::new(set))
}
