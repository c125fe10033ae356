// ucx_perftest, the measure of the transfer engine: a server here and a client there.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace cohort::tools {

struct PerftestRun {
  std::string test = {};  // as ucx_perftest calls it: ucp_put_bw
  size_t bytes = 0;       // of a message
  int iterations = 1;
  int port = 0;
  std::string server = {};  // where the other one is; empty: this is the server
  std::string device = {};  // the network interface, empty: any
  bool network = false;     // not over shared memory
};

struct PerftestResult {
  double latency_s = 0;         // one way, the median
  double bytes_per_second = 0;  // over all
};

// Runs one side to its end, or for at most a minute. Results come from the client.
absl::StatusOr<PerftestResult> RunPerftest(const PerftestRun& run);
// From what the program prints.
absl::StatusOr<PerftestResult> ParsePerftest(const std::string& output);

}  // namespace cohort::tools
