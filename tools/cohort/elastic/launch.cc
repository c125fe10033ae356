#include "tools/cohort/elastic/launch.h"

#include <unistd.h>

#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "comm/rendezvous.h"

namespace cohort::tools {
namespace {

// An environment variable as a number.
int Number(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  int number = otherwise;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : otherwise;
}

std::string Text(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// What the processes of one launch have in common and no other launch has; empty: there was no launcher.
std::string LaunchId() {
  std::string id;
  for (const char* name : {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID"}) {
    if (id.empty()) id = Text(name);
  }
  if (id.empty() && !Text("SLURM_JOB_ID").empty()) {
    id = absl::StrCat("slurm-", Text("SLURM_JOB_ID"), ".", Text("SLURM_STEP_ID"));
  }
  // A job that was queued again has the same number, and its steps begin at 0 again.
  const std::string again = Text("SLURM_RESTART_COUNT");
  return id.empty() || again.empty() || again == "0" ? id : absl::StrCat(id, "-", again);
}

}  // namespace

absl::StatusOr<Launch> ThisLaunch() {
  Launch launch{.id = LaunchId(), .rank = comm::LaunchedRank()};
  // PMIx tells the size only to who calls it; Slurm to all of a step.
  const int of_step = std::getenv("PMIX_RANK") == nullptr ? 1 : Number("SLURM_STEP_NUM_TASKS", 1);
  launch.size = Number("OMPI_COMM_WORLD_SIZE", Number("PMI_SIZE", of_step));
  launch.several_hosts = Number("OMPI_COMM_WORLD_LOCAL_SIZE", launch.size) < launch.size ||
                         (launch.size > 1 && Number("SLURM_STEP_NUM_NODES", 1) > 1);
  if (launch.id.empty() && launch.size > 1) {
    return absl::FailedPreconditionError(
        "the launcher gives its processes no common name: none of PMIX_NAMESPACE, PMI_JOBID and SLURM_JOB_ID "
        "is set");
  }
  if (launch.id.empty()) launch.id = absl::StrCat("alone-", getpid());
  return launch;
}

}  // namespace cohort::tools
