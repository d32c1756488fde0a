// Products of spikes with dense matrices.

// A warp has one row of the result and 128 columns, a lane every 32nd of them.
BLOCK_KERNEL spikes_product(In<u32> words, int planes, i64 rows, int per_row, int width, In<float> weight, In<float> bias,
                            Out<float> out) {
    i64 row = (i64)blockIdx.x * 8 + threadIdx.x / 32;
    int first = blockIdx.y * (32 * PER_LANE) + threadIdx.x % 32;
    bool inside = row < rows;
    float sum[PER_LANE];
#pragma unroll
    for (int k = 0; k < PER_LANE; ++k) {
        int n = first + 32 * k;
        sum[k] = bias && n < width ? bias[n] : 0.0f;
    }
    add_events(words, planes, rows, per_row, row, inside, weight, width, first, width, sum);
#pragma unroll
    for (int k = 0; k < PER_LANE; ++k) {
        int n = first + 32 * k;
        if (inside && n < width) out[row * width + n] = sum[k];
    }
}

// A warp has 32 inputs, the bits of one word, and 32 columns, one for each lane: 1024 sums in registers. It goes through
// the rows of its chunk, 32 at a time, and past those where none of its inputs was active. `partial` is
// [chunks][inputs][delays][width]; the delay, blockIdx.z, is how many steps after its event a gradient is taken.
BLOCK_KERNEL spikes_weight_grad(In<u32> words, int planes, i64 rows, int steps, int inputs, int width, i64 chunk,
                                In<float> grad, Out<float> partial) {
    int per_row = words_of(inputs), tiles = words_of(width);
    i64 warp = (i64)blockIdx.x * 8 + threadIdx.x / 32;
    int lane = threadIdx.x % 32, late = blockIdx.z;
    int word = (int)(warp / tiles), n = (int)(warp % tiles) * 32 + lane;
    bool inside = word < per_row;
    int column = min(n, width - 1);
    i64 begin = blockIdx.y * chunk;
    i64 end = begin + chunk < rows ? begin + chunk : rows;
    float sum[32];
#pragma unroll
    for (int i = 0; i < 32; ++i) sum[i] = 0.0f;
    for (int p = 0; p < planes; ++p) {
        float count = (float)(1u << p);
        for (i64 from = begin; from < end; from += 32) {
            i64 mine = from + lane;
            bool reaches = inside && mine < end && mine % steps + late < steps;
            u32 bits = reaches ? words[(p * rows + mine) * per_row + word] : 0u;
            if (__ballot_sync(ALL, bits != 0) == 0) continue;
            // Each input takes the rows where it was active. Lanes past the last column do as that one does.
            In<float> first = grad + ((from + late) * width + column);
#pragma unroll
            for (int i = 0; i < 32; ++i) {
                u32 active = __ballot_sync(ALL, bits >> i & 1u);
                while (active != 0) {
                    int row = __ffs(active) - 1;
                    active &= active - 1;
                    sum[i] += count * first[row * width];
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 32; ++i) {
        i64 input = 32 * word + i;
        if (inside && input < inputs && n < width) {
            partial[((blockIdx.y * (i64)inputs + input) * gridDim.z + late) * width + n] = sum[i];
        }
    }
}
