#include "tests/runtime/ops/cuda/emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
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
constexpr uint32_t kSharedBegin = 48;

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
  std::vector<WarpgroupProduct> open_products;
  std::deque<std::vector<WarpgroupProduct>> batches;
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
  if (!self->open_products.empty() || !self->batches.empty()) Fail("a thread ends with products under way");
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

bool InShared(const void* p, size_t bytes) {
  const char* at = static_cast<const char*>(p);
  return at >= shared_memory && at + bytes <= shared_memory + shared_size;
}

void LoadFragments(const char* what, const void* row, uint32_t (&r)[4], bool transposed) {
  struct Mine {
    const char* row;
    uint32_t* r;
    bool transposed;
  } mine{static_cast<const char*>(row), r, transposed};
  if (!InShared(row, 16) || reinterpret_cast<uintptr_t>(row) % 16 != 0) Fail("ldmatrix of a bad address");
  MeetWarp(what, &mine, [](void* const* data) {
    for (int lane = 0; lane < 32; ++lane) {
      const auto* to = static_cast<const Mine*>(data[lane]);
      for (int i = 0; i < 4; ++i) {
        uint16_t pair[2];
        for (int e = 0; e < 2; ++e) {
          const int row = to->transposed ? 2 * (lane % 4) + e : lane / 4;
          const int column = to->transposed ? lane / 4 : 2 * (lane % 4) + e;
          std::memcpy(&pair[e], static_cast<const Mine*>(data[8 * i + row])->row + 2 * column, 2);
        }
        to->r[i] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
      }
    }
  });
}

// The element of a tile of 128-byte rows that a descriptor (runtime/ops/cuda/warpgroup.h) names: (row, column) where rows
// run along the inner dimension, else (inner, outer). The swizzle exchanges pieces by three bits of the address.
float Described(uint64_t descriptor, bool inner_rows, int row, int column) {
  const auto field = [&](int from) { return static_cast<uint32_t>(descriptor >> from & 0x3fffu) << 4; };
  if (descriptor >> 62 != 1) Fail("a descriptor of another swizzle");
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  uint32_t at = start + static_cast<uint32_t>(row / 8) * stride + static_cast<uint32_t>(row % 8) * 128;
  at += static_cast<uint32_t>(inner_rows ? column : column % 64) * 2;
  if (!inner_rows) at += static_cast<uint32_t>(column / 64) * leading;
  at ^= (at >> 7 & 7u) << 4;
  if (at < kSharedBegin || at + 2 > kSharedBegin + shared_size) Fail("a product reads outside shared memory");
  uint16_t bits;
  std::memcpy(&bits, shared_memory + (at - kSharedBegin), 2);
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

float Half(uint32_t word, int which);

// One product of a warp, given what each lane issued.
void MakeProduct(const WarpgroupProduct* const (&lanes)[32], int warp_of_group) {
  const WarpgroupProduct& first = *lanes[0];
  const int columns = first.tiles * 8;
  float a[16][16];
  std::vector<std::array<float, 16>> b(columns);
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      if (first.a == nullptr) {
        a[row][k] = Described(first.a_descriptor, true, warp_of_group * 16 + row, k);
      } else {  // as mma.m16n8k16 has it
        const int lane = row % 8 * 4 + k % 8 / 2;
        a[row][k] = Half(lanes[lane]->a[row / 8 + k / 8 * 2], k % 2);
      }
    }
  }
  for (int n = 0; n < columns; ++n) {
    for (int k = 0; k < 16; ++k) {
      b[n][k] = first.a == nullptr ? Described(first.b_descriptor, true, n, k)
                                   : Described(first.b_descriptor, false, k, n);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < first.tiles * 4; ++i) {
      const int row = lane / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[column][k];
      lanes[lane]->c[i] = first.add ? lanes[lane]->c[i] + sum : sum;
    }
  }
}

// All of a warp's lanes give a list of the same length.
void MakeProducts(std::vector<WarpgroupProduct>& mine) {
  struct Mine {
    std::vector<WarpgroupProduct>* list;
    int warp;
  } give{&mine, IndexOf(current) / 32 % 4};
  MeetWarp("wgmma", &give, [](void* const* data) {
    const auto* first = static_cast<const Mine*>(data[0]);
    for (size_t i = 0; i < first->list->size(); ++i) {
      const WarpgroupProduct* lanes[32];
      for (int lane = 0; lane < 32; ++lane) lanes[lane] = &static_cast<const Mine*>(data[lane])->list->at(i);
      MakeProduct(lanes, first->warp);
    }
  });
}

