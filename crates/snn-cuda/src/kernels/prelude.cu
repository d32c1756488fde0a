// What every kernel file begins with: names of types, arguments with bounds, and helpers of a block.
//
// NVRTC gets this text in front of each file. The emulator of the tests defines SNN_EMULATOR and its own versions of
// the first part, in which In, Out and DYNAMIC_SHARED check every access.
//
//   KERNEL name(...)        threads do not talk to each other: no barrier, no shuffle, no ballot
//   BLOCK_KERNEL name(...)  threads of a block or warp work together; all of them reach every barrier
//
// Arguments: In<T> is read, Out<T> written (and perhaps read); no two may overlap. Absent ones are null: `if (x)`.
// Scalars are int, u32, i64, u64, float, double, or a struct of 4-byte fields. At most 256 threads a block.

#ifndef SNN_EMULATOR
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

template <class T> using In = const T* __restrict__;
template <class T> using Out = T* __restrict__;

// A buffer by its address, for tables of buffers.
template <class T> __device__ __forceinline__ T* buffer_at(u64 address) { return reinterpret_cast<T*>(address); }

#define KERNEL extern "C" __global__ void __launch_bounds__(256)
#define BLOCK_KERNEL extern "C" __global__ void __launch_bounds__(256)
// Shared memory whose size the launch gives.
#define DYNAMIC_SHARED(T, name)                                \
    extern __shared__ __align__(16) unsigned char shared_[];   \
    T* name = reinterpret_cast<T*>(shared_)
#endif

#define DEVICE static __device__ __forceinline__

static const u32 ALL = 0xffffffffu;

// The thread's number in a grid of one dimension.
DEVICE i64 global_thread() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// Scans give a warp 32 neighbouring neurons of one sample, one word of their spikes: `lane_of` says which neuron this
// thread has. Every thread of a warp has the same sample and word. Neurons past the end have `n >= width` and must
// stay until the warp's last ballot.
struct Lane {
    int b, word, n;
};
DEVICE int words_of(int width) { return (width + 31) / 32; }
DEVICE Lane lane_of(int width) {
    i64 thread = global_thread();
    i64 warp = thread / 32;
    Lane lane;
    lane.b = (int)(warp / words_of(width));
    lane.word = (int)(warp % words_of(width));
    lane.n = lane.word * 32 + (int)(thread % 32);
    return lane;
}

// Spikes are planes of bits [planes][rows][words]: a unit's count is the sum over planes p of 2^p times its bit.
DEVICE int spike_count(In<u32> words, int planes, i64 rows, int per_row, i64 row, int unit) {
    int count = 0;
    for (int p = 0; p < planes; ++p) {
        u32 word = words[(p * rows + row) * per_row + unit / 32];
        count |= (int)((word >> (unit % 32)) & 1u) << p;
    }
    return count;
}

// Columns of a lane in add_events.
static const int PER_LANE = 4;

// Adds to the sums of a warp the weights of every event of a row, in ascending order of units: `weight[unit * stride + n]`
// for columns n = first + 32 k below `width`. The lanes look at 32 words at a time and go through those that hold events
// together. `inside` and `row` are the same in all lanes.
DEVICE void add_events(In<u32> words, int planes, i64 rows, int per_row, i64 row, bool inside, In<float> weight, i64 stride,
                       int first, int width, float (&sum)[PER_LANE]) {
    int lane = threadIdx.x % 32;
    for (int from = 0; from < per_row; from += 32) {
        int mine = from + lane;
        u32 any = 0;
        for (int p = 0; p < planes; ++p) {
            if (inside && mine < per_row) any |= words[(p * rows + row) * per_row + mine];
        }
        u32 holders = __ballot_sync(ALL, any != 0);
        while (holders != 0) {
            int holder = __ffs(holders) - 1;
            holders &= holders - 1;
            u32 units = __shfl_sync(ALL, any, holder);
            while (units != 0) {
                int bit = __ffs(units) - 1;
                units &= units - 1;
                int unit = 32 * (from + holder) + bit;
                float count = planes == 1 ? 1.0f : (float)spike_count(words, planes, rows, per_row, row, unit);
                In<float> source = weight + unit * stride;
#pragma unroll
                for (int k = 0; k < PER_LANE; ++k) {
                    int n = first + 32 * k;
                    if (n < width) sum[k] += planes == 1 ? source[n] : count * source[n];
                }
            }
        }
    }
}

