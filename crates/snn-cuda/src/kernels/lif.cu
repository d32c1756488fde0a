// Sequential LIF neurons: one thread a lane, or few lanes a block of threads.

static const int INTEGRATOR = 0, MULTI = 1, SINGLE = 2;

// What a neuron carries to the next step: its decayed membrane, and whether it has fired.
struct Carry {
    float membrane;
    bool spent;
};

// Gives the spikes as the lanes of the warp keep them.
template <int KIND> DEVICE u32 lif_chunk(Carry& c, Chunk& now, float beta, float threshold, bool live) {
    u32 kept = 0;
#pragma unroll
    for (int j = 0; j < CHUNK; ++j) {
        float u = now.x[j] + c.membrane, v = u;
        if (KIND == MULTI) {
            bool fires = u > threshold;
            v = fires ? u - threshold : u;
            kept = keep_spikes(kept, j, live && fires);
        }
        if (KIND == SINGLE) {
            // The membrane keeps its value at the spike and is 0 afterwards.
            v = c.spent ? 0.0f : u;
            bool fires = !c.spent && u > threshold;
            c.spent = c.spent || fires;
            kept = keep_spikes(kept, j, live && fires);
        }
        c.membrane = beta * v;
        now.x[j] = u;
    }
    return kept;
}

template <int KIND>
DEVICE void lif_walk(Tiles* tiles, Scan at, Lanes lanes, Out<float> x, Out<u32> words, float beta, float membrane,
                     float threshold) {
    Carry c = {membrane, false};
    walk(tiles, at, lanes, x, [&](Chunk& now, int t) {
        u32 kept = lif_chunk<KIND>(c, now, beta, threshold, at.live);
        if (KIND != INTEGRATOR) store_spikes(words, kept, at, t, lanes);
    });
}
DEVICE void lif_start(Tiles* tiles, Scan at, Out<float> state, In<float> beta, int stride, In<float> initial,
                      Out<u32> words, Lanes lanes, int kind, float threshold) {
    float decay = clamp_decay(beta[(i64)at.n * stride]), membrane = initial ? decay * initial[at.lane] : 0.0f;
    Out<float> x = state + at.first;
    if (kind == INTEGRATOR) lif_walk<INTEGRATOR>(tiles, at, lanes, x, words, decay, membrane, threshold);
    if (kind == MULTI) lif_walk<MULTI>(tiles, at, lanes, x, words, decay, membrane, threshold);
    if (kind == SINGLE) lif_walk<SINGLE>(tiles, at, lanes, x, words, decay, membrane, threshold);
}

BLOCK_KERNEL lif_forward(Out<float> state, In<float> beta, int stride, In<float> initial, Out<u32> words, Lanes lanes,
                         int kind, float threshold) {
    Scan at = scan_of(lanes);
    if (at.b < lanes.batch) lif_start(nullptr, at, state, beta, stride, initial, words, lanes, kind, threshold);
}
BLOCK_KERNEL lif_forward_relay(Out<float> state, In<float> beta, int stride, In<float> initial, Out<u32> words,
                               Lanes lanes, int kind, float threshold) {
    __shared__ Tiles tiles;
    lif_start(&tiles, wide_scan_of(lanes), state, beta, stride, initial, words, lanes, kind, threshold);
}

// The first step above the threshold, of a whole warp together.
DEVICE int first_crossing(In<float> x, float threshold, Lanes lanes) {
    Span span = {0, lanes.steps};
    int first = SILENT;
    Chunk next = load_chunk<1>(x, 0, span, lanes.width);
    for (int t = 0; t < lanes.steps; t += CHUNK) {
        Chunk now = next;
        next = load_chunk<1>(x, t + CHUNK, span, lanes.width);
#pragma unroll
        for (int j = CHUNK - 1; j >= 0; --j) {
            if (t + j < first && t + j < lanes.steps && now.x[j] > threshold) first = t + j;
        }
        if (__ballot_sync(ALL, first != SILENT) == ALL) break;
    }
    return first;
}

// `lam` is the gradient on the current of the step after, 0 after the last. `through` is what the gradient flows
// through: the threshold (of a multi-spike neuron) or 1 (of a single-spike one) if the reset or mask is attached, 0 if
// it is not.
template <int KIND>
DEVICE LeakSums lif_back(Scan at, Lanes lanes, Span span, In<float> state, In<float> membrane, bool given,
                         Out<float> grad, float beta, float lam, float threshold, float through, Surrogate surrogate) {
    Span all = {0, lanes.steps};
    int time = KIND == SINGLE ? first_crossing(state, threshold, lanes) : SILENT;
    int top = span.to - 1;
    Chunk next_u = load_chunk<-1>(state, top, all, lanes.width);
    Chunk next_g = no_chunk(), next_m = no_chunk();
    if (KIND != INTEGRATOR) next_g = load_chunk<-1>(grad, top, span, lanes.width);
    if (given) next_m = load_chunk<-1>(membrane, top, span, lanes.width);
    float sum = 0.0f, on_beta = 0.0f, on_mask = 0.0f;
    for (; top >= span.from; top -= CHUNK) {
        Chunk u = next_u, g = next_g, m = next_m, slope = next_u;
        next_u = load_chunk<-1>(state, top - CHUNK, all, lanes.width);
        if (KIND != INTEGRATOR) {
            next_g = load_chunk<-1>(grad, top - CHUNK, span, lanes.width);
#pragma unroll
            for (int j = 0; j < CHUNK; ++j) slope.x[j] = u.x[j] - threshold;
            slopes(surrogate, slope.x);
        }
        if (given) next_m = load_chunk<-1>(membrane, top - CHUNK, span, lanes.width);
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            int t = top - j;
            if (t < span.from) continue;
            // The membrane that step t began with.
            float v = j + 1 < CHUNK ? u.x[(j + 1) % CHUNK] : next_u.x[0];
            float carried = beta * lam;
            if (KIND == INTEGRATOR) lam = m.x[j] + carried;
            if (KIND == MULTI) {
                lam = m.x[j] + carried + (g.x[j] - through * carried) * slope.x[j];
                if (t > 0 && v > threshold) v -= threshold;
            }
            if (KIND == SINGLE) {
                // S against the mask before it: equal before the spike, above at it, below after it.
                float w = t < time ? 0.5f : t == time ? 1.0f : 0.0f;
                float gs = g.x[j] + w * on_mask;
                float gv = m.x[j] + carried;
                float h = u.x[j] > threshold ? 1.0f : 0.0f;
                on_mask = through * ((1.0f - w) * on_mask - gs * h - gv * u.x[j]);
                lam = t <= time ? gv + gs * slope.x[j] : 0.0f;
                if (t > time && t - 1 > time) v = 0.0f;
            }
            g.x[j] = lam;
            sum += lam;
            on_beta += lam * v;
        }
        store_chunk<-1>(grad, g, top, span, lanes.width, at.live);
    }
    return {lam, sum, on_beta};
}

