//! Event-driven neurons on the reference backend, one neuron after the other.

use super::Reference;
use crate::backend::{EventOps, TrainReadout};
use crate::error::{Result, check_len};
use crate::neurons::event::{self, EventNeuron, Fired};
use crate::real::Real;
use crate::shape::{Pool, Synapses};
use crate::signal::Trains;

type Events<R> = Trains<Reference<R>>;

/// An input event as one neuron sees it.
struct Arrival {
    /// Its index among all events.
    event: usize,
    /// The index of its weight.
    weight: usize,
}

fn samples<R: Real>(trains: &Events<R>) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    trains.offsets.windows(2).map(|w| w[0] as usize..w[1] as usize)
}

/// What reaches each neuron of a layer, in the order of the events.
fn arrivals<R: Real>(synapses: &Synapses, input: &Events<R>, events: std::ops::Range<usize>) -> Vec<Vec<Arrival>> {
    let (_, lanes) = synapses.sites();
    let mut lists: Vec<Vec<Arrival>> = (0..synapses.outputs()).map(|_| Vec::new()).collect();
    for event in events {
        synapses.reach(input.units[event] as usize, |site, row| {
            for lane in 0..lanes {
                lists[site * lanes + lane].push(Arrival { event, weight: row * lanes + lane });
            }
        });
    }
    lists
}

/// The events of one sample that belong to a neuron, in ascending time.
fn own<R: Real>(trains: &Events<R>, events: std::ops::Range<usize>, unit: usize) -> Vec<usize> {
    events.filter(|&e| trains.units[e] as usize == unit).collect()
}

fn check<R: Real>(op: &'static str, synapses: &Synapses, weight: &[R], input: &Events<R>) -> Result<()> {
    check_len(op, "input neurons", input.width, synapses.inputs())?;
    let (_, lanes) = synapses.sites();
    check_len(op, "weight", weight.len(), synapses.rows() * lanes)
}

/// Writes events of one sample after another, each in ascending order of time and unit; gives the old place of each.
fn write<R: Real>(out: &mut Events<R>, width: usize, per_sample: Vec<Vec<(R, u32, usize)>>) -> Vec<usize> {
    *out = Trains { width, offsets: vec![0], units: vec![], times: vec![] };
    let mut order = Vec::new();
    for mut events in per_sample {
        events.sort_by(|x, y| x.0.value().total_cmp(&y.0.value()).then(x.1.cmp(&y.1)));
        out.times.extend(events.iter().map(|e| e.0));
        out.units.extend(events.iter().map(|e| e.1));
        order.extend(events.iter().map(|e| e.2));
        out.offsets.push(out.times.len() as u32);
    }
    order
}

impl<R: Real> EventOps for Reference<R> {
    fn event_forward(
        &self,
        neuron: &EventNeuron,
        synapses: &Synapses,
        weight: &Vec<R>,
        input: &Events<R>,
        out: &mut Events<R>,
        slopes: &mut Vec<R>,
    ) -> Result<()> {
        neuron.check()?;
        check("event_forward", synapses, weight, input)?;
        let (mut found, mut all_slopes) = (Vec::new(), Vec::new());
        for events in samples(input) {
            let mut sample = Vec::new();
            for (unit, list) in arrivals(synapses, input, events).into_iter().enumerate() {
                let inputs: Vec<(R, R)> = list.iter().map(|a| (input.times[a.event], weight[a.weight])).collect();
                for fired in event::spikes(neuron, &inputs) {
                    sample.push((fired.time, unit as u32, all_slopes.len()));
                    all_slopes.push(fired.slope);
                }
            }
            found.push(sample);
        }
        let order = write(out, synapses.outputs(), found);
        *slopes = order.into_iter().map(|i| all_slopes[i]).collect();
        Ok(())
    }

