#include "parallel/elastic/state_check.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/global_sums.h"
#include "parallel/reshard/move_training.h"
#include "parallel/reshard/reshard_plan.h"
#include "parallel/reshard/resharder.h"
#include "parallel/reshard/training_layout.h"
#include "runtime/device/host_reader.h"
#include "runtime/elastic/snapshot/policy.h"
#include "runtime/elastic/snapshot/sum.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel {
namespace {

// Where a piece is: what equal ones have in common.
std::string KeyOf(const HeldPiece& held) {
  return absl::StrCat(held.piece.DebugString(), " ", Name(held.dtype));
}

std::string Words(const Layout& layout, const std::vector<WrongPiece>& wrong) {
  std::string words;
  std::map<int, std::vector<const WrongPiece*>> by_rank;
  for (const WrongPiece& one : wrong) by_rank[one.rank].push_back(&one);
  for (const auto& [rank, pieces] : by_rank) {
    const HeldPiece held = layout.ranks[static_cast<size_t>(rank)][static_cast<size_t>(pieces[0]->piece)];
    absl::StrAppend(&words, words.empty() ? "" : "; ", "rank ", rank, " had other bits than its peers in ",
                    held.piece.name,
                    pieces.size() > 1 ? absl::StrCat(" and ", pieces.size() - 1, " more pieces") : "",
                    pieces[0]->outvoted ? "" : " (as many say one thing as another: the lowest rank counts)");
  }
  return words;
}

// As SumOfPiece makes them, also of what lies on a device.
absl::StatusOr<PieceSums> SumsOf(const HeldState& held) {
  constexpr size_t kChunk = runtime::elastic::snapshot_policy::kChunkBytes;
  PieceSums sums;
  std::map<runtime::Device*, std::unique_ptr<runtime::HostReader>> readers;
  for (size_t i = 0; i < held.pieces.size(); ++i) {
    std::unique_ptr<runtime::HostReader>& reader = readers[held.devices[i]];
    if (reader == nullptr) {
      COHORT_ASSIGN_OR_RETURN(reader, MakeHostReader(*held.devices[i], kChunk));
      reader->Mark();
    }
    std::vector<uint64_t> chunks;
    const auto bytes = static_cast<size_t>(held.pieces[i].bytes());
    for (size_t at = 0; at < bytes; at += kChunk) {
      const size_t count = std::min(kChunk, bytes - at);
      reader->Read(static_cast<const std::byte*>(held.memory[i]) + at, count,
                   [&](const void* chunk) { chunks.push_back(runtime::elastic::SumOf(chunk, count)); });
    }
    sums.push_back(runtime::elastic::SumOfChunks(chunks));
  }
  return sums;
}

}  // namespace

std::vector<WrongPiece> FindWrongPieces(const Layout& layout, absl::Span<const PieceSums> sums) {
  struct Holder {
    int rank, piece;
    uint64_t sum;
  };
  std::map<std::string, std::vector<Holder>> sets;  // holders by rank
  for (int rank = 0; rank < layout.world(); ++rank) {
    const std::vector<HeldPiece> pieces = layout.ranks[static_cast<size_t>(rank)];
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i].piece.size() == 0) continue;
      sets[KeyOf(pieces[i])].push_back({rank, static_cast<int>(i), sums[static_cast<size_t>(rank)][i]});
    }
  }
  std::vector<WrongPiece> wrong;
  for (const auto& [key, holders] : sets) {
    std::map<uint64_t, int> votes;
    for (const Holder& holder : holders) ++votes[holder.sum];
    if (votes.size() == 1) continue;
    // Of those with the most votes the one that the lowest rank has.
    int most = 0;
    for (const auto& [sum, count] : votes) most = std::max(most, count);
    const auto right = std::find_if(holders.begin(), holders.end(),
                                    [&](const Holder& holder) { return votes[holder.sum] == most; });
    const auto rivals =
        std::count_if(votes.begin(), votes.end(), [&](const auto& v) { return v.second == most; });
    for (const Holder& holder : holders) {
      if (holder.sum != right->sum) wrong.push_back({holder.rank, holder.piece, rivals == 1});
    }
  }
  std::sort(wrong.begin(), wrong.end(), [](const WrongPiece& a, const WrongPiece& b) {
    return std::pair(a.rank, a.piece) < std::pair(b.rank, b.piece);
  });
  return wrong;
}

