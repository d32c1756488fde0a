// What fitting recorded neurons needs: currents from inputs of their own, and distances of spike trains.

// Steps that a thread of `own_current` has, in a window of inputs that it moves over the taps; a block has 32 neurons
// and 8 such groups of steps.
static const int GROUP = 8;

KERNEL own_current(In<float> x, In<float> weight, In<float> bias, Out<float> out, Lanes lanes, int taps) {
    int words = words_of(lanes.width), tiles = (lanes.steps + 8 * GROUP - 1) / (8 * GROUP);
    int n = (int)(blockIdx.x % words) * 32 + threadIdx.x;
    i64 rest = blockIdx.x / words;
    int first = ((int)(rest % tiles) * 8 + threadIdx.y) * GROUP;
    if (n >= lanes.width || first >= lanes.steps) return;
    i64 lane = rest / tiles * lanes.steps * lanes.width + n;
    In<float> mine = x + lane;
    float window[GROUP], sums[GROUP];
#pragma unroll
    for (int j = 0; j < GROUP; ++j) {
        window[j] = first + j < lanes.steps ? mine[(i64)(first + j) * lanes.width] : 0.0f;
        sums[j] = bias[n];
    }
    int last = min(taps, first + GROUP);
#pragma unroll 8
    for (int d = 0; d < last; ++d) {
        float w = weight[(i64)d * lanes.width + n];
#pragma unroll
        for (int j = 0; j < GROUP; ++j) sums[j] += w * window[j];
#pragma unroll
        for (int j = GROUP - 1; j > 0; --j) window[j] = window[j - 1];
        window[0] = first - d > 0 ? mine[(i64)(first - d - 1) * lanes.width] : 0.0f;
    }
#pragma unroll
    for (int j = 0; j < GROUP; ++j) {
        if (first + j < lanes.steps) out[lane + (i64)(first + j) * lanes.width] = sums[j];
    }
}

// Sums over `share` of the tiles of `length` steps that samples consist of, [chunks, taps + 1, N], the last row being
// that of the bias. A thread has GROUP taps of a neuron, a block 8 times as many of 32 neurons.
KERNEL own_current_grad(In<float> x, In<float> grad, Out<float> parts, Lanes lanes, int taps, int length, int share) {
    int words = words_of(lanes.width), tap_blocks = (taps + 8 * GROUP - 1) / (8 * GROUP);
    int n = (int)(blockIdx.x % words) * 32 + threadIdx.x;
    i64 rest = blockIdx.x / words;
    int first = ((int)(rest % tap_blocks) * 8 + threadIdx.y) * GROUP;
    i64 chunk = rest / tap_blocks;
    if (n >= lanes.width || first >= taps) return;
    int tiles = (lanes.steps + length - 1) / length;
    i64 end = min((chunk + 1) * share, (i64)lanes.batch * tiles);
    float sums[GROUP], bias = 0.0f;
#pragma unroll
    for (int k = 0; k < GROUP; ++k) sums[k] = 0.0f;
    for (i64 tile = chunk * share; tile < end; ++tile) {
        i64 lane = tile / tiles * lanes.steps * lanes.width + n;
        In<float> inputs = x + lane, grads = grad + lane;
        int from = (int)(tile % tiles) * length, to = min(lanes.steps, from + length);
        float window[GROUP];
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            int step = from - first - k;
            window[k] = step >= 0 ? inputs[(i64)step * lanes.width] : 0.0f;
        }
#pragma unroll 8
        for (int t = from; t < to; ++t) {
            float g = grads[(i64)t * lanes.width];
            bias += g;
#pragma unroll
            for (int k = 0; k < GROUP; ++k) sums[k] = fmaf(g, window[k], sums[k]);
#pragma unroll
            for (int k = GROUP - 1; k > 0; --k) window[k] = window[k - 1];
            int step = t + 1 - first;
            window[0] = step >= 0 && t + 1 < to ? inputs[(i64)step * lanes.width] : 0.0f;
        }
    }
    Out<float> mine = parts + chunk * (taps + 1) * lanes.width + n;
#pragma unroll
    for (int k = 0; k < GROUP; ++k) {
        if (first + k < taps) mine[(i64)(first + k) * lanes.width] = sums[k];
    }
    if (first == 0) mine[(i64)taps * lanes.width] = bias;
}

