// Spikes as planes of bits: from lists, to dense arrays, sums, delays, counts.

// `lists` holds where each row begins, rows + 1 entries, then the units of all rows, ascending in each. The words are 0
// before; a thread has one event, and the last of equal ones writes their count.
KERNEL scatter_spikes(In<u32> lists, int planes, i64 rows, int per_row, i64 events, Out<u32> words) {
    i64 e = global_thread();
    if (e >= events) return;
    // The row: the last that begins at or before the event. Empty rows begin where the next one does.
    i64 low = 0, high = rows;
    while (high - low > 1) {
        i64 middle = (low + high) / 2;
        if ((i64)lists[middle] <= e) low = middle;
        else high = middle;
    }
    In<u32> units = lists + (rows + 1);
    i64 begin = lists[low], end = lists[low + 1];
    u32 unit = units[e];
    if (e + 1 < end && units[e + 1] == unit) return;
    i64 first = e;
    while (first > begin && units[first - 1] == unit) --first;
    u32 count = (u32)(e - first + 1);
    for (int p = 0; p < planes; ++p) {
        if (count >> p & 1u) atomicOr(&words[(p * rows + low) * per_row + unit / 32], 1u << (unit % 32));
    }
}

KERNEL dense_spikes(In<u32> words, int planes, i64 rows, int width, Out<float> dense) {
    i64 i = global_thread();
    if (i >= rows * width) return;
    dense[i] = (float)spike_count(words, planes, rows, words_of(width), i / width, (int)(i % width));
}

// One block for each sample; `length` words of a plane belong to it.
BLOCK_KERNEL events_per_sample(In<u32> words, int planes, i64 rows, i64 length, int per_row, Out<u32> counts) {
    __shared__ u32 sums[256];
    u32 count = 0;
    for (int p = 0; p < planes; ++p) {
        In<u32> mine = words + (p * rows * per_row + blockIdx.x * length);
        for (i64 i = threadIdx.x; i < length; i += blockDim.x) count += (u32)__popc(mine[i]) << p;
    }
    sums[threadIdx.x] = count;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) counts[blockIdx.x] = sums[0];
}

// Adds 32 pairs of counts at a time, plane by plane with a carry; `out` has a plane more than either.
KERNEL add_spikes(In<u32> a, int a_planes, In<u32> b, int b_planes, i64 plane, Out<u32> out) {
    i64 i = global_thread();
    if (i >= plane) return;
    int planes = (a_planes > b_planes ? a_planes : b_planes) + 1;
    u32 carry = 0;
    for (int p = 0; p < planes; ++p) {
        u32 x = p < a_planes ? a[p * plane + i] : 0u;
        u32 y = p < b_planes ? b[p * plane + i] : 0u;
        out[p * plane + i] = x ^ y ^ carry;
        carry = (x & y) | (carry & (x ^ y));
    }
}

KERNEL delay_spikes(In<u32> words, int steps, int late, int per_row, i64 length, Out<u32> out) {
    i64 i = global_thread();
    if (i >= length) return;
    int step = (int)(i / per_row % steps);
    out[i] = step >= late ? words[i - (i64)late * per_row] : 0u;
}
