// Neurons that spike at most once: rectifiers with a shift for each region, what happens to their times on the way, and
// what a layer came to.

// Regions of positions as an argument, two in a word: a copy from the host could not be recorded.
struct Regions {
    u32 pairs[960];
};
KERNEL ttfs_regions(Regions regions, Out<u32> region, int from, int count) {
    int i = (int)global_thread();
    if (i < count) region[from + i] = regions.pairs[i / 2] >> (16 * (i % 2)) & 0xffffu;
}

// `region` holds that of each position; absent if there is one. What is `limited` is held at the window's length.
KERNEL ttfs_forward(In<float> shift, In<u32> region, In<float> slope, In<float> window, Out<float> x, i64 len,
                    int positions, int channels, int limited) {
    i64 i = global_thread();
    if (i >= len) return;
    i64 place = i / channels;
    int c = (int)(i - place * channels);
    i64 first = region ? (i64)region[place % positions] * channels : 0;
    float potential = x[i] + shift[first + c];
    float fired = potential > 0.0f ? potential : 0.0f;
    if (limited && fired > window[0]) fired = window[0];
    x[i] = !slope || slope[c] > 0.0f ? fired : 0.0f;
}

KERNEL ttfs_backward(In<float> window, In<float> x, Out<float> grad, i64 len, int limited) {
    i64 i = global_thread();
    if (i >= len) return;
    bool passes = x[i] > 0.0f && !(limited && x[i] >= window[0]);
    if (!passes) grad[i] = 0.0f;
}

// As snn_core::neurons::ttfs::Perturbation.
struct Perturbation {
    int bits, limited;
};
DEVICE float disturbed(float x, double noise,
                       float draw) { return noise == 0.0 ? x : x - (float)(noise * (double)draw); }
DEVICE float perturb(Perturbation p, double noise, float x, float draw, float window) {
    float there = disturbed(x, noise, draw);
    float held = p.limited && there > window ? window : there;
    if (p.bits == 0) return held;
    float step = window / (float)((1u << p.bits) - 1u);
    float clamped = held < 0.0f ? 0.0f : held > window ? window : held;
    return step > 0.0f ? floorf(clamped / step + 0.5f) * step : 0.0f;
}
DEVICE bool passes(Perturbation p, double noise, float x, float draw, float window) {
    float there = disturbed(x, noise, draw);
    return !(p.bits > 0 && there < 0.0f) && !((p.bits > 0 || p.limited) && there > window);
}

// Calls `each(entry, draw)` for the four neurons of a sample that share a block of random words.
template <class Each> DEVICE void with_draws(Draws draws, double noise, i64 rows, int width, Each each) {
    int blocks = (width + 3) / 4;
    i64 i = global_thread();
    i64 sample = i / blocks;
    if (sample >= rows) return;
    int block = (int)(i - sample * blocks);
    Four radius = {}, angle = {};
    if (noise > 0.0) {
        Four counter;
        counter.x[0] = (u32)block;
        counter.x[1] = (u32)sample;
        counter.x[2] = draws.pass;
        counter.x[3] = 6u << 24 | (draws.population & 0x00FFFFFFu);
        radius = philox(counter, draws.seed_low, draws.seed_high);
        counter.x[0] = (u32)blocks + (u32)block;
        angle = philox(counter, draws.seed_low, draws.seed_high);
    }
#pragma unroll
    for (int word = 0; word < 4; ++word) {
        int n = word * blocks + block;
        if (n >= width) continue;
        float draw = 0.0f;
        if (noise > 0.0) {
            double length = sqrt(-2.0 * log((double)open_unit_float(radius.x[word])));
            draw = (float)(length * cos(6.283185307179586 * (double)unit_float(angle.x[word])));
        }
        each(sample * width + n, draw);
    }
}

KERNEL ttfs_perturb(Perturbation p, double noise, Draws draws, In<float> window, In<float> x, Out<float> out, i64 rows,
                    int width) {
    with_draws(draws, noise, rows, width, [&](i64 i, float draw) {
        out[i] = perturb(p, noise, x[i], draw, window[0]);
    });
}

KERNEL ttfs_perturb_grad(Perturbation p, double noise, Draws draws, In<float> window, In<float> x, Out<float> grad,
                         i64 rows, int width) {
    with_draws(draws, noise, rows, width, [&](i64 i, float draw) {
        if (!passes(p, noise, x[i], draw, window[0])) grad[i] = 0.0f;
    });
}

// The larger of two; what is not a number is not larger.
DEVICE float larger(float a, float b) { return b > a ? b : a; }

// One block for each sample.
BLOCK_KERNEL ttfs_census(In<float> window, In<float> x, Out<float> peaks, Out<u32> fired, Out<u32> early, int width) {
    __shared__ float tops[256];
    __shared__ u32 firing[256];
    __shared__ u32 hasty[256];
    int me = threadIdx.x;
    float top = 0.0f;
    u32 firing_here = 0, hasty_here = 0;
    In<float> own = x + (i64)blockIdx.x * width;
#pragma unroll 4
    for (int n = me; n < width; n += 256) {
        top = larger(top, own[n]);
        firing_here += own[n] > 0.0f;
        hasty_here += own[n] > window[0];
    }
    tops[me] = top;
    firing[me] = firing_here;
    hasty[me] = hasty_here;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (me < half) {
            tops[me] = larger(tops[me], tops[me + half]);
            firing[me] += firing[me + half];
            hasty[me] += hasty[me + half];
        }
    }
    if (me == 0) {
        peaks[blockIdx.x] = tops[0];
        fired[blockIdx.x] = firing[0];
        early[blockIdx.x] = hasty[0];
    }
}

// One block.
BLOCK_KERNEL ttfs_grow(float growth, In<float> peaks, Out<float> window, int count) {
    __shared__ float tops[256];
    int me = threadIdx.x;
    float top = window[0];
    for (int i = me; i < count; i += 256) top = larger(top, growth * peaks[i]);
    tops[me] = top;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (me < half) tops[me] = larger(tops[me], tops[me + half]);
    }
    if (me == 0) window[0] = tops[0];
}

KERNEL ttfs_slope(In<float> current, In<float> slope, Out<float> weight, i64 len, int width) {
    i64 i = global_thread();
    if (i >= len) return;
    float b = slope[i % width];
    weight[i] = b > 0.0f ? current[i] / b : 0.0f;
}

// `common` holds the sum of weight times gradient of each neuron.
KERNEL ttfs_slope_grad(In<float> slope, In<float> common, Out<float> grad, i64 len, int width) {
    i64 i = global_thread();
    if (i >= len) return;
    int n = (int)(i % width);
    grad[i] = slope[n] > 0.0f ? (grad[i] - common[n]) / slope[n] : 0.0f;
}

// As snn_core::neurons::ttfs::Grid.
struct Grid {
    float step, zero, low, high;
};
KERNEL quantise(Grid grid, In<float> x, Out<float> out, i64 len) {
    i64 i = global_thread();
    if (i >= len) return;
    float clamped = x[i] < grid.low ? grid.low : x[i] > grid.high ? grid.high : x[i];
    out[i] = (floorf((clamped - grid.low) / grid.step + 0.5f) - grid.zero) * grid.step;
}

KERNEL quantise_grad(Grid grid, In<float> x, Out<float> grad, i64 len) {
    i64 i = global_thread();
    if (i < len && !(x[i] >= grid.low && x[i] <= grid.high)) grad[i] = 0.0f;
}
