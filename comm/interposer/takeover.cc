#include "comm/interposer/takeover.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace cohort::comm::interposer {
namespace {

constexpr const char* kNames[] = {
#define COHORT_X(enumerator, name, from, below) name,
    COHORT_INTERPOSED(COHORT_X)
#undef COHORT_X
};

}  // namespace

const char* Name(Call call) { return kNames[static_cast<int>(call)]; }

Takeover DefaultTakeover() {
  Takeover takeover;
  takeover.from = {
#define COHORT_X(enumerator, name, from, below) from,
      COHORT_INTERPOSED(COHORT_X)
#undef COHORT_X
  };
  takeover.below = {
#define COHORT_X(enumerator, name, from, below) below,
      COHORT_INTERPOSED(COHORT_X)
#undef COHORT_X
  };
  return takeover;
}

absl::StatusOr<Takeover> ParseTakeover(const char* mode, const char* ops) {
  Takeover takeover = DefaultTakeover();
  const absl::string_view switched = mode == nullptr ? "" : mode;
  if (!switched.empty() && switched != "on" && switched != "off") {
    return absl::InvalidArgumentError(absl::StrCat("COHORT_MPI is '", switched, "': it can be on or off"));
  }
  takeover.on = switched != "off";
  if (ops == nullptr) return takeover;

  const Takeover standard = takeover;
  takeover.from.fill(kNever);
  for (const absl::string_view item : absl::StrSplit(ops, ',', absl::SkipWhitespace())) {
    const std::vector<absl::string_view> parts = absl::StrSplit(item, absl::MaxSplits('=', 1));
    int call = 0;
    while (call < kNumCalls && parts[0] != kNames[call]) ++call;
    uint64_t from = 0;
    if (call == kNumCalls || (parts.size() == 2 && !absl::SimpleAtoi(parts[1], &from))) {
      return absl::InvalidArgumentError(absl::StrCat("COHORT_MPI_OPS has '", item,
                                                     "': it is a list of NAME or NAME=BYTES, with the names ",
                                                     absl::StrJoin(kNames, ", ")));
    }
    takeover.from[call] = parts.size() == 2 ? from : standard.from[call];
    if (parts.size() == 2) {
      takeover.below[call] = kNever;
      takeover.hosts = true;
    }
  }
  return takeover;
}

}  // namespace cohort::comm::interposer
