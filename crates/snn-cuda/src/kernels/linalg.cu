// Arithmetic on whole arrays, shifts and reductions along time, masks.

KERNEL add_bias(In<float> bias, int width, i64 len, Out<float> x) {
    i64 i = global_thread();
    if (i < len) x[i] += bias[i % width];
}

KERNEL add_assign(In<float> x, Out<float> y, i64 len) {
    i64 i = global_thread();
    if (i < len) y[i] += x[i];
}

KERNEL add_scaled(float factor, In<float> x, Out<float> y, i64 len) {
    i64 i = global_thread();
    if (i < len) y[i] += factor * x[i];
}

KERNEL add_constant(float value, Out<float> x, i64 len) {
    i64 i = global_thread();
    if (i < len) x[i] += value;
}

KERNEL relu(Out<float> x, i64 len) {
    i64 i = global_thread();
    if (i < len) x[i] = fmaxf(x[i], 0.0f);
}

KERNEL relu_grad(In<float> y, Out<float> grad, i64 len) {
    i64 i = global_thread();
    if (i < len && !(y[i] > 0.0f)) grad[i] = 0.0f;
}

// Where an entry of [B, T, N] lies.
struct Entry {
    i64 b;
    int t, n;
};
DEVICE Entry entry_of(i64 i, int steps, int width) {
    i64 row = i / width;
    Entry at;
    at.n = (int)(i - row * width);
    at.b = row / steps;
    at.t = (int)(row - at.b * steps);
    return at;
}

KERNEL repeat_steps(In<float> x, Out<float> out, i64 len, int steps, int width, float factor) {
    i64 i = global_thread();
    if (i >= len) return;
    Entry at = entry_of(i, steps, width);
    out[i] = factor * x[at.b * width + at.n];
}

// The value of a lane at one step, 0 at the others: at the last step where `step` is absent.
KERNEL place_steps(In<float> x, In<u32> step, Out<float> out, i64 len, int steps, int width) {
    i64 i = global_thread();
    if (i >= len) return;
    Entry at = entry_of(i, steps, width);
    i64 lane = at.b * width + at.n;
    int wanted = step ? (int)step[lane] : steps - 1;
    out[i] = at.t == wanted ? x[lane] : 0.0f;
}

KERNEL last_steps(In<float> x, Out<float> out, i64 lanes, int steps, int width) {
    i64 i = global_thread();
    if (i >= lanes) return;
    i64 b = i / width;
    out[i] = x[(b * steps + steps - 1) * width + (i - b * width)];
}

// The maximum over time and the first step that has it. A block has `columns` neurons of one sample; its threads share
// the steps.
BLOCK_KERNEL largest_steps(In<float> x, Out<float> out, Out<u32> step, int steps, int width, int columns) {
    __shared__ float tops[256];
    __shared__ int firsts[256];
    int blocks = (width + columns - 1) / columns;
    int b = blockIdx.x / blocks, n = (int)(blockIdx.x % blocks) * columns + (int)threadIdx.x % columns;
    int lanes = 256 / columns, lane = threadIdx.x / columns;
    i64 start = (i64)b * steps * width + n;
    bool inside = n < width && lane < lanes;
    float top = -__int_as_float(0x7f800000);
    int first = steps;
    if (inside) {
#pragma unroll 4
        for (int t = lane; t < steps; t += lanes) {
            float value = x[start + (i64)t * width];
            // An equal value counts if nothing has been found yet: minus infinity is a maximum too.
            if (value > top || (value == top && t < first)) {
                top = value;
                first = t;
            }
        }
    }
    tops[threadIdx.x] = top;
    firsts[threadIdx.x] = first;
    for (int rest = lanes; rest > 1;) {
        int half = (rest + 1) / 2;
        __syncthreads();
        if (lane + half < rest) {
            int other = threadIdx.x + half * columns;
            float value = tops[other];
            if (value > top || (value == top && firsts[other] < first)) {
                top = tops[threadIdx.x] = value;
                first = firsts[threadIdx.x] = firsts[other];
            }
        }
        rest = half;
    }
    if (inside && lane == 0) {
        // What is not a number counts at the first step alone, where nothing is larger.
        float value = x[start];
        bool holds = value != value;
        i64 at = (i64)b * width + n;
        out[at] = holds ? value : top;
        step[at] = holds ? 0u : (u32)first;
    }
}

