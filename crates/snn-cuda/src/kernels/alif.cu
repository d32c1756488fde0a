// Adaptive neurons: one thread a lane, or few lanes a block of threads; neurons that feed each other are a block for
// each sample.
//
// A reverse pass needs the adaptation of every step. A replay from the state keeps what neurons remember at the first
// step of every chunk, and the reverse pass replays a chunk once more, in registers. In blocks, a spike is the one of
// its block; `block` is their length K, and without them 0.

struct Limits {
    float beta_low, beta_high, decay_low, decay_high, strength_low, strength_high;
    int inward, adapts;
};
struct Constants {
    float beta, decay, strength;
};
DEVICE float clip(float x, float low, float high) { return x <= low ? low : x >= high ? high : x; }
// As used; without adaptation p and b are 0.
DEVICE Constants constants_of(In<float> beta, In<float> decay, In<float> strength, Limits limits, int n) {
    Constants c;
    c.beta = clip(beta[n], limits.beta_low, limits.beta_high);
    c.decay = limits.adapts ? clip(fabsf(decay[n]), limits.decay_low, limits.decay_high) : 0.0f;
    c.strength = limits.adapts ? clip(fabsf(strength[n]), limits.strength_low, limits.strength_high) : 0.0f;
    return c;
}

// What a neuron remembers from step to step: the membrane, the adaptation with every spike in it and without that of
// the block at hand. `wait` are steps to wait; in blocks the first step of the block that is not refractory, and
// `first` is the step of the block's spike.
struct Carry {
    float membrane, risen, fallen;
    int wait, first;
};

// One step, the j-th of its block; gives the membrane before the reset.
template <bool BLOCKS>
DEVICE float alif_step(Carry& c, float x, Constants k, int refractory, int j, int block, bool& fires) {
    if (!BLOCKS) {
        float v = k.beta * c.membrane + (c.wait > 0 ? 0.0f : x);
        fires = v - (1.0f + k.strength * c.risen) > 0.0f;
        c.membrane = fires ? 0.0f : v;
        c.risen = k.decay * c.risen + (fires ? 1.0f : 0.0f);
        c.wait = fires ? refractory : c.wait > 0 ? c.wait - 1 : 0;
        return v;
    }
    float u = k.beta * c.membrane + (j < c.wait ? 0.0f : x);
    fires = u - (1.0f + k.strength * c.fallen) > 0.0f && c.first == SILENT;
    if (fires) c.first = j;
    c.membrane = u;
    c.risen = k.decay * c.risen + (fires ? 1.0f : 0.0f);
    c.fallen = k.decay * c.fallen;
    if (j + 1 == block) {
        // Whoever fired begins the next block from 0 and waits until the place of its spike.
        bool fired = c.first != SILENT;
        c.membrane = fired ? 0.0f : u;
        c.wait = fired ? c.first : 0;
        c.first = SILENT;
        c.fallen = c.risen;
    }
    return u;
}

template <bool BLOCKS>
DEVICE void alif_walk(Tiles* tiles, Scan at, Lanes lanes, Out<float> x, Constants k, int refractory, int block,
                      Out<u32> words) {
    Carry c = {0.0f, 0.0f, 0.0f, 0, SILENT};
    int place = 0;
    walk(tiles, at, lanes, x, [&](Chunk& now, int t) {
        u32 kept = 0;
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            bool fires;
            now.x[j] = alif_step<BLOCKS>(c, now.x[j], k, refractory, place, block, fires);
            place = place + 1 == block ? 0 : place + 1;
            kept = keep_spikes(kept, j, at.live && fires);
        }
        store_spikes(words, kept, at, t, lanes);
    });
}
DEVICE void alif_start(Tiles* tiles, Scan at, Out<float> state, In<float> beta, In<float> decay, In<float> strength,
                       Out<u32> words, Lanes lanes, Limits limits, int refractory, int block) {
    Constants k = constants_of(beta, decay, strength, limits, at.n);
    Out<float> x = state + at.first;
    if (block > 0) alif_walk<true>(tiles, at, lanes, x, k, refractory, block, words);
    else alif_walk<false>(tiles, at, lanes, x, k, refractory, block, words);
}

