#include "parallel/pipeline/balance.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace cohort::parallel::pipeline {
namespace {

constexpr double kImpossible = std::numeric_limits<double>::infinity();

// The best ways to give blocks [0, end) to stages [0, s], for all ends and s, where best(a, b) joins the value of the
// stages before with that of the stage's own cost. Returns the value for all, and where each stage begins.
std::pair<double, std::vector<int>> BestSplit(
    int blocks, int stages, const std::function<double(int stage, int begin, int end)>& cost,
    const std::function<double(double before, double own)>& join) {
  std::vector<std::vector<double>> value(stages, std::vector<double>(blocks + 1, kImpossible));
  std::vector<std::vector<int>> begin(stages, std::vector<int>(blocks + 1));
  for (int stage = 0; stage < stages; ++stage) {
    for (int end = stage + 1; end <= blocks; ++end) {
      for (int first = stage; first < end; ++first) {
        if (stage == 0 && first > 0) break;
        const double before = stage == 0 ? 0 : value[stage - 1][first];
        const double joined = join(before, cost(stage, first, end));
        if (joined < value[stage][end]) value[stage][end] = joined, begin[stage][end] = first;
      }
    }
  }
  std::vector<int> firsts(stages + 1, blocks);
  for (int stage = stages - 1; stage >= 0; --stage) firsts[stage] = begin[stage][firsts[stage + 1]];
  return {value[stages - 1][blocks], firsts};
}

}  // namespace

absl::StatusOr<StageSplit> BalanceStages(absl::Span<const double> blocks, double embedding, double head,
                                         int stages) {
  const int count = static_cast<int>(blocks.size());
  if (stages < 1 || stages > count) {
    return absl::InvalidArgumentError(absl::StrCat(stages, " pipeline stages for ", count,
                                                   count == 1 ? " block" : " blocks",
                                                   ": there must be 1 stage or more, and a block for each"));
  }
  const auto bad = [](double cost) { return !(cost >= 0) || !std::isfinite(cost); };
  std::vector<double> sums(count + 1);
  for (int i = 0; i < count; ++i) {
    if (bad(blocks[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("the cost of block ", i, " is ", blocks[i], "; it must be finite and 0 or more"));
    }
    sums[i + 1] = sums[i] + blocks[i];
  }
  if (bad(embedding) || bad(head)) {
    return absl::InvalidArgumentError(absl::StrCat("the costs of the embedding and the head are ", embedding,
                                                   " and ", head, "; they must be finite and 0 or more"));
  }
  const auto cost = [&](int stage, int begin, int end) {
    return sums[end] - sums[begin] + (stage == 0 ? embedding : 0) + (stage == stages - 1 ? head : 0);
  };
  // First the least maximum, then, of the splits that have it, the least sum of squares.
  const double most =
      BestSplit(count, stages, cost, [](double before, double own) { return std::max(before, own); }).first;
  const double allowed = most * (1 + 1e-12);
  StageSplit split;
  split.first_block = BestSplit(count, stages, cost, [&](double before, double own) {
                        return own <= allowed ? before + own * own : kImpossible;
                      }).second;
  for (int stage = 0; stage < stages; ++stage) {
    split.cost.push_back(cost(stage, split.first_block[stage], split.first_block[stage + 1]));
  }
  return split;
}

}  // namespace cohort::parallel::pipeline