KERNEL delay(In<float> x, Out<float> out, i64 len, int steps, int width) {
    i64 i = global_thread();
    if (i >= len) return;
    out[i] = i / width % steps > 0 ? x[i - width] : 0.0f;
}

// In place, so every lane walks its own time.
KERNEL advance(Out<float> x, i64 lanes, int steps, int width) {
    i64 i = global_thread();
    if (i >= lanes) return;
    i64 b = i / width;
    i64 at = b * steps * width + (i - b * width);
    int t = 0;
    for (; t + 8 < steps; t += 8) {
        float next[8];
#pragma unroll
        for (int u = 0; u < 8; ++u) next[u] = x[at + (i64)(t + 1 + u) * width];
#pragma unroll
        for (int u = 0; u < 8; ++u) x[at + (i64)(t + u) * width] = next[u];
    }
    for (; t < steps; ++t) x[at + (i64)t * width] = t + 1 < steps ? x[at + (i64)(t + 1) * width] : 0.0f;
}

KERNEL unfold_steps(In<float> x, Out<float> out, i64 len, int steps, int width, int taps) {
    i64 o = global_thread();
    if (o >= len) return;
    i64 i = o / taps;
    int d = (int)(o - i * taps), step = (int)(i / width % steps);
    out[o] = d <= step ? x[i - (i64)d * width] : 0.0f;
}

KERNEL fold_steps(In<float> x, Out<float> out, i64 len, int steps, int width, int taps) {
    i64 i = global_thread();
    if (i >= len) return;
    int later = min(taps, steps - (int)(i / width % steps));
    float sum = 0.0f;
#pragma unroll 4
    for (int d = 0; d < later; ++d) sum += x[(i + (i64)d * width) * taps + d];
    out[i] = sum;
}

// A mask [B, N] as bits [B][words].
BLOCK_KERNEL mask_bits(In<float> mask, Out<u32> bits, int batch, int width) {
    Lane lane = lane_of(width);
    bool inside = lane.b < batch && lane.n < width;
    bool kept = inside && mask[(i64)lane.b * width + lane.n] != 0.0f;
    u32 word = __ballot_sync(ALL, kept);
    if (lane.b < batch && threadIdx.x % 32 == 0) bits[(i64)lane.b * words_of(width) + lane.word] = word;
}

KERNEL mask_spikes(In<u32> bits, In<u32> words, Out<u32> out, i64 len, i64 rows, int steps, int per_row) {
    i64 i = global_thread();
    if (i >= len) return;
    i64 row = i / per_row;
    i64 b = row % rows / steps;
    out[i] = words[i] & bits[b * per_row + (i - row * per_row)];
}

KERNEL mask_values(In<float> mask, Out<float> x, i64 len, int steps, int width) {
    i64 i = global_thread();
    if (i >= len) return;
    Entry at = entry_of(i, steps, width);
    x[i] *= mask[at.b * width + at.n];
}

// A square matrix with rows and columns exchanged, tile by tile.
BLOCK_KERNEL transpose(In<float> x, Out<float> out, int width) {
    __shared__ float tile[32][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    for (int k = threadIdx.y; k < 32; k += blockDim.y) {
        int row = blockIdx.y * 32 + k;
        if (row < width && column < width) tile[k][threadIdx.x] = x[(i64)row * width + column];
    }
    __syncthreads();
    int out_column = blockIdx.y * 32 + threadIdx.x;
    for (int k = threadIdx.y; k < 32; k += blockDim.y) {
        int row = blockIdx.x * 32 + k;
        if (row < width && out_column < width) out[(i64)row * width + out_column] = tile[threadIdx.x][k];
    }
}
