// What the server measures, for Prometheus. Names mirror vLLM's, with the prefix `cohort:`.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "serving/generation.h"

namespace cohort::serving {

// The state of the engine after a step.
struct EngineGauges {
  int64_t running = 0;     // sequences
  int64_t waiting = 0;     // sequences
  double cache_usage = 0;  // 0 to 1
};

// Thread-safe.
class Metrics {
 public:
  explicit Metrics(const std::string& model_name);
  ~Metrics();

  // Serves /metrics over HTTP at "host:port" from now on. INVALID_ARGUMENT where that cannot be bound.
  absl::Status Expose(const std::string& address);
  // The port that Expose has bound, for addresses that end in ":0".
  int port() const;
  // The exposition text.
  std::string Text() const;

  void SetGauges(const EngineGauges& gauges);
  void CountStep(int64_t tokens, int64_t preemptions);
  void CountPrefix(int64_t queried, int64_t hit);
  void CountRequest(int64_t prompt_tokens);
  void CountRejection(const std::string& reason);
  void CountFinish(FinishReason reason);  // a completion
  void CountGenerated(int64_t tokens);
  void ObserveQueueTime(absl::Duration time);
  void ObserveFirstToken(absl::Duration since_submission);
  void ObserveNextToken(absl::Duration since_last);
  void ObserveRequest(absl::Duration end_to_end);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cohort::serving
