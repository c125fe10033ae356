#include "runtime/ops/exact_squares.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <mutex>

#include "comm/check.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"

namespace cohort::runtime {
namespace {

constexpr int kLowBits = 44;  // of a sum, in its first word
constexpr int kMantissa = 23;
// A square has at most 48 bits: so many fit into 64.
constexpr int64_t kChunk = 32768;

// Neighbours often have one exponent; four tables, so that an addition need not wait for the one before.
using Bins = std::array<std::array<uint64_t, 256>, 4>;

void AddChunk(const float* x, int64_t n, Bins& bins) {
  const auto add = [&](float value, size_t table) {
    const auto bits = std::bit_cast<uint32_t>(value);
    const uint32_t exponent = bits >> kMantissa & 0xffu;
    const uint64_t mantissa = (bits & 0x7fffffu) | (exponent != 0 ? 0x800000u : 0u);
    bins[table][exponent] += mantissa * mantissa;
  };
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (size_t table = 0; table < 4; ++table) add(x[i + static_cast<int64_t>(table)], table);
  }
  for (; i < n; ++i) add(x[i], 0);
}

}  // namespace

void ExactSquares::Add(const Tensor& x) {
  COHORT_CHECK(x.dtype() == DataType::kF32, "exact squares of %s", Name(x.dtype()));
  const Tensor host = OnHost(x);
  const auto* values = host.data<float>();
  std::mutex mutex;
  ParallelFor(host.size(), cpu_policy::kElementGrain, cpu_policy::kElementAlign,
              [&](int64_t begin, int64_t end) {
                for (; begin < end; begin += kChunk) {
                  Bins bins = {};
                  AddChunk(values + begin, std::min(kChunk, end - begin), bins);
                  const std::lock_guard<std::mutex> lock(mutex);
                  for (const auto& table : bins) {
                    for (size_t e = 0; e < sums_.size(); ++e) sums_[e] += table[e];
                  }
                }
              });
}

std::vector<int64_t> ExactSquares::Words() const {
  std::vector<int64_t> words;
  for (const unsigned __int128 sum : sums_) {
    words.push_back(static_cast<int64_t>(sum & ((uint64_t{1} << kLowBits) - 1)));
    words.push_back(static_cast<int64_t>(sum >> kLowBits));
  }
  return words;
}

double ExactSquares::Total(absl::Span<const int64_t> words) {
  if (words[2 * 255] != 0 || words[2 * 255 + 1] != 0) return std::numeric_limits<double>::infinity();
  long double total = 0;
  for (int e = 0; e < 255; ++e) {  // small ones first
    // Numbers below 2^-126 have no leading bit and the exponent of those above.
    const int power = 2 * (std::max(e, 1) - 127 - kMantissa);
    const auto word = [&](int i) { return static_cast<long double>(words[2 * static_cast<size_t>(e) + i]); };
    total += std::ldexp(word(0), power) + std::ldexp(word(1), power + kLowBits);
  }
  return static_cast<double>(total);
}

}  // namespace cohort::runtime
