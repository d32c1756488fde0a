// Pooling of channel-last maps: maxima of counts and of values, means, and their adjoints. Windows do not overlap, and
// a rest that fills no window is dropped. Adjoints have a thread for each input, which looks up its window.

// As snn_core::shape::Pool; `rows` and `columns` are of the output.
struct Pool {
    int height, width, channels, window, window_width, rows, columns;
};

DEVICE int inputs_of(Pool pool) { return pool.height * pool.width * pool.channels; }
DEVICE int outputs_of(Pool pool) { return pool.rows * pool.columns * pool.channels; }
DEVICE int size_of(Pool pool) { return pool.window * pool.window_width; }

// The first input unit of an output unit's window.
DEVICE int corner_of(Pool pool, int unit) {
    int place = unit / pool.channels, y = place / pool.columns;
    int c = unit - place * pool.channels, x = place - y * pool.columns;
    return (y * pool.window * pool.width + x * pool.window_width) * pool.channels + c;
}
// How far another unit of the window, row-major, lies from the first.
DEVICE int offset_of(Pool pool, int rank) {
    int y = rank / pool.window_width;
    return (y * pool.width + rank - y * pool.window_width) * pool.channels;
}

// The window that holds an input unit, -1 if none does, and the unit's rank there.
struct Target {
    int unit, rank;
};
DEVICE Target target_of(Pool pool, int unit) {
    int place = unit / pool.channels, y = place / pool.width;
    int c = unit - place * pool.channels, x = place - y * pool.width;
    int oy = y / pool.window, ox = x / pool.window_width;
    Target target;
    target.unit = oy < pool.rows && ox < pool.columns ? (oy * pool.columns + ox) * pool.channels + c : -1;
    target.rank = (y - oy * pool.window) * pool.window_width + x - ox * pool.window_width;
    return target;
}

// A warp has a word of the output, and writes it in every plane.
BLOCK_KERNEL pool_spikes(In<u32> words, int planes, i64 rows, Pool pool, Out<u32> out) {
    int outputs = outputs_of(pool), per_row = words_of(inputs_of(pool));
    i64 word = global_thread() / 32;
    i64 row = word / words_of(outputs);
    if (row >= rows) return;
    int unit = (int)(word - row * words_of(outputs)) * 32 + (int)threadIdx.x % 32;
    int largest = 0;
    if (unit < outputs) {
        int corner = corner_of(pool, unit);
        for (int rank = 0; rank < size_of(pool); ++rank) {
            largest = max(largest, spike_count(words, planes, rows, per_row, row, corner + offset_of(pool, rank)));
        }
    }
    for (int p = 0; p < planes; ++p) {
        u32 bits = __ballot_sync(ALL, largest >> p & 1);
        if (threadIdx.x % 32 == 0) out[p * rows * words_of(outputs) + word] = bits;
    }
}

// The same for spikes of one plane whose channels are whole words: a thread has a word, and a maximum is an "or".
KERNEL pool_words(In<u32> words, i64 rows, Pool pool, Out<u32> out) {
    // In words, not units.
    pool.channels /= 32;
    int outputs = outputs_of(pool);
    i64 word = global_thread();
    i64 row = word / outputs;
    if (row >= rows) return;
    i64 corner = row * inputs_of(pool) + corner_of(pool, (int)(word - row * outputs));
    u32 bits = 0;
    for (int rank = 0; rank < size_of(pool); ++rank) bits |= words[corner + offset_of(pool, rank)];
    out[word] = bits;
}

