// The block model: one thread a lane, or few lanes a block of threads.

DEVICE void block_walk(Tiles* tiles, Scan at, Out<float> state, In<float> beta, int stride, In<float> initial,
                       Out<u32> words, Lanes lanes, float threshold, int decays) {
    float decay = clamp_decay(beta[(i64)at.n * stride]);
    // The decayed membrane of the step before.
    float carried = initial ? initial[at.lane] : 0.0f;
    if (decays) carried = decay * carried;
    bool spent = false;
    walk(tiles, at, lanes, state + at.first, [&](Chunk& now, int t) {
        u32 kept = 0;
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            float v = now.x[j] + carried;
            carried = decay * v;
            now.x[j] = v;
            bool fires = !spent && v > threshold;
            spent = spent || fires;
            kept = keep_spikes(kept, j, at.live && fires);
        }
        store_spikes(words, kept, at, t, lanes);
    });
}

BLOCK_KERNEL block_forward(Out<float> state, In<float> beta, int stride, In<float> initial, Out<u32> words, Lanes lanes,
                           float threshold, int decays) {
    Scan at = scan_of(lanes);
    if (at.b < lanes.batch) block_walk(nullptr, at, state, beta, stride, initial, words, lanes, threshold, decays);
}
BLOCK_KERNEL block_forward_relay(Out<float> state, In<float> beta, int stride, In<float> initial, Out<u32> words,
                                 Lanes lanes, float threshold, int decays) {
    __shared__ Tiles tiles;
    block_walk(&tiles, wide_scan_of(lanes), state, beta, stride, initial, words, lanes, threshold, decays);
}

// The gradient on the spikes summed once and twice, and lambda, of the step after.
struct Back {
    float once, twice, lam;
};
// What becomes of all three over a span is linear in them: of `once`, that on lambda and, by the steps, that on
// `twice`; of `twice` and lambda those on lambda.
struct Responses {
    float once, twice, lam;
};

// `STORE`: the gradients themselves; without it the responses.
template <bool STORE>
DEVICE LeakSums block_back(Lanes lanes, Span span, In<float> u, In<float> m, bool given, Out<float> g, float decay,
                           float threshold, Surrogate surrogate, Back& back, Responses& r, bool live) {
    Span all = {0, lanes.steps};
    int top = span.to - 1;
    Chunk next_u = load_chunk<-1>(u, top, all, lanes.width);
    Chunk next_g = load_chunk<-1>(g, top, span, lanes.width);
    Chunk next_m = no_chunk();
    if (given) next_m = load_chunk<-1>(m, top, span, lanes.width);
    LeakSums sums = {back.lam, 0.0f, 0.0f};
    float count = 0.0f;
    for (; top >= span.from; top -= CHUNK) {
        Chunk now_u = next_u, now_g = next_g, now_m = next_m, slope;
        next_u = load_chunk<-1>(u, top - CHUNK, all, lanes.width);
        next_g = load_chunk<-1>(g, top - CHUNK, span, lanes.width);
        if (given) next_m = load_chunk<-1>(m, top - CHUNK, span, lanes.width);
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) slope.x[j] = now_u.x[j] - threshold;
        slopes(surrogate, slope.x);
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            if (top - j < span.from) continue;
            back.once += now_g.x[j];
            back.twice += back.once;
            back.lam = back.twice * slope.x[j] + now_m.x[j] + decay * back.lam;
            if (STORE) {
                float before = j + 1 < CHUNK ? now_u.x[(j + 1) % CHUNK] : next_u.x[0];
                now_g.x[j] = back.lam;
                sums.sum += back.lam;
                sums.beta += back.lam * before;
            } else {
                count += 1.0f;
                r.once = count * slope.x[j] + decay * r.once;
                r.twice = slope.x[j] + decay * r.twice;
                r.lam = decay * r.lam;
            }
        }
        if (STORE) store_chunk<-1>(g, now_g, top, span, lanes.width, live);
    }
    sums.first = back.lam;
    return sums;
}

BLOCK_KERNEL block_backward(In<float> state, In<float> beta, int stride, In<float> initial, In<float> membrane,
                            Out<float> grad, Out<float> grad_beta, Out<float> grad_initial, Out<float> current_sum,
                            Lanes lanes, float threshold, int decays, Surrogate surrogate, int cut) {
    Scan at = cut ? wide_scan_of(lanes) : scan_of(lanes);
    if (at.b >= lanes.batch) return;
    float raw = beta[(i64)at.n * stride], decay = clamp_decay(raw);
    bool given = membrane ? true : false;
    In<float> u = state + at.first, m = membrane + at.first;
    Out<float> g = grad + at.first;
    Span span = {0, lanes.steps};
    Back back = {0.0f, 0.0f, 0.0f};
    Responses r = {0.0f, 0.0f, 1.0f};
    if (cut) {
        int c = threadIdx.x / 32;
        span = cut_of(lanes.steps, c);
        block_back<false>(lanes, span, u, m, given, g, decay, threshold, surrogate, back, r, at.live);
        Shared once = share(back.once), twice = share(back.twice), lam = share(back.lam);
        Shared of_once = share(r.once), of_twice = share(r.twice), of_lam = share(r.lam);
        back = {0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int i = CUTS - 1; i > 0; --i) {
            if (i <= c) continue;
            Span other = cut_of(lanes.steps, i);
            back.lam = of_lam.x[i] * back.lam + of_twice.x[i] * back.twice + of_once.x[i] * back.once + lam.x[i];
            back.twice += (float)(other.to - other.from) * back.once + twice.x[i];
            back.once += once.x[i];
        }
    }
    LeakSums sums = block_back<true>(lanes, span, u, m, given, g, decay, threshold, surrogate, back, r, at.live);
    if (cut) {
        sums.sum = share_sum(sums.sum);
        sums.beta = share_sum(sums.beta);
        // The first span ends at step 0.
        if (threadIdx.x >= 32) at.live = false;
    }
    store_leak(at, sums, raw, initial, decays != 0, grad_beta, grad_initial, current_sum);
}
