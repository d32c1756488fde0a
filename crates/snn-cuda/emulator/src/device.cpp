// Blocks and threads: a launch on the CPU.
#include "device.h"

#include <memory>
#include <mutex>
#include <map>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator {

thread_local Thread now;

// --- memory -------------------------------------------------------------------------------------------------------

static std::mutex lock;
static std::map<const char*, size_t>& allocations() {
    static auto* all = new std::map<const char*, size_t>;  // outlives every thread
    return *all;
}

void* allocate(size_t bytes) {
    char* begin = (char*)std::aligned_alloc(256, (bytes + 511) / 256 * 256);
    if (!begin) return nullptr;
    std::memset(begin, 0xff, bytes);
    std::lock_guard<std::mutex> guard(lock);
    allocations()[begin] = bytes;
    return begin;
}

bool release(void* begin) {
    {
        std::lock_guard<std::mutex> guard(lock);
        if (!allocations().erase((const char*)begin)) return false;
    }
    std::free(begin);
    return true;
}

Range range_of(const void* address) {
    const char* at = (const char*)address;
    std::lock_guard<std::mutex> guard(lock);
    auto after = allocations().upper_bound(at);
    if (after != allocations().begin()) {
        auto found = std::prev(after);
        if (at < found->first + found->second || at == found->first) return {found->first, found->first + found->second};
    }
    fail("an address that is not allocated");
}

void fail(const std::string& what) { throw std::runtime_error(what); }

// --- fibers -------------------------------------------------------------------------------------------------------

enum class State { Ready, AtBarrier, AtWarp, Done };

struct Fiber {
    State state = State::Ready;
    dim3 index;
    u64 given = 0;
    const char* at = nullptr;
    std::unique_ptr<char[]> stack;
#if defined(__x86_64__)
    void* pointer = nullptr;
#else
    ucontext_t context;
#endif
};

// What a thread of the host needs for its launch.
struct Block {
    std::vector<Fiber> fibers;
    std::vector<u64> seen;  // what lanes of each warp gave last
    std::vector<char> dynamic;
    Fiber* current = nullptr;
    void (*call)(void**) = nullptr;
    void** arguments = nullptr;
    std::string failure;
    bool plain = false;
#if defined(__x86_64__)
    void* scheduler = nullptr;
#else
    ucontext_t scheduler;
#endif
};
static thread_local Block block;
static const size_t STACK = 96 * 1024;

static void body() {
    Block& mine = block;
    try {
        mine.call(mine.arguments);
    } catch (const std::exception& error) {
        mine.failure = error.what();
    }
    mine.current->state = State::Done;
}

#if defined(__x86_64__)
// Saves the registers that calls preserve and goes on where another stack stopped: the C library's own switch asks the
// kernel about signals every time, which takes a microsecond.
extern "C" void snn_emulator_switch(void** save, void* load);
asm(R"(
.text
.hidden snn_emulator_switch
.globl snn_emulator_switch
.type snn_emulator_switch, @function
snn_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size snn_emulator_switch, .-snn_emulator_switch
)");
static void to_scheduler() { snn_emulator_switch(&block.current->pointer, block.scheduler); }
static void to_fiber(Fiber& fiber) { snn_emulator_switch(&block.scheduler, fiber.pointer); }
static void entry() {
    body();
    to_scheduler();
}
static void prepare(Fiber& fiber) {
    // As a call leaves it: 8 bytes off a multiple of 16 once the address has been taken from the stack.
    u64* top = (u64*)((u64)(fiber.stack.get() + STACK - 64) / 16 * 16 - 8);
    top[0] = 0;
    *--top = (u64)(void*)entry;
    top -= 6;
    std::memset(top, 0, 48);
    fiber.pointer = top;
}
#else
static void to_scheduler() { swapcontext(&block.current->context, &block.scheduler); }
static void to_fiber(Fiber& fiber) { swapcontext(&block.scheduler, &fiber.context); }
static void entry() {
    body();
    to_scheduler();
}
static void prepare(Fiber& fiber) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
}
#endif

static size_t number() { return block.current - block.fibers.data(); }
int lane() { return (int)(number() % 32); }
int lanes() { return (int)std::min<size_t>(32, block.fibers.size() - number() / 32 * 32); }
void* dynamic_begin() { return block.dynamic.data(); }
size_t dynamic_bytes() { return block.dynamic.size(); }

