// What the leader of an edit proposes, from what the members say: a pure function.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "comm/membership/agreement.h"
#include "comm/membership/edit.h"
#include "comm/membership/wire.h"

namespace cohort::comm {

struct EditedGroup {
  uint32_t epoch = 0;
  std::vector<int> members;  // in the order of ranks
};

// Who has voted and does not leave stays, in the old order; of members that cannot reach each other, those with the
// most such peers go first (of equals, the highest number), until all that stay are connected. Newcomers get
// numbers that nobody has had; those that somebody who stays has no path to are not taken in, nor anybody where half of
// the members decide (with EditOptions::quorum).
EditDecision ComposeDecision(const EditedGroup& before, const std::map<int, Agreement::Vote>& votes,
                             const std::vector<std::pair<std::string, MemberCard>>& newcomers,
                             const EditOptions& options);

// What a process hears that is not part of a decision.
absl::Status RemovedStatus(int member, const EditDecision& decision);

}  // namespace cohort::comm
