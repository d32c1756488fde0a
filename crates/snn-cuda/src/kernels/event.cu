// Event-driven neurons, and spike trains.
//
// Every neuron is a thread that walks the events its site sees: a dense layer is one site, which all events reach, a
// convolution has a site for each output position. Sums over events go by lists of them in a fixed order, which a
// stable sort makes.

// As snn_core::shape::Conv; `rows` and `columns` are of the output.
struct Conv {
    int height, width, channels, kernel, kernel_width, stride, padding, padding_width, rows, columns;
};

// Samples, sites, neurons of each site, spikes after which a neuron is finished, and how many of them there is room
// for.
struct Layer {
    int batch, sites, lanes;
    u32 capacity;
    int slots;
};
DEVICE int width_of(Layer layer) { return layer.sites * layer.lanes; }

// How many entries of an ascending list lie below a value.
template <class T> DEVICE i64 count_below(In<T> list, i64 from, i64 to, T value) {
    i64 low = from, high = to;
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (list[middle] < value) low = middle + 1;
        else high = middle;
    }
    return low - from;
}

// The sample of an event: the last that begins at or before it.
DEVICE int sample_of(In<u32> offsets, int batch, i64 event) {
    return (int)count_below<u32>(offsets, 0, batch + 1, (u32)event + 1u) - 1;
}

// Prefix sums.

DEVICE u32 warp_prefix(u32 value) {
    for (int distance = 1; distance < 32; distance *= 2) {
        u32 before = __shfl_up_sync(ALL, value, distance);
        if ((int)threadIdx.x % 32 >= distance) value += before;
    }
    return value;
}

// The sum of what comes before each entry of its block of 256, one entry more than there are values, and that of the
// block.
BLOCK_KERNEL prefix_sums(In<u32> values, Out<u32> sums, Out<u32> totals, i64 len) {
    __shared__ u32 warps[8];
    i64 i = global_thread();
    int warp = threadIdx.x / 32;
    u32 value = i < len ? values[i] : 0u;
    u32 sum = warp_prefix(value);
    if (threadIdx.x % 32 == 31) warps[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; ++w) sum += warps[w];
    if (i <= len) sums[i] = sum - value;
    if (threadIdx.x == 255) totals[blockIdx.x] = sum;
}

KERNEL add_totals(In<u32> totals, Out<u32> sums, i64 len) {
    i64 i = global_thread();
    if (i <= len) sums[i] += totals[i / 256];
}

// Where samples begin: the sums at every so many entries, or at given ones.
KERNEL sample_offsets(In<u32> sums, In<u32> at, Out<u32> offsets, int count, int stride) {
    i64 b = global_thread();
    if (b < count) offsets[b] = sums[at ? (i64)at[b] : b * stride];
}

// A stable sort by keys, which are whole numbers below 2^53: of blocks of 2^8, and of pairs of runs of 2^shift entries.

BLOCK_KERNEL sort_blocks(In<double> keys, In<u32> values, Out<double> sorted, Out<u32> order, i64 len, int shift) {
    __shared__ double all[256];
    i64 i = global_thread(), first = (i64)blockIdx.x << shift;
    int me = threadIdx.x, count = (int)min((i64)256, len - first);
    double key = i < len ? keys[i] : 0.0;
    all[me] = key;
    __syncthreads();
    if (i >= len) return;
    int rank = 0;
    for (int k = 0; k < count; ++k) rank += k < me ? all[k] <= key : all[k] < key;
    sorted[first + rank] = key;
    order[first + rank] = values[i];
}

// An entry's place is its own rank and that in the other run, where equal ones of the left run come first.
KERNEL merge_runs(In<double> keys, In<u32> values, Out<double> sorted, Out<u32> order, i64 len, int shift) {
    i64 i = global_thread();
    if (i >= len) return;
    i64 run = i >> shift, length = (i64)1 << shift;
    bool left = run % 2 == 0;
    i64 from = min((left ? run + 1 : run - 1) << shift, len), to = min(from + length, len);
    double key = keys[i];
    // Keys are whole, so that no more than a key is below the next number.
    i64 other = count_below<double>(keys, from, to, left ? key : key + 1.0);
    i64 place = (left ? i : i - length) + other;
    sorted[place] = key;
    order[place] = values[i];
}

