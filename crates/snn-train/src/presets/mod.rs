//! Every published experiment by name; a name begins with its system.

mod alif;
mod bats;
mod block;
mod paralif;
mod paralif_nets;
mod ttfs;

use serde::Serialize;

use crate::config::{Experiment, nearest};
use crate::error::{Error, Result};

/// A published experiment.
#[derive(Debug, Clone, Serialize)]
pub struct Preset {
    /// The name, as in `snn train NAME`.
    pub name: String,
    /// What it is, in a line.
    pub title: String,
    /// The published result, if there is one.
    pub published: Option<Published>,
    /// The experiment.
    pub experiment: Experiment,
}

/// A published result: means and deviations over runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Published {
    /// Test accuracy, per cent.
    pub accuracy: f64,
    /// Its standard deviation, where several runs were published.
    pub accuracy_sd: Option<f64>,
    /// Hidden spikes per test sample.
    pub spikes: Option<f64>,
    /// Their standard deviation.
    pub spikes_sd: Option<f64>,
    /// Seconds of an epoch on the published hardware: for the block model one NVIDIA A100, for SPSN and
    /// the adaptive blocks a GPU without a name.
    pub epoch_seconds: Option<f64>,
}

/// All presets, by system and data set.
#[must_use]
pub fn all() -> Vec<Preset> {
    let mut all = block::presets();
    all.extend(paralif::presets());
    all.extend(paralif_nets::presets());
    all.extend(bats::presets());
    all.extend(ttfs::presets());
    all.extend(alif::presets());
    all
}

/// The preset of that name.
///
/// # Errors
///
/// [`Error::Config`] naming the nearest.
pub fn find(name: &str) -> Result<Preset> {
    let presets = all();
    if let Some(found) = presets.iter().find(|p| p.name == name) {
        return Ok(found.clone());
    }
    let hint = nearest(name, presets.iter().map(|p| p.name.as_str()));
    Err(Error::config(name, format!("is no preset{hint}; `snn presets` lists them")))
}

#[cfg(test)]
mod tests {
    use snn_core::reference::Reference;
    use snn_core::{Kind, Map, Signal};

    use super::*;
    use crate::Stack;

    #[test]
    fn names_are_unique_and_begin_with_the_system() {
        let mut names: Vec<String> = all().into_iter().map(|p| p.name).collect();
        let systems = ["block-", "spsn-", "paralif-", "bats-", "ttfs-", "blocks-", "alif-"];
        assert!(names.iter().all(|n| systems.iter().any(|s| n.starts_with(s))));
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_preset_survives_its_own_toml() {
        for p in all() {
            assert_eq!(Experiment::from_toml(&p.name, &p.experiment.to_toml()).unwrap(), p.experiment, "{}", p.name);
        }
    }

    #[test]
    fn nearest_preset_is_named() {
        assert!(find("block-mnst").unwrap_err().to_string().contains("did you mean `block-mnist`"));
    }

    /// The published count of the MNIST model: weights, biases and decays of both layers.
    #[test]
    fn models_have_the_published_sizes() {
        let device = Reference::<f32>::new();
        let count = |name: &str, input: Signal, classes: usize| {
            let stack = Stack::build(&device, &find(name).unwrap().experiment.model, input, classes, 1).unwrap();
            stack.parameters().map(|(_, p)| p.value.len()).sum::<usize>()
        };
        let mnist = Signal { kind: Kind::Spikes, steps: 100, map: Map::new(28, 28, 1) };
        assert_eq!(count("block-mnist", mnist, 10), 784 * 800 + 800 + 800 + 800 * 10 + 10 + 10);
        let convs = 25 * 32 + 32 + 25_088 + 25 * 32 * 64 + 64 + 12_544;
        let dense = 3136 * 1000 + 1000 + 1000 + 1000 * 10 + 10 + 10;
        assert_eq!(count("block-mnist-conv", Signal { steps: 8, ..mnist }, 10), convs + dense);
    }

    /// The networks around ParaLIF fit their data, and count what their layers say.
    #[test]
    fn paralif_networks_have_the_sizes_of_their_layers() {
        let device = Reference::<f32>::new();
        let count = |name: &str, kind: Kind, steps: usize, map: Map, classes: usize| {
            let model = &find(name).unwrap().experiment.model;
            let stack = Stack::build(&device, model, Signal { kind, steps, map }, classes, 1).unwrap();
            stack.parameters().filter(|(_, p)| p.learnable).map(|(_, p)| p.value.len()).sum::<usize>()
        };
        // Weights without biases, gain and offset of every channel, one decay for each layer.
        let convs = 9 * 2 * 128 + 9 * 128 * 128 + 2 * 256 + 2;
        let dense = 8192 * 2048 + 2048 * 100 + 2;
        assert_eq!(count("paralif-conv-nmnist", Kind::Spikes, 10, Map::new(34, 34, 2), 10), convs + dense);
        let convs = 3 * 3 * 128 + 5 * (3 * 128 * 128) + 6 * 256;
        let dense = 8 * 128 * 256 + 256 + 256 * 10 + 10;
        assert_eq!(count("paralif-sequential-cifar10", Kind::Sequence, 32, Map::new(32, 1, 3), 10), convs + dense);
        let synapses = 140 * 256 + 256 * 256 + 256 * 20;
        assert_eq!(count("paralif-delays-shd", Kind::Spikes, 140, Map::new(1, 1, 140), 20), 2 * synapses + 4 * 256);
    }
}