float Half(uint32_t word, int which) {
  return std::bit_cast<float>(which == 0 ? word << 16 : word & 0xffff0000u);
}

uint32_t RoundToBf16(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
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

void CopyAsync16(void* shared, const void* global, int bytes) {
  if (!InShared(shared, 16)) Fail("an asynchronous copy to what is not shared memory");
  if (bytes < 0 || bytes > 16) Fail("an asynchronous copy of a bad size");
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 || reinterpret_cast<uintptr_t>(global) % 16 != 0) {
    Fail("an asynchronous copy that is not aligned");
  }
  const Copy copy{static_cast<char*>(shared), static_cast<const char*>(global), bytes};
  if (schedule.eager_copies) {
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

uint32_t SharedAddress(const void* p) {
  return kSharedBegin + static_cast<uint32_t>(static_cast<const char*>(p) - shared_memory);
}

void IssueProduct(const WarpgroupProduct& product) {
  if (schedule.eager_copies) {
    std::vector<WarpgroupProduct> one = {product};
    MakeProducts(one);
  } else {
    current->open_products.push_back(product);
  }
}

void CommitProducts() {
  current->batches.push_back(std::move(current->open_products));
  current->open_products.clear();
}

void WaitForProducts(int left) {
  while (static_cast<int>(current->batches.size()) > left) {
    MakeProducts(current->batches.front());
    current->batches.pop_front();
  }
}

void LoadMatrices(const void* row, uint32_t (&r)[4]) { LoadFragments("ldmatrix", row, r, false); }
void LoadMatricesTransposed(const void* row, uint32_t (&r)[4]) {
  LoadFragments("ldmatrix.trans", row, r, true);
}

void Multiply16x8x16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Mine {
    float* c;
    const uint32_t* a;
    uint32_t b[2];
  } mine{c, a, {b0, b1}};
  MeetWarp("mma", &mine, [](void* const* data) {
    float as[16][16], bs[8][16];  // b by columns
    for (int lane = 0; lane < 32; ++lane) {
      const auto* from = static_cast<const Mine*>(data[lane]);
      const int g = lane / 4, t = lane % 4;
      for (int e = 0; e < 2; ++e) {
        as[g][2 * t + e] = Half(from->a[0], e);
        as[g + 8][2 * t + e] = Half(from->a[1], e);
        as[g][2 * t + 8 + e] = Half(from->a[2], e);
        as[g + 8][2 * t + 8 + e] = Half(from->a[3], e);
        bs[g][2 * t + e] = Half(from->b[0], e);
        bs[g][2 * t + 8 + e] = Half(from->b[1], e);
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      const auto* to = static_cast<const Mine*>(data[lane]);
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i / 2) * 8, column = 2 * (lane % 4) + i % 2;
        float sum = 0;
        for (int k = 0; k < 16; ++k) sum += as[row][k] * bs[column][k];
        to->c[i] += sum;
      }
    }
  });
}

uint32_t PackBf16(float low, float high) { return RoundToBf16(low) | RoundToBf16(high) << 16; }

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

unsigned __ballot_sync(unsigned mask, int predicate) {
  emulator::FullMask(mask);
  unsigned mine = predicate != 0;
  emulator::MeetWarp("__ballot_sync", &mine, [](void* const* data) {
    unsigned votes = 0;
    for (int lane = 0; lane < 32; ++lane) votes |= *static_cast<unsigned*>(data[lane]) << lane;
    for (int lane = 0; lane < 32; ++lane) *static_cast<unsigned*>(data[lane]) = votes;
  });
  return mine;
}

unsigned __match_any_sync(unsigned mask, int value) {
  emulator::FullMask(mask);
  struct Mine {
    int value;
    unsigned equals;
  } mine{value, 0};
  emulator::MeetWarp("__match_any_sync", &mine, [](void* const* data) {
    for (int lane = 0; lane < 32; ++lane) {
      auto* to = static_cast<Mine*>(data[lane]);
      to->equals = 0;
      for (int other = 0; other < 32; ++other) {
        if (static_cast<Mine*>(data[other])->value == to->value) to->equals |= 1u << other;
      }
    }
  });
  return mine.equals;
}