BLOCK_KERNEL alif_forward(Out<float> state, In<float> beta, In<float> decay, In<float> strength, Out<u32> words,
                          Lanes lanes, Limits limits, int refractory, int block) {
    Scan at = scan_of(lanes);
    if (at.b >= lanes.batch) return;
    alif_start(nullptr, at, state, beta, decay, strength, words, lanes, limits, refractory, block);
}
BLOCK_KERNEL alif_forward_relay(Out<float> state, In<float> beta, In<float> decay, In<float> strength, Out<u32> words,
                                Lanes lanes, Limits limits, int refractory, int block) {
    __shared__ Tiles tiles;
    alif_start(&tiles, wide_scan_of(lanes), state, beta, decay, strength, words, lanes, limits, refractory, block);
}

template <class Work> DEVICE Carry carry_of(Work kept, int n, int width) {
    return {__uint_as_float(kept[n]), __uint_as_float(kept[width + n]), __uint_as_float(kept[2 * width + n]),
            (int)kept[3 * width + n], (int)kept[4 * width + n]};
}
template <class Work> DEVICE void keep_carry(Work kept, Carry c, int n, int width) {
    kept[n] = __float_as_uint(c.membrane);
    kept[width + n] = __float_as_uint(c.risen);
    kept[2 * width + n] = __float_as_uint(c.fallen);
    kept[3 * width + n] = (u32)c.wait;
    kept[4 * width + n] = (u32)c.first;
}

// What arrives in a block of `late` steps was sent in the one before. `work`: the spikes of both, `ring` rows each;
// what each neuron remembers if a thread has several.
template <bool BLOCKS, class Work>
DEVICE void alif_feed(Work work, int ring, Out<float> state, In<float> beta, In<float> decay, In<float> strength,
                      In<float> weight, Out<u32> words, Lanes lanes, Limits limits, int refractory, int late) {
    int width = lanes.width, row_words = words_of(width), thread = threadIdx.x, threads = blockDim.x;
    bool single = width <= threads;
    Work kept = work + 2 * ring * row_words;
    Carry own = {0.0f, 0.0f, 0.0f, 0, SILENT};
    Constants own_constants = constants_of(beta, decay, strength, limits, min(thread, width - 1));
    if (!single) {
        for (int n = thread; n < width; n += threads) keep_carry(kept, own, n, width);
    }
    float ahead = thread < width && lanes.steps > 0 ? state[thread] : 0.0f;
    int place = 0, half = 0;
    for (int t = 0; t < lanes.steps; ++t) {
        // The block before is complete.
        if (place == 0) __syncthreads();
        i64 row = (i64)t * width;
        for (int n = thread; n < 32 * row_words; n += threads) {
            bool live = n < width, fires = false;
            if (live) {
                Carry c = single ? own : carry_of(kept, n, width);
                Constants k = single ? own_constants : constants_of(beta, decay, strength, limits, n);
                float x = n == thread ? ahead : state[row + n];
                if (n == thread && t + 1 < lanes.steps) ahead = state[row + width + n];
                if (t >= late) {
                    Work sent = work + ((1 - half) * ring + place) * row_words;
                    x = add_sources(x, sent, row_words, weight + n, width, false, sent);
                }
                state[row + n] = alif_step<BLOCKS>(c, x, k, refractory, place, late, fires);
                if (single) own = c;
                else keep_carry(kept, c, n, width);
            }
            u32 word = __ballot_sync(ALL, live && fires);
            if (n % 32 == 0) {
                work[(half * ring + place) * row_words + n / 32] = word;
                words[(i64)t * row_words + n / 32] = word;
            }
        }
        if (++place == late) {
            place = 0;
            half = 1 - half;
        }
    }
}

