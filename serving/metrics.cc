#include "serving/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <optional>

#include "runtime/service/metrics_page.h"

namespace cohort::serving {
namespace {

using Labels = prometheus::Labels;

const prometheus::Histogram::BucketBoundaries kLatencySeconds = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
const prometheus::Histogram::BucketBoundaries kTokenCounts = {1,   2,   4,    8,    16,   32,   64,   128,
                                                              256, 512, 1024, 2048, 4096, 8192, 16384};

const char* NameOf(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kAborted:
      return "abort";
    case FinishReason::kNone:
      break;
  }
  return "none";
}

}  // namespace

struct Metrics::State {
  explicit State(const Labels& labels) : labels(labels) {}

  prometheus::Counter& Counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Labels(labels).Register(page.registry()).Add({});
  }
  prometheus::Gauge& Gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Labels(labels).Register(page.registry()).Add({});
  }
  prometheus::Histogram& Histogram(const char* name, const char* help,
                                   const prometheus::Histogram::BucketBoundaries& buckets) {
    return prometheus::BuildHistogram()
        .Name(name)
        .Help(help)
        .Labels(labels)
        .Register(page.registry())
        .Add({}, buckets);
  }

  Labels labels;
  runtime::MetricsPage page;
  prometheus::Gauge& running = Gauge("cohort:num_requests_running", "Sequences in the running batch");
  prometheus::Gauge& waiting = Gauge("cohort:num_requests_waiting", "Sequences that wait for their turn");
  prometheus::Gauge& usage = Gauge("cohort:kv_cache_usage_perc", "Share of KV cache pages held, 1 is all");
  prometheus::Counter& prefix_queries =
      Counter("cohort:prefix_cache_queries_total", "Tokens looked up in the prefix cache");
  prometheus::Counter& prefix_hits =
      Counter("cohort:prefix_cache_hits_total", "Tokens found in the prefix cache");
  prometheus::Counter& preemptions =
      Counter("cohort:num_preemptions_total", "Sequences that gave up their pages to older ones");
  prometheus::Counter& prompt_tokens =
      Counter("cohort:prompt_tokens_total", "Prompt tokens of accepted requests");
  prometheus::Counter& generated = Counter("cohort:generation_tokens_total", "Tokens generated");
  prometheus::Family<prometheus::Counter>& success = prometheus::BuildCounter()
                                                         .Name("cohort:request_success_total")
                                                         .Help("Completions by what ended them")
                                                         .Labels(labels)
                                                         .Register(page.registry());
  prometheus::Family<prometheus::Counter>& rejections = prometheus::BuildCounter()
                                                            .Name("cohort:admission_rejections_total")
                                                            .Help("Requests turned away")
                                                            .Labels(labels)
                                                            .Register(page.registry());
  prometheus::Histogram& step_tokens =
      Histogram("cohort:iteration_tokens_total", "Tokens computed in one step", kTokenCounts);
  prometheus::Histogram& queue_time =
      Histogram("cohort:request_queue_time_seconds", "From submission to admission", kLatencySeconds);
  prometheus::Histogram& first_token =
      Histogram("cohort:time_to_first_token_seconds", "From submission to the first token", kLatencySeconds);
  prometheus::Histogram& next_token =
      Histogram("cohort:inter_token_latency_seconds", "Between tokens of one request", kLatencySeconds);
  prometheus::Histogram& end_to_end =
      Histogram("cohort:e2e_request_latency_seconds", "From submission to the end", kLatencySeconds);
};

Metrics::Metrics(const std::string& model_name)
    : state_(std::make_unique<State>(Labels{{"model_name", model_name}, {"engine", "0"}})) {}
Metrics::~Metrics() = default;

absl::Status Metrics::Expose(const std::string& address) { return state_->page.Expose(address); }
int Metrics::port() const { return state_->page.port(); }
std::string Metrics::Text() const { return state_->page.Text(); }

void Metrics::SetGauges(const EngineGauges& gauges) {
  state_->running.Set(static_cast<double>(gauges.running));
  state_->waiting.Set(static_cast<double>(gauges.waiting));
  state_->usage.Set(gauges.cache_usage);
}
void Metrics::CountStep(int64_t tokens, int64_t preemptions) {
  state_->step_tokens.Observe(static_cast<double>(tokens));
  state_->preemptions.Increment(static_cast<double>(preemptions));
}
void Metrics::CountPrefix(int64_t queried, int64_t hit) {
  state_->prefix_queries.Increment(static_cast<double>(queried));
  state_->prefix_hits.Increment(static_cast<double>(hit));
}
void Metrics::CountRequest(int64_t prompt_tokens) {
  state_->prompt_tokens.Increment(static_cast<double>(prompt_tokens));
}
void Metrics::CountRejection(const std::string& reason) {
  state_->rejections.Add({{"reason", reason}}).Increment();
}
void Metrics::CountFinish(FinishReason reason) {
  state_->success.Add({{"finished_reason", NameOf(reason)}}).Increment();
}
void Metrics::CountGenerated(int64_t tokens) { state_->generated.Increment(static_cast<double>(tokens)); }
void Metrics::ObserveQueueTime(absl::Duration time) {
  state_->queue_time.Observe(absl::ToDoubleSeconds(time));
}
void Metrics::ObserveFirstToken(absl::Duration time) {
  state_->first_token.Observe(absl::ToDoubleSeconds(time));
}
void Metrics::ObserveNextToken(absl::Duration time) {
  state_->next_token.Observe(absl::ToDoubleSeconds(time));
}
void Metrics::ObserveRequest(absl::Duration time) { state_->end_to_end.Observe(absl::ToDoubleSeconds(time)); }

}  // namespace cohort::serving
