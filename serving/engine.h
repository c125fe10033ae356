// The engine: takes requests, runs steps, hands out tokens. Continuous batching.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/tokenizer/tokenizer.h"
#include "serving/generation.h"
#include "serving/metrics.h"
#include "serving/model_runner.h"
#include "serving/policy.h"
#include "serving/scheduler.h"

namespace cohort::serving {

struct EngineOptions {
  int64_t max_tokens_per_step = policy::kMaxTokensPerStep;  // of one rank; more than max_sequences
  int64_t max_sequences = policy::kMaxSequencesPerRank;     // of one rank
  int64_t max_queued_requests = policy::kMaxQueuedRequests;
  int64_t max_queued_tokens = policy::kMaxQueuedTokens;
  // Sequences that begin alike share the pages of their beginning.
  bool share_prefixes = true;
  absl::Duration heartbeat = policy::kHeartbeat;
  // Prove every plan and the books of every step, and abort where they are wrong. For tests.
  bool check_every_step = false;
};

// One thread owns all that is scheduled: it alone calls the runner and the sinks. Everybody else leaves
// submissions and cancellations in a queue, which that thread empties between two steps. So whatever is
// cancelled is free before the next step begins. Public methods are thread-safe.
class Engine {
 public:
  // INVALID_ARGUMENT where the options contradict each other or the runner. `metrics` must outlive the
  // engine.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(std::unique_ptr<ModelRunner> runner,
                                                        std::shared_ptr<const runtime::Tokenizer> tokenizer,
                                                        const EngineOptions& options, Metrics& metrics);
  // Ends what still runs with CANCELLED, and stops the runner.
  ~Engine();

  // Queues a request that validate.h has made with limits() and returns its handle. The sink may be called
  // before this returns. RESOURCE_EXHAUSTED: the queue is full. UNAVAILABLE: draining, or the runner has
  // failed.
  absl::StatusOr<uint64_t> Submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink);
  // The request ends with CANCELLED at the end of the step that runs now. Unknown handles are ignored.
  void Cancel(uint64_t handle);
  // Takes no more requests, waits until all have ended, and aborts at `deadline` those that have not
  // (FinishReason::kAborted), which takes as long as the step that runs then.
  void Drain(absl::Time deadline);

  // OK while the engine works; else why its runner failed.
  absl::Status health() const;
  // The longest sequence that can be served: prompt and output together.
  int32_t capacity() const { return scheduler_.capacity(); }
  const RunnerInfo& runner_info() const { return info_; }
  EngineGauges gauges() const;

 private:
  Engine(std::unique_ptr<ModelRunner> runner, std::shared_ptr<const runtime::Tokenizer> tokenizer,
         const EngineOptions& options, Metrics& metrics);

  void Loop();
  // Waits for something to do and takes it in. False: the engine is to end.
  bool TakeIn();
  void Begin(std::unique_ptr<ActiveRequest> request);
  void ExpireDeadlines();
  absl::Status RunStep();
  void Accept(Scheduler::Outcome outcome, absl::Time now);
  void SendPrompt(ActiveRequest& request);
  // Ends a request: its pages are free before its sink hears of it.
  void End(uint64_t handle, const absl::Status& status);
  void AbortAll();
  void FailAll(const absl::Status& status);
  void NoteAdmissions();
  void LeaveQueue(ActiveRequest& request);
  void Report();

  std::unique_ptr<ModelRunner> runner_;
  const RunnerInfo info_;
  std::shared_ptr<const runtime::Tokenizer> tokenizer_;
  const EngineOptions options_;
  Metrics& metrics_;

  // Of the engine's thread alone (capacity is fixed from the start).
  Scheduler scheduler_;
  std::map<uint64_t, std::unique_ptr<ActiveRequest>> requests_;
  int64_t next_sequence_ = 0;
  int64_t prefix_queries_ = 0, prefix_hits_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable wake_;     // the engine's thread
  std::condition_variable drained_;  // those in Drain
  std::vector<std::unique_ptr<ActiveRequest>> submitted_;
  std::vector<uint64_t> cancelled_;
  uint64_t next_handle_ = 1;
  int64_t queued_requests_ = 0, queued_tokens_ = 0;  // submitted and not begun
  int64_t alive_ = 0;                                // submitted and not ended
  bool draining_ = false, abort_ = false, stop_ = false;
  absl::Status health_;
  EngineGauges gauges_;

  std::thread thread_;
};

}  // namespace cohort::serving
