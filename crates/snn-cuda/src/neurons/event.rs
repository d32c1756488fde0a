//! Event-driven neurons: every neuron is a thread that walks the events its site sees.
//!
//! A dense layer is one site that all events reach; a convolution has a site for each output position, which sees the
//! events in its field, with all positions sharing their weights. Forward, neurons write their spikes to places of their
//! own, and a stable sort by sample and time puts them in order. Backward, a neuron sends the gradients of its spikes
//! through its resets and walks back with two traces; what it has of them at every event is kept for some events at a time,
//! summed over the events of each channel for the weights, and over the neurons for the times of the events. All sums go in
//! an order that depends on sizes and events alone.
//!
//! How many spikes there are decides how long buffers are, so [`EventOps::event_forward`] waits for the device once, and
//! once more for neurons of so large a capacity that there is no room for all of it; [`EventOps::merge_trains`] waits where
//! windows leave a rest.

use snn_core::backend::{EventOps, Memory, TrainReadout};
use snn_core::error::{Result, check_len};
use snn_core::neurons::event::EventNeuron;
use snn_core::{Pool, Synapses, Trains};

use crate::conv;
use crate::device::Cuda;
use crate::kernels::{EVENT, POOL};
use crate::launch::{Fields, Launch};
use crate::memory::Buffer;
use crate::pool;

/// Spikes of a neuron that there is room for before a look at how many there are, and of all neurons: 128 MiB with their
/// slopes.
const ROOM: usize = 64;
const SLOTS: usize = 1 << 24;

/// Entries of what neurons have at events that are kept at a time: 128 MiB for the weights, as much for the times.
const TRACES: usize = 1 << 25;

/// Events of a channel that a thread adds up, about.
const EVENTS: usize = 64;

/// Parts of these sums, at most, and entries of all parts.
const PARTS: usize = 64;
const PARTIAL: usize = 1 << 24;

/// The most samples: a sort has keys of 53 bits, 32 of which are a time.
const SAMPLES: usize = 1 << 21;

/// What reaches the sites of a layer, site after site.
struct Walks {
    /// Where each site begins, and how many events it sees.
    from: Buffer<u32>,
    counts: Buffer<u32>,
    /// The row of the weights and the time of each; those of the input itself for a dense layer.
    rows: Option<Buffer<u32>>,
    times: Option<Buffer<f32>>,
    /// What lies between one and the next; see the kernel.
    decays: Buffer<f32>,
    reaches: Buffer<f32>,
    limits: Buffer<f32>,
    /// Where each event of the input stands at each tap, plus 1.
    places: Buffer<u32>,
    taps: usize,
}

impl Walks {
    fn rows<'a>(&'a self, input: &'a Trains<Cuda>) -> &'a Buffer<u32> {
        self.rows.as_ref().unwrap_or(&input.units)
    }

    fn times<'a>(&'a self, input: &'a Trains<Cuda>) -> &'a Buffer<f32> {
        self.times.as_ref().unwrap_or(&input.times)
    }

    /// Places for events at sites.
    fn len(&self) -> usize {
        self.decays.len()
    }
}

/// Events in the order of the neurons they belong to, and of time.
struct Lists {
    keys: Buffer<f64>,
    events: Buffer<u32>,
}

fn batch(trains: &Trains<Cuda>) -> usize {
    trains.offsets.len().saturating_sub(1)
}

/// Checks that trains have a unit for every time.
fn check_trains(op: &'static str, trains: &Trains<Cuda>) -> Result<()> {
    check_len(op, "units", trains.units.len(), trains.times.len())
}

fn check(op: &'static str, synapses: &Synapses, weight: &Buffer<f32>, input: &Trains<Cuda>) -> Result<()> {
    check_trains(op, input)?;
    check_len(op, "input neurons", input.width, synapses.inputs())?;
    check_len(op, "weight", weight.len(), synapses.rows() * synapses.sites().1)
}

/// What has a row of weights of its own beside the taps: inputs of a dense layer, channels of a convolution's.
fn channels(synapses: &Synapses) -> usize {
    match synapses {
        Synapses::Dense { inputs, .. } => *inputs,
        Synapses::Conv(conv) => conv.input.channels,
    }
}

fn readout(readout: &TrainReadout) -> (i32, f64) {
    match *readout {
        TrainReadout::FirstSpike { tau } => (0, tau),
        TrainReadout::FirstTime { missing } => (1, missing),
        TrainReadout::Count => (2, 0.0),
        TrainReadout::Decay { rate, exact: false } => (3, rate),
        TrainReadout::Decay { rate, exact: true } => (4, rate),
    }
}

