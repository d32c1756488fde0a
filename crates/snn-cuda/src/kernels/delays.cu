// Projections with delays.

// One synapse a thread, neighbouring outputs side by side: the shares of all delays, times its weight. Without sigma the
// nearest whole delay has it all.
KERNEL delay_kernel(In<float> weight, In<float> position, In<float> sigma, i64 synapses, int delays, int width,
                    Out<float> kernel) {
    i64 s = global_thread();
    if (s >= synapses) return;
    i64 at = s / width * delays * width + s % width;
    float p = position[s];
    float nearest = floorf(p + 0.5f);
    if (!sigma) {
        for (int d = 0; d < delays; ++d) kernel[at + (i64)d * width] = nearest == (float)d ? weight[s] : 0.0f;
        return;
    }
    float factor = -0.5f / (sigma[0] * sigma[0]);
    float near = nearest - p, sum = 0.0f;
    for (int d = 0; d < delays; ++d) {
        float far = (float)d - p;
        sum += expf(factor * (far * far - near * near));
    }
    for (int d = 0; d < delays; ++d) {
        float far = (float)d - p;
        kernel[at + (i64)d * width] = weight[s] * (expf(factor * (far * far - near * near)) / sum);
    }
}

KERNEL delay_kernel_grad(In<float> weight, In<float> position, In<float> sigma, In<float> grad_kernel, i64 synapses,
                         int delays, int width, Out<float> grad_weight, Out<float> grad_position) {
    i64 s = global_thread();
    if (s >= synapses) return;
    i64 at = s / width * delays * width + s % width;
    float p = position[s], variance = sigma[0] * sigma[0];
    float factor = -0.5f / variance;
    float near = floorf(p + 0.5f) - p;
    float sum = 0.0f, centre = 0.0f;
    for (int d = 0; d < delays; ++d) {
        float far = (float)d - p;
        float share = expf(factor * (far * far - near * near));
        sum += share;
        centre += share * (float)d;
    }
    centre /= sum;
    float on_weight = 0.0f, on_position = 0.0f;
    for (int d = 0; d < delays; ++d) {
        float far = (float)d - p;
        float g = grad_kernel[at + (i64)d * width] * (expf(factor * (far * far - near * near)) / sum);
        on_weight += g;
        on_position += g * ((float)d - centre);
    }
    grad_weight[s] = on_weight;
    grad_position[s] = weight[s] * on_position / variance;
}

// A warp has one step of the result and 128 columns; the events of each earlier step come with the kernel of their delay.
BLOCK_KERNEL delay_forward(In<u32> words, int planes, i64 rows, int per_row, int steps, int delays, int width,
                           In<float> kernel, Out<float> out) {
    i64 row = (i64)blockIdx.x * 8 + threadIdx.x / 32;
    int first = blockIdx.y * (32 * PER_LANE) + threadIdx.x % 32;
    bool inside = row < rows;
    int reach = (int)(row % steps) + 1;
    if (reach > delays) reach = delays;
    float sum[PER_LANE] = {};
    for (int d = 0; d < reach; ++d) {
        In<float> weight = kernel + (i64)d * width;
        add_events(words, planes, rows, per_row, row - d, inside, weight, (i64)delays * width, first, width, sum);
    }
#pragma unroll
    for (int k = 0; k < PER_LANE; ++k) {
        int n = first + 32 * k;
        if (inside && n < width) out[row * width + n] = sum[k];
    }
}

KERNEL clamp(float low, float high, i64 len, Out<float> x) {
    i64 i = global_thread();
    if (i < len) x[i] = fminf(fmaxf(x[i], low), high);
}
