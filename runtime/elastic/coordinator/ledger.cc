#include "runtime/elastic/coordinator/ledger.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <list>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {
namespace {

using Steady = std::chrono::steady_clock;

v1::ClusterCommand TickCommand() {
  v1::ClusterCommand command;
  command.mutable_tick();
  return command;
}

Outcome Refused(const absl::Status& status) {
  Outcome outcome;
  outcome.status = status;
  return outcome;
}

absl::Status Ending() {
  return absl::UnavailableError("the coordinator is ending; try again when another has begun");
}

}  // namespace

struct Ledger::Core {
  struct Item {
    v1::ClusterCommand command;
    Done done;  // of a command
    Look look;  // else
    Outcome outcome;
  };
  struct Waiting {
    absl::Time deadline;
    Ready ready;
    std::function<void(const absl::Status&)> over;
  };

  Core(std::unique_ptr<Journal> journal, absl::Duration lease, std::unique_ptr<EventLog> events,
       ClusterMetrics& metrics)
      : journal(std::move(journal)), events(std::move(events)), metrics(metrics), state(lease) {}

  // Makes `state` of the journal.
  absl::Status Read() {
    COHORT_ASSIGN_OR_RETURN(const Journal::Contents contents, journal->Load());
    if (!contents.warning.empty()) spdlog::warn("{}", contents.warning);
    ClusterState fresh(state.lease());
    const auto damaged = [&](absl::string_view how) {
      return absl::DataLossError(absl::StrCat("the journal in ", journal->name(), " is damaged: ", how));
    };
    if (!contents.snapshot.empty()) {
      v1::ClusterSnapshot snapshot;
      if (!snapshot.ParseFromString(contents.snapshot)) return damaged("the state is none");
      absl::StatusOr<ClusterState> restored = ClusterState::Restore(snapshot, state.lease());
      if (!restored.ok()) return damaged(restored.status().message());
      fresh = *std::move(restored);
    }
    for (const std::string& record : contents.records) {
      v1::ClusterCommand command;
      if (!command.ParseFromString(record)) return damaged("a record is no command");
      appended += record.size();
      fresh.Apply(command, absl::FromUnixMicros(command.time_micros()));
    }
    state = std::move(fresh);
    next = contents.next;
    return absl::OkStatus();
  }

  // After a write that may have failed or not: what is durable becomes the state again.
  void ReadAgain() {
    ClusterState former = std::move(state);
    state = ClusterState(former.lease());
    const absl::Status status = Read();
    stale = !status.ok();
    if (stale) state = std::move(former);  // shown to nobody until it was read
    if (absl::IsDataLoss(status) || absl::IsInvalidArgument(status)) return Fail(status);
    if (stale) {
      spdlog::warn("the coordinator's state cannot be read: {}", status.ToString());
      return;
    }
    if (state.incarnation() != incarnation) {
      return Fail(absl::FailedPreconditionError(absl::StrCat("coordinator ", state.incarnation(),
                                                             " has taken over the state in ", journal->name(),
                                                             "; this one, ", incarnation, ", ends")));
    }
    state.AdoptMemory(former);
  }

  void Fail(const absl::Status& status) {
    const std::lock_guard lock(mutex);
    if (health.ok()) health = status;
  }

  absl::Status Append(const std::vector<std::string>& records) {
    COHORT_RETURN_IF_ERROR(journal->Append(next, records));
    next += records.size();
    for (const std::string& record : records) appended += record.size();
    return absl::OkStatus();
  }

  // Applies all commands and makes what they change durable at once. False: nothing has happened.
  bool RunTogether(std::deque<Item>& items, absl::Time now) {
    std::vector<std::string> records;
    for (Item& item : items) {
      if (item.look != nullptr) continue;
      item.outcome = state.Apply(item.command, now);
      if (item.outcome.record.has_value()) records.push_back(item.outcome.record->SerializeAsString());
    }
    if (records.empty()) return true;
    const absl::Status status = Append(records);
    if (status.ok()) return true;
    Complain(status);
    ReadAgain();
    return false;
  }

  // One alone, after a failure. What an Append has done whose answer was lost is found done.
  void RunAlone(Item& item, absl::Time now) {
    if (!Usable().ok()) {
      item.outcome = Refused(Usable());
      return;
    }
    item.outcome = state.Apply(item.command, now);
    if (!item.outcome.record.has_value()) return;
    const absl::Status status = Append({item.outcome.record->SerializeAsString()});
    if (status.ok()) return;
    Complain(status);
    ReadAgain();
    item.outcome = Refused(status);
  }

  void Complain(const absl::Status& status) {
    if (status.message() == complaint) return;  // said once
    complaint = std::string(status.message());
    spdlog::error("the coordinator cannot write its state: {}", status.ToString());
  }

  absl::Status Usable() {
    const std::lock_guard lock(mutex);
    if (!health.ok()) return absl::UnavailableError(health.message());
    if (stale) return absl::UnavailableError("the coordinator's journal cannot be read at this moment");
    return absl::OkStatus();
  }

  void Process(std::deque<Item>& items) {
    const absl::Time now = absl::Now();
    if (stale) ReadAgain();
    const uint64_t revision = state.last_revision();
    if (!Usable().ok() || !RunTogether(items, now)) {
      for (Item& item : items) {
        if (item.look == nullptr) RunAlone(item, now);
      }
    }
    const absl::Status usable = Usable();
    if (usable.ok() && state.last_revision() != revision) Tell(revision);
    for (Item& item : items) {
      if (item.look != nullptr) {
        item.look(usable, state, now);
      } else if (item.done != nullptr) {
        item.done(item.outcome);
      }
    }
    LookAtWaits(usable.ok(), now);
    if (usable.ok() && appended > policy::kCompactBytes) Compact();
  }