impl Cuda {
    /// A layer as kernels take it.
    fn layer(&self, synapses: &Synapses, batch: usize, capacity: u32, slots: usize) -> Result<Fields> {
        let (sites, lanes) = synapses.sites();
        if batch >= SAMPLES || i32::try_from(batch * sites * lanes * slots).is_err() {
            let neurons = sites * lanes;
            return Err(
                self.error(format!("{batch} samples of {neurons} neurons with {slots} spikes each are too many"))
            );
        }
        let fields = conv::int_fields(self, "Layer", &[batch, sites, lanes])?.unsigned(capacity);
        Ok(fields.int(slots as i32))
    }

    /// The sum of the values before each, and that of all: one entry more.
    fn prefix_sums(&self, values: &Buffer<u32>) -> Result<Buffer<u32>> {
        let len = values.len() + 1;
        let blocks = len.div_ceil(256);
        let (mut sums, mut totals) = (self.scratch(len)?, self.scratch(blocks)?);
        self.launch(&EVENT, "prefix_sums")
            .threads(len)
            .arg(values)
            .arg(&mut sums)
            .arg(&mut totals)
            .arg(values.len() as i64)
            .run()?;
        if blocks > 1 {
            let totals = self.prefix_sums(&totals)?;
            let launch = self.launch(&EVENT, "add_totals").threads(len);
            launch.arg(&totals).arg(&mut sums).arg(values.len() as i64).run()?;
        }
        Ok(sums)
    }

    /// Sorts by keys, which are whole numbers below 2^53; equal ones keep their order.
    fn sort(&self, keys: &mut Buffer<f64>, values: &mut Buffer<u32>) -> Result<()> {
        let len = keys.len();
        let (mut sorted, mut order) = (self.scratch(len)?, self.scratch(len)?);
        let mut pass = |kernel, shift: i32| {
            let launch = self.launch(&EVENT, kernel).threads(len).arg(&*keys).arg(&*values);
            launch.arg(&mut sorted).arg(&mut order).arg(len as i64).arg(shift).run()?;
            std::mem::swap(keys, &mut sorted);
            std::mem::swap(values, &mut order);
            Ok(())
        };
        pass("sort_blocks", 8)?;
        (8..).take_while(|&shift| 1 << shift < len).try_for_each(|shift| pass("merge_runs", shift))
    }

    /// Events in the order of the keys that a kernel gives them.
    fn lists<'a>(
        &'a self,
        kernel: &'static str,
        events: usize,
        inputs: impl FnOnce(Launch<'a>) -> Launch<'a>,
        sizes: &[usize],
    ) -> Result<Lists> {
        let mut lists = Lists { keys: self.scratch(events)?, events: self.scratch(events)? };
        let launch = inputs(self.launch(&EVENT, kernel).threads(events));
        let launch = launch.arg(&mut lists.keys).arg(&mut lists.events).arg(events as i64);
        sizes.iter().fold(launch, |launch, &size| launch.arg(size as i32)).run()?;
        self.sort(&mut lists.keys, &mut lists.events)?;
        Ok(lists)
    }

    /// The events of every neuron of every sample.
    fn neuron_lists(&self, trains: &Trains<Self>) -> Result<Lists> {
        let sizes = [batch(trains), trains.width];
        self.lists("neuron_keys", trains.units.len(), |l| l.arg(&trains.offsets).arg(&trains.units), &sizes)
    }

    /// The events of every channel.
    fn channel_lists(&self, input: &Trains<Self>, channels: usize) -> Result<Lists> {
        self.lists("channel_keys", input.units.len(), |l| l.arg(&input.units), &[channels])
    }

