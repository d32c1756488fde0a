// Softmax over the neurons of a step, and losses: one warp for each row.

#define INFINITE __int_as_float(0x7f800000)

DEVICE float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL, value, distance);
    return value;
}
DEVICE float warp_max(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(ALL, value, distance));
    return value;
}

// The row of this warp. All lanes of a warp have the same one, so they stay or leave together.
DEVICE i64 warp_row() { return global_thread() / 32; }
DEVICE int warp_lane() { return threadIdx.x % 32; }

// The largest entry of a row, and the sum of the exponentials of what the others lie below it.
struct Softmax {
    float top, sum;
};
DEVICE Softmax softmax_of(In<float> row, int width) {
    Softmax s;
    s.top = -INFINITE;
    for (int k = warp_lane(); k < width; k += 32) s.top = fmaxf(s.top, row[k]);
    s.top = warp_max(s.top);
    s.sum = 0.0f;
    for (int k = warp_lane(); k < width; k += 32) s.sum += expf(row[k] - s.top);
    s.sum = warp_sum(s.sum);
    return s;
}

BLOCK_KERNEL softmax_rows(In<float> x, Out<float> top, Out<float> sum, i64 rows, int width) {
    i64 row = warp_row();
    if (row >= rows) return;
    Softmax s = softmax_of(x + row * width, width);
    if (warp_lane() == 0) {
        top[row] = s.top;
        sum[row] = s.sum;
    }
}

// The adjoint of a sum over steps of the softmax over neurons; `grad` is [B, N].
BLOCK_KERNEL softmax_rows_grad(In<float> x, In<float> grad, Out<float> grad_x, i64 rows, int steps, int width) {
    i64 row = warp_row();
    if (row >= rows) return;
    In<float> own = x + row * width;
    In<float> incoming = grad + row / steps * width;
    Softmax s = softmax_of(own, width);
    float mean = 0.0f;
    for (int k = warp_lane(); k < width; k += 32) mean += expf(own[k] - s.top) / s.sum * incoming[k];
    mean = warp_sum(mean);
    for (int k = warp_lane(); k < width; k += 32) {
        grad_x[row * width + k] = expf(own[k] - s.top) / s.sum * (incoming[k] - mean);
    }
}

// Whether all logits of a row are minus infinity: such a sample has infinite loss, and its gradient is 0.
DEVICE bool silent(In<float> row, int classes) {
    bool any = false;
    for (int k = warp_lane(); k < classes; k += 32) any |= row[k] != -INFINITE;
    return __ballot_sync(ALL, any) == 0;
}
DEVICE void store_silent(i64 row, Out<float> losses, Out<float> grad, int classes) {
    for (int k = warp_lane(); k < classes; k += 32) grad[row * classes + k] = 0.0f;
    if (warp_lane() == 0) losses[row] = INFINITE;
}

// A target that is no class gives what is not a number.
BLOCK_KERNEL softmax_cross_entropy(In<float> logits, In<u32> targets, Out<float> losses, Out<float> grad, int batch,
                                   int classes) {
    i64 row = warp_row();
    if (row >= batch) return;
    In<float> own = logits + row * classes;
    u32 target = targets[row];
    bool known = target < (u32)classes;
    if (known && silent(own, classes)) {
        store_silent(row, losses, grad, classes);
        return;
    }
    Softmax s = softmax_of(own, classes);
    float scale = known ? 1.0f / (float)batch : __int_as_float(0x7fc00000);
    for (int k = warp_lane(); k < classes; k += 32) {
        float share = expf(own[k] - s.top) * (scale / s.sum);
        grad[row * classes + k] = (u32)k == target ? share - scale : share;
    }
    if (warp_lane() == 0) losses[row] = known ? logf(s.sum) - (own[target] - s.top) : scale;
}

BLOCK_KERNEL soft_cross_entropy(In<float> logits, In<float> targets, Out<float> losses, Out<float> grad, int batch,
                                int classes) {
    i64 row = warp_row();
    if (row >= batch) return;
    In<float> own = logits + row * classes;
    In<float> shares = targets + row * classes;
    if (silent(own, classes)) {
        store_silent(row, losses, grad, classes);
        return;
    }
    Softmax s = softmax_of(own, classes);
    float most = -INFINITE;
    for (int k = warp_lane(); k < classes; k += 32) most = fmaxf(most, shares[k]);
    most = warp_max(most);
    float scale = 1.0f / (float)batch, height = logf(s.sum), loss = 0.0f;
    for (int k = warp_lane(); k < classes; k += 32) {
        float distance = own[k] - s.top;
        if (own[k] != -INFINITE || shares[k] >= most) loss += shares[k] * (height - distance);
        grad[row * classes + k] = (expf(distance) / s.sum - shares[k]) * scale;
    }
    loss = warp_sum(loss);
    if (warp_lane() == 0) losses[row] = loss;
}

BLOCK_KERNEL squared_error(In<float> outputs, In<float> targets, Out<float> losses, Out<float> grad, int batch,
                           int classes) {
    i64 row = warp_row();
    if (row >= batch) return;
    float share = 1.0f / (float)classes, scale = 2.0f / (float)((i64)batch * classes), loss = 0.0f;
    for (int k = warp_lane(); k < classes; k += 32) {
        i64 i = row * classes + k;
        float error = outputs[i] - targets[i];
        loss += share * error * error;
        grad[i] = scale * error;
    }
    loss = warp_sum(loss);
    if (warp_lane() == 0) losses[row] = loss;
}