// The neuron of each event, among those of all samples, as the key of a sort.
KERNEL neuron_keys(In<u32> offsets, In<u32> units, Out<double> keys, Out<u32> events, i64 len, int batch, int width) {
    i64 e = global_thread();
    if (e >= len) return;
    keys[e] = (double)sample_of(offsets, batch, e) * width + units[e];
    events[e] = (u32)e;
}

// The channel of each event's unit.
KERNEL channel_keys(In<u32> units, Out<double> keys, Out<u32> events, i64 len, int channels) {
    i64 e = global_thread();
    if (e >= len) return;
    keys[e] = (double)(units[e] % (u32)channels);
    events[e] = (u32)e;
}

// What of a sorted list has a key.
struct Own {
    i64 from, to;
};
DEVICE Own own_of(In<double> keys, i64 len, i64 key) {
    Own own;
    own.from = count_below<double>(keys, 0, len, (double)key);
    own.to = own.from + count_below<double>(keys, own.from, len, (double)key + 1.0);
    return own;
}

// What the sites of a layer see.

// Calls `visit(event, tap, rank)` for every event before the end of time that reaches the site of this warp, and gives
// their number. A unit lies under a site at no more than one tap.
template <class Visit>
DEVICE u32 arrivals(Conv conv, int site, i64 from, i64 to, In<u32> units, In<float> times, float end, Visit visit) {
    int top = site / conv.columns * conv.stride - conv.padding;
    int left = site % conv.columns * conv.stride - conv.padding_width;
    int lane = threadIdx.x % 32;
    u32 count = 0;
    for (i64 first = from; first < to; first += 32) {
        i64 e = first + lane;
        int ky = -1, kx = -1;
        if (e < to && times[e] < end) {
            int place = (int)units[e] / conv.channels, row = place / conv.width;
            ky = row - top;
            kx = place - row * conv.width - left;
        }
        bool reaches = ky >= 0 && ky < conv.kernel && kx >= 0 && kx < conv.kernel_width;
        u32 all = __ballot_sync(ALL, reaches);
        if (reaches) visit(e, ky * conv.kernel_width + kx, count + (u32)__popc(all & ((1u << lane) - 1u)));
        count += (u32)__popc(all);
    }
    return count;
}

// How many events each site sees; a warp for each.
BLOCK_KERNEL count_arrivals(In<u32> offsets, In<u32> units, In<float> times, Out<u32> counts, Conv conv, int batch,
                            float end) {
    int sites = conv.rows * conv.columns;
    i64 i = global_thread() / 32;
    if (i >= (i64)batch * sites) return;
    int b = (int)(i / sites);
    u32 count = arrivals(conv, (int)(i % sites), offsets[b], offsets[b + 1], units, times, end, [](i64, int, u32) {});
    if (threadIdx.x % 32 == 0) counts[i] = count;
}

// Lists them, site after site: the row of their weights and their time. `places` receives where each event stands for
// each tap, plus 1.
BLOCK_KERNEL list_arrivals(In<u32> offsets, In<u32> units, In<float> times, In<u32> from, Out<u32> rows,
                           Out<float> seen, Out<u32> places, Conv conv, int batch, float end) {
    int sites = conv.rows * conv.columns, taps = conv.kernel * conv.kernel_width;
    i64 i = global_thread() / 32;
    if (i >= (i64)batch * sites) return;
    int b = (int)(i / sites);
    u32 first = from[i];
    arrivals(conv, (int)(i % sites), offsets[b], offsets[b + 1], units, times, end, [&](i64 e, int tap, u32 rank) {
        u32 at = first + rank;
        rows[at] = (u32)(tap * conv.channels) + units[e] % (u32)conv.channels;
        seen[at] = times[e];
        places[e * taps + tap] = at + 1;
    });
}

// The single site of a dense layer sees the events of a sample before the end of time.
KERNEL count_events(In<u32> offsets, In<float> times, Out<u32> from, Out<u32> counts, int batch, float end) {
    i64 b = global_thread();
    if (b >= batch) return;
    from[b] = offsets[b];
    counts[b] = (u32)count_below<float>(times, offsets[b], offsets[b + 1], end);
}

