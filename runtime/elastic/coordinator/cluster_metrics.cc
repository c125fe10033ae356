#include "runtime/elastic/coordinator/cluster_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include "runtime/elastic/coordinator/event_log.h"
#include "runtime/service/metrics_page.h"

namespace cohort::cluster {

struct ClusterMetrics::State {
  prometheus::Gauge& Gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(page.registry()).Add({});
  }
  // Counts that outlive this process, so they are told as they are.
  prometheus::Counter& Counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(page.registry()).Add({});
  }

  runtime::MetricsPage page;
  prometheus::Family<prometheus::Gauge>& members =
      prometheus::BuildGauge().Name("cohort:cluster_members").Help("Processes").Register(page.registry());
  prometheus::Gauge& live = members.Add({{"state", "live"}});
  prometheus::Gauge& expired = members.Add({{"state", "expired"}});
  prometheus::Gauge& left = members.Add({{"state", "left"}});
  prometheus::Gauge& epoch = Gauge("cohort:cluster_epoch", "The number of the present epoch");
  prometheus::Gauge& epoch_members = Gauge("cohort:cluster_epoch_members", "Members of the present epoch");
  prometheus::Gauge& step = Gauge("cohort:cluster_step", "The last step that is done");
  prometheus::Gauge& rate = Gauge("cohort:cluster_tokens_per_second", "Of all members, in their last steps");
  prometheus::Gauge& stragglers =
      Gauge("cohort:cluster_stragglers", "Members that compute slower than the others, and stay so");
  prometheus::Family<prometheus::Gauge>& found = prometheus::BuildGauge()
                                                     .Name("cohort:cluster_found")
                                                     .Help("Members by what they were found to be")
                                                     .Register(page.registry());
  prometheus::Gauge& dead = found.Add({{"verdict", "dead"}});
  prometheus::Gauge& stopped = found.Add({{"verdict", "stopped"}});
  prometheus::Gauge& cut_off = found.Add({{"verdict", "cut_off"}});
  prometheus::Gauge& waiting = Gauge("cohort:cluster_newcomers_waiting", "Posts that have no answer");
  prometheus::Gauge& incarnation = Gauge("cohort:cluster_incarnation", "Coordinators so far");
  prometheus::Counter& joined = Counter("cohort:cluster_members_joined_total", "Members that have joined");
  prometheus::Counter& leases = Counter("cohort:cluster_leases_expired_total", "Leases that have run out");
  prometheus::Counter& epochs = Counter("cohort:cluster_epochs_total", "Epochs that were told");
  prometheus::Counter& fenced = Counter("cohort:cluster_fenced_total", "Epochs that were refused");
  prometheus::Counter& changes = Counter("cohort:cluster_reconfigurations_total", "Reconfigurations");
  prometheus::Counter& change_seconds =
      Counter("cohort:cluster_reconfiguration_seconds_total", "Time that reconfigurations took");
  prometheus::Family<prometheus::Counter>& events = prometheus::BuildCounter()
                                                        .Name("cohort:cluster_events_total")
                                                        .Help("Events since this coordinator began")
                                                        .Register(page.registry());
};

ClusterMetrics::ClusterMetrics() : state_(std::make_unique<State>()) {}
ClusterMetrics::~ClusterMetrics() = default;

absl::Status ClusterMetrics::Expose(const std::string& address) { return state_->page.Expose(address); }
int ClusterMetrics::port() const { return state_->page.port(); }
int ClusterMetrics::live_members() const { return static_cast<int>(state_->live.Value()); }
std::string ClusterMetrics::Text() const { return state_->page.Text(); }

void ClusterMetrics::Set(const ClusterState& state) {
  const ClusterState::Summary summary = state.Summarize();
  const v1::ClusterTotals& totals = state.totals();
  const auto raise = [](prometheus::Counter& counter, double total) {
    if (total > counter.Value()) counter.Increment(total - counter.Value());
  };
  state_->live.Set(summary.live);
  state_->expired.Set(summary.expired);
  state_->left.Set(summary.left);
  state_->epoch.Set(static_cast<double>(state.epoch().number()));
  state_->epoch_members.Set(state.epoch().members_size());
  state_->step.Set(static_cast<double>(summary.step));
  state_->rate.Set(summary.tokens_per_second);
  state_->stragglers.Set(summary.stragglers);
  state_->dead.Set(summary.dead);
  state_->stopped.Set(summary.stopped);
  state_->cut_off.Set(summary.cut_off);
  state_->waiting.Set(state.newcomers_waiting());
  state_->incarnation.Set(static_cast<double>(state.incarnation()));
  raise(state_->joined, static_cast<double>(totals.members_joined()));
  raise(state_->leases, static_cast<double>(totals.leases_expired()));
  raise(state_->epochs, static_cast<double>(totals.epochs()));
  raise(state_->fenced, static_cast<double>(totals.fenced()));
  raise(state_->changes, static_cast<double>(totals.reconfigurations()));
  raise(state_->change_seconds, totals.reconfiguration_seconds());
}

void ClusterMetrics::Count(const std::vector<v1::Event>& events) {
  for (const v1::Event& event : events) {
    state_->events.Add({{"kind", KindName(event.kind())}}).Increment();
  }
}

}  // namespace cohort::cluster
