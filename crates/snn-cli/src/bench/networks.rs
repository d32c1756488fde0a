//! Training steps of whole single-spike networks: forward pass, loss, backward pass, update.
//!
//! The networks are those of TTFS, with random images; of the dense one a share of the inputs is 0, as in MNIST. Their
//! peers are the networks of rectifiers that they equal, which is the arithmetic that either side has to do.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};
use snn_core::random::{Purpose, Stream};
use snn_core::{Activity, Backend, Kind, Map, Pass, Real, Signal, Tensor};
use snn_cpu::limits::Limits;
use snn_train::losses::Loss;
use snn_train::optim::Optimiser;
use snn_train::{Stack, presets};

use super::device::Timeable;
use super::peer::{PeerCell, PeerTime, Peers};
use super::timing::Times;
use crate::args::BenchArgs;
use crate::console;
use crate::report::{Cell, Column, Measured, Table};

/// Batch size of the published protocol.
const BATCH: usize = 8;
const CLASSES: usize = 10;

/// A network: its name, preset, peers, what it takes, and the share of inputs that are not 0.
struct Network {
    name: &'static str,
    preset: &'static str,
    peers: &'static [&'static str],
    map: Map,
    density: f64,
}

const NETWORKS: [Network; 2] = [
    Network {
        name: "fc2",
        preset: "ttfs-mnist-fc2",
        peers: &["fc2", "fc2-fused-adam"],
        map: Map::new(28, 28, 1),
        density: 0.2,
    },
    Network { name: "vgg16", preset: "ttfs-cifar10-vgg", peers: &["vgg16"], map: Map::new(32, 32, 3), density: 1.0 },
];

/// What was timed of one network.
pub(crate) struct NetworkTimes {
    name: &'static str,
    batch: usize,
    threads: usize,
    /// Multiply-adds of a step, each of which is two operations.
    multiply_adds: f64,
    /// Share of the machine's measured multiply-adds.
    share: f64,
    /// With the loss.
    forward: Times,
    /// With the update.
    backward: Times,
    peers: Vec<PeerTime>,
}

/// Times the networks that were asked for.
pub(crate) fn run<D: Timeable>(device: &D, limits: &Limits, args: &BenchArgs) -> Result<Vec<NetworkTimes>> {
    let peers = args.peer_python.as_deref().map(Peers::find).transpose()?;
    let batches = if args.batch.is_empty() { vec![BATCH] } else { args.batch.clone() };
    let mut all = Vec::new();
    for network in NETWORKS.iter().filter(|n| args.only.as_ref().is_none_or(|only| n.name.contains(&**only))) {
        for &batch in &batches {
            all.push(time(device, limits, network, batch, args, peers.as_ref())?);
        }
    }
    if all.is_empty() {
        let known = NETWORKS.map(|n| n.name).join(", ");
        return Err(crate::usage(format!("--only: no such network; there are {known}")));
    }
    Ok(all)
}

fn time<D: Timeable>(
    device: &D,
    limits: &Limits,
    network: &Network,
    batch: usize,
    args: &BenchArgs,
    peers: Option<&Peers>,
) -> Result<NetworkTimes> {
    let experiment = presets::find(network.preset)?.experiment;
    let signal = Signal { kind: Kind::Values, steps: 1, map: network.map };
    let mut stack = Stack::build(device, &experiment.model, signal, CLASSES, 1)?;
    let config = experiment.train.optimiser;
    let mut optimiser = Optimiser::new(device, config, &stack)?;
    let mut loss = Loss::new(device, experiment.train.loss)?;
    let density = if network.density < 1.0 { args.density.unwrap_or(network.density) } else { 1.0 };
    let mut draws = Stream::new(1, Purpose::Test, [0, 0]);
    let (mut forward, mut backward) = (vec![], vec![]);
    let width = network.map.len();
    for step in 0..=args.repeats {
        let mut pixel = |_| if f64::from(draws.unit()) < density { draws.unit() } else { 0.0 };
        let data: Vec<_> = (0..batch * width).map(|i| D::Real::lit(pixel(i).into())).collect();
        let input = Activity::Values(Tensor::<D> { shape: vec![batch, width], data: device.buffer_from(&data)? });
        let labels: Vec<u32> = (0..batch).map(|_| draws.below(CLASSES as u32)).collect();
        device.synchronise()?;
        let start = Instant::now();
        stack.forward(device, &input, Pass::train(step as u32))?;
        loss.forward(device, stack.output(), &labels)?;
        let half = Instant::now();
        stack.backward(device, &input, loss.grad())?;
        let rate = config.learning_rate * experiment.train.schedule.factor_at(optimiser.step());
        optimiser.update(device, &mut stack, rate)?;
        device.synchronise()?;
        // The first step fills caches and buffers.
        if step > 0 {
            forward.push((half - start).as_secs_f64());
            backward.push(half.elapsed().as_secs_f64());
        }
    }
    let mut timed = Vec::new();
    if let Some(peers) = peers {
        for peer in network.peers.iter().filter(|p| wanted(p, &args.peer)) {
            let cell = PeerCell {
                device: D::PEER.to_owned(),
                peer: (*peer).to_owned(),
                batch,
                steps: 1,
                n_in: width,
                n: CLASSES,
                density: Some(density),
                repeats: args.repeats,
                threads: device.threads(),
                sliced: false,
                tau: None,
                forward_only: false,
                refractory: None,
                layers: 1,
                feed_forward: false,
            };
            console::message(format_args!("timing the peer {peer}"));
            timed.push(peers.time(&cell)?);
        }
    }
    let multiply_adds = multiply_adds(&stack) * batch as f64;
    let (forward, backward) = (Times::new(forward), Times::new(backward));
    let share = 2.0 * multiply_adds / (forward.median + backward.median) / limits.fma.all;
    let threads = device.threads();
    Ok(NetworkTimes { name: network.name, batch, threads, multiply_adds, share, forward, backward, peers: timed })
}