// The sum of a value over a block of 256 threads, the same tree every time; all threads get it.
DEVICE float block_sum(float value) {
    __shared__ float tree[256];
    __syncthreads();
    tree[threadIdx.x] = threadIdx.x < blockDim.x ? value : 0.0f;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) tree[threadIdx.x] += tree[threadIdx.x + half];
        __syncthreads();
    }
    return tree[0];
}

// Philox-4x32-10, as in snn_core::random.
struct Four {
    u32 x[4];
};
DEVICE Four philox(Four counter, u32 key0, u32 key1) {
    for (int round = 0; round < 10; ++round) {
        u64 a = (u64)0xD2511F53u * counter.x[0];
        u64 b = (u64)0xCD9E8D57u * counter.x[2];
        Four next;
        next.x[0] = (u32)(b >> 32) ^ counter.x[1] ^ key0;
        next.x[1] = (u32)b;
        next.x[2] = (u32)(a >> 32) ^ counter.x[3] ^ key1;
        next.x[3] = (u32)a;
        counter = next;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}
DEVICE float unit_float(u32 bits) { return (float)(bits >> 8) * (1.0f / 16777216.0f); }
DEVICE float open_unit_float(u32 bits) { return ((float)(bits >> 9) + 0.5f) * (1.0f / 8388608.0f); }

// The draws of a population, as snn_core::random::SpikeDraws.
struct Draws {
    u32 seed_low, seed_high, pass, population;
};
DEVICE u32 draw_bits(Draws draws, int sample, int step, int neuron, int width) {
    int blocks = (width + 3) / 4;
    int block = neuron % blocks, word = neuron / blocks;
    Four counter;
    counter.x[0] = (u32)step * (u32)blocks + (u32)block;
    counter.x[1] = (u32)sample;
    counter.x[2] = draws.pass;
    counter.x[3] = 6u << 24 | (draws.population & 0x00FFFFFFu);
    Four drawn = philox(counter, draws.seed_low, draws.seed_high);
    // Chosen, not indexed: what is indexed cannot stay in registers.
    return word == 0 ? drawn.x[0] : word == 1 ? drawn.x[1] : word == 2 ? drawn.x[2] : drawn.x[3];
}

// Scans.

// The size of an activity, [B, T, N].
struct Lanes {
    int batch, steps, width;
};
// Steps [from, to) of a lane.
struct Span {
    int from, to;
};

// What a thread of a scan works on: neuron `n` of sample `b`, whose step 0 is entry `first` of [B, T, N] and which is
// entry `lane` of [B, N]. Past the last neuron of a word a thread does what the last neuron's does and stores nothing.
struct Scan {
    int b, n, word;
    bool live;
    i64 first, lane;
};
DEVICE Scan scan_at(Lanes lanes, int b, int word, int n) {
    Scan at;
    at.b = b;
    at.word = word;
    at.live = n < lanes.width;
    at.n = at.live ? n : lanes.width - 1;
    at.first = (i64)b * lanes.steps * lanes.width + at.n;
    at.lane = (i64)b * lanes.width + at.n;
    return at;
}
// A thread for each lane; warps past the last sample have nothing to do.
DEVICE Scan scan_of(Lanes lanes) {
    Lane lane = lane_of(lanes.width);
    return scan_at(lanes, lane.b, lane.word, lane.n);
}

// Steps that a scan loads at a time; the next ones are on their way while it works on these.
static const int CHUNK = 8;
struct Chunk {
    float x[CHUNK];
};
// The steps t, t + WAY, ... of a lane whose step 0 is x[0]; 0 outside of the span.
template <int WAY, class X> DEVICE Chunk load_chunk(X x, int t, Span span, int width) {
    Chunk chunk;
#pragma unroll
    for (int j = 0; j < CHUNK; ++j) {
        int step = t + WAY * j;
        chunk.x[j] = step >= span.from && step < span.to ? x[(i64)step * width] : 0.0f;
    }
    return chunk;
}
template <int WAY> DEVICE void store_chunk(Out<float> x, const Chunk& chunk, int t, Span span, int width, bool live) {
#pragma unroll
    for (int j = 0; j < CHUNK; ++j) {
        int step = t + WAY * j;
        if (live && step >= span.from && step < span.to) x[(i64)step * width] = chunk.x[j];
    }
}
DEVICE Chunk no_chunk() {
    Chunk chunk;
#pragma unroll
    for (int j = 0; j < CHUNK; ++j) chunk.x[j] = 0.0f;
    return chunk;
}

// The spikes of a chunk upwards: lane j of the warp keeps the word of its step j, and all are stored at once.
DEVICE u32 keep_spikes(u32 kept, int j, bool fires) {
    u32 word = __ballot_sync(ALL, fires);
    return (int)(threadIdx.x % 32) == j ? word : kept;
}
DEVICE void store_spikes(Out<u32> words, u32 kept, Scan at, int t, Lanes lanes) {
    int lane = threadIdx.x % 32, step = t + lane;
    if (lane < CHUNK && step < lanes.steps) {
        words[((i64)at.b * lanes.steps + step) * words_of(lanes.width) + at.word] = kept;
    }
}

// "No spike" as the step of a spike: larger than every step.
static const int SILENT = 0x7fffffff;

// exp(x) within 2 units in the last place, the same bits as the CPU backend: spikes depend on it.
DEVICE float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504088896340736f + 12582912.0f;
    float n = shifted - 12582912.0f;
    float r = (x - n * 0.693359375f) - n * -2.1219444e-4f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * __uint_as_float((__float_as_uint(shifted) - 0x4B400000u + 127u) << 23);
}

