// The Reed-Solomon code: k data blocks, m parity blocks, any k of them give the others back (ISA-L computes).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace cohort::runtime::elastic {

class ReedSolomon {
 public:
  // Systematic, from a Cauchy matrix: every choice of k symbols can be solved. k, m >= 1, k + m <= 255.
  ReedSolomon(int data, int parity);

  int data() const { return data_; }
  int parity() const { return parity_; }
  // parity[j][x] for x < bytes, from data[i][x]; null for a block of zeros. Blocks do not overlap.
  void Encode(absl::Span<const std::byte* const> data, absl::Span<std::byte* const> parity,
              size_t bytes) const;
  // The data symbol `lost` from k other symbols (distinct, data below k, parity from k on; null: zeros).
  absl::Status Solve(absl::Span<const int> symbols, absl::Span<const std::byte* const> blocks, int lost,
                     std::byte* to, size_t bytes) const;

 private:
  int data_, parity_;
  std::vector<uint8_t> matrix_;  // [k + m, k], the identity above
  std::vector<uint8_t> tables_;  // ISA-L's expansion of the lower m rows
};

}  // namespace cohort::runtime::elastic