    fn walks(&self, neuron: &EventNeuron, synapses: &Synapses, input: &Trains<Self>) -> Result<Walks> {
        let (batch, events, end) = (batch(input), input.times.len(), neuron.end as f32);
        let (sites, _) = synapses.sites();
        let (mut from, mut counts) = (self.scratch(batch * sites)?, self.scratch(batch * sites)?);
        let (mut rows, mut times) = (None, None);
        let (taps, len) = match synapses {
            Synapses::Dense { .. } => (1, events),
            // So many output positions a tap of the kernel can meet, at most.
            Synapses::Conv(conv) => {
                let fields = conv.kernel.div_ceil(conv.stride) * conv.kernel_width.div_ceil(conv.stride);
                (conv.kernel * conv.kernel_width, events * fields.min(sites))
            }
        };
        let mut places = self.zeros(events * taps)?;
        match synapses {
            Synapses::Dense { .. } => self
                .launch(&EVENT, "count_events")
                .threads(batch)
                .arg(&input.offsets)
                .arg(&input.times)
                .arg(&mut from)
                .arg(&mut counts)
                .arg(batch as i32)
                .arg(end)
                .run()?,
            Synapses::Conv(conv) => {
                let shape = conv::shape(self, conv)?;
                let over_events = |kernel| {
                    let launch = self.launch(&EVENT, kernel).warps(batch * sites);
                    launch.arg(&input.offsets).arg(&input.units).arg(&input.times)
                };
                let launch = over_events("count_arrivals").arg(&mut counts);
                launch.arg(shape.clone()).arg(batch as i32).arg(end).run()?;
                from = self.prefix_sums(&counts)?;
                let (rows, times) = (rows.insert(self.scratch(len)?), times.insert(self.scratch(len)?));
                let launch = over_events("list_arrivals").arg(&from).arg(rows).arg(times).arg(&mut places);
                launch.arg(shape).arg(batch as i32).arg(end).run()?;
            }
        }
        let (decays, reaches, limits) = (self.scratch(len)?, self.scratch(len)?, self.scratch(len)?);
        let mut walks = Walks { from, counts, rows, times, decays, reaches, limits, places, taps };
        let seen = walks.times.as_ref().unwrap_or(&input.times);
        self.launch(&EVENT, "event_decays")
            .grid(batch * sites, 1, 1)
            .block(if sites == 1 { 256 } else { 32 }, 1)
            .arg(&walks.from)
            .arg(&walks.counts)
            .arg(seen)
            .arg(&mut walks.decays)
            .arg(&mut walks.reaches)
            .arg(&mut walks.limits)
            .arg(walks.rows.is_none().then_some(&mut walks.places))
            .arg(end)
            .arg((1.0 / neuron.tau()) as f32)
            .run()?;
        Ok(walks)
    }

    /// Where the samples of trains begin: the sums at the given entries, or at every so many. Gives the length of all,
    /// for which it waits if that is not known.
    fn place_samples(
        &self,
        sums: &Buffer<u32>,
        at: Option<&Buffer<u32>>,
        stride: usize,
        known: Option<usize>,
        offsets: &mut Buffer<u32>,
    ) -> Result<usize> {
        let count = offsets.len();
        self.launch(&EVENT, "sample_offsets")
            .threads(count)
            .arg(sums)
            .arg(at)
            .arg(&mut *offsets)
            .arg(count as i32)
            .arg(stride as i32)
            .run()?;
        match known {
            Some(known) => Ok(known),
            None => Ok(self.to_host(offsets)?.last().map_or(0, |&end| end as usize)),
        }
    }

