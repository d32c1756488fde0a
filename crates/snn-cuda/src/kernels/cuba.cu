// Current-based neurons: one thread a lane, or few lanes a block of threads; neurons that feed each other are a block
// for each sample.

struct Carry {
    float s, v;
    int wait;
};

// One step; `over` becomes positive where the neuron fires. Gives the membrane before the reset.
DEVICE float cuba_step(Carry& c, float x, Filters f, float threshold, int blocked, float& over) {
    c.s = f.alpha * c.s + x;
    float input = c.wait > 0 ? 0.0f : c.s;
    c.wait = c.wait > 0 ? c.wait - 1 : 0;
    float u = f.beta * c.v + f.gain * input;
    over = u - threshold;
    c.v = over > 0.0f ? 0.0f : u;
    if (over > 0.0f) c.wait = blocked;
    return u;
}
// A readout has no threshold.
DEVICE float cuba_threshold(In<float> threshold, int stride, int n) {
    return threshold ? fmaxf(threshold[(i64)n * stride], 0.0f) : __int_as_float(0x7f800000);
}

DEVICE void cuba_walk(Tiles* tiles, Scan at, Out<float> state, Filters f, float threshold, Out<float> synaptic,
                      Out<u32> words, Lanes lanes, int blocked) {
    Out<float> trace = synaptic + at.first;
    bool traced = synaptic ? true : false, fires = words ? true : false;
    Span span = {0, lanes.steps};
    Carry c = {0.0f, 0.0f, 0};
    walk(tiles, at, lanes, state + at.first, [&](Chunk& now, int t) {
        Chunk s;
        u32 kept = 0;
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            float over;
            now.x[j] = cuba_step(c, now.x[j], f, threshold, blocked, over);
            s.x[j] = c.s;
            kept = keep_spikes(kept, j, at.live && over > 0.0f);
        }
        if (traced) store_chunk<1>(trace, s, t, span, lanes.width, at.live);
        if (fires) store_spikes(words, kept, at, t, lanes);
    });
}

BLOCK_KERNEL cuba_forward(Out<float> state, In<float> alpha, int alpha_stride, In<float> beta, int beta_stride, int map,
                          In<float> threshold, int threshold_stride, Out<float> synaptic, Out<u32> words, Lanes lanes,
                          int blocked) {
    Scan at = scan_of(lanes);
    if (at.b >= lanes.batch) return;
    Filters f = filters_of(alpha, alpha_stride, beta, beta_stride, map, at.n);
    float theta = cuba_threshold(threshold, threshold_stride, at.n);
    cuba_walk(nullptr, at, state, f, theta, synaptic, words, lanes, blocked);
}
BLOCK_KERNEL cuba_forward_relay(Out<float> state, In<float> alpha, int alpha_stride, In<float> beta, int beta_stride,
                                int map, In<float> threshold, int threshold_stride, Out<float> synaptic, Out<u32> words,
                                Lanes lanes, int blocked) {
    __shared__ Tiles tiles;
    Scan at = wide_scan_of(lanes);
    Filters f = filters_of(alpha, alpha_stride, beta, beta_stride, map, at.n);
    float theta = cuba_threshold(threshold, threshold_stride, at.n);
    cuba_walk(&tiles, at, state, f, theta, synaptic, words, lanes, blocked);
}

// The constants of every neuron as recurrent scans read them, [5, N]: alpha, beta, gain, threshold, 1 / gain.
KERNEL cuba_constants(In<float> alpha, int alpha_stride, In<float> beta, int beta_stride, int map, In<float> threshold,
                      int threshold_stride, int width, Out<float> constants) {
    int n = (int)global_thread();
    if (n >= width) return;
    Filters f = filters_of(alpha, alpha_stride, beta, beta_stride, map, n);
    constants[n] = f.alpha;
    constants[width + n] = f.beta;
    constants[2 * width + n] = f.gain;
    constants[3 * width + n] = cuba_threshold(threshold, threshold_stride, n);
    constants[4 * width + n] = 1.0f / f.gain;
}

