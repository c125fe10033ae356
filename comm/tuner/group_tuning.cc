// How groups come by their tuners.
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/group_communicator.h"
#include "comm/topology_file.h"
#include "comm/tuner/agreement.h"
#include "comm/tuner/measure.h"
#include "comm/tuner/policy.h"

namespace cohort::comm {
absl::Status GroupCommunicator::MeasurePrices(Rendezvous& rendezvous, absl::Time deadline) {
  using Source = TuningInputs::Source;
  const bool measured = tuning_->source == Source::kMeasured;
  if (!measured && (tuning_->source != Source::kAutomatic || topology_.num_hosts() == 1))
    return absl::OkStatus();
  const std::vector<MeasuredTeam> teams = TeamsToMeasure(*topology_.map());
  if (teams.empty()) return absl::OkStatus();
  std::vector<int> measurers;
  for (const MeasuredTeam& team : teams) measurers.push_back(team.ranks[0]);
  std::vector<MeasuredLink> links;
  {
    // A group of its own: what fails there has no consequences here.
    std::vector<int> members(size());
    std::iota(members.begin(), members.end(), 0);
    GroupCommunicator group(engine_, engine_->AddGroup(engine_->NextContext(), std::move(members), rank()),
                            {.timeout = policy::kMeasuringTimeout}, tuning_);
    links = MeasureLinks(group, teams);
  }
  auto tuning = std::make_shared<TuningInputs>(*tuning_);
  COHORT_ASSIGN_OR_RETURN(tuning->prices_text,
                          SpreadPrices(rendezvous, tuning_->tuning.prices, measurers, links, deadline));
  // All ranks read the same text.
  COHORT_ASSIGN_OR_RETURN(const DescribedTopology measured_prices,
                          ParseTopology(tuning->prices_text, "the rendezvous"));
  tuning->tuning.prices = measured_prices.prices;
  SetTuning(std::move(tuning));
  return absl::OkStatus();
}

void GroupCommunicator::SetTuning(std::shared_ptr<const TuningInputs> tuning) {
  const std::lock_guard lock(mutex_);
  tuning_ = std::move(tuning);
  MakeTunerLocked();
}

void GroupCommunicator::MakeTunerLocked() {
  tuner_ = std::make_unique<Tuner>(std::shared_ptr<const Tuning>(tuning_, &tuning_->tuning), topology_.map());
  kinds_.clear();
}

absl::Status GroupCommunicator::SetCollectives(absl::string_view collectives) {
  absl::StatusOr<TuningRules> rules = ParseOverrides(collectives);
  auto tuning = std::make_shared<TuningInputs>(*tuning_);
  if (rules.ok()) tuning->tuning.overrides = *rules;
  std::vector<int64_t> all(2 * static_cast<size_t>(size()));
  const int64_t say[2] = {rules.ok() ? 1 : 0, static_cast<int64_t>(tuning->digests()[0])};
  const std::vector<size_t> counts(size(), 2);
  COHORT_RETURN_IF_ERROR(AllGather(say, all.data(), counts, DataType::kI64).Wait());
  COHORT_RETURN_IF_ERROR(rules.status());
  std::vector<TuningInputs::Digests> digests(size());
  for (int other = 0; other < size(); ++other) {
    if (all[2 * other] == 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("rank ", other, " was given collectives that it cannot read; its own error says why"));
    }
    digests[other][0] = static_cast<uint64_t>(all[2 * other + 1]);
  }
  COHORT_RETURN_IF_ERROR(CompareDigests(digests));
  SetTuning(std::move(tuning));
  return absl::OkStatus();
}

std::string GroupCommunicator::TopologyText() {
  const std::lock_guard lock(mutex_);
  return FormatTopology(topology_.map().get(), tuning_->tuning.prices);
}

std::string GroupCommunicator::AlgorithmOf(Operation operation, size_t bytes) {
  const std::lock_guard lock(mutex_);
  return tuner_->Choose(operation, bytes).algorithm->name;
}

}  // namespace cohort::comm
