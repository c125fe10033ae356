#include "parallel/reshard/move_training.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/global_sums.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel {
namespace {

// ranks[r]: layout.ranks of all numbers[r], one after another. Numbers that nobody has are added to `rest`.
absl::StatusOr<Layout> Renumber(const Layout& layout, const std::vector<std::vector<int>>& numbers,
                                const char* which, std::vector<int>& rest) {
  Layout result;
  std::vector<bool> taken(layout.ranks.size(), false);
  for (size_t r = 0; r < numbers.size(); ++r) {
    HeldPieces& pieces = result.ranks.emplace_back();
    for (const int number : numbers[r]) {
      if (number < 0 || number >= layout.world()) {
        return absl::InvalidArgumentError(absl::StrCat("rank ", r, " is number ", number, " of the ", which,
                                                       " mesh, which has ", layout.world(), " ranks"));
      }
      taken[static_cast<size_t>(number)] = true;
      const HeldPieces& held = layout.ranks[static_cast<size_t>(number)];
      if (numbers[r].size() == 1) {
        pieces = held;
      } else {
        pieces.Append(held);
      }
    }
  }
  for (size_t n = 0; n < taken.size(); ++n) {
    if (!taken[n]) rest.push_back(static_cast<int>(n));
  }
  return result;
}

// The numbers of the new mesh as lists, each of which one rank has.
absl::StatusOr<std::vector<std::vector<int>>> AsLists(const std::vector<int>& numbers) {
  std::vector<std::vector<int>> lists(numbers.size());
  std::map<int, size_t> by;
  for (size_t r = 0; r < numbers.size(); ++r) {
    if (numbers[r] < 0) continue;
    if (const auto [at, first] = by.emplace(numbers[r], r); !first) {
      return absl::InvalidArgumentError(absl::StrCat("ranks ", at->second, " and ", r, " are both number ",
                                                     numbers[r], " of the new mesh"));
    }
    lists[r] = {numbers[r]};
  }
  return lists;
}

absl::Status CheckPart(const HeldState& held, const std::vector<HeldPiece>& layout, const char* which) {
  for (size_t i = 0; i < std::max(held.pieces.size(), layout.size()); ++i) {
    const HeldPiece* is = i < held.pieces.size() ? &held.pieces[i] : nullptr;
    const HeldPiece* should = i < layout.size() ? &layout[i] : nullptr;
    if (is != nullptr && should != nullptr && is->piece == should->piece && is->dtype == should->dtype)
      continue;
    return absl::FailedPreconditionError(
        absl::StrCat("the ", which, " training of this rank holds ",
                     is == nullptr ? (held.pieces.empty() ? "nothing" : "no more") : is->piece.DebugString(),
                     " where the layout has ", should == nullptr ? "no more" : should->piece.DebugString()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Move> PlanMove(const Layout& before, const Layout& after, const Members& members,
                              std::vector<int> host_of) {
  if (members.before.size() != members.after.size()) {
    return absl::InvalidArgumentError(absl::StrCat(members.before.size(), " members before and ",
                                                   members.after.size(),
                                                   " afterwards: name every rank twice"));
  }
  Move move;
  std::vector<int> lost, homeless;
  COHORT_ASSIGN_OR_RETURN(move.before, Renumber(before, members.before, "old", lost));
  COHORT_ASSIGN_OR_RETURN(const auto new_numbers, AsLists(members.after));
  COHORT_ASSIGN_OR_RETURN(move.after, Renumber(after, new_numbers, "new", homeless));
  if (!homeless.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no rank is number ", homeless[0], " of the new mesh, which has ", after.world()));
  }
  for (const int number : lost) {
    move.options.lost.push_back(move.before.world());
    move.options.lost_names.push_back(number);
    move.before.ranks.push_back(before.ranks[static_cast<size_t>(number)]);
    move.after.ranks.emplace_back();
  }
  if (!host_of.empty()) {
    // Where the lost ranks were says nothing: they send nothing.
    host_of.resize(move.before.ranks.size(), host_of.back());
  }
  move.options.host_of = std::move(host_of);
  COHORT_ASSIGN_OR_RETURN(move.plan, PlanReshard(move.before, move.after, move.options));
  return move;
}

void SetValues(runtime::Trainable& trainable) {
  for (const runtime::OptimizerSlice& slice : trainable.slices()) {
    if (!slice.value.defined()) continue;
    slice.value.device().ops().Copy(slice.master, slice.value);
    slice.value.device().Synchronize();
  }
}

Offer OfferOf(const TrainingPart& part) {
  if (part.trainable == nullptr) return {};
  return {.step = part.optimizer->step, .state = HeldBy(*part.trainable, *part.optimizer)};
}

absl::Status MoveState(Resharder& resharder, const Move& move, const HeldState& from, const HeldState& to,
                       absl::Duration timeout) {
  const auto rank = static_cast<size_t>(resharder.world().rank());
  absl::Status status = CheckPart(from, move.before.ranks[rank], "old");
  status.Update(CheckPart(to, move.after.ranks[rank], "new"));
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(resharder.world(), status, "moving a training"));
  PieceMemory memory;
  memory.before.assign(from.memory.begin(), from.memory.end());
  memory.before_on = from.devices;
  memory.after = to.memory;
  memory.after_on = to.devices;
  return resharder.Run(move.before, move.after, move.plan, memory, timeout);
}

absl::Status MoveTraining(Resharder& resharder, const Move& move, const Offer& from, TrainingPart to,
                          absl::Duration timeout) {
  comm::Communicator& world = resharder.world();
  COHORT_RETURN_IF_ERROR(MoveState(resharder, move, from.state, OfferOf(to).state, timeout));
  int64_t step = from.step;
  absl::Status status;
  COHORT_RETURN_IF_ERROR(world.AllReduce(&step, &step, 1, DataType::kI64, comm::ReduceOp::kMax).Wait());
  if (to.trainable != nullptr) {
    SetValues(*to.trainable);
    status = to.trainable->StateRestored();
    to.optimizer->step = step;
  }
  return AgreeOnSuccess(world, status, "taking over a training");
}

}  // namespace cohort::parallel
