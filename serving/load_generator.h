// Load on a running server, and what its clients see: `cohort bench serve` as a function.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "serving/client.h"

namespace cohort::serving {

// A request is good where it keeps all limits that are set.
struct GoodputLimits {
  std::optional<absl::Duration> ttft, tpot, end_to_end;
};

struct LoadOptions {
  std::string address;
  ClientOptions client;
  int requests = 64;
  // Closed loop: as many requests at a time, the next one when one ends. Open loop where rate > 0: Poisson
  // arrivals, `rate` a second on average, whatever has ended.
  int concurrency = 8;
  double rate = 0;
  // Used in turn. Empty: random ids, `prompt_tokens` a request.
  std::vector<std::vector<int32_t>> prompts;
  int prompt_tokens = 128;
  int output_tokens = 64;  // exactly: the end of sequence is ignored
  uint64_t seed = 0;       // of prompts, arrivals and sampling
  absl::Duration request_timeout = absl::Minutes(10);
  GoodputLimits limits;
};

// What the client of one request saw. Times since the beginning of the load.
struct RequestRecord {
  absl::Status status;
  absl::Duration sent;
  std::vector<std::pair<absl::Duration, int>> chunks;  // arrival of each message with tokens, and how many
  absl::Duration ended;
  int prompt_tokens = 0;

  int output_tokens() const;
  absl::Duration ttft() const { return chunks.empty() ? absl::ZeroDuration() : chunks.front().first - sent; }
  absl::Duration end_to_end() const { return ended - sent; }
  // Time per output token after the first: (end to end - TTFT) / (n - 1). Zero below two tokens.
  absl::Duration tpot() const;
};

struct Distribution {
  double mean = 0, median = 0, p90 = 0, p99 = 0;
};
// Percentiles between samples are interpolated linearly. All zero where there are none.
Distribution DistributionOf(std::vector<double> samples);

struct LoadReport {
  int completed = 0, failed = 0;
  std::string first_error;
  double duration_s = 0;          // from the first request sent to the last one ended
  double request_throughput = 0;  // completed requests a second
  double output_throughput = 0;   // output tokens a second
  double total_throughput = 0;    // prompt and output tokens a second
  double goodput = 0;             // good requests a second
  Distribution ttft_ms, tpot_ms, itl_ms,
      e2e_ms;  // itl: gaps between the messages of a stream, all requests pooled
};

LoadReport Summarize(const std::vector<RequestRecord>& records, const GoodputLimits& limits);

// Runs the load to its end. INVALID_ARGUMENT: options that make no load. UNAVAILABLE: no server. Requests
// that fail are counted in the report.
absl::StatusOr<LoadReport> RunLoad(const LoadOptions& options);

}  // namespace cohort::serving
