// The attention kernels' interface: plain pointers, one unit of work on the calling thread. The same blocked
// algorithm (attention_tiles.h, attention_tiles_grad.h) is compiled for each instruction set in
// attention_{portable,avx512,amx}.cc; attention.cc and paged_attention.cc cut tensors into units.
//
// Grouped queries: the query heads that share a key/value head are handled together. A "row" is
// one (token, query head of the group), token-major, so `heads` rows follow each other in q and
// their keys are loaded once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::runtime::attention {

// Head widths are padded to this, and so are all extents of tiles (an AMX tile is 16 rows of 32 bf16).
inline constexpr int64_t kPad = 32;
// Forward: keys packed and scored at once, rows scored at once, and rows of one unit.
inline constexpr int64_t kKeyBlock = 256;
inline constexpr int64_t kRowBlock = 64;
inline constexpr int64_t kUnitRows = 1024;
// Backward: the same, each chunk of rows against all its keys.
inline constexpr int64_t kGradKeyBlock = 128;
inline constexpr int64_t kGradRowBlock = 128;
inline constexpr int64_t kGradUnitRows = 512;
// Added to the leading dimension of score buffers (in elements), lest their rows share few cache sets.
inline constexpr int64_t kSkew = 32;
// Parts that the keys of one unit may be split in.
inline constexpr int kMaxParts = 64;

constexpr int64_t RoundUp(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// The keys and values of one sequence and one key/value head. Row j is keys + j * stride, or, with a
// page_table, keys + page_table[j / page_size] * page_stride + (j % page_size) * stride.
struct KeyValues {
  const void* keys = nullptr;
  const void* values = nullptr;
  int64_t stride = 0;
  const int32_t* page_table = nullptr;
  int64_t page_size = 0;
  int64_t page_stride = 0;
};

// Queries of consecutive tokens against keys [key_begin, key_end). Token i sees the keys below first_seen + i,
// or, with seen, below seen[i], which must not descend and begins with 1 at least.
struct ForwardTask {
  KeyValues kv;
  const void* q = nullptr;  // row (i, r) at q + i * token_stride + r * width; y alike
  void* y = nullptr;
  int64_t token_stride = 0;
  int64_t tokens = 0;
  int64_t heads = 1;  // query heads of the group
  int64_t width = 0;
  int64_t first_seen = 1;
  const int32_t* seen = nullptr;
  int64_t key_begin = 0;
  int64_t key_end = 0;
  float scale = 1;
  float* lse = nullptr;  // lse[r * lse_stride + i], or none
  int64_t lse_stride = 0;
  int64_t rows() const { return tokens * heads; }
  int64_t Seen(int64_t token) const { return seen != nullptr ? seen[token] : first_seen + token; }
};

// The queries and keys of one sequence and one key/value head, for the gradients. Token i sees the keys below
// i + 1, or below seen[i] as above.
struct BackwardTask {
  const void *dy = nullptr, *q = nullptr,
             *y = nullptr;                // row (i, r) at + i * token_stride + r * width; dq alike
  const void *k = nullptr, *v = nullptr;  // row j at + j * kv_stride; dk, dv alike
  void *dq = nullptr, *dk = nullptr, *dv = nullptr;
  bool y_is_float = false;  // else of the kernel's element type, as are the inputs
  // delta[r * lse_stride + i] = sum over the width of dy y, where it is known: then y is not read.
  const float* delta = nullptr;
  bool add = false;  // dq, dk, dv are floats that are added to; else elements that are overwritten
  int64_t token_stride = 0;
  int64_t kv_stride = 0;
  int64_t tokens = 0;
  int64_t keys = 0;  // that the last token sees
  const int32_t* seen = nullptr;
  int64_t heads = 1;
  int64_t width = 0;
  float scale = 1;
  const float* lse = nullptr;
  int64_t lse_stride = 0;
  int64_t Seen(int64_t token) const { return seen != nullptr ? seen[token] : token + 1; }
};

// What a forward pass leaves for each row: the unnormalised output, the largest exponent and the sum, in
// base 2. Floats of a state for that many rows.
constexpr int64_t StateFloats(int64_t rows, int64_t width) {
  return RoundUp(rows, kPad) * (RoundUp(width, kPad) + 2);
}
constexpr size_t ForwardScratchBytes(int64_t rows, int64_t width) {
  const int64_t c = RoundUp(width, kPad);
  return sizeof(float) *
             ((RoundUp(rows, kPad) + kPad + 2 * kKeyBlock) * c + 2 * kRowBlock * (kKeyBlock + kSkew)) +
         4096;
}
constexpr size_t BackwardScratchBytes(int64_t keys, int64_t heads, int64_t width) {
  const int64_t c = RoundUp(width, kPad);
  const int64_t rows = RoundUp(heads > kGradUnitRows ? heads : kGradUnitRows, kPad);
  return sizeof(float) * (2 * RoundUp(keys, kPad) * c + 4 * rows * c + c * (rows + kSkew) + 3 * rows +
                          (2 * kGradKeyBlock + kPad) * c + c * (kGradKeyBlock + kSkew) +
                          2 * kPad * (kGradRowBlock + kSkew) + 3 * kGradKeyBlock * (kGradRowBlock + kSkew)) +
         8192;
}

// The kernels of one instruction set for one element type. Scratch and states are 64-byte aligned.
struct Kernels {
  // Around a thread's calls of the others (AMX configures its tiles).
  void (*begin)();
  void (*end)();
  void (*forward)(const ForwardTask& task, float* state, void* scratch);
  // Merges the states of `count` forward passes over parts of the keys, divides and writes y and lse.
  void (*finish)(const ForwardTask& task, const float* const* states, int count);
  // The same with y of floats.
  void (*finish_float)(const ForwardTask& task, const float* const* states, int count);
  void (*backward)(const BackwardTask& task, void* scratch);
  // Writes what task.delta then points to, of all tokens and heads; needs dy, y and their strides only.
  void (*delta)(const BackwardTask& task, float* delta);
};

extern const Kernels kPortableF32, kPortableBF16;
#if defined(__x86_64__)
extern const Kernels kAvx512F32, kAvx512BF16, kAmxBF16;
#endif

}  // namespace cohort::runtime::attention