static void pause(State state, const char* at) {
    if (block.plain) fail(std::string(at) + " in a kernel that is not a BLOCK_KERNEL");
    block.current->state = state;
    block.current->at = at;
    to_scheduler();
    now.index = block.current->index;
}
void barrier() { pause(State::AtBarrier, "__syncthreads"); }
const u64* exchange(u64 value, const char* what) {
    if (!block.plain) block.current->given = value;
    pause(State::AtWarp, what);
    return block.seen.data() + number() / 32 * 32;
}

static void run(Fiber& fiber) {
    block.current = &fiber;
    now.index = fiber.index;
    to_fiber(fiber);
    if (!block.failure.empty()) fail(block.failure);
}

// Runs a warp until it is done or waits at a barrier.
static void run_warp(size_t first, size_t end, bool descending) {
    Block& mine = block;
    for (;;) {
        for (size_t i = first; i < end; ++i) {
            Fiber& fiber = mine.fibers[descending ? first + end - 1 - i : i];
            if (fiber.state == State::Ready) run(fiber);
        }
        size_t waiting = 0;
        const char* at = nullptr;
        for (size_t i = first; i < end; ++i) {
            if (mine.fibers[i].state != State::AtWarp) continue;
            if (at && at != mine.fibers[i].at && std::strcmp(at, mine.fibers[i].at)) {
                fail(std::string("lanes of a warp wait at ") + at + " and at " + mine.fibers[i].at);
            }
            at = mine.fibers[i].at;
            ++waiting;
        }
        if (waiting == 0) return;
        if (waiting != end - first) fail(std::string("not all lanes of a warp reach a ") + at);
        for (size_t i = first; i < end; ++i) {
            mine.seen[i] = mine.fibers[i].given;
            mine.fibers[i].state = State::Ready;
        }
    }
}

static void run_block(bool descending) {
    Block& mine = block;
    size_t threads = (size_t)now.block_dim.x * now.block_dim.y * now.block_dim.z;
    mine.fibers.resize(threads);
    mine.seen.assign(threads, 0);
    for (size_t i = 0; i < threads; ++i) {
        Fiber& fiber = mine.fibers[i];
        if (!fiber.stack) fiber.stack.reset(new char[STACK]);
        fiber.state = State::Ready;
        fiber.index = {unsigned(i % now.block_dim.x), unsigned(i / now.block_dim.x % now.block_dim.y),
                       unsigned(i / now.block_dim.x / now.block_dim.y)};
        prepare(fiber);
    }
    size_t warps = (threads + 31) / 32;
    for (;;) {
        for (size_t w = 0; w < warps; ++w) {
            size_t warp = descending ? warps - 1 - w : w;
            run_warp(32 * warp, std::min(threads, 32 * warp + 32), descending);
        }
        size_t waiting = 0;
        for (auto& fiber : mine.fibers) waiting += fiber.state == State::AtBarrier;
        if (waiting == 0) return;
        if (waiting != threads) fail("not all threads of a block reach a __syncthreads");
        for (auto& fiber : mine.fibers) fiber.state = State::Ready;
    }
}

static void run_plain(bool descending) {
    size_t threads = (size_t)now.block_dim.x * now.block_dim.y * now.block_dim.z;
    for (size_t k = 0; k < threads; ++k) {
        size_t i = descending ? threads - 1 - k : k;
        now.index = {unsigned(i % now.block_dim.x), unsigned(i / now.block_dim.x % now.block_dim.y),
                     unsigned(i / now.block_dim.x / now.block_dim.y)};
        block.call(block.arguments);
    }
}

void launch(const Kernel& kernel, dim3 grid, dim3 threads, size_t shared, void** arguments) {
    static thread_local unsigned launches = 0;
    bool descending = launches++ % 2 == 1;
    Block& mine = block;
    mine.call = kernel.call;
    mine.arguments = arguments;
    mine.plain = !kernel.together;
    mine.failure.clear();
    now.grid_dim = grid;
    now.block_dim = threads;
    size_t blocks = (size_t)grid.x * grid.y * grid.z;
    for (size_t k = 0; k < blocks; ++k) {
        size_t i = descending ? blocks - 1 - k : k;
        now.block = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
        // Shared memory begins with rubbish in every block.
        mine.dynamic.assign(shared, (char)0xff);
        if (kernel.together) run_block(descending);
        else run_plain(descending);
    }
}

}  // namespace emulator