// A neuron between two steps of a recurrent scan.
struct Neuron {
    Filters f;
    float threshold, inverse;
    Carry c;
};
DEVICE Neuron neuron_of(In<float> constants, int n, int width) {
    Neuron neuron;
    neuron.f = {constants[n], constants[width + n], constants[2 * width + n], 0.0f, 0.0f};
    neuron.threshold = constants[3 * width + n];
    neuron.inverse = constants[4 * width + n];
    neuron.c = {0.0f, 0.0f, 0};
    return neuron;
}

// `work`: the bits of the sources of this step and the one before, if `relu` their values too; three numbers for each
// neuron if a thread has several.
template <class Work>
DEVICE void cuba_feed(Work work, Out<float> state, In<float> constants, In<float> weight, In<float> bias,
                      Out<float> synaptic, bool traced, Out<u32> words, bool fires, Lanes lanes, int blocked,
                      int relu) {
    int width = lanes.width, row_words = words_of(width), thread = threadIdx.x, threads = blockDim.x;
    bool single = width <= threads;
    Work values = work + 2 * row_words, kept = values + (relu ? 2 * width : 0);
    Neuron own = neuron_of(constants, min(thread, width - 1), width);
    if (!single) {
        for (int n = thread; n < 3 * width; n += threads) kept[n] = 0;
        __syncthreads();
    }
    float ahead = thread < width && lanes.steps > 0 ? state[thread] : 0.0f;
    for (int t = 0; t < lanes.steps; ++t) {
        int now = t % 2, before = 1 - now;
        i64 row = (i64)t * width;
        for (int n = thread; n < 32 * row_words; n += threads) {
            bool live = n < width;
            float over = -1.0f, v = 0.0f;
            if (live) {
                Neuron neuron = own;
                if (!single) {
                    neuron = neuron_of(constants, n, width);
                    neuron.c = {__uint_as_float(kept[n]), __uint_as_float(kept[width + n]), (int)kept[2 * width + n]};
                }
                float x = n == thread ? ahead : state[row + n];
                if (n == thread && t + 1 < lanes.steps) ahead = state[row + width + n];
                x += bias[n];
                if (t > 0) {
                    x = add_sources(x, work + before * row_words, row_words, weight + n, width, relu,
                                    values + before * width);
                }
                state[row + n] = cuba_step(neuron.c, x, neuron.f, neuron.threshold, blocked, over);
                if (traced) synaptic[row + n] = neuron.c.s;
                v = neuron.c.v;
                if (relu) values[now * width + n] = __float_as_uint(v);
                if (single) {
                    own.c = neuron.c;
                } else {
                    kept[n] = __float_as_uint(neuron.c.s);
                    kept[width + n] = __float_as_uint(neuron.c.v);
                    kept[2 * width + n] = (u32)neuron.c.wait;
                }
            }
            u32 fired = __ballot_sync(ALL, live && over > 0.0f);
            u32 sources = fired;
            if (relu) sources = __ballot_sync(ALL, live && v > 0.0f);
            if (n % 32 == 0) {
                work[now * row_words + n / 32] = sources;
                if (fires) words[(i64)t * row_words + n / 32] = fired;
            }
        }
        __syncthreads();
    }
}

// A block for each sample; `scratch` has `length` entries for each if shared memory does not suffice.
BLOCK_KERNEL cuba_recurrent_forward(Out<float> state, In<float> constants, In<float> weight, In<float> bias,
                                    Out<float> synaptic, Out<u32> words, Out<u32> scratch, i64 length, Lanes lanes,
                                    int blocked, int relu) {
    DYNAMIC_SHARED(u32, shared);
    i64 first = (i64)blockIdx.x * lanes.steps * lanes.width;
    i64 first_word = (i64)blockIdx.x * lanes.steps * words_of(lanes.width);
    bool traced = synaptic ? true : false, fires = words ? true : false;
    if (scratch) {
        cuba_feed(scratch + blockIdx.x * length, state + first, constants, weight, bias, synaptic + first, traced,
                  words + first_word, fires, lanes, blocked, relu);
    } else {
        cuba_feed(shared, state + first, constants, weight, bias, synaptic + first, traced, words + first_word, fires,
                  lanes, blocked, relu);
    }
}