// Between the events that a site sees: the decay since the one before, 0 for the first; the end of what a spike may
// come in, the next event or the end of time; and the growth until then. A block has a site. `places` is filled if it
// is there.
KERNEL event_decays(In<u32> from, In<u32> counts, In<float> times, Out<float> decays, Out<float> reaches,
                    Out<float> limits, Out<u32> places, float end, float rate) {
    u32 first = from[blockIdx.x], count = counts[blockIdx.x];
    for (u32 k = threadIdx.x; k < count; k += blockDim.x) {
        u32 at = first + k;
        float time = times[at], limit = k + 1 < count ? times[at + 1] : end;
        decays[at] = k > 0 ? exponential((times[at - 1] - time) * rate) : 0.0f;
        reaches[at] = isfinite(limit) ? exponential((limit - time) * rate) : limit;
        limits[at] = limit;
        if (places) places[at] = at + 1;
    }
}

// Relative error of the state after many events, and slack of the test for candidates above the rounding errors in it.
#define ROUNDING 1e-6
#define SLACK 1e-6f

// Events that are loaded at a time.
static const int STEPS = 8;
struct Steps {
    float weight[STEPS], decay[STEPS], reach[STEPS];
};
DEVICE Steps load_steps(In<float> weight, In<u32> rows, In<float> decays, In<float> reaches, i64 from, i64 to,
                        int lanes) {
    Steps steps;
    u32 row[STEPS];
#pragma unroll
    for (int j = 0; j < STEPS; ++j) row[j] = from + j < to ? rows[from + j] : 0u;
#pragma unroll
    for (int j = 0; j < STEPS; ++j) {
        bool inside = from + j < to;
        steps.weight[j] = inside ? weight[(i64)row[j] * lanes] : 0.0f;
        steps.decay[j] = inside ? decays[from + j] : 0.0f;
        steps.reach[j] = inside ? reaches[from + j] : 0.0f;
    }
    return steps;
}

// What lies between two events, and the state of a neuron after the first.
struct Interval {
    double now, limit, most, fast, slow;
};
struct Constants {
    double tau, c, d;
};
// The slow state after a neuron's spikes between two events, and how many it has fired in all.
struct Fired {
    float slow;
    u32 spikes;
};
// Calls are rare, and the code is long: so it stands once. `times` and `slopes` have room for `slots` spikes, `stride`
// entries apart.
static __device__ __attribute__((noinline)) Fired fire(Interval at, Constants k, Fired state, u32 capacity, u32 slots,
                                                       i64 stride, Out<float> times, Out<float> slopes) {
    double slow = at.slow, last = at.now;
    bool first = true;
    while (true) {
        double under = slow * slow - 4.0 * at.fast * k.c;
        double x = under > 0.0 ? sqrt(under) : 0.0;
        double y = 2.0 * at.fast / (slow + x);
        // Most end here, without a logarithm.
        if (!(x > 0.0 && y > 0.0 && y <= at.most)) break;
        double time = at.now + k.tau * log(y);
        // Where a crossing fell between two intervals by rounding, the second one begins with it.
        bool between = first && y > 1.0 - ROUNDING && time <= at.now && k.d > 0.0;
        if (between) time = at.now;
        if (!((time > last || between) && time <= at.limit)) break;
        first = false;
        if (state.spikes < slots) {
            times[state.spikes * stride] = (float)time;
            slopes[state.spikes * stride] = (float)(x / y);
        }
        if (++state.spikes == capacity) break;
        last = time;
        slow -= k.d * y;
        state.slow = (float)slow;
    }
    return state;
}