KERNEL own_current_sum(In<float> parts, Out<float> grad_weight, Out<float> grad_bias, i64 chunks, i64 weights,
                       int width) {
    i64 i = global_thread();
    if (i >= weights + width) return;
    float sum = 0.0f;
#pragma unroll 8
    for (i64 c = 0; c < chunks; ++c) sum += parts[c * (weights + width) + i];
    if (i < weights) grad_weight[i] = sum;
    else grad_bias[i - weights] = sum;
}

// How the steps of a model lie on the grid of a recording, as snn_core::fit.
struct Raster {
    int pool, window;
};

DEVICE int first_maximum(In<u32> words, int planes, i64 rows, int per_row, i64 row, int window, int n, int& most) {
    int first = 0;
    most = spike_count(words, planes, rows, per_row, row, n);
    for (int k = 1; k < window; ++k) {
        int count = spike_count(words, planes, rows, per_row, row + k, n);
        if (count > most) {
            most = count;
            first = k;
        }
    }
    return first;
}

// Filters a lane on the grid, y [B, G, N], sums its squares, [B, N], and goes back: `grad` receives the gradient
// without the factor that needs the sums of all samples.
KERNEL van_rossum_filter(In<u32> spikes, int planes, In<u32> target, int target_planes, Out<float> y,
                         Out<double> squares, Out<float> grad, Lanes lanes, int grid_steps, Raster raster,
                         float decay) {
    Scan at = scan_of(lanes);
    if (at.b >= lanes.batch || !at.live) return;
    int per_row = words_of(lanes.width), window = raster.window;
    i64 rows = (i64)lanes.batch * lanes.steps, row = (i64)at.b * lanes.steps;
    i64 grid_rows = (i64)lanes.batch * grid_steps, grid_row = (i64)at.b * grid_steps;
    Out<float> mine = y + grid_row * lanes.width + at.n, out = grad + at.first;
    Span span = {0, grid_steps};
    float held = 0.0f;
    double sum = 0.0;
    for (int t = 0; t < grid_steps; t += CHUNK) {
        Chunk now;
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            int step = t + j, count = 0;
            now.x[j] = 0.0f;
            if (step >= grid_steps) continue;
            i64 from = row + (i64)step * window;
            if (raster.pool) first_maximum(spikes, planes, rows, per_row, from, window, at.n, count);
            else if (step % window == 0) count = spike_count(spikes, planes, rows, per_row, row + step / window, at.n);
            count -= spike_count(target, target_planes, grid_rows, per_row, grid_row + step, at.n);
            now.x[j] = (float)count;
        }
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            if (t + j >= grid_steps) continue;
            held = decay * held + now.x[j];
            now.x[j] = held;
            sum += (double)held * (double)held;
        }
        store_chunk<1>(mine, now, t, span, lanes.width, true);
    }
    squares[at.lane] = sum;
    held = 0.0f;
    Chunk next = load_chunk<-1>(mine, grid_steps - 1, span, lanes.width);
    for (int top = grid_steps - 1; top >= 0; top -= CHUNK) {
        Chunk now = next;
        next = load_chunk<-1>(mine, top - CHUNK, span, lanes.width);
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) {
            int step = top - j;
            if (step < 0) continue;
            held = decay * held + now.x[j];
            if (raster.pool) {
                i64 from = row + (i64)step * window;
                int most, first = first_maximum(spikes, planes, rows, per_row, from, window, at.n, most);
                for (int k = 0; k < window; ++k) out[((i64)step * window + k) * lanes.width] = k == first ? held : 0.0f;
            } else if (step % window == 0) {
                out[(i64)(step / window) * lanes.width] = held;
            }
        }
    }
}

// The distances and the factors of their gradients, by blocks of 32 neurons and 8 threads for each.
BLOCK_KERNEL van_rossum_distance(In<double> squares, double scale, int batch, int width, Out<float> distance,
                                 Out<float> factors) {
    __shared__ double parts[8][32];
    int n = blockIdx.x * 32 + threadIdx.x;
    double part = 0.0;
    if (n < width) {
        for (int b = threadIdx.y; b < batch; b += 8) part += squares[(i64)b * width + n];
    }
    parts[threadIdx.y][threadIdx.x] = part;
    __syncthreads();
    if (threadIdx.y > 0 || n >= width) return;
    double sum = 0.0;
    for (int k = 0; k < 8; ++k) sum += parts[k][threadIdx.x];
    double root = sqrt(scale * sum);
    distance[n] = (float)root;
    factors[n] = root > 0.0 ? (float)(scale / root) : 0.0f;
}

KERNEL van_rossum_scale(In<float> factors, Out<float> grad, int width, i64 length) {
    i64 i = global_thread();
    if (i < length) grad[i] *= factors[i % width];
}