// A bit for each step whose input the neuron takes.
BLOCK_KERNEL cuba_gates(In<float> state, In<float> threshold, int stride, Out<u32> gates, Lanes lanes, int blocked) {
    Scan at = scan_of(lanes);
    if (at.b >= lanes.batch) return;
    float theta = cuba_threshold(threshold, stride, at.n);
    In<float> x = state + at.first;
    Span span = {0, lanes.steps};
    int wait = 0;
    Chunk next = load_chunk<1>(x, 0, span, lanes.width);
    for (int t = 0; t < lanes.steps; t += CHUNK) {
        Chunk now = next;
        next = load_chunk<1>(x, t + CHUNK, span, lanes.width);
        u32 kept = 0;
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            kept = keep_spikes(kept, j, at.live && wait == 0);
            wait = wait > 0 ? wait - 1 : 0;
            if (now.x[j] > theta) wait = blocked;
        }
        store_spikes(gates, kept, at, t, lanes);
    }
}

// The adjoint of a neuron between two steps: the gradients on the membrane and the synaptic trace of the step after.
struct Back {
    float gu, q;
    float alpha, beta, threshold, sum;
};
// One step back, u of it and of the step before; `g` and `gv` are the gradients on spike and membrane after the reset.
DEVICE float cuba_back(Back& c, Filters f, float inverse, float threshold, float u, float before, float trace,
                       bool taken, float slope, float g, float gv) {
    bool fired = u - threshold > 0.0f;
    float d = slope * g;
    c.threshold -= d;
    c.gu = d + (fired ? 0.0f : gv + f.beta * c.gu);
    c.q = (taken ? f.gain * c.gu : 0.0f) + f.alpha * c.q;
    c.sum += c.q;
    c.beta += c.gu * ((before > threshold ? 0.0f : before) - u) * inverse;
    c.alpha += c.q * trace;
    return c.q;
}
DEVICE void store_back(Back c, i64 lane, int n, float threshold, In<float> alpha, int alpha_stride, In<float> beta,
                       int beta_stride, int map, Out<float> grad_alpha, Out<float> grad_beta, Out<float> grad_threshold,
                       Out<float> current_sum) {
    Filters f = filters_of(alpha, alpha_stride, beta, beta_stride, map, n);
    if (grad_alpha) grad_alpha[lane] = c.alpha * f.alpha_slope;
    if (grad_beta) grad_beta[lane] = c.beta * f.beta_slope;
    if (grad_threshold) grad_threshold[lane] = threshold > 0.0f ? c.threshold : 0.0f;
    if (current_sum) current_sum[lane] = c.sum;
}
DEVICE bool taken_at(In<u32> gates, i64 row, int row_words, int n) {
    return gates[row * row_words + n / 32] >> (n % 32) & 1u;
}

