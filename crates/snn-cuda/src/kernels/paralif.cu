// Parallel neurons: filters and firing, one thread a lane, or few lanes a block of threads. Firing looks at most two
// steps back, so that lanes can be cut in time where there are no filters; their adjoint, cut in time, goes on its own.

static const int NOTHING = 0, THRESHOLD = 1, DELTA = 2, BERNOULLI = 3, GUMBEL = 4;
static const int IDENTITY = 0, SIGMOID = 1, TANH = 2, RELU_TANH = 3;

struct Firing {
    // `weighted`: Bernoulli spikes pass gradients on times their probability.
    int generator, normaliser, delayed, weighted, drawn;
    // What comes before the first step in place of N(v).
    float padding;
    float temperature;
};

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }
DEVICE float hyperbolic(float x) {
    // Near zero the difference below would cancel; there the series does.
    float s = x * x;
    float small =
        x * (1.0f + s * (-1.0f / 3.0f + s * (2.0f / 15.0f + s * (-17.0f / 315.0f + s * (62.0f / 2835.0f)))));
    float large = 1.0f - 2.0f / (1.0f + exponential(x + x));
    return s < 0.0625f ? small : large;
}

// p = N(v), in place.
template <int LEN> DEVICE void normalise(int normaliser, float (&v)[LEN]) {
    if (normaliser == SIGMOID) {
#pragma unroll
        for (int j = 0; j < LEN; ++j) v[j] = sigmoid(v[j]);
    } else if (normaliser != IDENTITY) {
#pragma unroll
        for (int j = 0; j < LEN; ++j) {
            float p = hyperbolic(v[j]);
            v[j] = normaliser == TANH || v[j] > 0.0f ? p : 0.0f;
        }
    }
}
// N'(v), from p = N(v).
DEVICE float normaliser_slope(int normaliser, float p) {
    if (normaliser == IDENTITY) return 1.0f;
    if (normaliser == SIGMOID) return p * (1.0f - p);
    // Rectified, p is 0 exactly where v is not positive.
    return normaliser == TANH || p > 0.0f ? 1.0f - p * p : 0.0f;
}

// Uniforms of Bernoulli modes; of Gumbel-Softmax logistics if given, uniforms if drawn.
template <int WAY, int GENERATOR>
DEVICE Chunk noise_chunk(In<float> noise, Draws draws, bool drawn, Scan at, int t, Lanes lanes) {
    Span all = {0, lanes.steps};
    if (!drawn) return load_chunk<WAY>(noise + at.first, t, all, lanes.width);
    Chunk chunk;
#pragma unroll
    for (int j = 0; j < CHUNK; ++j) {
        u32 bits = draw_bits(draws, at.b, t + WAY * j, at.n, lanes.width);
        chunk.x[j] = GENERATOR == BERNOULLI ? unit_float(bits) : open_unit_float(bits);
    }
    return chunk;
}

// Spikes of the steps from t on. `past` is the membrane of the step before, `before` p of what was seen then, and
// becomes that of the last step.
template <int GENERATOR>
DEVICE void fire_chunk(Scan at, Lanes lanes, const Chunk& v, float past, float& before, int t, Firing fire,
                       float threshold, In<float> noise, Draws draws, Out<u32> words) {
    Chunk p = v, score;
    if (fire.delayed) {
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) p.x[j] = j > 0 ? v.x[(j + CHUNK - 1) % CHUNK] : past;
    }
    if (GENERATOR == GUMBEL) {
        // Positive where it fires: from logistics 2 v + L, from uniforms U - (1 - U) exp(-2 v), which has the same sign
        // and needs no logarithm.
        Chunk u = noise_chunk<1, GENERATOR>(noise, draws, fire.drawn, at, t, lanes);
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            float twice = p.x[j] + p.x[j];
            score.x[j] = fire.drawn ? u.x[j] - (1.0f - u.x[j]) * exponential(-twice) : twice + u.x[j];
        }
    } else {
        normalise(fire.normaliser, p.x);
        Chunk u = no_chunk();
        if (GENERATOR == BERNOULLI) u = noise_chunk<1, GENERATOR>(noise, draws, fire.drawn, at, t, lanes);
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            if (GENERATOR == THRESHOLD) score.x[j] = p.x[j] - threshold;
            if (GENERATOR == DELTA) {
                score.x[j] = p.x[j] - before - threshold;
                before = p.x[j];
            }
            if (GENERATOR == BERNOULLI) score.x[j] = p.x[j] - u.x[j];
        }
    }
    u32 kept = 0;