// A block for each sample; `scratch` has `length` entries for each if shared memory does not suffice.
BLOCK_KERNEL alif_recurrent_forward(Out<float> state, In<float> beta, In<float> decay, In<float> strength,
                                    In<float> weight, Out<u32> words, Out<u32> scratch, i64 length, int ring,
                                    Lanes lanes, Limits limits, int refractory, int blocks) {
    DYNAMIC_SHARED(u32, shared);
    int late = refractory + 1;
    Out<float> x = state + (i64)blockIdx.x * lanes.steps * lanes.width;
    Out<u32> out = words + (i64)blockIdx.x * lanes.steps * words_of(lanes.width);
    if (scratch) {
        Out<u32> work = scratch + blockIdx.x * length;
        if (blocks) alif_feed<true>(work, ring, x, beta, decay, strength, weight, out, lanes, limits, refractory, late);
        else alif_feed<false>(work, ring, x, beta, decay, strength, weight, out, lanes, limits, refractory, late);
    } else {
        if (blocks) {
            alif_feed<true>(shared, ring, x, beta, decay, strength, weight, out, lanes, limits, refractory, late);
        }
        else alif_feed<false>(shared, ring, x, beta, decay, strength, weight, out, lanes, limits, refractory, late);
    }
}

// What a replay remembers. In blocks, `wait` is SILENT if there was no spike in the block before. Of the steps, `first`
// says whether the neuron fired in the step before.
struct Replay {
    float risen, fallen;
    int wait, first;
};
template <bool BLOCKS> DEVICE Replay replay_start() { return {0.0f, 0.0f, BLOCKS ? SILENT : 0, BLOCKS ? SILENT : 0}; }
// One step; gives how far the membrane lies above the threshold.
template <bool BLOCKS> DEVICE float replay_step(Replay& r, float u, Constants k, int refractory, int j) {
    float over = u - (1.0f + k.strength * (BLOCKS ? r.fallen : r.risen));
    bool fires = over > 0.0f && (!BLOCKS || r.first == SILENT);
    r.risen = k.decay * r.risen + (fires ? 1.0f : 0.0f);
    if (BLOCKS) {
        if (fires) r.first = j;
        r.fallen = k.decay * r.fallen;
    } else {
        r.wait = fires ? refractory : r.wait > 0 ? r.wait - 1 : 0;
        r.first = fires ? 1 : 0;
    }
    return over;
}
template <bool BLOCKS> DEVICE void replay_close(Replay& r, int j, int block) {
    if (BLOCKS && j + 1 == block) {
        r.wait = r.first;
        r.first = SILENT;
        r.fallen = r.risen;
    }
}

// What is kept of a replay at the first step of every `chunk` steps, [2, B, chunks, N] each: risen and fallen, wait and
// first.
struct Place {
    i64 at, second;
};
DEVICE Place place_of(Lanes lanes, int chunk, int b, int n, int i) {
    int chunks = (lanes.steps + chunk - 1) / chunk;
    Place place;
    place.at = ((i64)b * chunks + i) * lanes.width + n;
    place.second = (i64)lanes.batch * chunks * lanes.width;
    return place;
}