// The spikes of every neuron: their number, and as many as there is room for, [B, slots, N]. `most` receives the
// largest number if there was not room enough.
KERNEL event_forward(In<float> weight, In<u32> rows, In<float> times, In<float> decays, In<float> reaches,
                     In<float> limits, In<u32> from, In<u32> counts, Out<u32> fired, Out<float> fired_times,
                     Out<float> fired_slopes, Out<u32> most, Layer layer, double tau, double c, double d) {
    i64 i = global_thread();
    int width = width_of(layer);
    i64 b = i / width;
    if (b >= layer.batch) return;
    int n = (int)(i - b * width), site = n / layer.lanes;
    i64 seen = b * layer.sites + site, slot = b * layer.slots * width + n;
    i64 at = from[seen], to = at + counts[seen];
    In<float> own = weight + (n - site * layer.lanes);
    Constants constants = {tau, c, d};
    float level = (float)c, fast = 0.0f;
    Fired state = {0.0f, 0u};
    Steps next = load_steps(own, rows, decays, reaches, at, to, layer.lanes);
    for (; at < to; at += STEPS) {
        Steps steps = next;
        next = load_steps(own, rows, decays, reaches, at + STEPS, to, layer.lanes);
#pragma unroll
        for (int j = 0; j < STEPS; ++j) {
            float decay = steps.decay[j], reach = steps.reach[j];
            float peak = (2.0f + SLACK) * level * reach, rise = level * reach;
            fast = fast * (decay * decay) + steps.weight[j];
            state.slow = state.slow * decay + steps.weight[j];
            // A crossing must exist, and lie before the limit: the membrane is above the threshold there, or past its
            // peak, which is at y = slow / 2c.
            float square = state.slow * state.slow;
            bool exists = state.slow > 0.0f && fast > 0.0f && square - 4.0f * level * fast >= -SLACK * square;
            bool above = (rise - state.slow) * reach + fast <= SLACK * state.slow * reach;
            if (at + j < to && exists && (above || state.slow <= peak)) {
                double most_y = (double)reach * (1.0 + ROUNDING);
                Interval interval = {times[at + j], limits[at + j], most_y, fast, state.slow};
                state = fire(interval, constants, state, layer.capacity, layer.slots, width, fired_times + slot,
                             fired_slopes + slot);
                // Then the neuron is finished.
                if (state.spikes == layer.capacity) at = to;
            }
        }
    }
    fired[i] = state.spikes;
    if (state.spikes > (u32)layer.slots) atomicMax(&most[0], state.spikes);
}

// Sample and time of every spike as the key of a sort; the bits of numbers that are not negative are in their order.
KERNEL spike_keys(In<u32> fired, In<u32> starts, In<float> fired_times, Out<double> keys, Out<u32> slots, i64 len,
                  Layer layer) {
    i64 i = global_thread();
    if (i >= len) return;
    int width = width_of(layer);
    i64 row = i / width, b = row / layer.slots;
    u32 k = (u32)(row - b * layer.slots);
    i64 neuron = b * width + (i - row * width);
    if (k >= fired[neuron]) return;
    i64 place = starts[neuron] + k;
    keys[place] = (double)b * 4294967296.0 + (double)__float_as_uint(fired_times[i]);
    slots[place] = (u32)i;
}

KERNEL write_spikes(In<u32> slots, In<float> fired_times, In<float> fired_slopes, Out<float> times, Out<u32> units,
                    Out<float> slopes, i64 len, int width) {
    i64 e = global_thread();
    if (e >= len) return;
    u32 slot = slots[e];
    times[e] = fired_times[slot];
    slopes[e] = fired_slopes[slot];
    units[e] = slot % (u32)width;
}

// Sends the gradients of a neuron's spikes through its resets, in place, and gives what each spike does to the traces
// on the way back: what it adds to the slow and the fast one, as of the last of the events `before` it. `own_from` and
// `own_to` receive which entries of the sorted list are the neuron's.
KERNEL event_resets(In<double> keys, In<u32> list, In<float> times, In<float> slopes, In<u32> from, In<u32> counts,
                    In<float> seen, Out<float> grad, Out<u32> before, Out<float> slow, Out<float> fast,
                    Out<u32> own_from, Out<u32> own_to, i64 len, Layer layer, double tau, double drop, float least) {
    i64 i = global_thread();
    int width = width_of(layer);
    i64 b = i / width;
    if (b >= layer.batch) return;
    i64 site = b * layer.sites + (i - b * width) / layer.lanes;
    i64 first = from[site], end = first + counts[site];
    Own own = own_of(keys, len, i);
    own_from[i] = (u32)own.from;
    own_to[i] = (u32)own.to;
    double rate = -1.0 / tau, share = 0.0, later = 0.0;
    for (i64 k = own.to - 1; k >= own.from; --k) {
        u32 e = list[k];
        double time = times[e], slope = slopes[e] < least ? least : slopes[e];
        if (share != 0.0) share *= exp((later - time) * rate);
        double total = (double)grad[e] + share;
        grad[e] = (float)total;
        share += total * drop / slope;
        later = time;
        double pull = (double)(float)total * tau / slope;
        i64 inputs = count_below<float>(seen, first, end, times[e]);
        double decay = inputs > 0 ? exp((time - (double)seen[first + inputs - 1]) * rate) : 0.0;
        before[k] = (u32)inputs;
        slow[k] = (float)(pull * decay);
        fast[k] = (float)(pull * decay * decay);
    }
}