#pragma unroll
    for (int j = 0; j < CHUNK; ++j) kept = keep_spikes(kept, j, at.live && score.x[j] > 0.0f);
    store_spikes(words, kept, at, t, lanes);
}

// p of what was seen in the step before t.
DEVICE float seen_before(Firing fire, float past, float earlier, int t) {
    float seen[1] = {fire.delayed ? earlier : past};
    normalise(fire.normaliser, seen);
    return t > 0 ? seen[0] : fire.padding;
}

struct Carry {
    float s, v;
};
DEVICE void filter_chunk(Carry& c, Chunk& now, Filters f) {
#pragma unroll
    for (int j = 0; j < CHUNK; ++j) {
        c.s = f.alpha * c.s + now.x[j];
        c.v = f.beta * c.v + f.gain * c.s;
        now.x[j] = c.v;
    }
}

template <int GENERATOR>
DEVICE void paralif_walk(Scan at, Lanes lanes, Span span, Out<float> x, bool filtered, Filters f, Firing fire,
                         float threshold, In<float> noise, Draws draws, Out<u32> words) {
    Carry c = {0.0f, 0.0f};
    float past = span.from > 0 ? x[(i64)(span.from - 1) * lanes.width] : 0.0f;
    float earlier = span.from > 1 ? x[(i64)(span.from - 2) * lanes.width] : 0.0f;
    float before = GENERATOR == DELTA ? seen_before(fire, past, earlier, span.from) : 0.0f;
    Chunk next = load_chunk<1>(x, span.from, span, lanes.width);
    for (int t = span.from; t < span.to; t += CHUNK) {
        Chunk now = next;
        next = load_chunk<1>(x, t + CHUNK, span, lanes.width);
        if (filtered) {
            filter_chunk(c, now, f);
            store_chunk<1>(x, now, t, span, lanes.width, at.live);
        }
        if (GENERATOR == NOTHING) continue;
        fire_chunk<GENERATOR>(at, lanes, now, past, before, t, fire, threshold, noise, draws, words);
        past = now.x[CHUNK - 1];
    }
}
template <int GENERATOR>
DEVICE void paralif_relay(Tiles& tiles, Scan at, Lanes lanes, Out<float> x, Filters f, Firing fire, float threshold,
                          In<float> noise, Draws draws, Out<u32> words) {
    Span span = {0, lanes.steps};
    Carry c = {0.0f, 0.0f};
    auto take = [&](Chunk& now, int) { filter_chunk(c, now, f); };
    auto finish = [&](const Chunk& done, float past, float earlier, int t) {
        store_chunk<1>(x, done, t, span, lanes.width, at.live);
        float before = GENERATOR == DELTA ? seen_before(fire, past, earlier, t) : 0.0f;
        if (GENERATOR != NOTHING) {
            fire_chunk<GENERATOR>(at, lanes, done, past, before, t, fire, threshold, noise, draws, words);
        }
    };
    relay(tiles, x, lanes, take, finish);
}

DEVICE float paralif_threshold(In<float> threshold, int stride, int n) {
    return threshold ? fmaxf(threshold[(i64)n * stride], 0.0f) : 0.0f;
}

// Lists that are absent have no stride. With `cut` lanes are cut in time; there are no filters then.
BLOCK_KERNEL paralif_forward(Out<float> state, In<float> alpha, int alpha_stride, In<float> beta, int beta_stride,
                             int map, In<float> threshold, int threshold_stride, In<float> noise, Out<u32> words,
                             Lanes lanes, Firing fire, Draws draws, int cut) {
    Scan at = cut ? wide_scan_of(lanes) : scan_of(lanes);
    if (at.b >= lanes.batch) return;
    Span span = {0, lanes.steps};
    if (cut) span = cut_of(lanes.steps, threadIdx.x / 32);
    bool filtered = beta ? true : false;
    Filters f = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (filtered) f = filters_of(alpha, alpha_stride, beta, beta_stride, map, at.n);
    float theta = paralif_threshold(threshold, threshold_stride, at.n);
    Out<float> x = state + at.first;
    if (fire.generator == NOTHING) {
        paralif_walk<NOTHING>(at, lanes, span, x, filtered, f, fire, theta, noise, draws, words);
    }
    if (fire.generator == THRESHOLD) {
        paralif_walk<THRESHOLD>(at, lanes, span, x, filtered, f, fire, theta, noise, draws, words);
    }
    if (fire.generator == DELTA) paralif_walk<DELTA>(at, lanes, span, x, filtered, f, fire, theta, noise, draws, words);
    if (fire.generator == BERNOULLI) {
        paralif_walk<BERNOULLI>(at, lanes, span, x, filtered, f, fire, theta, noise, draws, words);
    }
    if (fire.generator == GUMBEL) {
        paralif_walk<GUMBEL>(at, lanes, span, x, filtered, f, fire, theta, noise, draws, words);
    }
}

