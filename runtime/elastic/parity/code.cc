#include "runtime/elastic/parity/code.h"

#include <isa-l/erasure_code.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/elastic/parity/policy.h"

namespace cohort::runtime::elastic {
namespace {

constexpr size_t kTableBytes = 32;  // of one coefficient, as ISA-L expands it

// to[r] = sum over c of coefficients[r, c] * from[c], without the columns that are zeros.
void Multiply(absl::Span<const uint8_t> tables, size_t columns, absl::Span<const std::byte* const> from,
              absl::Span<std::byte* const> to, size_t bytes) {
  std::vector<uint8_t> present;
  std::vector<unsigned char*> sources, targets;
  for (const std::byte* block : from) {
    if (block != nullptr) {
      sources.push_back(const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(block)));
    }
  }
  for (std::byte* block : to) targets.push_back(reinterpret_cast<unsigned char*>(block));
  if (sources.empty()) {
    for (std::byte* block : to) std::memset(block, 0, bytes);
    return;
  }
  for (size_t r = 0; r < to.size(); ++r) {
    for (size_t c = 0; c < columns; ++c) {
      if (from[c] == nullptr) continue;
      const uint8_t* table = tables.data() + (r * columns + c) * kTableBytes;
      present.insert(present.end(), table, table + kTableBytes);
    }
  }
  // ISA-L counts in int.
  constexpr size_t kMost = INT_MAX / 2;
  for (size_t at = 0; at < bytes; at += kMost) {
    ec_encode_data(static_cast<int>(std::min(kMost, bytes - at)), static_cast<int>(sources.size()),
                   static_cast<int>(targets.size()), present.data(), sources.data(), targets.data());
    if (bytes - at <= kMost) break;
    for (unsigned char*& source : sources) source += kMost;
    for (unsigned char*& target : targets) target += kMost;
  }
}

}  // namespace

ReedSolomon::ReedSolomon(int data, int parity)
    : data_(data),
      parity_(parity),
      matrix_(static_cast<size_t>(data + parity) * static_cast<size_t>(data)),
      tables_(static_cast<size_t>(data) * static_cast<size_t>(parity) * kTableBytes) {
  COHORT_CHECK(data >= 1 && parity >= 1 && data + parity <= parity_policy::kMostBlocks, "a code of %d + %d",
               data, parity);
  gf_gen_cauchy1_matrix(matrix_.data(), data + parity, data);
  ec_init_tables(data, parity, matrix_.data() + data * data, tables_.data());
}

void ReedSolomon::Encode(absl::Span<const std::byte* const> data, absl::Span<std::byte* const> parity,
                         size_t bytes) const {
  COHORT_CHECK(data.size() == static_cast<size_t>(data_) && parity.size() == static_cast<size_t>(parity_),
               "%zu + %zu blocks for a code of %d + %d", data.size(), parity.size(), data_, parity_);
  Multiply(tables_, data.size(), data, parity, bytes);
}

absl::Status ReedSolomon::Solve(absl::Span<const int> symbols, absl::Span<const std::byte* const> blocks,
                                int lost, std::byte* to, size_t bytes) const {
  const auto k = static_cast<size_t>(data_);
  if (symbols.size() != k || blocks.size() != k || lost < 0 || lost >= data_) {
    return absl::InvalidArgumentError(
        absl::StrCat("parity: ", symbols.size(), " symbols to solve a code of ", data_, " for ", lost));
  }
  std::vector<uint8_t> chosen(k * k), inverse(k * k), tables(k * kTableBytes);
  for (size_t i = 0; i < k; ++i) {
    if (symbols[i] < 0 || symbols[i] >= data_ + parity_) {
      return absl::InvalidArgumentError(absl::StrCat("parity: no symbol ", symbols[i]));
    }
    std::copy_n(matrix_.data() + static_cast<size_t>(symbols[i]) * k, k, chosen.data() + i * k);
  }
  if (gf_invert_matrix(chosen.data(), inverse.data(), data_) != 0) {
    return absl::InvalidArgumentError("parity: the symbols are not distinct");
  }
  ec_init_tables(data_, 1, inverse.data() + static_cast<size_t>(lost) * k, tables.data());
  Multiply(tables, k, blocks, absl::MakeConstSpan(&to, 1), bytes);
  return absl::OkStatus();
}

}  // namespace cohort::runtime::elastic
