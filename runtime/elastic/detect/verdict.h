// What is wrong with a member, from what is known of it. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "cohort/v1/cluster.pb.h"

namespace cohort::runtime::elastic {

enum class Known { kNo, kYes, kUnknown };

// One member, as it is seen at one moment. The texts must outlive it.
struct Sighting {
  v1::MemberState lease = v1::MEMBER_STATE_LIVE;
  absl::string_view host = "";
  // Of its process, told by somebody on its host.
  v1::ProcessState process = v1::PROCESS_STATE_UNSPECIFIED;
  // Somebody on its host was asked, and is to tell soon.
  bool asked = false;
  // Seconds since the members went on without it, although it had not said that it goes; negative: they have not.
  double lost_seconds = -1;
  // The coordinator has heard it since, and its lease has held all the time.
  bool heard = true, held = true;
  // Any member, itself not counted, hears it.
  Known reached = Known::kUnknown;
  // What it has told: its last step, how long that took, what it does.
  int64_t step = 0;
  double step_seconds = 0;
  absl::string_view phase = "";
  double report_age_seconds = -1;  // since that was renewed; negative: nothing was told
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
  std::string why = {};  // in words; empty: fine
  bool open = false;     // fine so far: what would tell is awaited
};

// By member, in their order. Those that have left are fine: nobody expects anything of them. Where nothing tells a dead
// host from one that is cut off, it is cut off: what is there may come back. `lease_seconds`: how long leases last.
std::vector<Verdict> Judge(const std::vector<Sighting>& members, double lease_seconds = 2);

}  // namespace cohort::runtime::elastic