KERNEL cuba_backward(In<float> state, In<float> alpha, int alpha_stride, In<float> beta, int beta_stride, int map,
                     In<float> threshold, int threshold_stride, In<float> synaptic, In<u32> gates, In<float> membrane,
                     Out<float> grad, Out<float> grad_alpha, Out<float> grad_beta, Out<float> grad_threshold,
                     Out<float> current_sum, Lanes lanes, Surrogate surrogate) {
    Scan at = scan_of(lanes);
    if (at.b >= lanes.batch || !at.live) return;
    Filters f = filters_of(alpha, alpha_stride, beta, beta_stride, map, at.n);
    float theta = cuba_threshold(threshold, threshold_stride, at.n), inverse = 1.0f / f.gain;
    In<float> x = state + at.first, m = membrane + at.first, trace = synaptic + at.first;
    Out<float> g = grad + at.first;
    bool fires = threshold ? true : false, given = membrane ? true : false;
    bool traced = synaptic && grad_alpha ? true : false, gated = gates ? true : false;
    Span span = {0, lanes.steps};
    Back c = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    int top = lanes.steps - 1;
    Chunk next_u = load_chunk<-1>(x, top, span, lanes.width), next_g = load_chunk<-1>(g, top, span, lanes.width);
    Chunk next_m = no_chunk(), next_s = no_chunk();
    if (given) next_m = load_chunk<-1>(m, top, span, lanes.width);
    if (traced) next_s = load_chunk<-1>(trace, top - 1, span, lanes.width);
    for (; top >= 0; top -= CHUNK) {
        Chunk u = next_u, now = next_g, on_v = next_m, s = next_s, slope = no_chunk();
        next_u = load_chunk<-1>(x, top - CHUNK, span, lanes.width);
        next_g = load_chunk<-1>(g, top - CHUNK, span, lanes.width);
        if (given) next_m = load_chunk<-1>(m, top - CHUNK, span, lanes.width);
        if (traced) next_s = load_chunk<-1>(trace, top - 1 - CHUNK, span, lanes.width);
        u32 taken = ~0u;
        if (gated) {
            taken = 0u;
#pragma unroll
            for (int j = 0; j < CHUNK; ++j) {
                i64 row = (i64)at.b * lanes.steps + top - j;
                if (top - j >= 0 && taken_at(gates, row, words_of(lanes.width), at.n)) taken |= 1u << j;
            }
        }
        if (fires) {
#pragma unroll
            for (int j = 0; j < CHUNK; ++j) slope.x[j] = u.x[j] - theta;
            slopes(surrogate, slope.x);
        }
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            if (top - j < 0) continue;
            float before = j + 1 < CHUNK ? u.x[(j + 1) % CHUNK] : next_u.x[0];
            now.x[j] = cuba_back(c, f, inverse, theta, u.x[j], before, s.x[j], taken >> j & 1u, slope.x[j], now.x[j],
                                 on_v.x[j]);
        }
        store_chunk<-1>(g, now, top, span, lanes.width, true);
    }
    store_back(c, at.lane, at.n, theta, alpha, alpha_stride, beta, beta_stride, map, grad_alpha, grad_beta,
               grad_threshold, current_sum);
}

// `work`: q of the step after and of this one; six numbers for each neuron if a thread has several. Threads with the
// same x have the same neurons: those with y = 0 own them, the others help with the products.
template <class Work>
DEVICE void cuba_feed_back(Work work, In<float> state, In<float> constants, In<float> transposed, In<float> synaptic,
                           bool traced, In<u32> gates, bool gated, In<float> membrane, bool given, Out<float> grad,
                           bool fires, Lanes lanes, int relu, Surrogate surrogate, Back& own_back,
                           float (&parts)[256]) {
    int width = lanes.width, row_words = words_of(width), thread = threadIdx.x, threads = blockDim.x;
    int part = threadIdx.y, share = (width + blockDim.y - 1) / blockDim.y;
    int from = min(width, part * share), to = min(width, from + share);
    bool single = width <= threads;
    Work kept = work + 2 * width;
    Neuron own = neuron_of(constants, min(thread, width - 1), width);
    own_back = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (!single) {
        for (int n = thread; n < 6 * width; n += threads) kept[n] = 0.0f;
    }
    for (int n = thread; n < 2 * width; n += threads) work[n] = 0.0f;
    __syncthreads();
    for (int t = lanes.steps - 1; t >= 0; --t) {
        int now = t % 2, after = 1 - now;
        i64 row = (i64)t * width;
        for (int n = thread; n < 32 * row_words; n += threads) {
            bool live = n < width, owner = live && part == 0;
            float u = 0.0f, before = 0.0f, g = 0.0f, gv = 0.0f, trace = 0.0f;
            bool taken = true;
            if (owner) {
                u = state[row + n];
                g = grad[row + n];
                if (t > 0) before = state[row - width + n];
                if (given) gv = membrane[row + n];
                if (traced && t > 0) trace = synaptic[row - width + n];
                if (gated) taken = taken_at(gates, t, row_words, n);
            }
            float back[1] = {0.0f};
            if (live) add_targets(back, work + after * width, transposed + n, width, from, to);
            if (blockDim.y > 1) {
                // Every thread has one neuron then, so that all come here.
                parts[part * threads + thread] = back[0];
                __syncthreads();
                back[0] = 0.0f;
                for (int k = 0; k < (int)blockDim.y; ++k) back[0] += parts[k * threads + thread];
            }
            if (owner) {
                Neuron neuron = own;
                Back c = own_back;
                if (!single) {
                    neuron = neuron_of(constants, n, width);
                    c = {kept[n], kept[width + n], kept[2 * width + n], kept[3 * width + n], kept[4 * width + n],
                         kept[5 * width + n]};
                }
                float over = u - neuron.threshold, slope[1] = {0.0f};
                if (fires) {
                    slope[0] = over;
                    slopes(surrogate, slope);
                }
                if (relu) gv += u > 0.0f && over <= 0.0f ? back[0] : 0.0f;
                else g += back[0];
                float q = cuba_back(c, neuron.f, neuron.inverse, neuron.threshold, u, before, trace, taken, slope[0],
                                    g, gv);
                grad[row + n] = q;
                work[now * width + n] = q;
                if (single) {
                    own_back = c;
                } else {
                    kept[n] = c.gu;
                    kept[width + n] = c.q;
                    kept[2 * width + n] = c.alpha;
                    kept[3 * width + n] = c.beta;
                    kept[4 * width + n] = c.threshold;
                    kept[5 * width + n] = c.sum;
                }
            }
        }
        __syncthreads();
    }
}
template <class Work> DEVICE Back back_of(Work work, int n, int width) {
    Work kept = work + 2 * width;
    return {kept[n], kept[width + n], kept[2 * width + n], kept[3 * width + n], kept[4 * width + n],
            kept[5 * width + n]};
}

