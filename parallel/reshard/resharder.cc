#include "parallel/reshard/resharder.h"

#include <cstring>
#include <deque>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "parallel/global_sums.h"

namespace cohort::parallel {

using comm::transfer::PeerId;
using comm::transfer::Region;

namespace {

// Writes that a rank has under way at once.
constexpr size_t kWritesUnderWay = 64;

// Within this rank.
void CopyBlocks(const PieceCopy& copy, size_t element, const void* from, void* to) {
  if (from == to) return;  // the same memory, and an equal piece
  for (int64_t block = 0; block < copy.blocks; ++block) {
    std::memcpy(
        static_cast<char*>(to) + static_cast<size_t>(copy.to + block * copy.to_stride) * element,
        static_cast<const char*>(from) + static_cast<size_t>(copy.from + block * copy.from_stride) * element,
        static_cast<size_t>(copy.count) * element);
  }
}

}  // namespace

// What is registered for one plan.
struct Resharder::Regions {
  std::map<int, Region> before, after;       // of this rank, by piece
  std::vector<std::string> cards;            // by rank
  std::vector<std::map<int, Region>> peers;  // their new pieces, by rank
};

absl::StatusOr<std::unique_ptr<Resharder>> Resharder::Create(comm::Communicator& world,
                                                             comm::transfer::Options options) {
  std::unique_ptr<Resharder> resharder(new Resharder(world));
  if (options.name.empty()) options.name = absl::StrCat("rank ", world.rank());
  COHORT_ASSIGN_OR_RETURN(resharder->engine_, comm::transfer::TransferEngine::Create(std::move(options)));
  return resharder;
}

absl::Status Resharder::Run(const Layout& before, const Layout& after, const ReshardPlan& plan,
                            const PieceMemory& memory, absl::Duration timeout) {
  const int rank = world_.rank();
  COHORT_CHECK(before.world() >= world_.size() && after.world() == before.world(),
               "layouts of %d and %d ranks on %d", before.world(), after.world(), world_.size());
  const std::vector<HeldPiece> old_pieces = before.ranks[static_cast<size_t>(rank)];
  const std::vector<HeldPiece> new_pieces = after.ranks[static_cast<size_t>(rank)];
  COHORT_CHECK(memory.before.size() == old_pieces.size() && memory.after.size() == new_pieces.size(),
               "memory of %zu and %zu pieces for %zu and %zu", memory.before.size(), memory.after.size(),
               old_pieces.size(), new_pieces.size());
  const absl::Time deadline = absl::Now() + timeout;
  const absl::StatusOr<StagedPieces> staged =
      StagedPieces::Create(memory, old_pieces, new_pieces, plan, rank);
  COHORT_RETURN_IF_ERROR(RunOnHost(before, old_pieces, new_pieces, plan,
                                   staged.ok() ? staged->on_host() : memory, staged.status(), deadline));
  staged->BringBack();
  return absl::OkStatus();
}

absl::Status Resharder::RunOnHost(const Layout& before, absl::Span<const HeldPiece> old_pieces,
                                  absl::Span<const HeldPiece> new_pieces, const ReshardPlan& plan,
                                  const PieceMemory& memory, absl::Status status, absl::Time deadline) {
  const int rank = world_.rank();
  ++round_;

  Regions regions;
  const auto enlist = [&](const void* data, const HeldPiece& held, int piece, std::map<int, Region>& into) {
    if (!status.ok() || into.contains(piece)) return;
    const auto region = engine_->Register(const_cast<void*>(data), static_cast<uint64_t>(held.bytes()));
    status = region.status();
    if (region.ok()) into[piece] = *region;
  };
  for (const PieceCopy& copy : plan.copies) {
    if (copy.stays()) continue;
    if (copy.source == rank) {
      const auto i = static_cast<size_t>(copy.from_piece);
      enlist(memory.before[i], old_pieces[i], copy.from_piece, regions.before);
    }
    if (copy.destination == rank) {
      const auto i = static_cast<size_t>(copy.to_piece);
      enlist(memory.after[i], new_pieces[i], copy.to_piece, regions.after);
    }
  }
  // The card and, of each new piece that others write to, "piece region bytes".
  std::string mine = engine_->Card();
  for (const auto& [piece, region] : regions.after) {
    absl::StrAppend(&mine, "\n", piece, " ", region.number, " ", region.bytes);
  }
  status = AgreeOnSuccess(world_, status, "registering the memory of its pieces");
  if (status.ok()) {
    auto all = GatherStrings(world_, mine);
    status = all.status();
    for (size_t r = 0; status.ok() && r < all->size(); ++r) {
      std::vector<std::string> lines = absl::StrSplit((*all)[r], '\n');
      regions.cards.push_back(lines[0]);
      regions.peers.emplace_back();
      for (size_t i = 1; i < lines.size(); ++i) {
        const std::vector<absl::string_view> fields = absl::StrSplit(lines[i], ' ');
        int piece = 0;
        Region region;
        COHORT_CHECK(fields.size() == 3 && absl::SimpleAtoi(fields[0], &piece) &&
                         absl::SimpleAtoi(fields[1], &region.number) &&
                         absl::SimpleAtoi(fields[2], &region.bytes),
                     "rank %zu says '%s' of its regions", r, lines[i].c_str());
        regions.peers.back()[piece] = region;
      }
    }
  }
  if (status.ok()) {
    for (const PieceCopy& copy : plan.copies) {
      if (copy.source != rank || !copy.stays()) continue;
      const auto from = static_cast<size_t>(copy.from_piece), to = static_cast<size_t>(copy.to_piece);
      CopyBlocks(copy, SizeOf(new_pieces[to].dtype), memory.before[from], memory.after[to]);
    }
    status = AgreeOnSuccess(world_, Exchange(before, plan, regions, deadline), "moving its pieces");
  }
  for (const auto* own : {&regions.before, &regions.after}) {
    for (const auto& [piece, region] : *own) status.Update(engine_->Unregister(region));
  }
  return status;
}

absl::Status Resharder::Exchange(const Layout& before, const ReshardPlan& plan, const Regions& regions,
                                 absl::Time deadline) {
  const int rank = world_.rank();
  std::set<int> partners, sources;
  uint64_t expected = 0;
  for (const PieceCopy& copy : plan.copies) {
    if (copy.stays()) continue;
    if (copy.source == rank) partners.insert(copy.destination);
    if (copy.destination != rank) continue;
    partners.insert(copy.source);
    sources.insert(copy.source);
    ++expected;
  }
  for (const int partner : partners) {
    if (peers_.contains(partner)) continue;
    COHORT_ASSIGN_OR_RETURN(const PeerId peer, engine_->AddPeer(regions.cards[static_cast<size_t>(partner)]));
    peers_[partner] = peer;
  }

  absl::Status status;
  std::deque<comm::Work> writes;
  const auto finish_one = [&] {
    status.Update(writes.front().Wait(deadline));
    writes.pop_front();
  };
  for (const PieceCopy& copy : plan.copies) {
    if (copy.source != rank || copy.stays()) continue;
    const size_t element =
        SizeOf(before.ranks[static_cast<size_t>(rank)].dtype(static_cast<size_t>(copy.from_piece)));
    const auto bytes = [&](int64_t elements) { return static_cast<uint64_t>(elements) * element; };
    comm::transfer::StridedWriteRequest request;
    request.peer = peers_.at(copy.destination);
    request.from = regions.before.at(copy.from_piece);
    request.from_offset = bytes(copy.from);
    request.from_stride = bytes(copy.from_stride);
    request.to = regions.peers[static_cast<size_t>(copy.destination)].at(copy.to_piece);
    request.to_offset = bytes(copy.to);
    request.to_stride = bytes(copy.to_stride);
    request.block_bytes = bytes(copy.count);
    request.blocks = static_cast<uint64_t>(copy.blocks);
    request.immediate = round_;
    request.deadline = deadline;
    writes.push_back(engine_->WriteStrided(request));
    if (writes.size() >= kWritesUnderWay) finish_one();
  }
  while (!writes.empty()) finish_one();
  if (expected > 0 && status.ok()) {
    comm::transfer::ExpectRequest request;
    request.immediate = round_;
    request.count = expected;
    for (const int source : sources) request.from.push_back(peers_.at(source));
    request.deadline = deadline;
    status.Update(engine_->Expect(request).Wait(deadline));
  }
  return status;
}

}  // namespace cohort::parallel
