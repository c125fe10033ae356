// Making communicators: from a rendezvous, of one rank, and from another one.
#include "comm/communicator.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/group_communicator.h"

namespace cohort::comm {
namespace {

std::unique_ptr<GroupCommunicator> World(std::shared_ptr<Engine> engine, const CommunicatorOptions& options,
                                         TuningInputs tuning) {
  std::vector<int> members(engine->topology().size());
  std::iota(members.begin(), members.end(), 0);
  auto group = engine->AddGroup(0, std::move(members), engine->topology().rank());
  return std::make_unique<GroupCommunicator>(std::move(engine), std::move(group), options,
                                             std::make_shared<const TuningInputs>(std::move(tuning)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> Communicator::Create(std::shared_ptr<Rendezvous> rendezvous,
                                                                   CommunicatorOptions options) {
  if (rendezvous == nullptr) return absl::InvalidArgumentError("a communicator needs a rendezvous");
  if (const int rank = rendezvous->rank(), size = rendezvous->size(); size < 1 || rank < 0 || rank >= size) {
    return absl::InvalidArgumentError(absl::StrCat("the rendezvous has rank ", rank, " of ", size));
  }
  const absl::Time deadline = absl::Now() + options.timeout;
  absl::StatusOr<TuningInputs> tuning = ReadTuningInputs(options);
  COHORT_RETURN_IF_ERROR(CompareAtRendezvous(*rendezvous, tuning, deadline));
  COHORT_ASSIGN_OR_RETURN(auto engine, Engine::Create(*rendezvous, tuning->declared.get(), deadline));
  auto world = World(std::move(engine), options, *std::move(tuning));
  COHORT_RETURN_IF_ERROR(world->MeasurePrices(*rendezvous, deadline));
  return world;
}

std::unique_ptr<Communicator> Communicator::Single() { return World(Engine::Single(), {}, {}); }

absl::StatusOr<std::unique_ptr<Communicator>> Communicator::Join(std::shared_ptr<JoinBoard> board,
                                                                 CommunicatorOptions options) {
  if (board == nullptr) return absl::InvalidArgumentError("joining needs a join board");
  COHORT_ASSIGN_OR_RETURN(TuningInputs own, ReadTuningInputs(options));
  std::string members_tuning;
  COHORT_ASSIGN_OR_RETURN(auto joined, Engine::Join(*board, absl::Now() + options.timeout, &members_tuning));
  COHORT_ASSIGN_OR_RETURN(own, AdoptAsNewcomer(std::move(own), members_tuning));
  auto communicator =
      std::make_unique<GroupCommunicator>(std::move(joined.first), std::move(joined.second), options,
                                          std::make_shared<const TuningInputs>(std::move(own)));
  COHORT_RETURN_IF_ERROR(communicator->MeetAsNewcomer());
  return communicator;
}

absl::StatusOr<std::unique_ptr<Communicator>> GroupCommunicator::Split(int color, int key) {
  // Everyone says its color, its key and the first context number that it has not used.
  using Say = std::array<int64_t, 3>;
  const Say own = {color, key, engine_->NextContext()};
  std::vector<Say> all(size());
  const std::vector<size_t> counts(size(), own.size());
  COHORT_RETURN_IF_ERROR(AllGather(own.data(), all.data(), counts, DataType::kI64).Wait());

  // Group i of the new ones gets the i-th number that is new to all; all ranks skip all of them.
  std::set<int64_t> colors;
  int64_t first = 0;
  for (const auto& [other_color, other_key, context] : all) {
    first = std::max(first, context);
    if (other_color >= 0) colors.insert(other_color);
  }
  engine_->ReserveContexts(static_cast<uint32_t>(first + static_cast<int64_t>(colors.size())));
  if (color < 0) return nullptr;
  const auto index = std::distance(colors.begin(), colors.find(color));

  std::vector<int> ranks;
  for (int rank = 0; rank < size(); ++rank) {
    if (all[rank][0] == color) ranks.push_back(rank);
  }
  std::stable_sort(ranks.begin(), ranks.end(), [&](int a, int b) { return all[a][1] < all[b][1]; });
  const auto own_place = std::find(ranks.begin(), ranks.end(), rank());
  std::vector<int> members;
  for (const int rank : ranks) members.push_back(group_->members[rank]);
  auto group = engine_->AddGroup(static_cast<uint32_t>(first + index), std::move(members),
                                 static_cast<int>(own_place - ranks.begin()), group_);
  return std::make_unique<GroupCommunicator>(engine_, std::move(group), options_, tuning_);
}

}  // namespace cohort::comm
