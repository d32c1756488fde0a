// libcuda: the functions of the driver that the backend calls. A queue does its work at once.
#include "device.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

using emulator::File;
using emulator::Kernel;

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    CAPTURE_UNSUPPORTED = 900,
};

typedef std::vector<std::function<int()>> Work;
struct Stream {
    std::unique_ptr<Work> captured;
    std::vector<void*> memory;  // taken while capturing; belongs to the graph
};
struct Event {};
struct Module {
    const File* file;
};
struct Function {
    const Kernel* kernel;
};

static int device_count() {
    const char* wanted = std::getenv("SNN_EMULATOR_DEVICES");
    return wanted ? std::atoi(wanted) : 1;
}

// Does something that may throw.
static int attempt(const char* name, const std::function<void()>& work) {
    try {
        work();
        return SUCCESS;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "emulated device: %s: %s\n", name, error.what());
        return ILLEGAL_ADDRESS;
    }
}

int snn_emulator_enqueue(void* stream, const std::function<int()>* work) {
    Stream* queue = (Stream*)stream;
    if (queue && queue->captured) {
        queue->captured->push_back(*work);
        return SUCCESS;
    }
    return (*work)();
}
static int enqueue(void* stream, std::function<int()> work) { return snn_emulator_enqueue(stream, &work); }

// Whether `bytes` bytes from an address on are allocated.
static void check(const void* address, size_t bytes) {
    if ((const char*)address + bytes > emulator::range_of(address).end) emulator::fail("past the end of memory");
}

EXPORT int cuInit(unsigned) { return device_count() > 0 ? SUCCESS : NO_DEVICE; }
EXPORT int cuDriverGetVersion(int* version) { *version = 13000; return SUCCESS; }
EXPORT int cuDeviceGetCount(int* count) { *count = device_count(); return SUCCESS; }
EXPORT int cuDeviceGet(int* device, int ordinal) {
    if (ordinal < 0 || ordinal >= device_count()) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
EXPORT int cuDeviceGetName(char* name, int length, int) {
    std::snprintf(name, (size_t)length, "emulated on the CPU");
    return SUCCESS;
}
EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = (size_t)4 << 30; return SUCCESS; }
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 16: *value = 4; break;    // multiprocessors
        case 75: *value = 9; break;    // compute capability, major
        case 76: *value = 0; break;    // and minor
        case 97: *value = 232448; break; // shared memory of a block, on request
        case 115: *value = 1; break;   // memory pools
        default: *value = 0;
    }
    return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRetain(void** context, int device) { *context = (void*)(intptr_t)(device + 1); return SUCCESS; }
EXPORT int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
static thread_local void* current = nullptr;
EXPORT int cuCtxSetCurrent(void* context) { current = context; return SUCCESS; }
EXPORT int cuCtxGetCurrent(void** context) { *context = current; return SUCCESS; }
EXPORT int cuCtxSynchronize() { return SUCCESS; }
EXPORT int cuMemGetInfo_v2(size_t* available, size_t* total) { *available = *total = (size_t)4 << 30; return SUCCESS; }
EXPORT int cuDeviceGetDefaultMemPool(void** pool, int) { *pool = (void*)1; return SUCCESS; }
EXPORT int cuMemPoolSetAttribute(void*, int, void*) { return SUCCESS; }

EXPORT int cuStreamCreate(void** stream, unsigned) { *stream = new Stream; return SUCCESS; }
EXPORT int cuStreamDestroy_v2(void* stream) { delete (Stream*)stream; return SUCCESS; }
EXPORT int cuStreamSynchronize(void* stream) {
    return ((Stream*)stream)->captured ? CAPTURE_UNSUPPORTED : SUCCESS;
}
EXPORT int cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
EXPORT int cuEventCreate(void** event, unsigned) { *event = new Event; return SUCCESS; }
EXPORT int cuEventDestroy_v2(void* event) { delete (Event*)event; return SUCCESS; }
EXPORT int cuEventRecord(void*, void*) { return SUCCESS; }
EXPORT int cuEventSynchronize(void*) { return SUCCESS; }
EXPORT int cuEventQuery(void*) { return SUCCESS; }
EXPORT int cuEventElapsedTime_v2(float* ms, void*, void*) { *ms = 0; return SUCCESS; }
EXPORT int cuEventElapsedTime(float* ms, void*, void*) { *ms = 0; return SUCCESS; }

EXPORT int cuMemAllocAsync(void** address, size_t bytes, void* stream) {
    *address = bytes > (size_t)4 << 30 ? nullptr : emulator::allocate(bytes);
    if (*address && ((Stream*)stream)->captured) ((Stream*)stream)->memory.push_back(*address);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}
EXPORT int cuMemFreeAsync(void* address, void* stream) {
    // A graph keeps what it took, for the next launch, and can free nothing else.
    auto& kept = ((Stream*)stream)->memory;
    if (((Stream*)stream)->captured) {
        return std::find(kept.begin(), kept.end(), address) != kept.end() ? SUCCESS : INVALID_VALUE;
    }
    return enqueue(stream, [=] { return emulator::release(address) ? SUCCESS : INVALID_VALUE; });
}
EXPORT int cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    *address = std::malloc(bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}
EXPORT int cuMemFreeHost(void* address) { std::free(address); return SUCCESS; }