template <bool BLOCKS>
DEVICE void alif_hold(Scan at, Lanes lanes, In<float> x, Constants k, int refractory, int block, int chunk,
                      Out<float> held, Out<u32> marks, Out<float> thresholds, bool wanted) {
    Span span = {0, lanes.steps};
    Replay r = replay_start<BLOCKS>();
    int place = 0, left = 0, i = 0;
    Chunk next = load_chunk<1>(x, 0, span, lanes.width);
    for (int t = 0; t < lanes.steps; t += CHUNK) {
        Chunk now = next, theta;
        next = load_chunk<1>(x, t + CHUNK, span, lanes.width);
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            if (!wanted) {
                if (left == 0 && t + j < lanes.steps) {
                    Place to = place_of(lanes, chunk, at.b, at.n, i++);
                    held[to.at] = r.risen;
                    marks[to.at] = (u32)r.wait;
                    marks[to.second + to.at] = (u32)r.first;
                    if (BLOCKS) held[to.second + to.at] = r.fallen;
                    left = chunk;
                }
                --left;
            }
            theta.x[j] = 1.0f + k.strength * (BLOCKS ? r.fallen : r.risen);
            replay_step<BLOCKS>(r, now.x[j], k, refractory, place);
            replay_close<BLOCKS>(r, place, block);
            place = place + 1 == block ? 0 : place + 1;
        }
        if (wanted) store_chunk<1>(thresholds, theta, t, span, lanes.width, true);
    }
}

// Stores the thresholds if they are wanted, and otherwise what the reverse pass needs.
KERNEL alif_replay(In<float> state, In<float> beta, In<float> decay, In<float> strength, Out<float> held,
                   Out<u32> marks, Out<float> thresholds, Lanes lanes, Limits limits, int refractory, int block,
                   int chunk) {
    Scan at = scan_of(lanes);
    if (at.b >= lanes.batch || !at.live) return;
    Constants k = constants_of(beta, decay, strength, limits, at.n);
    In<float> x = state + at.first;
    Out<float> theta = thresholds + at.first;
    bool wanted = thresholds ? true : false;
    if (block > 0) alif_hold<true>(at, lanes, x, k, refractory, block, chunk, held, marks, theta, wanted);
    else alif_hold<false>(at, lanes, x, k, refractory, block, chunk, held, marks, theta, wanted);
}

// Through which paths gradients flow, 0 or 1.
struct Paths {
    float reset, adaptation;
};
// The adjoint of a neuron between two steps. Of the steps, `on_membrane` and `on_risen` are the gradients on membrane
// and adaptation of the step after. In blocks there are also that on the adaptation without the block's spike, on the
// one that the next block began with, the gradients on the spikes summed once and twice, the spike's step and what the
// adaptation at the spike is multiplied by until the end of the block.
struct Back {
    float on_membrane, on_risen, on_fallen, on_carry, once, twice, power;
    int first;
    float sum, beta, decay, strength;
};
DEVICE Back no_back() { return {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, SILENT, 0.0f, 0.0f, 0.0f, 0.0f}; }

