// cohort train --elastic and --join: a training that goes on while its ranks join, fail and leave.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "cohort/v1/config.pb.h"

namespace cohort::tools {

struct ElasticFlags {
  bool elastic = false;
  std::string join;         // HOST:PORT of the coordinator of a job that runs
  std::string coordinator;  // likewise, where --elastic is not to start its own
};

// `config` is the user's; of who joins, nothing: what runs is asked of the job.
absl::Status TrainElastic(v1::TrainConfig config, const ElasticFlags& flags);

}  // namespace cohort::tools
