// Sums over rows in a fixed order, and what normalises channels with them.
//
// A block has some neighbouring columns and a part of the rows. Its threads are lanes of one row each: a lane takes
// every so many rows, and the lanes' sums are joined by halves. Parts are joined in double precision.

struct Part {
    i64 part, from, to;
    int column;
    bool inside;
};
DEVICE Part part_of(i64 rows, i64 per_part, int width, int columns) {
    int blocks = (width + columns - 1) / columns;
    Part part;
    part.part = blockIdx.x / blocks;
    part.from = part.part * per_part;
    part.to = min(part.from + per_part, rows);
    part.column = (int)(blockIdx.x % blocks) * columns + (int)threadIdx.x % columns;
    part.inside = part.column < width;
    return part;
}

// The sum of `value(row)` over the rows of a part. Calls `give` with it on one thread for each column.
template <class Sum, class Value, class Give>
DEVICE void sum_part(Part part, int columns, Value value, Give give) {
    __shared__ Sum sums[256];
    int lanes = 256 / columns, lane = threadIdx.x / columns;
    Sum sum = 0;
    if (part.inside && lane < lanes) {
#pragma unroll 8
        for (i64 row = part.from + lane; row < part.to; row += lanes) sum += value(row);
    }
    sums[threadIdx.x] = sum;
    for (int rest = lanes; rest > 1;) {
        int half = (rest + 1) / 2;
        __syncthreads();
        if (lane + half < rest) sums[threadIdx.x] += sums[threadIdx.x + half * columns];
        rest = half;
    }
    if (part.inside && lane == 0) give(sums[threadIdx.x]);
}

BLOCK_KERNEL sum_rows(In<float> x, Out<float> sums, i64 rows, i64 per_part, int width, int columns, float factor) {
    Part part = part_of(rows, per_part, width, columns);
    sum_part<float>(
        part, columns, [&](i64 row) { return x[row * width + part.column]; },
        [&](float sum) { sums[part.part * width + part.column] = factor * sum; });
}

BLOCK_KERNEL sum_products(In<float> x, In<float> y, Out<float> sums, i64 rows, i64 per_part, int width, int columns) {
    Part part = part_of(rows, per_part, width, columns);
    sum_part<float>(
        part, columns, [&](i64 row) { return x[row * width + part.column] * y[row * width + part.column]; },
        [&](float sum) { sums[part.part * width + part.column] = sum; });
}

// Squared distances from a mean for each column.
BLOCK_KERNEL sum_squares(In<float> x, In<float> mean, Out<float> sums, i64 rows, i64 per_part, int width, int columns) {
    Part part = part_of(rows, per_part, width, columns);
    float middle = part.inside ? mean[part.column] : 0.0f;
    sum_part<float>(
        part, columns,
        [&](i64 row) {
            float distance = x[row * width + part.column] - middle;
            return distance * distance;
        },
        [&](float sum) { sums[part.part * width + part.column] = sum; });
}

// Softmax over each row, from its maximum and the sum of its exponentials.
BLOCK_KERNEL sum_softmax(In<float> x, In<float> top, In<float> total, Out<float> sums, i64 rows, i64 per_part,
                         int width, int columns) {
    Part part = part_of(rows, per_part, width, columns);
    sum_part<float>(
        part, columns, [&](i64 row) { return expf(x[row * width + part.column] - top[row]) / total[row]; },
        [&](float sum) { sums[part.part * width + part.column] = sum; });
}

// A part is a region: the rows that belong to it.
BLOCK_KERNEL sum_regions(In<float> x, In<u32> region, Out<float> sums, i64 rows, int width, int columns) {
    Part part = part_of(rows, 0, width, columns);
    part.from = 0;
    part.to = rows;
    sum_part<float>(
        part, columns, [&](i64 row) { return region[row] == (u32)part.part ? x[row * width + part.column] : 0.0f; },
        [&](float sum) { sums[part.part * width + part.column] = sum; });
}

BLOCK_KERNEL join_sums(In<float> parts, Out<float> out, i64 count, int width, int columns, double factor) {
    Part part = part_of(count, count, width, columns);
    sum_part<double>(
        part, columns, [&](i64 row) { return (double)parts[row * width + part.column]; },
        [&](double sum) { out[part.column] = (float)(sum * factor); });
}

// One over the deviation of each channel.
KERNEL inverse_deviations(In<float> variance, Out<float> inverse, int channels, double eps) {
    i64 c = global_thread();
    if (c < channels) inverse[c] = (float)(1.0 / sqrt((double)variance[c] + eps));
}

KERNEL normalise_channels(In<float> mean, In<float> inverse, In<float> gain, In<float> offset, Out<float> x,
                          Out<float> normalised, i64 len, int channels) {
    i64 i = global_thread();
    if (i >= len) return;
    int c = (int)(i % channels);
    float h = (x[i] - mean[c]) * inverse[c];
    if (normalised) normalised[i] = h;
    x[i] = gain[c] * h + offset[c];
}

KERNEL normalise_channels_grad(In<float> gain, In<float> inverse, In<float> grad_gain, In<float> grad_offset,
                               In<float> grad, Out<float> normalised, i64 len, int channels, double share) {
    i64 i = global_thread();
    if (i >= len) return;
    int c = (int)(i % channels);
    float level = (float)(grad_offset[c] * share), slope = (float)(grad_gain[c] * share);
    normalised[i] = gain[c] * inverse[c] * (grad[i] - level - normalised[i] * slope);
}