absl::StatusOr<StateCheck> CheckState(comm::Communicator& group, const Layout& layout, ParallelModel& model,
                                      runtime::OptimizerState& optimizer, absl::Duration timeout) {
  const HeldState held = HeldBy(model, optimizer);
  const auto me = static_cast<size_t>(group.rank());
  PieceSums mine;
  std::vector<size_t> counts;
  for (const auto& pieces : layout.ranks) counts.push_back(pieces.size());
  COHORT_CHECK(held.pieces.size() == counts[me], "%zu pieces where the layout has %zu", held.pieces.size(),
               counts[me]);
  COHORT_ASSIGN_OR_RETURN(mine, SumsOf(held));
  size_t total = 0;
  for (const size_t count : counts) total += count;
  std::vector<uint64_t> all(total);
  COHORT_RETURN_IF_ERROR(group.AllGather(mine.data(), all.data(), counts, DataType::kI64).Wait());
  std::vector<PieceSums> sums;
  for (size_t at = 0, rank = 0; rank < counts.size(); at += counts[rank++]) {
    sums.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(at),
                      all.begin() + static_cast<std::ptrdiff_t>(at + counts[rank]));
  }
  StateCheck check{.wrong = FindWrongPieces(layout, sums), .repaired_bytes = 0, .words = ""};
  if (check.wrong.empty()) return check;
  check.words = Words(layout, check.wrong);

  // A reshard from those that are right to those that are not.
  Layout before = layout, after;
  after.ranks.resize(layout.ranks.size());
  PieceMemory memory;
  memory.before.assign(held.memory.begin(), held.memory.end());
  memory.before_on = held.devices;
  for (auto wrong = check.wrong.rbegin(); wrong != check.wrong.rend(); ++wrong) {  // the last ones go first
    HeldPieces& held_before = before.ranks[static_cast<size_t>(wrong->rank)];
    std::vector<HeldPiece> has = held_before;
    const HeldPiece piece = has[static_cast<size_t>(wrong->piece)];
    has.erase(has.begin() + wrong->piece);
    held_before = has;
    after.ranks[static_cast<size_t>(wrong->rank)].push_back(piece);
    check.repaired_bytes += piece.bytes();
    if (wrong->rank == group.rank()) {
      memory.before.erase(memory.before.begin() + wrong->piece);
      memory.before_on.erase(memory.before_on.begin() + wrong->piece);
      memory.after.push_back(held.memory[static_cast<size_t>(wrong->piece)]);
      memory.after_on.push_back(held.devices[static_cast<size_t>(wrong->piece)]);
    }
  }
  std::vector<int> hosts;
  for (int rank = 0; rank < group.size(); ++rank) hosts.push_back(group.topology().host_of(rank));
  const ReshardOptions options = {.host_of = std::move(hosts)};
  COHORT_ASSIGN_OR_RETURN(const ReshardPlan plan, PlanReshard(before, after, options));
  // Nobody reads what is about to change.
  absl::Status status;
  for (ModelPart& part : model.parts()) status.Update(part.parameters->Finish());
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(group, status, "ending what it was publishing"));
  COHORT_ASSIGN_OR_RETURN(const auto resharder, Resharder::Create(group));
  COHORT_RETURN_IF_ERROR(resharder->Run(before, after, plan, memory, timeout));
  SetValues(model);
  status = model.StateRestored();
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(group, status, "taking over repaired state"));
  return check;
}

}  // namespace cohort::parallel
