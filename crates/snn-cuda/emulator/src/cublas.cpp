// libcublas: the dense product, column-major, in plain loops.
#include <cstdlib>
#include <vector>

#include "device.h"

struct Handle {
    void* stream = nullptr;
};

EXPORT int cublasCreate_v2(Handle** handle) { *handle = new Handle; return 0; }
EXPORT int cublasDestroy_v2(Handle* handle) { delete handle; return 0; }
EXPORT int cublasSetStream_v2(Handle* handle, void* stream) { handle->stream = stream; return 0; }
EXPORT int cublasSetWorkspace_v2(Handle*, void*, size_t) { return 0; }
EXPORT int cublasSetMathMode(Handle*, int) { return 0; }

// Products of matrices at equal distances.
EXPORT int cublasSgemmStridedBatched(Handle* handle, int op_a, int op_b, int m, int n, int k, const float* alpha,
                                     const float* a, int lda, i64 step_a, const float* b, int ldb, i64 step_b,
                                     const float* beta, float* c, int ldc, i64 step_c, int count) {
    float times = *alpha, keep = *beta;
    // A row of a stored matrix must fit between one column and the next, as the library demands.
    if (lda < (op_a ? k : m) || ldb < (op_b ? n : k) || ldc < m) return 7;
    std::function<int()> work = [=] {
        std::vector<float> column(m);
        for (int which = 0; which < count; ++which) {
            const float *first = a + which * step_a, *second = b + which * step_b;
            for (int j = 0; j < n; ++j) {
                std::fill(column.begin(), column.end(), 0.0f);
                for (int l = 0; l < k; ++l) {
                    float factor = op_b ? second[(i64)l * ldb + j] : second[(i64)j * ldb + l];
                    for (int i = 0; i < m; ++i) {
                        column[i] += (op_a ? first[(i64)i * lda + l] : first[(i64)l * lda + i]) * factor;
                    }
                }
                for (int i = 0; i < m; ++i) {
                    float& out = c[which * step_c + (i64)j * ldc + i];
                    out = times * column[i] + (keep == 0.0f ? 0.0f : keep * out);
                }
            }
        }
        return 0;
    };
    return snn_emulator_enqueue(handle->stream, &work);
}

EXPORT int cublasSgemm_v2(Handle* handle, int op_a, int op_b, int m, int n, int k, const float* alpha, const float* a,
                          int lda, const float* b, int ldb, const float* beta, float* c, int ldc) {
    return cublasSgemmStridedBatched(handle, op_a, op_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);
}