    /// The gradients that the traces of all neurons give, walking back over some events at a time.
    #[expect(clippy::too_many_arguments, reason = "those of the backward pass, prepared")]
    fn trace_gradients(
        &self,
        neuron: &EventNeuron,
        synapses: &Synapses,
        weight: &Buffer<f32>,
        input: &Trains<Self>,
        walks: &Walks,
        drives: Drives,
        grad_weight: &mut Buffer<f32>,
        mut grad_input: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        let (_, lanes) = synapses.sites();
        let (neurons, events, channels) = (drives.own_from.len(), input.units.len(), channels(synapses));
        let Drives { before, slow, fast, own_from, mut own_to, layer } = drives;
        self.clear_buffer(grad_weight)?;
        if let Some(grad_input) = &mut grad_input {
            self.clear_buffer(grad_input)?;
        }
        let lists = self.channel_lists(input, channels)?;
        let parts = (events / channels.max(1) / EVENTS).min(PARTIAL / weight.len().max(1)).clamp(1, PARTS);
        let mut sums = if parts == 1 { None } else { Some(self.zeros(parts * weight.len())?) };
        let (mut slow_state, mut fast_state) = (self.zeros::<f32>(neurons)?, self.zeros::<f32>(neurons)?);
        let together = (TRACES / lanes.max(1)).clamp(1, walks.len().max(1));
        let mut on_weight = self.scratch::<f32>(together * lanes)?;
        let mut on_time = grad_input.as_ref().map(|_| self.scratch::<f32>(together * lanes)).transpose()?;
        for low in (0..walks.len()).step_by(together).rev() {
            let high = (low + together).min(walks.len());
            let launch = self
                .launch(&EVENT, "event_traces")
                .threads(neurons)
                .arg(&walks.from)
                .arg(&walks.counts)
                .arg(&walks.decays)
                .arg(&before)
                .arg(&slow)
                .arg(&fast)
                .arg(&own_from)
                .arg(&mut own_to)
                .arg(&mut slow_state)
                .arg(&mut fast_state)
                .arg(&mut on_weight)
                .arg(on_time.as_mut());
            launch.arg(low as i64).arg(high as i64).arg(layer.clone()).run()?;
            let launch = self
                .launch(&EVENT, "event_weight_grad")
                .threads(parts * weight.len())
                .arg(&lists.keys)
                .arg(&lists.events)
                .arg(&walks.places)
                .arg(&on_weight)
                .arg(sums.as_mut().unwrap_or(grad_weight))
                .arg(events as i64)
                .arg(low as i64)
                .arg(high as i64);
            let sizes = [parts, walks.taps, channels, lanes];
            sizes.into_iter().fold(launch, |launch, size| launch.arg(size as i32)).run()?;
            if let (Some(on_time), Some(grad_input)) = (&on_time, &mut grad_input) {
                let launch = self
                    .launch(&EVENT, "event_input_grad")
                    .warps(events)
                    .arg(weight)
                    .arg(&input.units)
                    .arg(&walks.places)
                    .arg(on_time)
                    .arg(&mut **grad_input)
                    .arg(events as i64)
                    .arg(low as i64)
                    .arg(high as i64);
                let sizes = [walks.taps, channels, lanes];
                let launch = sizes.into_iter().fold(launch, |launch, size| launch.arg(size as i32));
                launch.arg(neuron.tau() as f32).run()?;
            }
        }
        sums.map_or(Ok(()), |sums| self.sum_all_rows(parts, grad_weight.len(), &sums, grad_weight))
    }
}

/// What the own spikes of a layer do to the traces on the way back, in the order of the neurons; see the kernel.
struct Drives {
    before: Buffer<u32>,
    slow: Buffer<f32>,
    fast: Buffer<f32>,
    own_from: Buffer<u32>,
    own_to: Buffer<u32>,
    layer: Fields,
}

impl EventOps for Cuda {
    fn event_forward(
        &self,
        neuron: &EventNeuron,
        synapses: &Synapses,
        weight: &Buffer<f32>,
        input: &Trains<Self>,
        out: &mut Trains<Self>,
        slopes: &mut Buffer<f32>,
    ) -> Result<()> {
        neuron.check()?;
        check("event_forward", synapses, weight, input)?;
        let (batch, width) = (batch(input), synapses.outputs());
        let (neurons, capacity) = (batch * width, neuron.capacity as usize);
        let walks = self.walks(neuron, synapses, input)?;
        let mut slots = (SLOTS / neurons.max(1)).clamp(1, ROOM.min(capacity));
        let mut fired = self.scratch(neurons)?;
        let (layer, fired_times, fired_slopes) = loop {
            let layer = self.layer(synapses, batch, neuron.capacity, slots)?;
            let (mut times, mut slopes) =
                (self.scratch::<f32>(neurons * slots)?, self.scratch::<f32>(neurons * slots)?);
            let mut most = self.zeros::<u32>(1)?;
            self.launch(&EVENT, "event_forward")
                .threads(neurons)
                .arg(weight)
                .arg(walks.rows(input))
                .arg(walks.times(input))
                .arg(&walks.decays)
                .arg(&walks.reaches)
                .arg(&walks.limits)
                .arg(&walks.from)
                .arg(&walks.counts)
                .arg(&mut fired)
                .arg(&mut times)
                .arg(&mut slopes)
                .arg(&mut most)
                .arg(layer.clone())
                .arg(neuron.tau())
                .arg(neuron.level())
                .arg(neuron.drop())
                .run()?;
            let most = if slots < capacity { self.to_host(&most)?[0] as usize } else { 0 };
            if most <= slots {
                break (layer, times, slopes);
            }
            slots = most;
        };
        let starts = self.prefix_sums(&fired)?;
        out.width = width;
        self.resize(&mut out.offsets, batch + 1)?;
        let total = self.place_samples(&starts, None, width, None, &mut out.offsets)?;
        let (mut keys, mut places) = (self.scratch(total)?, self.scratch(total)?);
        self.launch(&EVENT, "spike_keys")
            .threads(fired_times.len())
            .arg(&fired)
            .arg(&starts)
            .arg(&fired_times)
            .arg(&mut keys)
            .arg(&mut places)
            .arg(fired_times.len() as i64)
            .arg(layer)
            .run()?;
        self.sort(&mut keys, &mut places)?;
        self.resize(&mut out.times, total)?;
        self.resize(&mut out.units, total)?;
        self.resize(slopes, total)?;
        self.launch(&EVENT, "write_spikes")
            .threads(total)
            .arg(&places)
            .arg(&fired_times)
            .arg(&fired_slopes)
            .arg(&mut out.times)
            .arg(&mut out.units)
            .arg(slopes)
            .arg(total as i64)
            .arg(width as i32)
            .run()
    }

