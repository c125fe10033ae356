// What CUDA's instructions on matrices do, by the PTX manual's fragment layouts and descriptors, and the collective
// operations of a warp.
#include <array>
#include <cstring>
#include <deque>
#include <vector>

#include "tests/runtime/ops/cuda/emulator.h"

namespace emulator {
namespace {

constexpr uint32_t kSharedBegin = 48;

// The warpgroup products of a thread that are under way.
struct Products {
  std::vector<WarpgroupProduct> open;
  std::deque<std::vector<WarpgroupProduct>> batches;
};
std::array<Products, 1024> products;
Products& Mine() { return products[threadIdx.x]; }

float Half(uint32_t word, int which) {
  return std::bit_cast<float>(which == 0 ? word << 16 : word & 0xffff0000u);
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
  const char* from = SharedMemory() + (static_cast<int64_t>(at) - kSharedBegin);
  if (!InShared(from, 2)) Fail("a product reads outside shared memory");
  uint16_t bits;
  std::memcpy(&bits, from, 2);
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

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
  } give{&mine, static_cast<int>(threadIdx.x / 32 % 4)};
  MeetWarp("wgmma", &give, [](void* const* data) {
    const auto* first = static_cast<const Mine*>(data[0]);
    for (size_t i = 0; i < first->list->size(); ++i) {
      const WarpgroupProduct* lanes[32];
      for (int lane = 0; lane < 32; ++lane) lanes[lane] = &static_cast<const Mine*>(data[lane])->list->at(i);
      MakeProduct(lanes, first->warp);
    }
  });
}

uint32_t RoundToBf16(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}

}  // namespace

uint32_t SharedAddress(const void* p) {
  return kSharedBegin + static_cast<uint32_t>(static_cast<const char*>(p) - SharedMemory());
}

void CheckNoProducts() {
  if (!Mine().open.empty() || !Mine().batches.empty()) Fail("a thread ends with products under way");
}

void IssueProduct(const WarpgroupProduct& product) {
  if (Schedule::AtOnce(schedule.products)) {
    std::vector<WarpgroupProduct> one = {product};
    MakeProducts(one);
  } else {
    Mine().open.push_back(product);
  }
}

void CommitProducts() {
  Mine().batches.push_back(std::move(Mine().open));
  Mine().open.clear();
}

void WaitForProducts(int left) {
  while (static_cast<int>(Mine().batches.size()) > left) {
    MakeProducts(Mine().batches.front());
    Mine().batches.pop_front();
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
