#include "tests/runtime/ops/cuda/emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

// Saves the callee-saved registers and the stack pointer, and goes on where `to` was saved (System V ABI for x86-64,
// figure 3.4; the control words of the floating-point units do not change).
extern "C" void cohort_switch_fibre(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.globl cohort_switch_fibre
.type cohort_switch_fibre,@function
cohort_switch_fibre:
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
.size cohort_switch_fibre,.-cohort_switch_fibre
.section .note.GNU-stack,"",@progbits
.text
)");
#endif

namespace emulator {

Schedule schedule;

namespace {

constexpr size_t kStack = size_t{192} << 10;
constexpr int kMostThreads = 1024;
constexpr size_t kMostShared = size_t{232448};

struct Copy {
  char* to;
  const char* from;
  int bytes;
};

enum class State { kReady, kAtWarp, kAtBlock, kDone };

struct Fibre {
  void* stack_pointer = nullptr;
  State state = State::kReady;
  dim3 index;
  void* data = nullptr;
  const char* what = nullptr;
  std::vector<Copy> open;  // asynchronous copies that no commit has closed
  std::deque<std::vector<Copy>> groups;
};

struct Block {
  std::vector<Fibre> fibres;
  int live = 0;
  int at_block = 0;
  std::vector<int> warp_live, warp_waiting;
  const std::function<void()>* body = nullptr;
};

Block block;
Fibre* current = nullptr;
void* scheduler_stack = nullptr;
char* stacks = nullptr;
alignas(128) char shared_memory[kMostShared];
size_t shared_size = 0;
uint64_t blocks_run = 0;

#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_bottom = nullptr;
size_t scheduler_size = 0;
#endif

int IndexOf(const Fibre* fibre) { return static_cast<int>(fibre - block.fibres.data()); }

void SwitchTo(Fibre* fibre) {
  current = fibre;
  threadIdx = fibre->index;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, stacks + IndexOf(fibre) * kStack, kStack);
#endif
  cohort_switch_fibre(&scheduler_stack, fibre->stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void SwitchBack(bool for_ever) {
  Fibre* self = current;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &fake, scheduler_bottom, scheduler_size);
#endif
  cohort_switch_fibre(&self->stack_pointer, scheduler_stack);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, &scheduler_bottom, &scheduler_size);
#endif
}

void Perform(const Copy& copy) {
  std::memcpy(copy.to, copy.from, copy.bytes);
  std::memset(copy.to + copy.bytes, 0, 16 - copy.bytes);
}

void Entry() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
  (*block.body)();
  Fibre* self = current;
  if (!self->open.empty()) Fail("a thread ends with copies that it did not commit");
  CheckNoProducts();
  for (const auto& group : self->groups) {
    for (const Copy& copy : group) Perform(copy);
  }
  self->groups.clear();
  self->state = State::kDone;
  --block.live;
  const int warp = IndexOf(self) / 32;
  --block.warp_live[warp];
  if (block.warp_waiting[warp] > 0) Fail("a thread leaves while its warp waits for it");
  if (block.at_block > 0) Fail("a thread leaves while its block waits for it");
  SwitchBack(/*for_ever=*/true);
  Fail("a thread that ended runs on");
}

void Prepare(Fibre& fibre, int i) {
  char* top = stacks + (i + 1) * kStack;
  auto* words = reinterpret_cast<void**>(top) - 8;
  std::fill(words, words + 8, nullptr);
  words[6] = reinterpret_cast<void*>(&Entry);  // where `ret` goes, with the stack as after a call
  fibre.stack_pointer = words;
  fibre.state = State::kReady;
  fibre.index = dim3(static_cast<unsigned>(i), 0, 0);
}

void Release(int begin, int end, State waiting) {
  for (int i = begin; i < end; ++i) {
    if (block.fibres[i].state == waiting) block.fibres[i].state = State::kReady;
  }
}

}  // namespace

void Fail(const char* what) {
  std::fprintf(stderr, "emulated kernel: %s (block %u,%u,%u thread %u)\n", what, blockIdx.x, blockIdx.y,
               blockIdx.z, threadIdx.x);
  std::abort();
}

uint64_t BlocksRun() { return blocks_run; }

void Run(dim3 grid, dim3 threads, size_t shared, const std::function<void()>& body) {
  const int count = static_cast<int>(threads.x);
  if (threads.y != 1 || threads.z != 1 || count < 1 || count > kMostThreads)
    Fail("a block of a shape that is not used");
  if (shared > kMostShared) Fail("too much shared memory");
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) Fail("a grid beyond CUDA's limits");
#if !defined(__x86_64__)
  Fail("fibres are written for x86-64");