// Walks back over the events [low, high) of all sites: every neuron writes what it has at each of them, for the weights
// and for the times of the events. The traces and the next spike stay between calls.
KERNEL event_traces(In<u32> from, In<u32> counts, In<float> decays, In<u32> before, In<float> slow, In<float> fast,
                    In<u32> own_from, Out<u32> own_to, Out<float> slow_state, Out<float> fast_state,
                    Out<float> on_weight, Out<float> on_time, i64 low, i64 high, Layer layer) {
    i64 i = global_thread();
    int width = width_of(layer);
    i64 b = i / width;
    if (b >= layer.batch) return;
    int n = (int)(i - b * width), site = n / layer.lanes;
    i64 seen = b * layer.sites + site, first = from[seen];
    i64 begin = max(first, low), end = min(first + (i64)counts[seen], high);
    if (begin >= end) return;
    float slow_trace = slow_state[i], fast_trace = fast_state[i];
    u32 next = own_to[i], last = own_from[i];
    u32 wanted = next > last ? before[next - 1] : 0u;
    i64 column = n - site * layer.lanes - low * layer.lanes;
    for (i64 chunk = end; chunk > begin; chunk -= STEPS) {
        float decay[STEPS];
#pragma unroll
        for (int j = 0; j < STEPS; ++j) decay[j] = chunk - 1 - j >= begin ? decays[chunk - 1 - j] : 0.0f;
#pragma unroll
        for (int j = 0; j < STEPS; ++j) {
            i64 at = chunk - 1 - j;
            if (at < begin) continue;
            while (wanted == (u32)(at - first + 1)) {
                --next;
                slow_trace += slow[next];
                fast_trace += fast[next];
                wanted = next > last ? before[next - 1] : 0u;
            }
            on_weight[at * layer.lanes + column] = fast_trace - slow_trace;
            if (on_time) on_time[at * layer.lanes + column] = 2.0f * fast_trace - slow_trace;
            slow_trace *= decay[j];
            fast_trace *= decay[j] * decay[j];
        }
    }
    slow_state[i] = slow_trace;
    fast_state[i] = fast_trace;
    own_to[i] = next;
}

// Sums what the neurons have at events over those of each channel, a part of them for each thread: [parts, taps,
// channels, lanes].
KERNEL event_weight_grad(In<double> keys, In<u32> list, In<u32> places, In<float> on_weight, Out<float> sums, i64 len,
                         i64 low, i64 high, int parts, int taps, int channels, int lanes) {
    i64 i = global_thread();
    i64 row = i / lanes, group = row / channels;
    int lane = (int)(i - row * lanes), c = (int)(row - group * channels), tap = (int)(group % taps);
    i64 part = group / taps;
    if (part >= parts) return;
    Own own = own_of(keys, len, c);
    i64 count = own.to - own.from, from = own.from + count * part / parts, to = own.from + count * (part + 1) / parts;
    float sum = 0.0f;
#pragma unroll 4
    for (i64 k = from; k < to; ++k) {
        i64 at = (i64)places[(i64)list[k] * taps + tap] - 1;
        if (at >= low && at < high) sum += on_weight[(at - low) * lanes + lane];
    }
    sums[i] += sum;
}

// The gradient on the times of the events; a warp for each.
BLOCK_KERNEL event_input_grad(In<float> weight, In<u32> units, In<u32> places, In<float> on_time, Out<float> grad_input,
                              i64 len, i64 low, i64 high, int taps, int channels, int lanes, float tau) {
    i64 e = global_thread() / 32;
    if (e >= len) return;
    int c = (int)(units[e] % (u32)channels);
    float sum = 0.0f;
    for (int j = threadIdx.x % 32; j < taps * lanes; j += 32) {
        int tap = j / lanes, lane = j - tap * lanes;
        i64 at = (i64)places[e * taps + tap] - 1;
        if (at >= low && at < high) {
            sum += weight[((i64)tap * channels + c) * lanes + lane] * on_time[(at - low) * lanes + lane];
        }
    }
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(ALL, sum, distance);
    if (threadIdx.x % 32 == 0) grad_input[e] += sum / tau;
}

// Spike trains.