BLOCK_KERNEL lif_backward(In<float> state, In<float> beta, int stride, In<float> initial, In<float> membrane,
                          Out<float> grad, Out<float> grad_beta, Out<float> grad_initial, Out<float> current_sum,
                          Lanes lanes, Surrogate surrogate, int kind, float threshold, float through) {
    Scan at = scan_of(lanes);
    if (at.b >= lanes.batch) return;
    float raw = beta[(i64)at.n * stride], decay = clamp_decay(raw);
    bool given = membrane ? true : false;
    In<float> u = state + at.first, m = membrane + at.first;
    Out<float> g = grad + at.first;
    LeakSums sums = {0.0f, 0.0f, 0.0f};
    Span all = {0, lanes.steps};
    if (kind == INTEGRATOR) {
        sums = lif_back<INTEGRATOR>(at, lanes, all, u, m, given, g, decay, 0.0f, threshold, through, surrogate);
    }
    if (kind == MULTI) {
        sums = lif_back<MULTI>(at, lanes, all, u, m, given, g, decay, 0.0f, threshold, through, surrogate);
    }
    if (kind == SINGLE) {
        sums = lif_back<SINGLE>(at, lanes, all, u, m, given, g, decay, 0.0f, threshold, through, surrogate);
    }
    store_leak(at, sums, raw, initial, true, grad_beta, grad_initial, current_sum);
}

// The integrator cut in time: every span from nothing, then again with what the later ones leave.
BLOCK_KERNEL integrator_backward(In<float> state, In<float> beta, int stride, In<float> initial, In<float> membrane,
                                 Out<float> grad, Out<float> grad_beta, Out<float> grad_initial, Out<float> current_sum,
                                 Lanes lanes, Surrogate surrogate) {
    Scan at = wide_scan_of(lanes);
    int c = threadIdx.x / 32;
    Span span = cut_of(lanes.steps, c);
    float raw = beta[(i64)at.n * stride], decay = clamp_decay(raw), lam = 0.0f;
    bool given = membrane ? true : false;
    In<float> m = membrane + at.first;
    if (given) {
        float end = 0.0f, left = 1.0f;
        Chunk next = load_chunk<-1>(m, span.to - 1, span, lanes.width);
        for (int top = span.to - 1; top >= span.from; top -= CHUNK) {
            Chunk now = next;
            next = load_chunk<-1>(m, top - CHUNK, span, lanes.width);
#pragma unroll
            for (int j = 0; j < CHUNK; ++j) {
                if (top - j < span.from) continue;
                end = now.x[j] + decay * end;
                left = decay * left;
            }
        }
        Shared ends = share(end), lefts = share(left);
#pragma unroll
        for (int i = CUTS - 1; i > 0; --i) {
            if (i > c) lam = ends.x[i] + lefts.x[i] * lam;
        }
    }
    LeakSums sums = lif_back<INTEGRATOR>(at, lanes, span, state + at.first, m, given, grad + at.first, decay, lam, 0.0f,
                                         0.0f, surrogate);
    sums.sum = share_sum(sums.sum);
    sums.beta = share_sum(sums.beta);
    // The first span ends at step 0.
    if (c == 0) store_leak(at, sums, raw, initial, true, grad_beta, grad_initial, current_sum);
}

// The membrane of the single-spike neuron after its spike is 0.
KERNEL lif_membrane(Out<float> state, Lanes lanes, float threshold) {
    Scan at = scan_of(lanes);
    if (at.b >= lanes.batch || !at.live) return;
    Out<float> x = state + at.first;
    Span span = {0, lanes.steps};
    Chunk next = load_chunk<1>(x, 0, span, lanes.width);
    bool spent = false;
    for (int t = 0; t < lanes.steps; t += CHUNK) {
        Chunk now = next;
        next = load_chunk<1>(x, t + CHUNK, span, lanes.width);
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            bool fires = now.x[j] > threshold;
            if (spent) now.x[j] = 0.0f;
            spent = spent || fires;
        }
        store_chunk<1>(x, now, t, span, lanes.width, true);
    }
}
