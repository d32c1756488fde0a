//! Runner of streaming inference, kind `event_infer`: one sample through a dense layer, with traces.

use anyhow::{Result, bail};
use snn_core::Real;
use snn_core::stream::{BasicTrace, Event, PairStdp, Plasticity, StreamLayer, StreamNeuron};
use snn_core::testkit::golden::{Case, Precision};

use super::arrays::values;
use super::{Implementation, Runner};

/// Everything that implements the kind.
pub(super) fn event_infer() -> Vec<Implementation> {
    let implementation = |name, precision, run: Runner| Implementation { name, precision, run };
    vec![
        implementation("stream f64", Precision::Double, Box::new(infer::<f64>)),
        implementation("stream f32", Precision::Single, Box::new(infer::<f32>)),
    ]
}

/// Runs a case with the rule that it names.
fn infer<R: Real>(case: &Case) -> Result<()> {
    let tau = |name: &str| anyhow::Ok(case.option::<Option<f64>>(name)?.unwrap_or(f64::INFINITY));
    let (tau_pre, tau_sum) = (tau("tau_s0")?, tau("tau_s1")?);
    match case.option::<String>("rule")?.as_str() {
        "basic" => traced::<R, _>(case, BasicTrace { tau_pre, tau_sum }),
        "pair_stdp" => traced::<R, _>(case, PairStdp { tau_pre, tau_post: tau("tau_n0")?, tau_sum }),
        other => bail!("unknown rule `{other}`"),
    }
}

/// Compares spikes, counts, and the second trace of every synapse.
fn traced<R: Real, P: Plasticity<R, Synapse = [R; 2]>>(case: &Case, rule: P) -> Result<()> {
    let (pre, weights) = (case.array("pre_times")?, case.array("weights")?);
    let [neurons, inputs] = weights.shape[..] else { bail!("weights have axes {:?}, not J,I", weights.shape) };
    let slots: usize = case.option("slots")?;
    let per_input = pre.data.len() / inputs.max(1);
    let times = pre.data.iter().enumerate().filter(|(_, time)| time.is_finite());
    let mut events: Vec<Event<R>> =
        times.map(|(at, &time)| Event::new((at / per_input) as u32, R::lit(time))).collect();
    events.sort_by(|x, y| x.time.value().total_cmp(&y.time.value()));
    let neuron = StreamNeuron {
        tau_s: case.option("tau_s")?,
        threshold: case.option("threshold_c")?,
        reset: case.option("reset_c")?,
    };
    let weights: Vec<R> = weights.permuted(&[1, 0]).data.iter().map(|&w| R::lit(w)).collect();
    let mut layer = StreamLayer::plastic(neuron, inputs, neurons, &weights, rule)?;
    layer.infer(&events)?;

    let mut times = vec![R::lit(f64::INFINITY); neurons * slots];
    let mut used = vec![0; neurons];
    for spike in layer.spikes() {
        let (neuron, slot) = (spike.unit as usize, &mut used[spike.unit as usize]);
        if *slot < slots {
            times[neuron * slots + *slot] = spike.time;
        }
        *slot += 1;
    }
    let counts: Vec<f64> = layer.counts().iter().map(|&c| f64::from(c)).collect();
    let trace: Vec<R> = layer.synapse_traces().iter().map(|traces| traces[1]).collect();
    case.compare("post_counts", &counts);
    for suffix in ["", "_f64"] {
        case.compare(&format!("post_times{suffix}"), &values(&times));
        case.compare(&format!("trace{suffix}"), &values(&trace));
    }
    Ok(())
}
