// What kernels find instead of the CUDA compiler's own: its keywords, built-in variables and functions.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#define SNN_EMULATOR
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
// One block runs at a time on each thread of the host.
#define __shared__ static thread_local
#define KERNEL static void
#define BLOCK_KERNEL static void
#define DYNAMIC_SHARED(T, name) Out<T> name = emulator::dynamic_shared<T>()

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emulator {

struct Kernel {
    const char* name;
    void (*call)(void** arguments);
    bool together;
    const int* sizes;  // of the arguments, bytes; 0 behind the last
};
struct File {
    const char* name;
    const Kernel* kernels;
};
extern const File files[];

struct Thread {
    dim3 index, block;
    dim3 block_dim, grid_dim;
};
extern thread_local Thread now;

// The allocation that holds an address, as its first and last address; throws where there is none.
struct Range {
    const char *begin, *end;
};
Range range_of(const void* address);

[[noreturn]] void fail(const std::string& what);
void barrier();
// All lanes of the warp give a value; afterwards each can see those of all.
const u64* exchange(u64 value, const char* what);
int lane();
int lanes();
void* dynamic_begin();
size_t dynamic_bytes();

// An array that checks every access.
template <class T> struct Checked {
    T* at = nullptr;
    T* begin = nullptr;
    T* end = nullptr;

    Checked() = default;
    Checked(T* at, T* begin, T* end) : at(at), begin(begin), end(end) {}
    template <class U> Checked(const Checked<U>& other) : at(other.at), begin(other.begin), end(other.end) {}

    T& operator[](i64 i) const {
        T* entry = at + i;
        if (entry < begin || entry >= end) {
            fail("entry " + std::to_string(i + (at - begin)) + " of an array of " + std::to_string(end - begin));
        }
        return *entry;
    }
    T& operator*() const { return (*this)[0]; }
    Checked operator+(i64 i) const { return {at + i, begin, end}; }
    Checked operator-(i64 i) const { return {at - i, begin, end}; }
    Checked& operator+=(i64 i) { at += i; return *this; }
    Checked& operator-=(i64 i) { at -= i; return *this; }
    explicit operator bool() const { return at != nullptr; }
};

template <class T> struct Pointee { static constexpr bool is = false; };
template <class T> struct Pointee<Checked<T>> { static constexpr bool is = true; using type = T; };

template <class T> constexpr int size_of() { return Pointee<T>::is ? 8 : sizeof(T); }

template <class T> T argument(void* from) {
    if constexpr (Pointee<T>::is) {
        using E = typename Pointee<T>::type;
        E* address;
        std::memcpy(&address, from, sizeof address);
        if (!address) return {};
        Range range = range_of(address);
        return {address, (E*)range.begin, (E*)range.end};
    } else {
        T value;
        std::memcpy(&value, from, sizeof value);
        return value;
    }
}

template <class T> Checked<T> dynamic_shared() {
    T* begin = (T*)dynamic_begin();
    return {begin, begin, begin + dynamic_bytes() / sizeof(T)};
}

template <class T> u64 pack(T value) {
    static_assert(sizeof(T) <= 8);
    u64 word = 0;
    std::memcpy(&word, &value, sizeof value);
    return word;
}
template <class T> T unpack(u64 word) {
    T value;
    std::memcpy(&value, &word, sizeof value);
    return value;
}
template <class T> T from_lane(T value, int source, const char* what) {
    const u64* all = exchange(pack(value), what);
    return source >= 0 && source < lanes() ? unpack<T>(all[source]) : value;
}

}  // namespace emulator

template <class T> using In = emulator::Checked<const T>;
template <class T> using Out = emulator::Checked<T>;

template <class T> Out<T> buffer_at(u64 address) { return emulator::argument<Out<T>>(&address); }

#define threadIdx (emulator::now.index)
#define blockIdx (emulator::now.block)
#define blockDim (emulator::now.block_dim)
#define gridDim (emulator::now.grid_dim)
static const int warpSize = 32;

inline void __syncthreads() { emulator::barrier(); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulator::exchange(0, "__syncwarp"); }
template <class T> T __shfl_sync(unsigned, T value, int source, int width = 32) {
    return emulator::from_lane(value, emulator::lane() / width * width + source % width, "__shfl_sync");
}
template <class T> T __shfl_up_sync(unsigned, T value, unsigned by, int width = 32) {
    int from = emulator::lane() - (int)by;
    return emulator::from_lane(value, from < emulator::lane() / width * width ? emulator::lane() : from, "__shfl_up_sync");
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned by, int width = 32) {
    int from = emulator::lane() + (int)by;
    return emulator::from_lane(value, from >= (emulator::lane() / width + 1) * width ? emulator::lane() : from,
                               "__shfl_down_sync");
}
template <class T> T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
    return emulator::from_lane(value, emulator::lane() ^ mask, "__shfl_xor_sync");
}
inline unsigned __ballot_sync(unsigned, int predicate) {
    const u64* all = emulator::exchange(predicate != 0, "__ballot_sync");
    unsigned word = 0;
    for (int i = 0; i < emulator::lanes(); ++i) word |= (unsigned)all[i] << i;
    return word;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

// Threads of the host do not share a launch, so plain operations are atomic.
template <class T> T atomicAdd(T* at, T value) { T old = *at; *at = old + value; return old; }
template <class T> T atomicOr(T* at, T value) { T old = *at; *at = old | value; return old; }
template <class T> T atomicMin(T* at, T value) { T old = *at; if (value < old) *at = value; return old; }
template <class T> T atomicMax(T* at, T value) { T old = *at; if (value > old) *at = value; return old; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(u64 x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline float __int_as_float(int x) { return emulator::unpack<float>(emulator::pack(x)); }
inline int __float_as_int(float x) { return emulator::unpack<int>(emulator::pack(x)); }
inline float __uint_as_float(unsigned x) { return emulator::unpack<float>(emulator::pack(x)); }
inline unsigned __float_as_uint(float x) { return emulator::unpack<unsigned>(emulator::pack(x)); }
inline double __longlong_as_double(i64 x) { return emulator::unpack<double>(emulator::pack(x)); }
inline i64 __double_as_longlong(double x) { return emulator::unpack<i64>(emulator::pack(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((u64)a * b >> 32); }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
using std::isfinite;
using std::isinf;
using std::isnan;