BLOCK_KERNEL paralif_forward_relay(Out<float> state, In<float> alpha, int alpha_stride, In<float> beta, int beta_stride,
                                   int map, In<float> threshold, int threshold_stride, In<float> noise, Out<u32> words,
                                   Lanes lanes, Firing fire, Draws draws) {
    __shared__ Tiles tiles;
    Scan at = wide_scan_of(lanes);
    Filters f = filters_of(alpha, alpha_stride, beta, beta_stride, map, at.n);
    float theta = paralif_threshold(threshold, threshold_stride, at.n);
    Out<float> x = state + at.first;
    if (fire.generator == NOTHING) paralif_relay<NOTHING>(tiles, at, lanes, x, f, fire, theta, noise, draws, words);
    if (fire.generator == THRESHOLD) paralif_relay<THRESHOLD>(tiles, at, lanes, x, f, fire, theta, noise, draws, words);
    if (fire.generator == DELTA) paralif_relay<DELTA>(tiles, at, lanes, x, f, fire, theta, noise, draws, words);
    if (fire.generator == BERNOULLI) paralif_relay<BERNOULLI>(tiles, at, lanes, x, f, fire, theta, noise, draws, words);
    if (fire.generator == GUMBEL) paralif_relay<GUMBEL>(tiles, at, lanes, x, f, fire, theta, noise, draws, words);
}

// What a lane's adjoint sums.
struct Sums {
    float alpha, beta, threshold, current;
};

// The gradient on the membrane that step t + late saw is that on the membrane of step t, late being 1 for delayed
// firing and 0 otherwise. `edge` has the incoming gradients of the two steps past the span.
template <int GENERATOR>
DEVICE Sums paralif_back(Scan at, Lanes lanes, Span span, In<float> v, In<float> membrane, bool given, Out<float> grad,
                         bool filtered, Filters f, Firing fire, float threshold, In<float> noise, Draws draws,
                         Surrogate surrogate, const float (&edge)[2]) {
    Span all = {0, lanes.steps};
    int late = GENERATOR != NOTHING && fire.delayed ? 1 : 0;
    // Firing of the steps low to top.
    int low = span.from > 0 ? span.from + late : 0, top = span.to - 1 + late;
    Sums sums = {0.0f, 0.0f, 0.0f, 0.0f};
    if (span.from >= span.to) return sums;
    float p = 0.0f, q = 0.0f, inverse = filtered ? 1.0f / f.gain : 0.0f;
    // d of the step after.
    float after = 0.0f;
    if (GENERATOR == DELTA && span.to + late < lanes.steps) {
        float seen[2] = {v[(i64)span.to * lanes.width], v[(i64)(span.to - 1) * lanes.width]};
        normalise(fire.normaliser, seen);
        float slope[1] = {seen[0] - seen[1] - threshold};
        slopes(surrogate, slope);
        after = slope[0] * (late ? edge[1] : edge[0]);
    }
    Chunk next_v = load_chunk<-1>(v, top - late, all, lanes.width);
    Chunk next_g = load_chunk<-1>(grad, top, span, lanes.width);
    Chunk next_m = no_chunk();
    if (given) next_m = load_chunk<-1>(membrane, top - late, span, lanes.width);
    if (late) next_g.x[0] = edge[0];
    for (; top >= low; top -= CHUNK) {
        Chunk u = next_v, g = next_g, m = next_m;
        next_v = load_chunk<-1>(v, top - CHUNK - late, all, lanes.width);
        next_g = load_chunk<-1>(grad, top - CHUNK, span, lanes.width);
        if (given) next_m = load_chunk<-1>(membrane, top - CHUNK - late, span, lanes.width);
        if (GENERATOR == GUMBEL) {
            Chunk n = noise_chunk<-1, GENERATOR>(noise, draws, fire.drawn, at, top, lanes);
            float scale = 1.0f / fire.temperature;
#pragma unroll
            for (int j = 0; j < CHUNK; ++j) {
                float twice = u.x[j] + u.x[j], y;
                if (fire.drawn && fire.temperature == 1.0f) {
                    y = n.x[j] / (n.x[j] + (1.0f - n.x[j]) * exponential(-twice));
                } else {
                    float noise = fire.drawn ? logf(n.x[j] / (1.0f - n.x[j])) : n.x[j];
                    y = sigmoid((twice + noise) * scale);
                }
                g.x[j] = g.x[j] * 2.0f * scale * y * (1.0f - y);
            }
        }
        if (GENERATOR == BERNOULLI) {
            Chunk n = u;
            normalise(fire.normaliser, n.x);
#pragma unroll
            for (int j = 0; j < CHUNK; ++j) {
                if (fire.weighted) g.x[j] *= n.x[j];
                g.x[j] *= normaliser_slope(fire.normaliser, n.x[j]);
            }
        }
        if (GENERATOR == THRESHOLD || GENERATOR == DELTA) {
            float n[CHUNK + 1], slope[CHUNK];
#pragma unroll
            for (int j = 0; j < CHUNK; ++j) n[j] = u.x[j];
            n[CHUNK] = next_v.x[0];
            normalise(fire.normaliser, n);
#pragma unroll
            for (int j = 0; j < CHUNK; ++j) {
                float before = top - j > 0 ? n[j + 1] : fire.padding;
                slope[j] = GENERATOR == DELTA ? n[j] - before - threshold : n[j] - threshold;
            }
            slopes(surrogate, slope);
#pragma unroll
            for (int j = 0; j < CHUNK; ++j) {
                float d = slope[j] * g.x[j];
                if (top - j >= low) sums.threshold -= d;
                g.x[j] = (GENERATOR == DELTA ? d - after : d) * normaliser_slope(fire.normaliser, n[j]);
                after = d;
            }
        }
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            if (top - j - late < span.from) continue;
            float on_membrane = g.x[j] + m.x[j];
            if (filtered) {
                float past = j + 1 < CHUNK ? u.x[(j + 1) % CHUNK] : next_v.x[0];
                float earlier = j + 2 < CHUNK ? u.x[(j + 2) % CHUNK] : next_v.x[(j + 2) % CHUNK];
                p = on_membrane + f.beta * p;
                q = f.gain * p + f.alpha * q;
                sums.beta += p * (past - u.x[j]) * inverse;
                sums.alpha += q * (earlier + (past - earlier) * inverse);
                on_membrane = q;
            }
            sums.current += on_membrane;
            g.x[j] = on_membrane;
        }
        store_chunk<-1>(grad, g, top - late, span, lanes.width, at.live);
    }
    return sums;
}