// Events ascend in time already, so that only those at one instant may change places: `targets` and `kept` are the unit
// of each in the output, and whether there is one; `starts` counts those that are kept before each.
KERNEL merge_trains(In<u32> offsets, In<float> times, In<u32> targets, In<u32> kept, In<u32> starts,
                    Out<float> out_times, Out<u32> out_units, Out<u32> source, i64 len, int batch) {
    i64 e = global_thread();
    if (e >= len || kept[e] == 0) return;
    int b = sample_of(offsets, batch, e);
    i64 from = offsets[b], to = offsets[b + 1], first = e, rank = 0;
    float time = times[e];
    u32 unit = targets[e];
    for (; first > from && times[first - 1] == time; --first) {
        rank += kept[first - 1] != 0 && targets[first - 1] <= unit;
    }
    for (i64 k = e + 1; k < to && times[k] == time; ++k) rank += kept[k] != 0 && targets[k] < unit;
    i64 place = starts[first] + rank;
    out_times[place] = time;
    out_units[place] = unit;
    source[place] = (u32)e;
}

KERNEL merge_trains_grad(In<u32> source, In<float> grad, Out<float> grad_input, i64 len, i64 inputs) {
    i64 i = global_thread();
    if (i < len && source[i] < inputs) grad_input[source[i]] = grad[i];
}

static const int FIRST_SPIKE = 0, FIRST_TIME = 1, COUNT = 2, DECAY = 3, EXACT_DECAY = 4;

// `list` has the events of each neuron in order.
KERNEL read_trains(In<double> keys, In<u32> list, In<float> times, Out<float> values, i64 len, i64 neurons, int kind,
                   float constant) {
    i64 i = global_thread();
    if (i >= neurons) return;
    Own own = own_of(keys, len, i);
    bool any = own.from < own.to;
    float value;
    if (kind == FIRST_SPIKE) {
        value = any ? -times[list[own.from]] / constant : -__int_as_float(0x7f800000);
    } else if (kind == FIRST_TIME) {
        value = any ? -times[list[own.from]] : -constant;
    } else if (kind == COUNT) {
        value = (float)(own.to - own.from);
    } else {
        value = 0.0f;
        for (i64 k = own.from; k < own.to; ++k) value += expf(-constant * times[list[k]]);
    }
    values[i] = value;
}

KERNEL read_trains_grad(In<double> keys, In<u32> list, In<float> times, In<float> grad_values, Out<float> grad, i64 len,
                        i64 neurons, int kind, float constant) {
    i64 i = global_thread();
    if (i >= neurons) return;
    Own own = own_of(keys, len, i);
    float g = isfinite(grad_values[i]) ? grad_values[i] : 0.0f;
    for (i64 k = own.from; k < own.to; ++k) {
        u32 e = list[k];
        bool later = k > own.from;
        if (kind == FIRST_SPIKE) grad[e] = later ? 0.0f : -g / constant;
        else if (kind == FIRST_TIME) grad[e] = later ? 0.0f : -g;
        else if (kind == EXACT_DECAY) grad[e] = -g * constant * expf(-constant * times[e]);
        else grad[e] = -g;
    }
}

// A block has a sample.
BLOCK_KERNEL spike_time_loss(In<double> keys, In<u32> list, In<float> times, In<float> targets, Out<float> losses,
                             Out<float> grad, i64 len, int width, int slots, float missing) {
    float loss = 0.0f;
    for (int n = threadIdx.x; n < width; n += blockDim.x) {
        i64 neuron = (i64)blockIdx.x * width + n;
        Own own = own_of(keys, len, neuron);
        In<float> wanted = targets + neuron * slots;
        float first = own.from < own.to ? times[list[own.from]] : missing;
        float error = (isfinite(wanted[0]) ? wanted[0] : missing) - first;
        loss += 0.5f * error * error;
        for (i64 k = own.from; k < own.to; ++k) {
            i64 rank = k - own.from;
            float target = rank < slots ? (isfinite(wanted[rank]) ? wanted[rank] : missing) : 0.0f;
            grad[list[k]] = rank < slots ? times[list[k]] - target : 0.0f;
        }
    }
    loss = block_sum(loss);
    if (threadIdx.x == 0) losses[blockIdx.x] = loss;
}

KERNEL scale_synapses(In<float> amount, In<float> weight, Out<float> grad_weight, i64 len, int lanes) {
    i64 i = global_thread();
    if (i < len) grad_weight[i] -= amount[i % lanes] * fabsf(weight[i]);
}

KERNEL count_trains(In<u32> offsets, In<u32> units, Out<u32> counts, i64 len, int batch, int width) {
    i64 e = global_thread();
    if (e < len) atomicAdd(&counts[(i64)sample_of(offsets, batch, e) * width + units[e]], 1u);
}
