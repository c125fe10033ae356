#include "tools/cohort/bench/perftest.h"

#include <cstdio>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"

namespace cohort::tools {

absl::StatusOr<PerftestResult> ParsePerftest(const std::string& output) {
  // Final: iterations, latency (typical, average, overall; µs), bandwidth (average, overall; MiB/s), messages
  // (...).
  const size_t at = output.find("Final:");
  std::vector<std::string> fields =
      at == std::string::npos
          ? std::vector<std::string>()
          : absl::StrSplit(output.substr(at, output.find('\n', at) - at), ' ', absl::SkipEmpty());
  double latency = 0, bandwidth = 0;
  if (fields.size() < 7 || !absl::SimpleAtod(fields[2], &latency) ||
      !absl::SimpleAtod(fields[6], &bandwidth)) {
    return absl::UnavailableError(
        absl::StrCat("ucx_perftest (Debian's ucx-utils) gave no result: ", output.substr(0, 500)));
  }
  return PerftestResult{.latency_s = latency * 1e-6, .bytes_per_second = bandwidth * 1024 * 1024};
}

absl::StatusOr<PerftestResult> RunPerftest(const PerftestRun& run) {
  // Quoted are what the command line brings.
  const auto quoted = [](const std::string& text) {
    return absl::StrCat("'", absl::StrJoin(absl::StrSplit(text, '\''), "'\\''"), "'");
  };
  std::string command = "UCX_LOG_LEVEL=fatal ";
  if (run.network) absl::StrAppend(&command, "UCX_TLS=^sm,self ");
  if (!run.device.empty()) absl::StrAppend(&command, "UCX_NET_DEVICES=", quoted(run.device), " ");
  absl::StrAppend(&command, "timeout 60 ucx_perftest -t ", run.test, " -s ", run.bytes, " -n ",
                  run.iterations, " -w ", run.iterations / 10 + 1, " -p ", run.port);
  if (!run.server.empty()) absl::StrAppend(&command, " ", quoted(run.server));
  absl::StrAppend(&command, " 2>&1");
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return absl::UnavailableError("cannot start ucx_perftest");
  std::string output;
  char part[4096];
  for (size_t got = 0; (got = fread(part, 1, sizeof(part), pipe)) > 0;) output.append(part, got);
  pclose(pipe);
  return run.server.empty() ? PerftestResult{} : ParsePerftest(output);
}

}  // namespace cohort::tools