    fn event_backward(
        &self,
        neuron: &EventNeuron,
        synapses: &Synapses,
        weight: &Buffer<f32>,
        input: &Trains<Self>,
        out: &Trains<Self>,
        slopes: &Buffer<f32>,
        grad: &mut Buffer<f32>,
        grad_weight: &mut Buffer<f32>,
        grad_input: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        const OP: &str = "event_backward";
        check(OP, synapses, weight, input)?;
        check_trains(OP, out)?;
        check_len(OP, "output neurons", out.width, synapses.outputs())?;
        check_len(OP, "output samples", out.offsets.len(), input.offsets.len())?;
        check_len(OP, "slopes", slopes.len(), out.times.len())?;
        check_len(OP, "grad", grad.len(), out.times.len())?;
        check_len(OP, "grad_weight", grad_weight.len(), weight.len())?;
        if let Some(grad_input) = &grad_input {
            check_len(OP, "grad_input", grad_input.len(), input.times.len())?;
        }
        let (batch, spikes) = (batch(input), out.times.len());
        let neurons = batch * synapses.outputs();
        let walks = self.walks(neuron, synapses, input)?;
        let lists = self.neuron_lists(out)?;
        let layer = self.layer(synapses, batch, neuron.capacity, 1)?;
        let mut drives = Drives {
            before: self.scratch(spikes)?,
            slow: self.scratch(spikes)?,
            fast: self.scratch(spikes)?,
            own_from: self.scratch(neurons)?,
            own_to: self.scratch(neurons)?,
            layer: layer.clone(),
        };
        self.launch(&EVENT, "event_resets")
            .threads(neurons)
            .arg(&lists.keys)
            .arg(&lists.events)
            .arg(&out.times)
            .arg(slopes)
            .arg(&walks.from)
            .arg(&walks.counts)
            .arg(walks.times(input))
            .arg(grad)
            .arg(&mut drives.before)
            .arg(&mut drives.slow)
            .arg(&mut drives.fast)
            .arg(&mut drives.own_from)
            .arg(&mut drives.own_to)
            .arg(spikes as i64)
            .arg(layer)
            .arg(neuron.tau())
            .arg(neuron.drop())
            .arg((neuron.least_slope * neuron.level()) as f32)
            .run()?;
        self.trace_gradients(neuron, synapses, weight, input, &walks, drives, grad_weight, grad_input)
    }

    fn merge_trains(
        &self,
        pool: &Pool,
        input: &Trains<Self>,
        out: &mut Trains<Self>,
        source: &mut Buffer<u32>,
    ) -> Result<()> {
        const OP: &str = "merge_trains";
        check_trains(OP, input)?;
        check_len(OP, "input neurons", input.width, pool.input.len())?;
        let events = input.times.len();
        let (mut targets, mut kept) = (self.scratch::<u32>(events)?, self.scratch::<u32>(events)?);
        self.launch(&POOL, "pool_targets")
            .threads(events)
            .arg(&input.units)
            .arg(&mut targets)
            .arg(&mut kept)
            .arg(events as i64)
            .arg(pool::shape(self, pool)?)
            .run()?;
        let starts = self.prefix_sums(&kept)?;
        out.width = pool.output().len();
        self.resize(&mut out.offsets, input.offsets.len())?;
        let all = pool.output().len() * pool.size() == pool.input.len();
        let known = all.then_some(events);
        let total = self.place_samples(&starts, Some(&input.offsets), 0, known, &mut out.offsets)?;
        self.resize(&mut out.times, total)?;
        self.resize(&mut out.units, total)?;
        self.resize(source, total)?;
        self.launch(&EVENT, OP)
            .threads(events)
            .arg(&input.offsets)
            .arg(&input.times)
            .arg(&targets)
            .arg(&kept)
            .arg(&starts)
            .arg(&mut out.times)
            .arg(&mut out.units)
            .arg(source)
            .arg(events as i64)
            .arg(batch(input) as i32)
            .run()
    }