/// Whether a peer was asked for; all of a network's are without a list, or with `auto`.
fn wanted(peer: &str, list: &[String]) -> bool {
    list.is_empty() || list.iter().any(|name| name == peer || name == "auto")
}

/// Multiply-adds of a sample's training step: forward, weight gradient, and the gradient on the input of all layers but
/// the first.
fn multiply_adds<B: Backend>(stack: &Stack<B>) -> f64 {
    let connections = stack.layers().filter_map(|layer| {
        let weight = layer.parameters().into_iter().find(|p| p.name == "weight")?;
        let positions = if weight.value.shape.len() == 4 {
            layer.output_signal().width() / weight.value.shape[3].max(1)
        } else {
            1
        };
        Some((weight.value.len() * positions) as f64)
    });
    connections.enumerate().map(|(i, n)| if i == 0 { 2.0 * n } else { 3.0 * n }).sum()
}

impl NetworkTimes {
    fn step(&self) -> f64 {
        self.forward.median + self.backward.median
    }

    /// One line of `--json`.
    pub(crate) fn json(&self) -> Value {
        json!({
            "kind": "network",
            "key": format!("{} batch {} threads {}", self.name, self.batch, self.threads),
            "network": self.name,
            "batch": self.batch,
            "threads": self.threads,
            "median_s": self.step(),
            "forward_s": self.forward.median,
            "backward_s": self.backward.median,
            "images_per_s": self.batch as f64 / self.step(),
            "multiply_adds": self.multiply_adds,
            "share_of_peak": self.share,
            "peers": self.peers,
        })
    }
}

/// All of them as a table.
pub(crate) fn table(times: &[NetworkTimes]) -> Table {
    let columns = vec![
        Column::words("network"),
        Column::numbers("batch", ""),
        Column::numbers("forward", "ms"),
        Column::numbers("backward and update", "ms"),
        Column::numbers("step", "ms"),
        Column::numbers("images", "1/s"),
        Column::numbers("of the peak", "%"),
        Column::numbers("against ours", ""),
    ];
    let mut table = Table::new("networks", "Training steps; peers in the lines below each network", columns);
    for t in times {
        let mut line = |name: String, [forward, backward]: [f64; 2], share: Option<f64>| {
            let number = |x: f64, digits| Cell::number(Measured::value(x), digits);
            let step = forward + backward;
            table.row([
                Cell::text(name),
                number(t.batch as f64, 0),
                number(1e3 * forward, 3),
                number(1e3 * backward, 3),
                number(1e3 * step, 3),
                number(t.batch as f64 / step, 0),
                share.map_or(Cell::text("-"), |s| number(100.0 * s, 0)),
                number(step / t.step(), 2),
            ]);
        };
        line(t.name.to_owned(), [t.forward.median, t.backward.median], Some(t.share));
        for peer in &t.peers {
            line(format!("PyTorch {}: {}", peer.torch, peer.peer), [peer.forward_s, peer.backward_s], None);
        }
    }
    table.note("The peak is the machine's rate of multiply-adds, measured in the same run.");
    table
}
