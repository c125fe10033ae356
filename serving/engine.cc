#include "serving/engine.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "serving/batch_plan_check.h"

namespace cohort::serving {
namespace {

// Prompt tokens that a request adds to the queue.
int64_t QueuedTokens(const GenerationRequest& request) {
  return static_cast<int64_t>(request.prompt.size()) * request.n;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(std::unique_ptr<ModelRunner> runner,
                                                       std::shared_ptr<const runtime::Tokenizer> tokenizer,
                                                       const EngineOptions& options, Metrics& metrics) {
  const RunnerInfo info = runner->info();
  if (options.max_sequences < 1 || options.max_tokens_per_step <= options.max_sequences ||
      options.max_tokens_per_step > (1 << 24)) {
    return absl::InvalidArgumentError(
        absl::StrCat("engine: max_sequences must be at least 1 and max_tokens_per_step larger than it, at "
                     "most 2^24; they are ",
                     options.max_sequences, " and ", options.max_tokens_per_step));
  }
  if (options.max_queued_requests < 1 || options.max_queued_tokens < 1) {
    return absl::InvalidArgumentError("engine: max_queued_requests and max_queued_tokens must be at least 1");
  }
  if (options.heartbeat <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("engine: the heartbeat must be longer than zero");
  }
  if (info.ranks < 1 || info.pages < 1 || info.page_size < 1 || info.vocabulary_size < 1 ||
      info.context_length < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("engine: the model runner has ", info.ranks, " ranks, ", info.pages, " pages of ",
                     info.page_size, " tokens, a vocabulary of ", info.vocabulary_size, " and a context of ",
                     info.context_length, "; all must be positive, the context at least 2"));
  }
  return std::unique_ptr<Engine>(new Engine(std::move(runner), std::move(tokenizer), options, metrics));
}

Engine::Engine(std::unique_ptr<ModelRunner> runner, std::shared_ptr<const runtime::Tokenizer> tokenizer,
               const EngineOptions& options, Metrics& metrics)
    : runner_(std::move(runner)),
      info_(runner_->info()),
      tokenizer_(std::move(tokenizer)),
      options_(options),
      metrics_(metrics),
      scheduler_(info_,
                 {info_.page_size, static_cast<int32_t>(options.max_tokens_per_step),
                  static_cast<int32_t>(options.max_sequences)},
                 options.share_prefixes),
      thread_([this] { Loop(); }) {}

Engine::~Engine() {
  {
    std::lock_guard lock(mutex_);
    stop_ = draining_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

absl::StatusOr<uint64_t> Engine::Submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink) {
  auto active = std::make_unique<ActiveRequest>();
  const int64_t tokens = QueuedTokens(request);
  COHORT_CHECK(!request.prompt.empty() && static_cast<int64_t>(request.prompt.size()) < capacity(),
               "a prompt of %zu tokens was not validated", request.prompt.size());
  active->spec = std::move(request);
  active->sink = std::move(sink);
  active->submitted = absl::Now();
  std::lock_guard lock(mutex_);
  if (!health_.ok()) {
    metrics_.CountRejection("failed");
    return absl::UnavailableError(absl::StrCat("the server has failed: ", health_.message()));
  }
  if (draining_) {
    metrics_.CountRejection("draining");
    return absl::UnavailableError("the server is draining and takes no new requests");
  }
  if (queued_requests_ >= options_.max_queued_requests ||
      (queued_requests_ > 0 && queued_tokens_ + tokens > options_.max_queued_tokens)) {
    metrics_.CountRejection("queue_full");
    return absl::ResourceExhaustedError(absl::StrCat("the queue is full: ", queued_requests_,
                                                     " requests with ", queued_tokens_,
                                                     " prompt tokens wait; try again later"));
  }
  const uint64_t handle = next_handle_++;
  active->handle = handle;
  ++queued_requests_;
  queued_tokens_ += tokens;
  ++alive_;
  submitted_.push_back(std::move(active));
  wake_.notify_all();
  return handle;
}

void Engine::Cancel(uint64_t handle) {
  std::lock_guard lock(mutex_);
  cancelled_.push_back(handle);
  wake_.notify_all();
}

void Engine::Drain(absl::Time deadline) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  const auto empty = [this] { return alive_ == 0; };
  if (drained_.wait_until(lock, absl::ToChronoTime(std::min(deadline, absl::Now() + absl::Hours(24 * 365))),
                          empty)) {
    return;
  }
  abort_ = true;
  wake_.notify_all();
  drained_.wait_for(lock, absl::ToChronoNanoseconds(policy::kAbortTimeout), empty);
}

absl::Status Engine::health() const {
  std::lock_guard lock(mutex_);
  return health_;
}

EngineGauges Engine::gauges() const {
  std::lock_guard lock(mutex_);
  return gauges_;
}

void Engine::Loop() {
  absl::Time last_call = absl::Now();
  while (TakeIn()) {
    absl::Status status;
    if (scheduler_.HasWork()) {
      status = RunStep();
      last_call = absl::Now();
    } else if (health().ok() && absl::Now() - last_call >= options_.heartbeat / 2) {
      status = runner_->Idle();
      last_call = absl::Now();
    }
    Report();
    if (!status.ok()) {
      FailAll(status);
      Report();
    }
  }
  while (!requests_.empty()) End(requests_.begin()->first, absl::CancelledError("the server stops"));
  Report();
  runner_->Stop();
}

bool Engine::TakeIn() {
  std::vector<std::unique_ptr<ActiveRequest>> submitted;
  std::vector<uint64_t> cancelled;
  bool abort, stop;
  {
    std::unique_lock lock(mutex_);
    if (!scheduler_.HasWork()) {
      wake_.wait_for(lock, absl::ToChronoNanoseconds(options_.heartbeat / 2),
                     [this] { return stop_ || abort_ || !submitted_.empty() || !cancelled_.empty(); });
    }
    submitted.swap(submitted_);
    cancelled.swap(cancelled_);
    abort = std::exchange(abort_, false);
    stop = stop_;
  }
  for (auto& request : submitted) Begin(std::move(request));
  for (uint64_t handle : cancelled) End(handle, absl::CancelledError("cancelled by the client"));
  ExpireDeadlines();
  if (abort) AbortAll();
  if (!stop && !health().ok()) FailAll(health());  // submitted just before the runner failed
  return !stop;
}

void Engine::Begin(std::unique_ptr<ActiveRequest> owned) {
  ActiveRequest& request = *owned;
  const GenerationRequest& spec = request.spec;
  request.unfinished = spec.n;
  if (spec.prompt_logprobs) request.prompt_scores.resize(spec.prompt.size() - 1);
  for (int32_t index = 0; index < spec.n; ++index) {
    auto sequence = std::make_unique<Sequence>(
        next_sequence_++, request, spec.prompt,
        CompletionText(tokenizer_, spec, index, capacity() - request.prompt_tokens()));
    sequence->index = index;
    scheduler_.Add(*sequence);
    request.sequences.push_back(std::move(sequence));
  }
  metrics_.CountRequest(request.prompt_tokens());
  requests_.emplace(request.handle, std::move(owned));
}

void Engine::ExpireDeadlines() {
  const absl::Time now = absl::Now();
  std::vector<uint64_t> late;
  for (const auto& [handle, request] : requests_) {
    if (request->spec.deadline <= now) late.push_back(handle);
  }
  for (uint64_t handle : late) End(handle, absl::DeadlineExceededError("the request's deadline has passed"));
}

absl::Status Engine::RunStep() {
  const PlanInput input = scheduler_.Input();
  const BatchPlan plan = MakeBatchPlan(input);
  if (options_.check_every_step) {
    const absl::Status proof = CheckBatchPlan(input, plan);
    COHORT_CHECK(proof.ok(), "%s", std::string(proof.message()).c_str());
  }
  const Step step = scheduler_.Prepare(plan);
  NoteAdmissions();
  if (options_.check_every_step) scheduler_.CheckPages();
  absl::StatusOr<StepResult> result = runner_->Run(step);
  if (!result.ok()) return result.status();
  int64_t tokens = 0;
  for (const auto& slice : plan.slices) tokens += slice.tokens;
  metrics_.CountStep(tokens, static_cast<int64_t>(plan.preempted.size()));
  std::map<uint64_t, std::string> broken;  // ended only when no outcome speaks of them any more
  for (Scheduler::Outcome& outcome : scheduler_.Commit(plan, *std::move(result))) {
    const uint64_t handle = outcome.sequence->request.handle;
    if (!outcome.row.error.empty()) broken.emplace(handle, outcome.row.error);
    if (!broken.contains(handle)) Accept(std::move(outcome), absl::Now());
  }
  for (const auto& [handle, error] : broken) End(handle, absl::InternalError(error));
  if (options_.check_every_step) scheduler_.CheckPages();
  return absl::OkStatus();
}

void Engine::NoteAdmissions() {
  const absl::Time now = absl::Now();
  for (auto& [handle, request] : requests_) {
    if (!request->begun || !request->queued) continue;
    LeaveQueue(*request);
    metrics_.ObserveQueueTime(now - request->submitted);
  }
}

void Engine::LeaveQueue(ActiveRequest& request) {
  if (!std::exchange(request.queued, false)) return;
  std::lock_guard lock(mutex_);
  --queued_requests_;
  queued_tokens_ -= QueuedTokens(request.spec);
}

void Engine::Accept(Scheduler::Outcome outcome, absl::Time now) {
  Sequence& sequence = *outcome.sequence;
  ActiveRequest& request = sequence.request;
  SendPrompt(request);
  if (sequence.text.tokens() == 0) {
    metrics_.ObserveFirstToken(now - request.submitted);
  } else {
    metrics_.ObserveNextToken(now - sequence.last_token);
  }
  sequence.last_token = now;
  metrics_.CountGenerated(1);
  sequence.tokens.push_back(outcome.row.token);
  Delta delta = sequence.text.Accept(outcome.row.token, std::move(outcome.row.scores));
  const FinishReason reason = delta.finish_reason;
  if (reason != FinishReason::kNone) {
    scheduler_.Remove(sequence);
    sequence.finished = true;
    metrics_.CountFinish(reason);
  }
  request.sink->OnDelta(std::move(delta));
  if (reason != FinishReason::kNone && --request.unfinished == 0) End(request.handle, absl::OkStatus());
}

void Engine::SendPrompt(ActiveRequest& request) {
  if (std::exchange(request.prompt_sent, true)) return;
  std::vector<TokenScores> scores;
  for (auto& score : request.prompt_scores) {
    if (!score) break;  // the server gives up before the prompt was computed
    scores.push_back(*std::move(score));
  }
  request.sink->OnPrompt(request.spec.prompt, std::move(scores));
}

void Engine::End(uint64_t handle, const absl::Status& status) {
  const auto it = requests_.find(handle);
  if (it == requests_.end()) return;
  const std::unique_ptr<ActiveRequest> request = std::move(it->second);
  requests_.erase(it);
  for (const auto& sequence : request->sequences) {
    if (!sequence->finished) scheduler_.Remove(*sequence);
  }
  LeaveQueue(*request);
  metrics_.ObserveRequest(absl::Now() - request->submitted);
  Report();
  const TokenUsage usage = request->usage();
  // Failures are worth a line of everybody's log, successes of those who ask for them.
  spdlog::log(status.ok() ? spdlog::level::debug : spdlog::level::info,
              "request {}: {} prompt and {} output tokens in {}: {}", request->spec.request_id,
              usage.prompt_tokens, usage.completion_tokens,
              absl::FormatDuration(absl::Now() - request->submitted), status.ToString());
  request->sink->OnFinish(status, usage);
  std::lock_guard lock(mutex_);
  if (--alive_ == 0) drained_.notify_all();
}

void Engine::AbortAll() {
  while (!requests_.empty()) {
    ActiveRequest& request = *requests_.begin()->second;
    SendPrompt(request);
    for (const auto& sequence : request.sequences) {
      if (sequence->finished) continue;
      scheduler_.Remove(*sequence);
      sequence->finished = true;
      metrics_.CountFinish(FinishReason::kAborted);
      request.sink->OnDelta(sequence->text.Abort());
    }
    End(request.handle, absl::OkStatus());
  }
}

void Engine::FailAll(const absl::Status& status) {
  {
    std::lock_guard lock(mutex_);
    if (health_.ok()) health_ = status;
  }
  while (!requests_.empty()) {
    End(requests_.begin()->first,
        absl::InternalError(absl::StrCat("the ranks that hold the model have failed: ", status.message())));
  }
}

void Engine::Report() {
  const EngineGauges gauges{static_cast<int64_t>(scheduler_.running()),
                            static_cast<int64_t>(scheduler_.waiting()), scheduler_.cache_usage()};
  metrics_.SetGauges(gauges);
  metrics_.CountPrefix(scheduler_.prefix_queries() - prefix_queries_,
                       scheduler_.prefix_hits() - prefix_hits_);
  prefix_queries_ = scheduler_.prefix_queries();
  prefix_hits_ = scheduler_.prefix_hits();
  std::lock_guard lock(mutex_);
  gauges_ = gauges;
}

}  // namespace cohort::serving