// Surrogate derivatives, as snn_core::surrogate.
struct Surrogate {
    int kind;
    float a, b, c, d, e;
};
static const int FAST_SIGMOID = 0, BOXCAR = 1, MULTI_GAUSSIAN = 2, ARCTAN = 3;
DEVICE float bell(float u, float inverse, float factor) {
    float d = u * inverse;
    return exponential(-0.5f * (d * d)) * factor;
}
DEVICE float multi_gaussian(Surrogate s, float u) {
    float sides = bell(u - s.a, s.c, s.e) + bell(u + s.a, s.c, s.e);
    return bell(u, s.b, s.d) - sides;
}
// Turns distances from the threshold into slopes.
template <int LEN> DEVICE void slopes(Surrogate s, float (&x)[LEN]) {
    if (s.kind == FAST_SIGMOID) {
#pragma unroll
        for (int j = 0; j < LEN; ++j) {
            float d = s.a * fabsf(x[j]) + 1.0f;
            x[j] = 1.0f / (d * d);
        }
    } else if (s.kind == BOXCAR) {
#pragma unroll
        for (int j = 0; j < LEN; ++j) x[j] = x[j] > -s.a && x[j] <= s.a ? 1.0f : 0.0f;
    } else if (s.kind == MULTI_GAUSSIAN) {
#pragma unroll
        for (int j = 0; j < LEN; ++j) x[j] = multi_gaussian(s, x[j]);
    } else {
#pragma unroll
        for (int j = 0; j < LEN; ++j) {
            float d = s.a * x[j];
            x[j] = s.b / (1.0f + d * d);
        }
    }
}

// The decay of a leaky scan.
DEVICE float clamp_decay(float raw) { return raw < 0.0f ? 0.0f : raw > 1.0f ? 1.0f : raw; }

// What the adjoint of a leaky scan has summed, and the gradient on the current of step 0.
struct LeakSums {
    float first, sum, beta;
};
// `decays`: the initial membrane enters step 0 multiplied by the decay.
DEVICE void store_leak(Scan at, LeakSums sums, float raw, In<float> initial, bool decays, Out<float> grad_beta,
                       Out<float> grad_initial, Out<float> current_sum) {
    if (!at.live) return;
    if (grad_beta) {
        float grad = sums.beta;
        if (decays && initial) grad += sums.first * initial[at.lane];
        grad_beta[at.lane] = grad * (raw >= 0.0f && raw <= 1.0f ? 1.0f : 0.0f);
    }
    if (grad_initial) grad_initial[at.lane] = decays ? sums.first * clamp_decay(raw) : sums.first;
    if (current_sum) current_sum[at.lane] = sums.sum;
}