BLOCK_KERNEL cuba_recurrent_backward(In<float> state, In<float> constants, In<float> transposed, In<float> alpha,
                                     int alpha_stride, In<float> beta, int beta_stride, int map, In<float> synaptic,
                                     In<u32> gates, In<float> membrane, Out<float> grad, Out<float> grad_alpha,
                                     Out<float> grad_beta, Out<float> grad_threshold, Out<float> current_sum,
                                     Out<float> scratch, i64 length, Lanes lanes, int fires, int relu,
                                     Surrogate surrogate) {
    DYNAMIC_SHARED(float, shared);
    __shared__ float parts[256];
    int width = lanes.width;
    i64 first = (i64)blockIdx.x * lanes.steps * width;
    bool traced = synaptic && grad_alpha ? true : false, gated = gates ? true : false, given = membrane ? true : false;
    In<u32> own_gates = gates + (i64)blockIdx.x * lanes.steps * words_of(width);
    Out<float> work = scratch + blockIdx.x * length;
    Back own;
    if (scratch) {
        cuba_feed_back(work, state + first, constants, transposed, synaptic + first, traced, own_gates, gated,
                       membrane + first, given, grad + first, fires, lanes, relu, surrogate, own, parts);
    } else {
        cuba_feed_back(shared, state + first, constants, transposed, synaptic + first, traced, own_gates, gated,
                       membrane + first, given, grad + first, fires, lanes, relu, surrogate, own, parts);
    }
    if (threadIdx.y > 0) return;
    for (int n = threadIdx.x; n < width; n += blockDim.x) {
        if (width > (int)blockDim.x) own = scratch ? back_of(work, n, width) : back_of(shared, n, width);
        store_back(own, (i64)blockIdx.x * width + n, n, constants[3 * width + n], alpha, alpha_stride, beta,
                   beta_stride,
                   map, grad_alpha, grad_beta, grad_threshold, current_sum);
    }
}

// The membrane after the reset.
KERNEL cuba_membrane(Out<float> state, In<float> threshold, int stride, int width, i64 length) {
    i64 i = global_thread();
    if (i < length && state[i] > cuba_threshold(threshold, stride, (int)(i % width))) state[i] = 0.0f;
}
