// What the stand-ins for CUDA's libraries know of the device.
#pragma once
#include <cstdlib>
#include <functional>

#include "emulator.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace emulator {

void* allocate(size_t bytes);
bool release(void* begin);

// Runs a kernel; throws what it did wrong.
void launch(const Kernel& kernel, dim3 grid, dim3 threads, size_t shared, void** arguments);

}  // namespace emulator

// Does the work now, or when the graph that the queue is captured into is launched. Gives a CUresult.
EXPORT int snn_emulator_enqueue(void* stream, const std::function<int()>* work);