// The chunk of `steps` from step t on back, `before` being the state of the step before; g becomes the gradient on the
// current.
template <bool BLOCKS>
DEVICE void alif_chunk_back(Back& c, Replay r, const Chunk& u, float before, Chunk& g, const Chunk& m, Constants k,
                            int t, int steps, int last, int refractory, int block, Paths paths, Surrogate surrogate) {
    float slope[CHUNK], fallen[CHUNK], risen[CHUNK];
    int first[CHUNK];
    // Bits of steps: the input was taken, the neuron fired (of the steps) or began a block after one with a spike.
    u32 taken = 0u, fired = 0u;
    bool fired_before = !BLOCKS && r.first != 0;
    int place = BLOCKS ? t % block : 0;
#pragma unroll
    for (int j = 0; j < CHUNK; ++j) {
        fallen[j] = BLOCKS ? r.fallen : r.risen;
        risen[j] = r.risen;
        if (BLOCKS ? r.wait == SILENT || place >= r.wait : r.wait == 0) taken |= 1u << j;
        if (BLOCKS && place == 0 && r.wait != SILENT) fired |= 1u << j;
        slope[j] = replay_step<BLOCKS>(r, u.x[j], k, refractory, place);
        if (!BLOCKS && r.first != 0) fired |= 1u << j;
        first[j] = r.first;
        if (BLOCKS) {
            replay_close<BLOCKS>(r, place, block);
            place = place + 1 == block ? 0 : place + 1;
        }
    }
    slopes(surrogate, slope);
#pragma unroll
    for (int j = CHUNK - 1; j >= 0; --j) {
        if (BLOCKS) place = place == 0 ? block - 1 : place - 1;
        if (j >= steps) continue;
        float past = j > 0 ? u.x[(j + CHUNK - 1) % CHUNK] : before;
        if (!BLOCKS) {
            if (j > 0 ? fired >> (j + CHUNK - 1) % CHUNK & 1u : fired_before) past = 0.0f;
            float ds = g.x[j] + paths.adaptation * c.on_risen - paths.reset * u.x[j] * c.on_membrane;
            float e = ds * slope[j];
            float dv = e + (fired >> j & 1u ? 0.0f : c.on_membrane) + m.x[j];
            c.beta += dv * past;
            c.decay += c.on_risen * fallen[j];
            c.strength -= e * fallen[j];
            c.on_risen = k.decay * c.on_risen - k.strength * e;
            c.on_membrane = k.beta * dv;
            g.x[j] = taken >> j & 1u ? dv : 0.0f;
        } else {
            if (place + 1 == block || t + j == last) {
                // The end of a block: membrane and adaptation of the next one go on from here only where nothing fired.
                c.first = first[j];
                bool spent = c.first != SILENT;
                c.on_carry = c.on_risen = c.on_fallen;
                c.power = spent ? 1.0f : 0.0f;
                for (int i = c.first; i <= place; ++i) c.power *= k.decay;
                if (spent) c.on_membrane = c.on_fallen = 0.0f;
                c.once = c.twice = 0.0f;
            }
            if (place == 0 && fired >> j & 1u) past = 0.0f;
            c.once += g.x[j] + paths.adaptation * c.power * fallen[j] * c.on_carry;
            c.twice += c.once;
            float e = c.twice * slope[j];
            float lam = e + k.beta * c.on_membrane + m.x[j];
            c.beta += lam * past;
            bool since = place >= c.first;
            float jump = k.decay * c.on_risen;
            c.strength -= e * fallen[j];
            c.decay += c.on_fallen * fallen[j] + (since ? c.on_risen * risen[j] : 0.0f);
            c.on_fallen = k.decay * c.on_fallen - k.strength * e + (place == c.first ? jump : 0.0f);
            if (since) c.on_risen = jump;
            c.on_membrane = lam;
            g.x[j] = taken >> j & 1u ? lam : 0.0f;
        }
        c.sum += g.x[j];
    }
}

template <bool BLOCKS> DEVICE Replay replay_of(In<float> held, In<u32> marks, Place at) {
    Replay r;
    r.risen = held[at.at];
    r.fallen = BLOCKS ? held[at.second + at.at] : 0.0f;
    r.wait = (int)marks[at.at];
    r.first = (int)marks[at.second + at.at];
    return r;
}
DEVICE void store_back(Back c, i64 lane, i64 count, Out<float> current_sum, Out<float> sums) {
    if (current_sum) current_sum[lane] = c.sum;
    sums[lane] = c.beta;
    sums[count + lane] = c.decay;
    sums[2 * count + lane] = c.strength;
}

