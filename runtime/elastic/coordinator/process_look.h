// What a process of this host can see of another one.
#pragma once

#include <cstdint>

#include "cohort/v1/cluster_members.pb.h"

namespace cohort::cluster {

// Of the process of this number, where the two share a pid namespace. UNSPECIFIED: /proc does not tell.
v1::ProcessState LookAtProcess(int64_t pid);

}  // namespace cohort::cluster