  void Tell(uint64_t before) {
    metrics.Count(state.EventsFrom(before + 1));
    if (events == nullptr) return;
    const absl::Status status = events->CatchUp(state);
    if (!status.ok() && events_fine) spdlog::warn("events cannot be written: {}", status.ToString());
    events_fine = status.ok();
  }

  void Compact() {
    const std::string snapshot = state.Snapshot().SerializeAsString();
    if (appended < snapshot.size()) return;
    const absl::Status status = journal->Compact(next, snapshot);
    if (status.ok()) {
      appended = 0;
      return;
    }
    Complain(status);
    appended /= 2;  // tried again after some more
    ReadAgain();
  }

  void LookAtWaits(bool usable, absl::Time now) {
    for (auto it = waits.begin(); it != waits.end();) {
      if (usable && it->ready(state)) {
        it = waits.erase(it);
      } else if (it->deadline <= now) {
        it->over(absl::DeadlineExceededError("not in time"));
        it = waits.erase(it);
      } else {
        ++it;
      }
    }
  }

  void EndWaits() {
    for (Waiting& waiting : std::exchange(waits, {})) waiting.over(Ending());
  }

  void Run() {
    const auto pause =
        absl::ToChronoNanoseconds(std::min(state.lease() / policy::kTicksPerLease, policy::kLongestPause));
    Steady::time_point tick = Steady::now();
    const auto more = [&] {
      const std::lock_guard lock(mutex);
      return !queue.empty();
    };
    for (;;) {
      std::deque<Item> items;
      bool ending;
      {
        std::unique_lock lock(mutex);
        Steady::time_point wake = tick;
        for (const Waiting& waiting : waits) {
          if (waiting.deadline == absl::InfiniteFuture()) continue;
          const absl::Duration left = std::max(waiting.deadline - absl::Now(), absl::ZeroDuration());
          wake = std::min(wake, Steady::now() + absl::ToChronoNanoseconds(left));
        }
        come.wait_until(lock, wake, [&] { return !queue.empty() || stop; });
        items.swap(queue);
        ending = stop;
      }
      if (Steady::now() >= tick) {
        items.push_front(Item{TickCommand(), nullptr, nullptr, {}});
        tick = Steady::now() + pause;
      }
      const bool ticked = !items.empty() && items.front().command.has_tick();
      Process(items);
      if (state.judge_soon())
        tick = std::min(tick, Steady::now() + absl::ToChronoNanoseconds(policy::kJudgeSoon));
      if (ticked) metrics.Set(state);
      if (ending && !more()) break;
    }
    EndWaits();
  }

  void Push(Item item) {
    {
      const std::lock_guard lock(mutex);
      queue.push_back(std::move(item));
    }
    come.notify_one();
  }

  const std::unique_ptr<Journal> journal;
  const std::unique_ptr<EventLog> events;
  ClusterMetrics& metrics;
  // Of the thread.
  ClusterState state;
  uint64_t incarnation = 0;  // of this ledger
  uint64_t next = 0;         // record of the journal
  size_t appended = 0;       // bytes since the journal was compacted
  bool stale = false;        // the state has what may not be durable
  bool events_fine = true;
  std::string complaint;
  std::list<Waiting> waits;
  bool no_waits = false;

  mutable std::mutex mutex;
  std::condition_variable come;
  std::deque<Item> queue;
  absl::Status health;
  bool stop = false;
  std::thread thread;
};

Ledger::Ledger(std::unique_ptr<Core> core) : core_(std::move(core)) {}

absl::StatusOr<std::unique_ptr<Ledger>> Ledger::Open(std::unique_ptr<Journal> journal, absl::Duration lease,
                                                     std::unique_ptr<EventLog> events,
                                                     ClusterMetrics& metrics) {
  auto core = std::make_unique<Core>(std::move(journal), lease, std::move(events), metrics);
  COHORT_RETURN_IF_ERROR(core->Read());
  v1::ClusterCommand begin;
  begin.mutable_begin();
  const uint64_t revision = core->state.last_revision();
  const Outcome outcome = core->state.Apply(begin, absl::Now());
  COHORT_RETURN_IF_ERROR(core->Append({outcome.record->SerializeAsString()}));
  core->incarnation = core->state.incarnation();
  core->Tell(revision);
  core->metrics.Set(core->state);
  core->thread = std::thread([core = core.get()] { core->Run(); });
  return std::unique_ptr<Ledger>(new Ledger(std::move(core)));
}

Ledger::~Ledger() {
  {
    const std::lock_guard lock(core_->mutex);
    core_->stop = true;
  }
  core_->come.notify_one();
  core_->thread.join();
}

void Ledger::Submit(v1::ClusterCommand command, Done done) {
  core_->Push({std::move(command), std::move(done), nullptr, {}});
}

void Ledger::Read(Look look) { core_->Push({{}, nullptr, std::move(look), {}}); }

void Ledger::Wait(absl::Time deadline, Ready ready, std::function<void(const absl::Status&)> over) {
  Read([core = core_.get(), deadline, ready = std::move(ready), over = std::move(over)](
           const absl::Status&, const ClusterState&, absl::Time) mutable {
    if (core->no_waits) return over(Ending());
    core->waits.push_back({deadline, std::move(ready), std::move(over)});
  });
}

void Ledger::EndWaits() {
  Read([core = core_.get()](const absl::Status&, const ClusterState&, absl::Time) {
    core->no_waits = true;
    core->EndWaits();
  });
}

absl::Status Ledger::health() const {
  const std::lock_guard lock(core_->mutex);
  return core_->health;
}

}  // namespace cohort::cluster