    fn event_backward(
        &self,
        neuron: &EventNeuron,
        synapses: &Synapses,
        weight: &Vec<R>,
        input: &Events<R>,
        out: &Events<R>,
        slopes: &Vec<R>,
        grad: &mut Vec<R>,
        grad_weight: &mut Vec<R>,
        mut grad_input: Option<&mut Vec<R>>,
    ) -> Result<()> {
        const OP: &str = "event_backward";
        check(OP, synapses, weight, input)?;
        check_len(OP, "slopes", slopes.len(), out.times.len())?;
        check_len(OP, "grad", grad.len(), out.times.len())?;
        check_len(OP, "grad_weight", grad_weight.len(), weight.len())?;
        grad_weight.fill(R::ZERO);
        if let Some(grad_input) = &mut grad_input {
            check_len(OP, "grad_input", grad_input.len(), input.times.len())?;
            grad_input.fill(R::ZERO);
        }
        for (events, spikes) in samples(input).zip(samples(out)) {
            for (unit, list) in arrivals(synapses, input, events).into_iter().enumerate() {
                let own = own(out, spikes.clone(), unit);
                let fired: Vec<_> = own.iter().map(|&e| Fired { time: out.times[e], slope: slopes[e] }).collect();
                let mut on_times: Vec<R> = own.iter().map(|&e| grad[e]).collect();
                event::through_resets(neuron, &fired, &mut on_times);
                for ((&e, f), &g) in own.iter().zip(&fired).zip(&on_times) {
                    grad[e] = g;
                    let pull = g / neuron.guarded(f.slope);
                    for a in list.iter().filter(|a| input.times[a.event] < f.time) {
                        let lag = f.time - input.times[a.event];
                        grad_weight[a.weight] -= pull * event::kernel(neuron, lag);
                        if let Some(grad_input) = &mut grad_input {
                            grad_input[a.event] += pull * weight[a.weight] * event::kernel_slope(neuron, lag);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn merge_trains(&self, pool: &Pool, input: &Events<R>, out: &mut Events<R>, source: &mut Vec<u32>) -> Result<()> {
        check_len("merge_trains", "input neurons", input.width, pool.input.len())?;
        let merged = samples(input).map(|events| {
            let target =
                |e: usize| pool.target(input.units[e] as usize).map(|(unit, _)| (input.times[e], unit as u32, e));
            events.filter_map(target).collect()
        });
        let order = write(out, pool.output().len(), merged.collect());
        *source = order.into_iter().map(|e| e as u32).collect();
        Ok(())
    }

    fn merge_trains_grad(&self, source: &Vec<u32>, grad: &Vec<R>, grad_input: &mut Vec<R>) -> Result<()> {
        check_len("merge_trains_grad", "grad", grad.len(), source.len())?;
        grad_input.fill(R::ZERO);
        for (&event, &g) in source.iter().zip(grad) {
            grad_input[event as usize] = g;
        }
        Ok(())
    }

    fn read_trains(&self, readout: &TrainReadout, trains: &Events<R>, values: &mut Vec<R>) -> Result<()> {
        check_len("read_trains", "values", values.len(), trains.batch(self) * trains.width)?;
        for (b, events) in samples(trains).enumerate() {
            for unit in 0..trains.width {
                let times: Vec<R> = own(trains, events.clone(), unit).into_iter().map(|e| trains.times[e]).collect();
                values[b * trains.width + unit] = match *readout {
                    TrainReadout::FirstSpike { tau } => {
                        times.first().map_or(R::lit(f64::NEG_INFINITY), |&t| -t / R::lit(tau))
                    }
                    TrainReadout::FirstTime { missing } => -times.first().copied().unwrap_or(R::lit(missing)),
                    TrainReadout::Count => R::lit(times.len() as f64),
                    TrainReadout::Decay { rate, .. } => {
                        times.iter().fold(R::ZERO, |sum, &t| sum + (R::lit(-rate) * t).exp())
                    }
                };
            }
        }
        Ok(())
    }

    fn read_trains_grad(
        &self,
        readout: &TrainReadout,
        trains: &Events<R>,
        grad_values: &Vec<R>,
        grad: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "read_trains_grad";
        check_len(OP, "grad_values", grad_values.len(), trains.batch(self) * trains.width)?;
        check_len(OP, "grad", grad.len(), trains.times.len())?;
        for (b, events) in samples(trains).enumerate() {
            for unit in 0..trains.width {
                let g = grad_values[b * trains.width + unit];
                let g = if g.value().is_finite() { g } else { R::ZERO };
                for (k, e) in own(trains, events.clone(), unit).into_iter().enumerate() {
                    grad[e] = match *readout {
                        TrainReadout::FirstSpike { .. } | TrainReadout::FirstTime { .. } if k > 0 => R::ZERO,
                        TrainReadout::FirstSpike { tau } => -g / R::lit(tau),
                        TrainReadout::Decay { rate, exact: true } => {
                            -g * R::lit(rate) * (R::lit(-rate) * trains.times[e]).exp()
                        }
                        TrainReadout::FirstTime { .. } | TrainReadout::Count | TrainReadout::Decay { .. } => -g,
                    };
                }
            }
        }
        Ok(())
    }

    fn spike_time_loss(
        &self,
        trains: &Events<R>,
        targets: &Vec<R>,
        missing: f64,
        losses: &mut Vec<R>,
        grad: &mut Vec<R>,
    ) -> Result<()> {
        const OP: &str = "spike_time_loss";
        let rows = trains.batch(self) * trains.width;
        let slots = targets.len() / rows.max(1);
        check_len(OP, "targets", targets.len(), rows * slots.max(1))?;
        check_len(OP, "losses", losses.len(), trains.batch(self))?;
        check_len(OP, "grad", grad.len(), trains.times.len())?;
        let or_missing = |t: R| if t.value().is_finite() { t } else { R::lit(missing) };
        for (b, events) in samples(trains).enumerate() {
            losses[b] = R::ZERO;
            for unit in 0..trains.width {
                let targets = &targets[(b * trains.width + unit) * slots..][..slots];
                let own = own(trains, events.clone(), unit);
                let first = own.first().map_or(R::lit(missing), |&e| trains.times[e]);
                let error = or_missing(targets[0]) - first;
                losses[b] += R::lit(0.5) * error * error;
                for (k, e) in own.into_iter().enumerate() {
                    grad[e] = targets.get(k).map_or(R::ZERO, |&target| trains.times[e] - or_missing(target));
                }
            }
        }
        Ok(())
    }

    fn scale_synapses(&self, amount: &Vec<R>, weight: &Vec<R>, grad_weight: &mut Vec<R>) -> Result<()> {
        check_len("scale_synapses", "grad_weight", grad_weight.len(), weight.len())?;
        for (i, (grad, w)) in grad_weight.iter_mut().zip(weight).enumerate() {
            *grad -= amount[i % amount.len()] * w.abs();
        }
        Ok(())
    }

    fn count_trains(&self, trains: &Events<R>, counts: &mut Vec<u32>) -> Result<()> {
        check_len("count_trains", "counts", counts.len(), trains.batch(self) * trains.width)?;
        counts.fill(0);
        for (b, events) in samples(trains).enumerate() {
            events.for_each(|e| counts[b * trains.width + trains.units[e] as usize] += 1);
        }
        Ok(())
    }
}
