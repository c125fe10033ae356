// Who sends what to whom so that lost images come back: a plan, made by a pure function.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/elastic/parity/stripe_plan.h"

namespace cohort::runtime::elastic {

// What is left, after a failure. Ranks of the plan are those of the mesh that was; `now` numbers are places in the
// communicator that recovers.
struct Survivors {
  // By rank of the plan: who has its image now (itself, or a rank of its host, from the keeper), -1: nobody.
  std::vector<int> image_at;
  // By rank of the plan: who has the parity that it kept, -1: nobody. Ranks that kept none count for nothing.
  std::vector<int> parity_at;
  // By rank of the plan: who is to get its image back. Looked at where image_at is -1; -1: nobody wants it.
  std::vector<int> target;
};

// One range of one lost image: symbols [from, from + bytes) of k blocks of its stripe, sent to the target, which solves.
struct RecoveryStep {
  int stripe = 0;
  uint64_t from = 0;  // in the block
  uint64_t bytes = 0;
  int lost_symbol = 0;
  int lost_rank = 0;          // of the plan
  uint64_t image_offset = 0;  // where it belongs in that image
  int target = 0;             // now
  struct Source {
    int symbol = 0;
    int rank = -1;        // of the plan: whose image or parity it is; -1: zeros, which nobody sends
    int at = -1;          // now
    uint64_t offset = 0;  // in that rank's image, or in the parity it kept
    uint64_t bytes = 0;   // at most the step's: the rest are zeros
  };
  std::vector<Source> sources;  // k
};

struct RecoveryPlan {
  std::vector<RecoveryStep> steps;
};

// DATA_LOSS names the hosts whose images cannot come back, and how many bytes, where a stripe has lost more than m
// blocks. Steps are in an order in which all can take them.
absl::StatusOr<RecoveryPlan> PlanRecovery(const StripePlan& plan, const Survivors& survivors);

}  // namespace cohort::runtime::elastic