// A silent window's first maximum is its first unit.
KERNEL pool_spikes_grad(In<u32> words, int planes, i64 rows, In<float> grad, Out<float> grad_input, Pool pool) {
    int inputs = inputs_of(pool), per_row = words_of(inputs);
    i64 i = global_thread();
    i64 row = i / inputs;
    if (row >= rows) return;
    int unit = (int)(i - row * inputs);
    Target target = target_of(pool, unit);
    float g = 0.0f;
    if (target.unit >= 0) {
        int own = spike_count(words, planes, rows, per_row, row, unit), corner = unit - offset_of(pool, target.rank);
        bool first = true;
        for (int rank = 0; rank < size_of(pool); ++rank) {
            int count = spike_count(words, planes, rows, per_row, row, corner + offset_of(pool, rank));
            if (rank < target.rank ? count >= own : count > own) first = false;
        }
        if (first) g = grad[row * outputs_of(pool) + target.unit];
    }
    grad_input[i] = g;
}

KERNEL pool_mean(In<float> x, Out<float> out, i64 len, Pool pool) {
    i64 i = global_thread();
    if (i >= len) return;
    int outputs = outputs_of(pool);
    i64 row = i / outputs;
    i64 corner = row * inputs_of(pool) + corner_of(pool, (int)(i - row * outputs));
    float sum = 0.0f;
    for (int rank = 0; rank < size_of(pool); ++rank) sum += x[corner + offset_of(pool, rank)];
    out[i] = sum * (1.0f / (float)size_of(pool));
}

KERNEL pool_spikes_mean(In<u32> words, int planes, i64 rows, Out<float> out, Pool pool) {
    int outputs = outputs_of(pool), per_row = words_of(inputs_of(pool));
    i64 i = global_thread();
    i64 row = i / outputs;
    if (row >= rows) return;
    int corner = corner_of(pool, (int)(i - row * outputs)), sum = 0;
    for (int rank = 0; rank < size_of(pool); ++rank) {
        sum += spike_count(words, planes, rows, per_row, row, corner + offset_of(pool, rank));
    }
    out[i] = (float)sum * (1.0f / (float)size_of(pool));
}

KERNEL pool_mean_grad(In<float> grad, Out<float> grad_input, i64 len, Pool pool) {
    i64 i = global_thread();
    if (i >= len) return;
    int inputs = inputs_of(pool);
    i64 row = i / inputs;
    Target target = target_of(pool, (int)(i - row * inputs));
    float share = 1.0f / (float)size_of(pool);
    grad_input[i] = target.unit >= 0 ? grad[row * outputs_of(pool) + target.unit] * share : 0.0f;
}

KERNEL pool_max(In<float> sign, In<float> x, Out<float> out, Out<u32> at, i64 len, Pool pool) {
    i64 i = global_thread();
    if (i >= len) return;
    int outputs = outputs_of(pool);
    i64 row = i / outputs;
    int unit = (int)(i - row * outputs);
    i64 corner = row * inputs_of(pool) + corner_of(pool, unit);
    float s = sign ? sign[unit % pool.channels] : 1.0f, best = x[corner];
    int first = 0;
    for (int rank = 1; rank < size_of(pool); ++rank) {
        float value = x[corner + offset_of(pool, rank)];
        if (s * value > s * best) {
            best = value;
            first = rank;
        }
    }
    out[i] = best;
    at[i] = (u32)first;
}

KERNEL pool_max_grad(In<u32> at, In<float> grad, Out<float> grad_input, i64 len, Pool pool) {
    i64 i = global_thread();
    if (i >= len) return;
    int inputs = inputs_of(pool);
    i64 row = i / inputs;
    Target target = target_of(pool, (int)(i - row * inputs));
    i64 from = row * outputs_of(pool) + target.unit;
    grad_input[i] = target.unit >= 0 && at[from] == (u32)target.rank ? grad[from] : 0.0f;
}

// The windows of the units of events, 0xffffffff where there is none, and whether there is one.
KERNEL pool_targets(In<u32> units, Out<u32> targets, Out<u32> kept, i64 len, Pool pool) {
    i64 i = global_thread();
    if (i >= len) return;
    int target = target_of(pool, (int)units[i]).unit;
    targets[i] = (u32)target;
    kept[i] = target >= 0 ? 1u : 0u;
}
