// Convolution of channel-last maps: patches of the maps as rows of a matrix, and the way back.

// As snn_core::shape::Conv; `rows` and `columns` are of the output.
struct Conv {
    int height, width, channels, kernel, kernel_width, stride, padding, padding_width, rows, columns;
};

// The patches of some maps from `first_map` on, one row of taps by channels for each output position. `lanes`
// neighbouring threads have one position. The taps of a kernel row lie side by side in the map as in the patch.
template <class Value> DEVICE void gather(Conv conv, i64 first_map, i64 positions, int lanes, Out<float> patches,
                                          Value value) {
    i64 thread = global_thread();
    i64 position = thread / lanes;
    if (position >= positions) return;
    int lane = (int)(thread - position * lanes);
    i64 line = position / conv.columns, map = line / conv.rows;
    int x = (int)(position - line * conv.columns), y = (int)(line - map * conv.rows);
    int span = conv.kernel_width * conv.channels, width = conv.width * conv.channels;
    int left = (x * conv.stride - conv.padding_width) * conv.channels;
    int top = y * conv.stride - conv.padding;
    Out<float> patch = patches + position * conv.kernel * span;
    for (int ky = 0; ky < conv.kernel; ++ky) {
        int row = top + ky;
        bool inside = row >= 0 && row < conv.height;
#pragma unroll 4
        for (int j = lane; j < span; j += lanes) {
            int at = left + j;
            patch[ky * span + j] = inside && at >= 0 && at < width ? value(first_map + map, row * width + at) : 0.0f;
        }
    }
}

KERNEL gather_dense(In<float> input, Out<float> patches, Conv conv, i64 first_map, i64 positions, int lanes) {
    i64 units = (i64)conv.height * conv.width * conv.channels;
    gather(conv, first_map, positions, lanes, patches, [&](i64 map, int unit) { return input[map * units + unit]; });
}

KERNEL gather_spikes(In<u32> words, int planes, i64 rows, int per_row, Out<float> patches, Conv conv, i64 first_map,
                     i64 positions, int lanes) {
    gather(conv, first_map, positions, lanes, patches,
           [&](i64 map, int unit) { return (float)spike_count(words, planes, rows, per_row, map, unit); });
}

// The adjoint of gather_dense: every unit of the maps sums what patches hold of it, in a fixed order.
KERNEL scatter_patches(In<float> patches, Out<float> grad_input, Conv conv, i64 first_map, i64 units) {
    i64 i = global_thread();
    if (i >= units) return;
    i64 place = i / conv.channels, line = place / conv.width, map = line / conv.height;
    int c = (int)(i - place * conv.channels);
    int x = (int)(place - line * conv.width) + conv.padding_width, y = (int)(line - map * conv.height) + conv.padding;
    // Output rows whose kernel lies over the unit.
    int top = max(0, (y - conv.kernel + conv.stride) / conv.stride);
    int left = max(0, (x - conv.kernel_width + conv.stride) / conv.stride);
    int bottom = min(conv.rows - 1, y / conv.stride), right = min(conv.columns - 1, x / conv.stride);
    i64 fan = (i64)conv.kernel * conv.kernel_width * conv.channels;
    float sum = 0.0f;
    for (int oy = top; oy <= bottom; ++oy) {
        int ky = y - oy * conv.stride;
        for (int ox = left; ox <= right; ++ox) {
            int tap = ky * conv.kernel_width + x - ox * conv.stride;
            i64 position = (map * conv.rows + oy) * conv.columns + ox;
            sum += patches[position * fan + (i64)tap * conv.channels + c];
        }
    }
    grad_input[first_map * conv.height * conv.width * conv.channels + i] = sum;
}
