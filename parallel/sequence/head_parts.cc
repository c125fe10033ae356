#include "parallel/sequence/head_parts.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace cohort::parallel {

absl::StatusOr<std::vector<HeadPart>> DivideHeads(int64_t heads, int64_t kv_heads, int parts) {
  if (kv_heads < 1 || heads < kv_heads || heads % kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(heads, " query heads over ", kv_heads, " key/value heads"));
  }
  if (parts < 1 || heads % parts != 0) {
    return absl::InvalidArgumentError(absl::StrCat("Ulysses over ", parts, " ranks: they must divide the ",
                                                   heads, " query heads; split the rest as a ring"));
  }
  const int64_t share = heads / parts, group = heads / kv_heads;
  std::vector<HeadPart> result(parts);
  for (int p = 0; p < parts; ++p) {
    HeadPart& part = result[p];
    part.begin = p * share, part.end = (p + 1) * share;
    for (int64_t h = part.begin; h < part.end; ++h) part.kv.push_back(h / group);
    std::vector<int64_t> distinct = part.kv;
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    const auto each = static_cast<int64_t>(part.kv.size() / distinct.size());
    bool even = part.kv.size() % distinct.size() == 0;
    for (int64_t i = 0; even && i < share; ++i) even = part.kv[i] == distinct[i / each];
    if (even) part.kv = std::move(distinct);
  }
  return result;
}

}  // namespace cohort::parallel