// The decays of a synaptic and a membrane filter as used, and the derivatives of their map.
struct Filters {
    float alpha, beta, gain, alpha_slope, beta_slope;
};
static const int DIRECT = 0, SIGMOID_MAP = 1;
// In double precision: the nearest number to what any good library gives.
DEVICE float logistic(float x) { return 1.0f / (1.0f + (float)exp(-(double)x)); }
// Lists have an entry for each neuron, or one for all with a stride of 0.
DEVICE Filters filters_of(In<float> alpha, int alpha_stride, In<float> beta, int beta_stride, int map, int n) {
    Filters f;
    float raw = beta[(i64)n * beta_stride];
    f.alpha = f.alpha_slope = 0.0f;
    if (map == DIRECT) {
        f.beta = raw;
        f.gain = 1.0f - raw;
        f.beta_slope = 1.0f;
        if (alpha) {
            f.alpha = alpha[(i64)n * alpha_stride];
            f.alpha_slope = 1.0f;
        }
    } else {
        f.beta = logistic(raw);
        // Not 1 - beta, which cancels, and never 0.
        f.gain = fmaxf(logistic(-raw), 1.17549435e-38f);
        f.beta_slope = logistic(raw) * logistic(-raw);
        if (alpha) {
            raw = alpha[(i64)n * alpha_stride];
            f.alpha = logistic(raw);
            f.alpha_slope = logistic(raw) * logistic(-raw);
        }
    }
    return f;
}

// Few and long lanes: a block of 256 threads has 32 of them, so that loads of many steps are on their way.
static const int CUTS = 8;
DEVICE Scan wide_scan_of(Lanes lanes) {
    int words = words_of(lanes.width), word = (int)(blockIdx.x % words);
    return scan_at(lanes, (int)(blockIdx.x / words), word, word * 32 + (int)(threadIdx.x % 32));
}

// The first warp takes the steps in order, in shared memory, with the results of a thread that walks the lane alone;
// the others bring steps there and finish those that it has taken. `take(chunk, t)` gets the chunks from step t on and
// changes them; `finish(chunk, past, earlier, t)` those that are done, and the two values before, in any order.
static const int RELAY = (CUTS - 1) * CHUNK;
typedef float Tiles[4][RELAY][32];
template <class Take, class Finish>
DEVICE void relay(Tiles& tiles, Out<float> x, Lanes lanes, Take take, Finish finish) {
    Span span = {0, lanes.steps};
    int count = (lanes.steps + RELAY - 1) / RELAY, lane = threadIdx.x % 32, row = ((int)threadIdx.x / 32 - 1) * CHUNK;
    Chunk next = no_chunk();
    if (row >= 0) {
        next = load_chunk<1>(x, row, span, lanes.width);
#pragma unroll
        for (int j = 0; j < CHUNK; ++j) tiles[0][row + j][lane] = next.x[j];
        next = load_chunk<1>(x, RELAY + row, span, lanes.width);
    }
    __syncthreads();
    // Tile k is taken, k - 1 finished, k + 1 stored and k + 2 loaded.
    for (int k = 0; k <= count; ++k) {
        if (row < 0 && k < count) {
            for (int r = 0; r < RELAY; r += CHUNK) {
                Chunk now;
#pragma unroll
                for (int j = 0; j < CHUNK; ++j) now.x[j] = tiles[k % 4][r + j][lane];
                take(now, k * RELAY + r);
#pragma unroll
                for (int j = 0; j < CHUNK; ++j) tiles[k % 4][r + j][lane] = now.x[j];
            }
        }
        if (row >= 0) {
#pragma unroll
            for (int j = 0; j < CHUNK; ++j) tiles[(k + 1) % 4][row + j][lane] = next.x[j];
            next = load_chunk<1>(x, (k + 2) * RELAY + row, span, lanes.width);
            if (k > 0) {
                Chunk now;
#pragma unroll
                for (int j = 0; j < CHUNK; ++j) now.x[j] = tiles[(k - 1) % 4][row + j][lane];
                float past = 0.0f, earlier = 0.0f;
                if (row > 0) {
                    past = tiles[(k - 1) % 4][row - 1][lane];
                    earlier = tiles[(k - 1) % 4][row - 2][lane];
                } else if (k > 1) {
                    past = tiles[(k - 2) % 4][RELAY - 1][lane];
                    earlier = tiles[(k - 2) % 4][RELAY - 2][lane];
                }
                finish(now, past, earlier, (k - 1) * RELAY + row);
            }
        }
        __syncthreads();
    }
}
// Walks through a lane whose step 0 is x[0], with `tiles` as a relay: `take(chunk, t)` gets the chunks in order and
// changes them, and with them the lane.
template <class Take> DEVICE void walk(Tiles* tiles, Scan at, Lanes lanes, Out<float> x, Take take) {
    Span span = {0, lanes.steps};
    if (tiles) {
        auto finish = [&](const Chunk& done, float, float, int t) {
            store_chunk<1>(x, done, t, span, lanes.width, at.live);
        };
        relay(*tiles, x, lanes, take, finish);
        return;
    }
    Chunk next = load_chunk<1>(x, 0, span, lanes.width);
    for (int t = 0; t < lanes.steps; t += CHUNK) {
        Chunk now = next;
        next = load_chunk<1>(x, t + CHUNK, span, lanes.width);
        take(now, t);
        store_chunk<1>(x, now, t, span, lanes.width, at.live);
    }
}