EXPORT int cuMemsetD8Async(void* to, unsigned char value, size_t count, void* stream) {
    return enqueue(stream, [=] {
        return attempt("cuMemsetD8Async", [=] { check(to, count); std::memset(to, value, count); });
    });
}
EXPORT int cuMemsetD32Async(void* to, unsigned value, size_t count, void* stream) {
    return enqueue(stream, [=] {
        return attempt("cuMemsetD32Async", [=] {
            check(to, 4 * count);
            for (size_t i = 0; i < count; ++i) ((unsigned*)to)[i] = value;
        });
    });
}
EXPORT int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    return enqueue(stream, [=] {
        return attempt("cuMemcpyHtoDAsync", [=] { check(to, bytes); std::memcpy(to, from, bytes); });
    });
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    return enqueue(stream, [=] {
        return attempt("cuMemcpyDtoHAsync", [=] { check(from, bytes); std::memcpy(to, from, bytes); });
    });
}
EXPORT int cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
    return enqueue(stream, [=] {
        return attempt("cuMemcpyDtoDAsync", [=] { check(to, bytes); check(from, bytes); std::memmove(to, from, bytes); });
    });
}

// An image is what the emulated compiler makes: a mark and the file's name.
static const std::string MARK = "emulated kernels ";
EXPORT int cuModuleLoadData(void** module, const void* image) {
    std::string text((const char*)image);
    if (text.compare(0, MARK.size(), MARK)) return INVALID_IMAGE;
    for (const File* file = emulator::files; file->name; ++file) {
        if (text.substr(MARK.size()) == file->name) {
            *module = new Module{file};
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}
EXPORT int cuModuleUnload(void* module) { delete (Module*)module; return SUCCESS; }
EXPORT int cuModuleGetFunction(void** function, void* module, const char* name) {
    for (const Kernel* kernel = ((Module*)module)->file->kernels; kernel->name; ++kernel) {
        if (!std::strcmp(kernel->name, name)) {
            *function = (void*)kernel;
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}
EXPORT int cuFuncSetAttribute(void*, int, int) { return SUCCESS; }
EXPORT int cuFuncGetAttribute(int* value, int, void*) { *value = 0; return SUCCESS; }

EXPORT int cuLaunchKernel(const Kernel* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, void* stream, void** arguments, void**) {
    size_t threads = (size_t)bx * by * bz;
    // The limits of hardware, of a launch that asks for no more shared memory than any GPU has, and of our kernels.
    if (gx == 0 || gx > 0x7fffffffu || gy == 0 || gy > 65535 || gz == 0 || gz > 65535 || threads == 0 || threads > 256 ||
        shared > 49152) {
        return INVALID_VALUE;
    }
    // Arguments are read when the kernel is queued, not when it runs.
    struct Values {
        std::vector<std::vector<char>> bytes;
        std::vector<void*> at;
    };
    auto values = std::make_shared<Values>();
    for (const int* size = kernel->sizes; *size; ++size, ++arguments) {
        values->bytes.emplace_back((char*)*arguments, (char*)*arguments + *size);
    }
    for (auto& bytes : values->bytes) values->at.push_back(bytes.data());
    return enqueue(stream, [=] {
        return attempt(kernel->name,
                       [=] { emulator::launch(*kernel, {gx, gy, gz}, {bx, by, bz}, shared, values->at.data()); });
    });
}

struct Graph {
    Work work;
    std::vector<void*> memory;
};
EXPORT int cuStreamBeginCapture_v2(void* stream, int) {
    Stream* queue = (Stream*)stream;
    if (queue->captured) return CAPTURE_UNSUPPORTED;
    queue->captured.reset(new Work);
    return SUCCESS;
}
EXPORT int cuStreamIsCapturing(void* stream, int* capturing) {
    *capturing = ((Stream*)stream)->captured ? 1 : 0;
    return SUCCESS;
}
EXPORT int cuStreamEndCapture(void* stream, void** graph) {
    Stream* queue = (Stream*)stream;
    if (!queue->captured) return CAPTURE_UNSUPPORTED;
    *graph = new Graph{std::move(*queue->captured), std::move(queue->memory)};
    queue->captured.reset();
    queue->memory.clear();
    return SUCCESS;
}
EXPORT int cuGraphInstantiateWithFlags(void** executable, void* graph, u64) {
    *executable = new Graph(*(Graph*)graph);
    return SUCCESS;
}
EXPORT int cuGraphLaunch(void* executable, void*) {
    // What the graph takes is as fresh in every launch.
    for (void* address : ((Graph*)executable)->memory) {
        emulator::Range range = emulator::range_of(address);
        std::memset(address, 0xff, (size_t)(range.end - range.begin));
    }
    for (auto& work : ((Graph*)executable)->work) {
        if (int error = work()) return error;
    }
    return SUCCESS;
}
EXPORT int cuGraphUpload(void*, void*) { return SUCCESS; }
EXPORT int cuGraphDestroy(void* graph) { delete (Graph*)graph; return SUCCESS; }
EXPORT int cuGraphExecDestroy(void* executable) {
    for (void* address : ((Graph*)executable)->memory) emulator::release(address);
    delete (Graph*)executable;
    return SUCCESS;
}

EXPORT int cuGetErrorName(int error, const char** name) {
    switch (error) {
        case SUCCESS: *name = "CUDA_SUCCESS"; break;
        case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
        case INVALID_DEVICE: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
        case INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
        case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
        case CAPTURE_UNSUPPORTED: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
        default: *name = "CUDA_ERROR_UNKNOWN";
    }
    return SUCCESS;
}
EXPORT int cuGetErrorString(int error, const char** text) {
    *text = error == ILLEGAL_ADDRESS ? "a kernel did what it must not; see above" : "an error of the emulated driver";
    return SUCCESS;
}