template <bool BLOCKS>
DEVICE Back alif_back(Scan at, Lanes lanes, In<float> x, In<float> held, In<u32> marks, In<float> membrane, bool given,
                      Out<float> grad, Constants k, int refractory, int block, Paths paths, Surrogate surrogate) {
    Span span = {0, lanes.steps};
    Back c = no_back();
    int i = (lanes.steps - 1) / CHUNK;
    Chunk next_u = load_chunk<1>(x, i * CHUNK, span, lanes.width);
    Chunk next_g = load_chunk<1>(grad, i * CHUNK, span, lanes.width);
    Chunk next_m = no_chunk();
    if (given) next_m = load_chunk<1>(membrane, i * CHUNK, span, lanes.width);
    Replay next_r = replay_start<BLOCKS>();
    if (lanes.steps > 0) next_r = replay_of<BLOCKS>(held, marks, place_of(lanes, CHUNK, at.b, at.n, i));
    for (; i >= 0 && lanes.steps > 0; --i) {
        int t = i * CHUNK;
        Chunk u = next_u, g = next_g, m = next_m;
        Replay r = next_r;
        if (i > 0) {
            next_u = load_chunk<1>(x, t - CHUNK, span, lanes.width);
            next_g = load_chunk<1>(grad, t - CHUNK, span, lanes.width);
            if (given) next_m = load_chunk<1>(membrane, t - CHUNK, span, lanes.width);
            next_r = replay_of<BLOCKS>(held, marks, place_of(lanes, CHUNK, at.b, at.n, i - 1));
        }
        float before = i > 0 ? next_u.x[CHUNK - 1] : 0.0f;
        alif_chunk_back<BLOCKS>(c, r, u, before, g, m, k, t, min(CHUNK, lanes.steps - t), lanes.steps - 1, refractory,
                                block, paths, surrogate);
        store_chunk<1>(grad, g, t, span, lanes.width, true);
    }
    return c;
}

// `sums`, [3, B, N], receives what each lane adds to the gradients of beta, p and b as used.
KERNEL alif_backward(In<float> state, In<float> beta, In<float> decay, In<float> strength, In<float> held,
                     In<u32> marks, In<float> membrane, Out<float> grad, Out<float> current_sum, Out<float> sums,
                     Lanes lanes, Limits limits, int refractory, int block, Paths paths, Surrogate surrogate) {
    Scan at = scan_of(lanes);
    if (at.b >= lanes.batch || !at.live) return;
    Constants k = constants_of(beta, decay, strength, limits, at.n);
    bool given = membrane ? true : false;
    In<float> x = state + at.first, m = membrane + at.first;
    Out<float> g = grad + at.first;
    Back c;
    if (block > 0) c = alif_back<true>(at, lanes, x, held, marks, m, given, g, k, refractory, block, paths, surrogate);
    else c = alif_back<false>(at, lanes, x, held, marks, m, given, g, k, refractory, block, paths, surrogate);
    store_back(c, at.lane, (i64)lanes.batch * lanes.width, current_sum, sums);
}

template <class Work> DEVICE Back back_of(Work kept, int n, int width) {
    Back c;
    c.on_membrane = kept[n];
    c.on_risen = kept[width + n];
    c.on_fallen = kept[2 * width + n];
    c.on_carry = kept[3 * width + n];
    c.once = kept[4 * width + n];
    c.twice = kept[5 * width + n];
    c.power = kept[6 * width + n];
    c.first = __float_as_int(kept[7 * width + n]);
    c.sum = kept[8 * width + n];
    c.beta = kept[9 * width + n];
    c.decay = kept[10 * width + n];
    c.strength = kept[11 * width + n];
    return c;
}
template <class Work> DEVICE void keep_back(Work kept, Back c, int n, int width) {
    kept[n] = c.on_membrane;
    kept[width + n] = c.on_risen;
    kept[2 * width + n] = c.on_fallen;
    kept[3 * width + n] = c.on_carry;
    kept[4 * width + n] = c.once;
    kept[5 * width + n] = c.twice;
    kept[6 * width + n] = c.power;
    kept[7 * width + n] = __int_as_float(c.first);
    kept[8 * width + n] = c.sum;
    kept[9 * width + n] = c.beta;
    kept[10 * width + n] = c.decay;
    kept[11 * width + n] = c.strength;
}