    fn merge_trains_grad(&self, source: &Buffer<u32>, grad: &Buffer<f32>, grad_input: &mut Buffer<f32>) -> Result<()> {
        check_len("merge_trains_grad", "grad", grad.len(), source.len())?;
        self.clear_buffer(grad_input)?;
        let inputs = grad_input.len();
        let launch = self.launch(&EVENT, "merge_trains_grad").threads(grad.len()).arg(source).arg(grad);
        launch.arg(grad_input).arg(grad.len() as i64).arg(inputs as i64).run()
    }

    fn read_trains(&self, how: &TrainReadout, trains: &Trains<Self>, values: &mut Buffer<f32>) -> Result<()> {
        const OP: &str = "read_trains";
        check_trains(OP, trains)?;
        check_len(OP, "values", values.len(), batch(trains) * trains.width)?;
        let (lists, (kind, constant), neurons) = (self.neuron_lists(trains)?, readout(how), values.len());
        self.launch(&EVENT, OP)
            .threads(neurons)
            .arg(&lists.keys)
            .arg(&lists.events)
            .arg(&trains.times)
            .arg(values)
            .arg(trains.times.len() as i64)
            .arg(neurons as i64)
            .arg(kind)
            .arg(constant as f32)
            .run()
    }

    fn read_trains_grad(
        &self,
        how: &TrainReadout,
        trains: &Trains<Self>,
        grad_values: &Buffer<f32>,
        grad: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "read_trains_grad";
        check_trains(OP, trains)?;
        check_len(OP, "grad_values", grad_values.len(), batch(trains) * trains.width)?;
        check_len(OP, "grad", grad.len(), trains.times.len())?;
        let (lists, (kind, constant)) = (self.neuron_lists(trains)?, readout(how));
        self.launch(&EVENT, OP)
            .threads(grad_values.len())
            .arg(&lists.keys)
            .arg(&lists.events)
            .arg(&trains.times)
            .arg(grad_values)
            .arg(grad)
            .arg(trains.times.len() as i64)
            .arg(grad_values.len() as i64)
            .arg(kind)
            .arg(constant as f32)
            .run()
    }

    fn spike_time_loss(
        &self,
        trains: &Trains<Self>,
        targets: &Buffer<f32>,
        missing: f64,
        losses: &mut Buffer<f32>,
        grad: &mut Buffer<f32>,
    ) -> Result<()> {
        const OP: &str = "spike_time_loss";
        let neurons = batch(trains) * trains.width;
        let slots = targets.len() / neurons.max(1);
        check_trains(OP, trains)?;
        check_len(OP, "targets", targets.len(), neurons * slots.max(1))?;
        check_len(OP, "losses", losses.len(), batch(trains))?;
        check_len(OP, "grad", grad.len(), trains.times.len())?;
        let lists = self.neuron_lists(trains)?;
        self.launch(&EVENT, OP)
            .grid(batch(trains), 1, 1)
            .block(256, 1)
            .arg(&lists.keys)
            .arg(&lists.events)
            .arg(&trains.times)
            .arg(targets)
            .arg(losses)
            .arg(grad)
            .arg(trains.times.len() as i64)
            .arg(trains.width as i32)
            .arg(slots as i32)
            .arg(missing as f32)
            .run()
    }

    fn scale_synapses(&self, amount: &Buffer<f32>, weight: &Buffer<f32>, grad_weight: &mut Buffer<f32>) -> Result<()> {
        const OP: &str = "scale_synapses";
        check_len(OP, "grad_weight", grad_weight.len(), weight.len())?;
        if amount.len() == 0 {
            return Ok(());
        }
        let launch = self.launch(&EVENT, OP).threads(weight.len()).arg(amount).arg(weight).arg(grad_weight);
        launch.arg(weight.len() as i64).arg(amount.len() as i32).run()
    }

    fn count_trains(&self, trains: &Trains<Self>, counts: &mut Buffer<u32>) -> Result<()> {
        const OP: &str = "count_trains";
        check_trains(OP, trains)?;
        check_len(OP, "counts", counts.len(), batch(trains) * trains.width)?;
        self.clear_buffer(counts)?;
        self.launch(&EVENT, OP)
            .threads(trains.units.len())
            .arg(&trains.offsets)
            .arg(&trains.units)
            .arg(counts)
            .arg(trains.units.len() as i64)
            .arg(batch(trains) as i32)
            .arg(trains.width as i32)
            .run()
    }
}