DEVICE void store_sums(Scan at, Sums sums, Filters f, float threshold, Out<float> grad_alpha, Out<float> grad_beta,
                       Out<float> grad_threshold, Out<float> current_sum) {
    if (!at.live) return;
    if (grad_alpha) grad_alpha[at.lane] = sums.alpha * f.alpha_slope;
    if (grad_beta) grad_beta[at.lane] = sums.beta * f.beta_slope;
    if (grad_threshold) grad_threshold[at.lane] = threshold > 0.0f ? sums.threshold : 0.0f;
    if (current_sum) current_sum[at.lane] = sums.current;
}

BLOCK_KERNEL paralif_backward(In<float> state, In<float> alpha, int alpha_stride, In<float> beta, int beta_stride,
                              int map, In<float> threshold, int threshold_stride, In<float> noise, In<float> membrane,
                              Out<float> grad, Out<float> grad_alpha, Out<float> grad_beta, Out<float> grad_threshold,
                              Out<float> current_sum, Lanes lanes, Firing fire, Draws draws, Surrogate surrogate,
                              int cut) {
    Scan at = cut ? wide_scan_of(lanes) : scan_of(lanes);
    if (at.b >= lanes.batch) return;
    Span span = {0, lanes.steps};
    bool filtered = beta ? true : false, given = membrane ? true : false;
    Filters f = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (filtered) f = filters_of(alpha, alpha_stride, beta, beta_stride, map, at.n);
    float theta = paralif_threshold(threshold, threshold_stride, at.n);
    In<float> v = state + at.first, m = membrane + at.first;
    Out<float> g = grad + at.first;
    float edge[2] = {0.0f, 0.0f};
    if (cut) {
        span = cut_of(lanes.steps, threadIdx.x / 32);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            if (span.to + k < lanes.steps) edge[k] = g[(i64)(span.to + k) * lanes.width];
        }
        // The warp with the next span overwrites them.
        __syncthreads();
    }
    Sums sums = {0.0f, 0.0f, 0.0f, 0.0f};
    if (fire.generator == NOTHING) {
        sums = paralif_back<NOTHING>(at, lanes, span, v, m, given, g, filtered, f, fire, theta, noise, draws,
                                     surrogate, edge);
    }
    if (fire.generator == THRESHOLD) {
        sums = paralif_back<THRESHOLD>(at, lanes, span, v, m, given, g, filtered, f, fire, theta, noise, draws,
                                       surrogate, edge);
    }
    if (fire.generator == DELTA) {
        sums = paralif_back<DELTA>(at, lanes, span, v, m, given, g, filtered, f, fire, theta, noise, draws, surrogate,
                                   edge);
    }
    if (fire.generator == BERNOULLI) {
        sums = paralif_back<BERNOULLI>(at, lanes, span, v, m, given, g, filtered, f, fire, theta, noise, draws,
                                       surrogate, edge);
    }
    if (fire.generator == GUMBEL) {
        sums = paralif_back<GUMBEL>(at, lanes, span, v, m, given, g, filtered, f, fire, theta, noise, draws, surrogate,
                                    edge);
    }
    if (cut) {
        sums.threshold = share_sum(sums.threshold);
        sums.current = share_sum(sums.current);
        if (threadIdx.x >= 32) at.live = false;
    }
    store_sums(at, sums, f, theta, grad_alpha, grad_beta, grad_threshold, current_sum);
}

