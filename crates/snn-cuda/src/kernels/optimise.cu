// Optimiser updates of many parameters at once, and sums of squares.

// Parameters of a launch. Each has five 8-byte numbers in halves (addresses of value, gradient and moments, and how many
// entries), then its weight decay and the first of its blocks.
static const int MOST = 64;
struct Slots {
    u32 count;
    u32 slot[MOST][12];
};

// The rule and its constants; what they mean differs by rule.
struct Rule {
    int kind;
    float rate, first, first_rest, second, second_rest, eps, root;
    int decoupled;
};

// Entries of a block.
static const int SPAN = 1024;

KERNEL update(Slots slots, Rule rule) {
    // The parameter of this block: the last that begins with it or before.
    u32 mine = 0;
    while (mine + 1 < slots.count && slots.slot[mine + 1][11] <= blockIdx.x) ++mine;
    const u32* slot = slots.slot[mine];
    auto whole = [&](int i) { return (u64)slot[2 * i] | (u64)slot[2 * i + 1] << 32; };
    auto value = buffer_at<float>(whole(0));
    auto grad = buffer_at<const float>(whole(1));
    auto moment = buffer_at<float>(whole(2));
    auto other = buffer_at<float>(whole(3));
    i64 len = (i64)whole(4);
    float decay = __uint_as_float(slot[10]);
    i64 begin = (i64)(blockIdx.x - slot[11]) * SPAN;
    i64 end = begin + SPAN < len ? begin + SPAN : len;
    for (i64 i = begin + threadIdx.x; i < end; i += blockDim.x) {
        float p = value[i], g = grad[i];
        if (rule.kind == 0) {
            // Gradient descent; `first` is the momentum, `decoupled` Nesterov's variant.
            g = g + decay * p;
            if (rule.first == 0.0f) {
                p -= rule.rate * g;
            } else {
                float v = rule.first * moment[i] + g;
                moment[i] = v;
                p -= rule.rate * (rule.decoupled ? g + rule.first * v : v);
            }
        } else if (rule.kind == 3) {
            // Adamax.
            g = g + decay * p;
            float m = rule.first * moment[i] + rule.first_rest * g;
            float u = fmaxf(rule.second * other[i], fabsf(g) + rule.eps);
            moment[i] = m;
            other[i] = u;
            p -= rule.rate * m / u;
        } else {
            // Adam, and with Nesterov's look ahead (2). Decoupled decay has `decay` as what the parameter keeps.
            if (rule.decoupled) p *= decay;
            else g = g + decay * p;
            float m = rule.first * moment[i] + rule.first_rest * g;
            float v = rule.second * other[i] + rule.second_rest * (g * g);
            moment[i] = m;
            other[i] = v;
            float towards = rule.kind == 2 ? rule.first * m + rule.first_rest * g : m;
            p -= rule.rate * towards / (sqrtf(v) * rule.root + rule.eps);
        }
        value[i] = p;
    }
}

// The sum of squares of each block's entries, in double precision and the same order every time.
BLOCK_KERNEL sum_of_squares(In<float> x, i64 len, int span, Out<double> sums) {
    __shared__ double tree[256];
    i64 begin = (i64)blockIdx.x * span;
    i64 end = begin + span < len ? begin + span : len;
    double sum = 0.0;
    for (i64 i = begin + threadIdx.x; i < end; i += blockDim.x) sum += (double)x[i] * (double)x[i];
    tree[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) tree[threadIdx.x] += tree[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = tree[0];
}

KERNEL scale(float factor, i64 len, Out<float> x) {
    i64 i = global_thread();
    if (i < len) x[i] *= factor;
}