// Lanes cut in time: each warp has one of the spans of all lanes of the block.
DEVICE Span cut_of(int steps, int c) {
    int length = ((steps + CUTS - 1) / CUTS + CHUNK - 1) / CHUNK * CHUNK;
    Span span;
    span.from = min(steps, c * length);
    span.to = min(steps, span.from + length);
    return span;
}
// Shares a number of every span with the other spans of its lane.
struct Shared {
    float x[CUTS];
};
DEVICE Shared share(float value) {
    __shared__ float all[32 * CUTS];
    __syncthreads();
    all[threadIdx.x] = value;
    __syncthreads();
    Shared shared;
#pragma unroll
    for (int c = 0; c < CUTS; ++c) shared.x[c] = all[32 * c + threadIdx.x % 32];
    return shared;
}
// The sum over the spans of a lane, the last first.
DEVICE float share_sum(float value) {
    Shared all = share(value);
    float sum = 0.0f;
#pragma unroll
    for (int c = CUTS - 1; c >= 0; --c) sum += all.x[c];
    return sum;
}

// Recurrent scans: a block of threads has a sample, and a thread each neuron n with n % threads its number. What their
// neurons need beside registers lies in `work`, shared memory or a part of the device's.

// x plus the weights of all sources whose bits are set, times their values if `scaled`, in ascending order; `weights`
// is the neuron's column of a matrix by source and target.
template <class Work>
DEVICE float add_sources(float x, Work bits, int words, In<float> weights, int width, bool scaled, Work values) {
    u32 rest = 0;
    int w = -1;
    for (;;) {
        // Several loads at a time.
        int source[CHUNK];
        float weight[CHUNK];
#pragma unroll
        for (int k = 0; k < CHUNK; ++k) {
            while (rest == 0 && w + 1 < words) rest = bits[++w];
            source[k] = rest ? w * 32 + __ffs((int)rest) - 1 : -1;
            rest &= rest - 1;
        }
#pragma unroll
        for (int k = 0; k < CHUNK; ++k) weight[k] = source[k] >= 0 ? weights[(i64)source[k] * width] : 0.0f;
#pragma unroll
        for (int k = 0; k < CHUNK; ++k) {
            if (source[k] >= 0) x += scaled ? __uint_as_float(values[source[k]]) * weight[k] : weight[k];
        }
        if (source[CHUNK - 1] < 0) return x;
    }
}
// sums[r] = sum over m from `from` to `to` of rows[r * width + m] weights[m * width], `weights` being a column.
template <int ROWS, class Work>
DEVICE void add_targets(float (&sums)[ROWS], Work rows, In<float> weights, int width, int from, int to) {
    int m = from;
    for (; m + CHUNK <= to; m += CHUNK) {
        float weight[CHUNK];
#pragma unroll
        for (int k = 0; k < CHUNK; ++k) weight[k] = weights[(i64)(m + k) * width];
#pragma unroll
        for (int k = 0; k < CHUNK; ++k) {
#pragma unroll
            for (int r = 0; r < ROWS; ++r) sums[r] = fmaf(rows[(i64)r * width + m + k], weight[k], sums[r]);
        }
    }
    for (; m < to; ++m) {
        float weight = weights[(i64)m * width];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) sums[r] = fmaf(rows[(i64)r * width + m], weight, sums[r]);
    }
}