// The adjoint of the filters cut in time: every span from nothing, then again with what the later ones leave. `grad`
// enters as the gradient on the membrane; that on the threshold was stored before.
BLOCK_KERNEL paralif_filter_grad(In<float> state, In<float> alpha, int alpha_stride, In<float> beta, int beta_stride,
                                 int map, Out<float> grad, Out<float> grad_alpha, Out<float> grad_beta,
                                 Out<float> current_sum, Lanes lanes) {
    Scan at = wide_scan_of(lanes);
    int c = threadIdx.x / 32;
    Span span = cut_of(lanes.steps, c), all = {0, lanes.steps};
    Filters f = filters_of(alpha, alpha_stride, beta, beta_stride, map, at.n);
    In<float> v = state + at.first;
    Out<float> g = grad + at.first;
    float p = 0.0f, q = 0.0f, left = 1.0f, response = 0.0f, trace = 1.0f, inverse = 1.0f / f.gain;
    Chunk next_g = load_chunk<-1>(g, span.to - 1, span, lanes.width);
    for (int top = span.to - 1; top >= span.from; top -= CHUNK) {
        Chunk now = next_g;
        next_g = load_chunk<-1>(g, top - CHUNK, span, lanes.width);
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            if (top - j < span.from) continue;
            p = now.x[j] + f.beta * p;
            q = f.gain * p + f.alpha * q;
            left = f.beta * left;
            response = f.gain * left + f.alpha * response;
            trace = f.alpha * trace;
        }
    }
    Shared all_p = share(p), all_q = share(q), lefts = share(left), responses = share(response), traces = share(trace);
    p = q = 0.0f;
#pragma unroll
    for (int i = CUTS - 1; i >= 0; --i) {
        if (i <= c) continue;
        q = traces.x[i] * q + responses.x[i] * p + all_q.x[i];
        p = lefts.x[i] * p + all_p.x[i];
    }
    Sums sums = {0.0f, 0.0f, 0.0f, 0.0f};
    next_g = load_chunk<-1>(g, span.to - 1, span, lanes.width);
    Chunk next_v = load_chunk<-1>(v, span.to - 1, all, lanes.width);
    for (int top = span.to - 1; top >= span.from; top -= CHUNK) {
        Chunk now = next_g, u = next_v;
        next_g = load_chunk<-1>(g, top - CHUNK, span, lanes.width);
        next_v = load_chunk<-1>(v, top - CHUNK, all, lanes.width);
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            if (top - j < span.from) continue;
            float past = j + 1 < CHUNK ? u.x[(j + 1) % CHUNK] : next_v.x[0];
            float earlier = j + 2 < CHUNK ? u.x[(j + 2) % CHUNK] : next_v.x[(j + 2) % CHUNK];
            p = now.x[j] + f.beta * p;
            q = f.gain * p + f.alpha * q;
            sums.beta += p * (past - u.x[j]) * inverse;
            sums.alpha += q * (earlier + (past - earlier) * inverse);
            sums.current += q;
            now.x[j] = q;
        }
        store_chunk<-1>(g, now, top, span, lanes.width, at.live);
    }
    sums.alpha = share_sum(sums.alpha);
    sums.beta = share_sum(sums.beta);
    sums.current = share_sum(sums.current);
    if (threadIdx.x >= 32 || !at.live) return;
    if (grad_alpha) grad_alpha[at.lane] = sums.alpha * f.alpha_slope;
    if (grad_beta) grad_beta[at.lane] = sums.beta * f.beta_slope;
    if (current_sum) current_sum[at.lane] = sums.current;
}
