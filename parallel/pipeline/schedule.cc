#include "parallel/pipeline/schedule.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"

namespace cohort::parallel::pipeline {
namespace {

struct ActionRow {
  char letter;
  const char* name;
};
constexpr ActionRow kActionRows[] = {
#define COHORT_X(enumerator, letter, name) {letter, name},
    COHORT_PIPELINE_ACTIONS(COHORT_X)
#undef COHORT_X
};
static_assert(std::size(kActionRows) == kNumActionKinds);

}  // namespace

char Letter(ActionKind kind) { return kActionRows[static_cast<int>(kind)].letter; }
const char* Name(ActionKind kind) { return kActionRows[static_cast<int>(kind)].name; }

std::string Action::DebugString() const {
  return absl::StrCat(stage, std::string(1, Letter(kind)), micro_batch);
}

std::vector<int> Schedule::StagesOf(int rank) const {
  std::vector<int> found;
  for (int stage = 0; stage < stages(); ++stage) {
    if (rank_of[stage] == rank) found.push_back(stage);
  }
  return found;
}

std::string Schedule::DebugString() const {
  std::string text = absl::StrCat(stages(), stages() == 1 ? " stage on " : " stages on ", ranks(),
                                  ranks() == 1 ? " rank, " : " ranks, ", micro_batches,
                                  micro_batches == 1 ? " micro-batch\n" : " micro-batches\n");
  for (int rank = 0; rank < ranks(); ++rank) {
    absl::StrAppend(&text, "rank ", rank, " (stages ", absl::StrJoin(StagesOf(rank), " "), "): ",
                    absl::StrJoin(actions[rank], " ",
                                  [](std::string* out, const Action& action) {
                                    absl::StrAppend(out, action.DebugString());
                                  }),
                    "\n");
  }
  return text;
}

std::vector<int> PlaceStages(Placement placement, int ranks, int chunks) {
  COHORT_CHECK(placement == Placement::kLoop || chunks == 2, "a V has two stages a rank, not %d", chunks);
  std::vector<int> rank_of(static_cast<size_t>(ranks) * chunks);
  for (int stage = 0; stage < ranks * chunks; ++stage) {
    const bool back = placement == Placement::kV && stage >= ranks;
    rank_of[stage] = back ? 2 * ranks - 1 - stage : stage % ranks;
  }
  return rank_of;
}

}  // namespace cohort::parallel::pipeline
