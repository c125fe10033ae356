// What sampling is on every device: the words of one row's draw. For .cu files too: nothing of Abseil.
#pragma once

#include <cstdint>

namespace cohort::runtime {

// Temperatures below this are greedy: dividing by them would overflow.
inline constexpr float kGreedyTemperature = 1e-5f;

// What stands in a token's place where none can be drawn.
inline constexpr int32_t kBrokenLogits = -1;   // a NaN or +inf among them
inline constexpr int32_t kNothingToDraw = -2;  // nothing above -inf

// One row of SamplingRows (ops.h), as the host has it.
struct RowSampling {
  float temperature = 1;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0, position = 0, stream = 0;
};

// 64-bit numbers among 32-bit words: SamplingRows::draws.
inline constexpr int kDrawWords = 6;
constexpr uint64_t WideWord(const int32_t* words) {
  return static_cast<uint64_t>(static_cast<uint32_t>(words[1])) << 32 | static_cast<uint32_t>(words[0]);
}
constexpr void PutDraw(const RowSampling& row, int32_t* words) {
  const uint64_t numbers[] = {row.seed, row.position, row.stream};
  for (int i = 0; i < 3; ++i) {
    words[2 * i] = static_cast<int32_t>(static_cast<uint32_t>(numbers[i]));
    words[2 * i + 1] = static_cast<int32_t>(static_cast<uint32_t>(numbers[i] >> 32));
  }
}

}  // namespace cohort::runtime