// Chunks of as many steps as depend on later chunks alone, at most ROWS. `work`: the gradients that arrive in a chunk,
// [ROWS, N]; what each neuron has if a thread has several. Threads with the same x have the same neurons: those with
// y = 0 own them, the others help with the products.
template <bool BLOCKS, int ROWS, class Work>
DEVICE void alif_feed_back(Work work, In<float> state, In<float> beta, In<float> decay, In<float> strength,
                           In<float> transposed, In<float> held, In<u32> marks, In<float> membrane, bool given,
                           Out<float> grad, Out<float> current_sum, Out<float> sums, Lanes lanes, Limits limits,
                           int refractory, int late, Paths paths, Surrogate surrogate, float (&parts)[CHUNK * 256]) {
    int width = lanes.width, row_words = words_of(width), thread = threadIdx.x, threads = blockDim.x, b = blockIdx.x;
    int part = threadIdx.y, share = (width + blockDim.y - 1) / blockDim.y;
    int from = min(width, part * share), to = min(width, from + share);
    bool single = width <= threads;
    int chunk = min(late, ROWS), block = BLOCKS ? late : 0;
    Work kept = work + ROWS * width;
    Back own = no_back();
    Constants own_constants = constants_of(beta, decay, strength, limits, min(thread, width - 1));
    if (!single) {
        for (int n = thread; n < width; n += threads) keep_back(kept, own, n, width);
    }
    for (int i = (lanes.steps + chunk - 1) / chunk - 1; i >= 0; --i) {
        int t = i * chunk, steps = min(chunk, lanes.steps - t);
        for (int k = part * threads + thread; k < ROWS * width; k += threads * blockDim.y) {
            int step = t + k / width + late;
            work[k] = k / width < steps && step < lanes.steps ? grad[(i64)step * width + k % width] : 0.0f;
        }
        __syncthreads();
        for (int n = thread; n < 32 * row_words; n += threads) {
            bool live = n < width, owner = live && part == 0;
            float back[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; ++r) back[r] = 0.0f;
            if (live && t + late < lanes.steps) add_targets(back, work, transposed + n, width, from, to);
            if (blockDim.y > 1) {
                // Every thread has one neuron then, so that all come here.
#pragma unroll
                for (int r = 0; r < ROWS; ++r) parts[(part * ROWS + r) * threads + thread] = back[r];
                __syncthreads();
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    back[r] = 0.0f;
                    for (int k = 0; k < (int)blockDim.y; ++k) back[r] += parts[(k * ROWS + r) * threads + thread];
                }
            }
            if (owner) {
                Span mine = {t, t + steps};
                Chunk u = load_chunk<1>(state + n, t, mine, width), g = load_chunk<1>(grad + n, t, mine, width);
                Chunk m = no_chunk();
                if (given) m = load_chunk<1>(membrane + n, t, mine, width);
                float before = t > 0 ? state[(i64)(t - 1) * width + n] : 0.0f;
                Replay r = replay_of<BLOCKS>(held, marks, place_of(lanes, chunk, b, n, i));
#pragma unroll
                for (int j = 0; j < ROWS; ++j) g.x[j] += back[j];
                Back c = single ? own : back_of(kept, n, width);
                Constants k = single ? own_constants : constants_of(beta, decay, strength, limits, n);
                alif_chunk_back<BLOCKS>(c, r, u, before, g, m, k, t, steps, lanes.steps - 1, refractory, block, paths,
                                        surrogate);
                store_chunk<1>(grad + n, g, t, mine, width, true);
                if (single) own = c;
                else keep_back(kept, c, n, width);
            }
        }
        __syncthreads();
    }
    if (part > 0) return;
    for (int n = thread; n < width; n += threads) {
        store_back(single ? own : back_of(kept, n, width), (i64)b * width + n, (i64)lanes.batch * width, current_sum,
                   sums);
    }
}

