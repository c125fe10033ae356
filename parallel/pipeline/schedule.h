// A pipeline schedule, as a value: which stage of the model is on which rank, and what each rank does in which order.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cohort::parallel::pipeline {

// X(enumerator, letter in files and figures, name). Letters as in PyTorch's schedule files.
#define COHORT_PIPELINE_ACTIONS(X)                                                     \
  X(kForward, 'F', "forward")                                                          \
  X(kBackwardInput, 'I', "gradient of the input, which the stage before it waits for") \
  X(kBackwardWeight, 'W', "gradient of the weights, which nobody waits for")           \
  X(kBackward, 'B', "both gradients at once")

enum class ActionKind : uint8_t {
#define COHORT_X(enumerator, letter, name) enumerator,
  COHORT_PIPELINE_ACTIONS(COHORT_X)
#undef COHORT_X
};
inline constexpr int kNumActionKinds = 4;
char Letter(ActionKind kind);
const char* Name(ActionKind kind);

struct Action {
  ActionKind kind = ActionKind::kForward;
  int stage = 0;
  int micro_batch = 0;

  bool operator==(const Action&) const = default;
  // "2F0": the forward of stage 2 for micro-batch 0.
  std::string DebugString() const;
};

// A micro-batch goes through stages 0 .. stages() - 1 and its gradient back. Each stage is on one rank; a rank may hold
// several stages ("chunks"). Every rank does its list in order: it waits until what an action needs has come, and
// what it sends never makes it wait. For each stage and micro-batch a list has one kForward, and
// either one kBackward, or one kBackwardInput and one kBackwardWeight. CheckSchedule (check.h) proves all that.
struct Schedule {
  int micro_batches = 0;
  std::vector<int> rank_of;                  // by stage
  std::vector<std::vector<Action>> actions;  // by rank

  int stages() const { return static_cast<int>(rank_of.size()); }
  int ranks() const { return static_cast<int>(actions.size()); }
  std::vector<int> StagesOf(int rank) const;  // ascending

  bool operator==(const Schedule&) const = default;
  // A line for the whole, and one a rank: its stages and its list.
  std::string DebugString() const;
};

// Which stages the ranks hold.
enum class Placement : uint8_t {
  kLoop,  // rank r holds stages r, r + ranks, r + 2 ranks, ..: with one stage a rank, stage r
  kV,  // rank r holds stages r and 2 ranks - 1 - r: the way goes down the ranks and up again, so that the last rank
  // goes on without a message, and the first and the last stage (embedding and head) are on one rank
};
std::vector<int> PlaceStages(Placement placement, int ranks,
                             int chunks);  // the rank of each stage; kV: chunks 2

}  // namespace cohort::parallel::pipeline