#endif
  if (stacks == nullptr) {
    void* memory =
        mmap(nullptr, kStack * kMostThreads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) Fail("no memory for stacks");
    stacks = static_cast<char*>(memory);
  }
  gridDim = grid;
  blockDim = threads;
  shared_size = shared;
  block.body = &body;
  block.fibres.resize(count);
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        ++blocks_run;
        std::memset(shared_memory, 0xff, shared);  // NaN in every type: nobody may rely on what was there
        block.live = count;
        block.at_block = 0;
        block.warp_live.assign((count + 31) / 32, 0);
        block.warp_waiting.assign((count + 31) / 32, 0);
        for (int i = 0; i < count; ++i) {
          Prepare(block.fibres[i], i);
          ++block.warp_live[i / 32];
        }
        while (block.live > 0) {
          // A warp runs as far as it can before the next one: who reads what another warp is still to write, or
          // writes what it is still to read, does so.
          bool ran = false;
          const int warps = (count + 31) / 32;
          for (int w = 0; w < warps; ++w) {
            const int first = (schedule.descending ? warps - 1 - w : w) * 32,
                      lanes = std::min(32, count - first);
            for (bool again = true; again;) {
              again = false;
              for (int n = 0; n < lanes; ++n) {
                Fibre& fibre = block.fibres[first + (schedule.descending ? lanes - 1 - n : n)];
                if (fibre.state != State::kReady) continue;
                ran = again = true;
                SwitchTo(&fibre);
              }
            }
          }
          if (!ran) Fail("threads wait for each other for ever");
        }
      }
    }
  }
}

void MeetWarp(const char* what, void* mine, void (*run)(void* const* data)) {
  Fibre* self = current;
  const int warp = IndexOf(self) / 32, begin = warp * 32;
  const int end = std::min<int>(begin + 32, static_cast<int>(block.fibres.size()));
  if (block.warp_live[warp] != 32) Fail("a collective operation of a warp that has not all its threads");
  self->data = mine;
  self->what = what;
  if (++block.warp_waiting[warp] < 32) {
    self->state = State::kAtWarp;
    SwitchBack(false);
    return;
  }
  block.warp_waiting[warp] = 0;
  void* data[32] = {};
  for (int i = begin; i < end; ++i) {
    if (std::strcmp(block.fibres[i].what, what) != 0) Fail("lanes of a warp meet in different operations");
    data[i - begin] = block.fibres[i].data;
  }
  if (run != nullptr) run(data);
  Release(begin, end, State::kAtWarp);
}

void MeetBlock(const char* what, void* mine, void (*run)(void* const* data, int threads)) {
  Fibre* self = current;
  const int threads = static_cast<int>(block.fibres.size());
  if (block.live != threads) Fail("a barrier after threads have left");
  self->data = mine;
  self->what = what;
  if (++block.at_block < threads) {
    self->state = State::kAtBlock;
    SwitchBack(false);
    return;
  }
  block.at_block = 0;
  std::vector<void*> data(threads);
  for (int i = 0; i < threads; ++i) {
    if (std::strcmp(block.fibres[i].what, what) != 0) Fail("threads of a block meet at different barriers");
    data[i] = block.fibres[i].data;
  }
  if (run != nullptr) run(data.data(), threads);
  Release(0, threads, State::kAtBlock);
}

char* SharedMemory() { return shared_memory; }

bool InShared(const void* p, size_t bytes) {
  const char* at = static_cast<const char*>(p);
  return at >= shared_memory && at + bytes <= shared_memory + shared_size;
}

void CopyAsync16(void* shared, const void* global, int bytes) {
  if (!InShared(shared, 16)) Fail("an asynchronous copy to what is not shared memory");
  if (bytes < 0 || bytes > 16) Fail("an asynchronous copy of a bad size");
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 || reinterpret_cast<uintptr_t>(global) % 16 != 0) {
    Fail("an asynchronous copy that is not aligned");
  }
  const Copy copy{static_cast<char*>(shared), static_cast<const char*>(global), bytes};
  if (Schedule::AtOnce(schedule.copies)) {
    Perform(copy);
  } else {
    current->open.push_back(copy);
  }
}

void CommitCopies() {
  current->groups.push_back(std::move(current->open));
  current->open.clear();
}

void WaitForCopies(int left) {
  while (static_cast<int>(current->groups.size()) > left) {
    for (const Copy& copy : current->groups.front()) Perform(copy);
    current->groups.pop_front();
  }
}

}  // namespace emulator

int __syncthreads_or(int predicate) {
  int mine = predicate;
  emulator::MeetBlock("__syncthreads_or", &mine, [](void* const* data, int threads) {
    int any = 0;
    for (int i = 0; i < threads; ++i) any |= *static_cast<int*>(data[i]) != 0;
    for (int i = 0; i < threads; ++i) *static_cast<int*>(data[i]) = any;
  });
  return mine;
}
