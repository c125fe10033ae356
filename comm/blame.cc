// Who is late, and the engine's part of the flight recorder.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/engine.h"
#include "comm/late_ranks.h"
#include "comm/policy.h"
#include "comm/ticks.h"

namespace cohort::comm {
namespace {

std::string Ranks(const std::vector<int>& ranks) {
  return absl::StrCat(ranks.size() > 1 ? "ranks " : "rank ", absl::StrJoin(ranks, ", "));
}

// The file appears whole or not at all.
absl::Status WriteFile(const std::filesystem::path& folder, const std::string& name,
                       const std::string& text) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::filesystem::path part = folder / absl::StrCat(".", name, ".", getpid());
  std::ofstream file(part, std::ios::binary);
  file << text;
  file.close();
  if (!file.fail()) std::filesystem::rename(part, folder / name, error);
  if (!file.fail() && !error) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", (folder / name).string()));
}

}  // namespace

absl::Status Engine::LateLocked(const Run& run) const {
  const Run::Arguments& arguments = run.arguments();
  const std::string what = absl::StrCat(Describe(arguments.signature), " timed out: ");
  std::vector<int> absent;
  const auto& [failed, failure] = arguments.group->failed_elsewhere;
  bool stopped_there = !failure.ok();
  if (!run.point_to_point()) {
    for (const int member : arguments.group->members) {
      if (member == topology_.rank()) continue;
      const std::optional<uint32_t> begun = routes_[member]->Begun(member, arguments.key.context);
      if (!begun.has_value() || *begun > arguments.key.sequence) continue;
      absent.push_back(member);
      stopped_there &= *begun <= failed + 1;
    }
  }
  // Whose operation failed before may well be gone to repair something: that failure names the culprit.
  if (!absent.empty() && stopped_there) {
    return absl::DeadlineExceededError(absl::StrCat(what, Ranks(absent), " did not go on after operation ",
                                                    failed,
                                                    " of the group, which failed: ", failure.message()));
  }

  const int64_t now = NowNanos();
  const int64_t fresh = std::min(policy::kWaitingNanos, (now - NanosOfTicks(arguments.began)) / 4 * 3);
  const std::vector<int> suspects = absent.empty() ? run.AwaitedPeers() : absent;
  std::vector<int> late =
      FollowWaits(suspects, topology_.rank(), [&](int peer) -> std::optional<std::vector<int>> {
        if (peer >= static_cast<int>(routes_.size()) || routes_[peer] == nullptr) return std::nullopt;
        std::optional<WaitingSign> sign = routes_[peer]->LastWaiting(peer);
        if (gone_[peer].gone || !sign.has_value() || now - sign->when > fresh) return std::nullopt;
        return std::move(sign->awaited);
      });
  if (late.empty()) late = suspects;  // they wait for each other
  if (absent.empty()) return absl::DeadlineExceededError(absl::StrCat(what, "waiting for ", Ranks(late)));
  std::vector<int> both;
  std::set_intersection(late.begin(), late.end(), absent.begin(), absent.end(), std::back_inserter(both));
  if (both.empty()) {
    return absl::DeadlineExceededError(
        absl::StrCat(what, "late ", Ranks(late), ", for which ", Ranks(absent),
                     absent.size() > 1 ? " wait that have not called it" : " waits that has not called it"));
  }
  return absl::DeadlineExceededError(
      absl::StrCat(what, "late ", Ranks(both), both.size() > 1 ? " have" : " has", " not called it"));
}

void Engine::RecordStartLocked(Run& run) {
  const Run::Arguments& arguments = run.arguments();
  int peer = -1;
  bool sends = false;
  if (run.point_to_point()) {
    const Step& step = arguments.schedule->steps[0];
    peer = arguments.group->members[step.peer];
    sends = step.kind == StepKind::kSend;
  }
  run.set_record(
      recorder_.Begin(arguments.key, arguments.signature, arguments.algorithm, peer, sends, arguments.began));
}

void Engine::OnRunFails(const Run& run, const absl::Status& status) {
  recorder_.Note(run.record(), run.AwaitedPeers(), status);
}

void Engine::RecordFailureLocked() {
  if (failed_once_) return;
  failed_once_ = true;
  if (const char* folder = std::getenv("COHORT_FLIGHT_RECORDER"); folder == nullptr || *folder == '\0')
    return;
  unfiled_ = RecordLocked();
  any_unfiled_.store(true, std::memory_order_release);
}

FlightRecord Engine::RecordLocked() const {
  FlightRecord record = recorder_.Record();
  record.rank = topology_.rank();
  record.size = topology_.size();
  record.host = topology_.host(topology_.host_of(topology_.rank()));
  for (const auto& run : runs_) {
    if (run->done() || record.operations.empty()) continue;
    const uint64_t oldest = record.operations.front().number;
    if (run->record() >= oldest) record.operations[run->record() - oldest].awaits = run->AwaitedPeers();
  }
  return record;
}

std::string Engine::FlightRecordText() {
  std::unique_lock lock(mutex_);
  const FlightRecord record = RecordLocked();
  lock.unlock();
  return ToJson(record);
}

void Engine::FileFlightRecord() {
  if (!any_unfiled_.load(std::memory_order_acquire)) return;
  // Who comes second waits until it is there: the process may end next.
  const std::lock_guard filing(file_mutex_);
  std::unique_lock lock(mutex_);
  const std::optional<FlightRecord> record = std::exchange(unfiled_, std::nullopt);
  lock.unlock();
  const char* folder = std::getenv("COHORT_FLIGHT_RECORDER");
  if (!record.has_value() || folder == nullptr) return;
  const absl::Status written =
      WriteFile(folder, absl::StrCat("flight_rank", record->rank, ".json"), ToJson(*record));
  if (!written.ok()) {
    std::fprintf(stderr, "cohort: flight recorder: %s\n", std::string(written.message()).c_str());
  }
  any_unfiled_.store(false, std::memory_order_release);
}

}  // namespace cohort::comm