// A block for each sample; `scratch` has `length` entries for each if shared memory does not suffice.
BLOCK_KERNEL alif_recurrent_backward(In<float> state, In<float> beta, In<float> decay, In<float> strength,
                                     In<float> transposed, In<float> held, In<u32> marks, In<float> membrane,
                                     Out<float> grad, Out<float> current_sum, Out<float> sums, Out<float> scratch,
                                     i64 length, Lanes lanes, Limits limits, int refractory, int blocks, Paths paths,
                                     Surrogate surrogate) {
    DYNAMIC_SHARED(float, shared);
    __shared__ float parts[CHUNK * 256];
    int late = refractory + 1;
    bool given = membrane ? true : false;
    i64 first = (i64)blockIdx.x * lanes.steps * lanes.width;
    In<float> x = state + first, m = membrane + first;
    Out<float> g = grad + first;
    Out<float> work = scratch ? scratch + blockIdx.x * length : shared;
    if (blocks && late == 1) {
        alif_feed_back<true, 1>(work, x, beta, decay, strength, transposed, held, marks, m, given, g, current_sum, sums,
                                lanes, limits, refractory, late, paths, surrogate, parts);
    } else if (blocks) {
        alif_feed_back<true, CHUNK>(work, x, beta, decay, strength, transposed, held, marks, m, given, g, current_sum,
                                    sums,
                                    lanes, limits, refractory, late, paths, surrogate, parts);
    } else if (late == 1) {
        alif_feed_back<false, 1>(work, x, beta, decay, strength, transposed, held, marks, m, given, g, current_sum,
                                 sums,
                                 lanes, limits, refractory, late, paths, surrogate, parts);
    } else {
        alif_feed_back<false, CHUNK>(work, x, beta, decay, strength, transposed, held, marks, m, given, g, current_sum,
                                     sums,
                                     lanes, limits, refractory, late, paths, surrogate, parts);
    }
}

DEVICE float magnitude_slope(float raw, int inward) {
    return raw > 0.0f ? 1.0f : raw < 0.0f ? -1.0f : inward ? 1.0f : 0.0f;
}
DEVICE float pass(float x, float grad, float low, float high, int inward) {
    bool inside = x > low && x < high;
    bool back = (x <= low && grad < 0.0f) || (x >= high && grad > 0.0f);
    return inside || (back && inward) ? 1.0f : 0.0f;
}

// The gradients on the stored constants: sums over the batch, by blocks of 32 neurons and 8 threads for each; block y
// is for beta, p or b.
BLOCK_KERNEL alif_constants_grad(In<float> sums, In<float> beta, In<float> decay, In<float> strength,
                                 Out<float> grad_beta, Out<float> grad_decay, Out<float> grad_strength, Lanes lanes,
                                 Limits limits) {
    __shared__ float parts[8][32];
    int n = blockIdx.x * 32 + threadIdx.x, which = blockIdx.y;
    float part = 0.0f;
    if (n < lanes.width) {
        In<float> mine = sums + (i64)which * lanes.batch * lanes.width + n;
        for (int b = threadIdx.y; b < lanes.batch; b += 8) part += mine[(i64)b * lanes.width];
    }
    parts[threadIdx.y][threadIdx.x] = part;
    __syncthreads();
    if (threadIdx.y > 0 || n >= lanes.width) return;
    float grad = 0.0f;
    for (int k = 0; k < 8; ++k) grad += parts[k][threadIdx.x];
    if (which == 0 && grad_beta) {
        grad_beta[n] = grad * pass(beta[n], grad, limits.beta_low, limits.beta_high, limits.inward);
    }
    // What is not used has no gradient.
    if (!limits.adapts) grad = 0.0f;
    if (which == 1 && grad_decay) {
        float raw = decay[n];
        grad_decay[n] = grad * magnitude_slope(raw, limits.inward) *
                        pass(fabsf(raw), grad, limits.decay_low, limits.decay_high, limits.inward);
    }
    if (which == 2 && grad_strength) {
        float raw = strength[n];
        grad_strength[n] = grad * magnitude_slope(raw, limits.inward) *
                           pass(fabsf(raw), grad, limits.strength_low, limits.strength_high, limits.inward);
    }
}
