// What is wrong with a member, from what is known of it. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "cohort/v1/cluster.pb.h"

namespace cohort::runtime::elastic {

enum class Known { kNo, kYes, kUnknown };

// One member, as it is seen at one moment.
struct Sighting {
  v1::MemberState lease = v1::MEMBER_STATE_LIVE;
  std::string host = "";
  // Told by somebody on its host: its process is there.
  Known process = Known::kUnknown;
  // Told by members: any of them, itself not counted, hears it.
  Known reached = Known::kUnknown;
  v1::StepReport report = {};
  double report_age_seconds = -1;  // since it was renewed; negative: there is none
  double step_age_seconds = -1;    // since its step was last another one; negative: unknown
};

enum class Health {
  kFine,
  kDead,     // its process is gone, or nobody has heard of it
  kStopped,  // its process is there, and does nothing
  kCutOff,   // it, or its host, is there and is not reached
};
absl::string_view Name(Health health);

struct Verdict {
  Health health = Health::kFine;
  std::string why;  // in words; empty: fine
};

// By member, in their order. Those that have left are fine: nobody expects anything of them. Where nothing tells a dead
// host from one that is cut off, it is cut off: what is there may come back.
std::vector<Verdict> Judge(const std::vector<Sighting>& members);

}  // namespace cohort::runtime::elastic
