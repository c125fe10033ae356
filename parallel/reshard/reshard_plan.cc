#include "parallel/reshard/reshard_plan.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"

namespace cohort::parallel {
namespace {

using runtime::Piece;
using runtime::PieceRun;

// Equal pieces of the old layout, and who has them: replicas are looked at once.
struct Holders {
  Piece piece;
  std::vector<PieceRun> runs;
  std::vector<std::pair<int, int>> ranks;  // (rank, index in its list)
};

bool MayOverlap(const Holders& holders, const Piece& piece, const std::vector<PieceRun>& runs) {
  if (holders.runs.empty() || runs.empty()) return false;
  if (holders.piece.dim == piece.dim &&
      (holders.piece.end <= piece.begin || piece.end <= holders.piece.begin)) {
    return false;
  }
  const PieceRun &a = holders.runs.back(), &b = runs.back();
  return holders.runs.front().full < b.full + b.count && runs.front().full < a.full + a.count;
}

class Planner {
 public:
  Planner(const Layout& before, const Layout& after, const ReshardOptions& options)
      : before_(before),
        after_(after),
        options_(options),
        lost_(static_cast<size_t>(before.world()), false),
        sent_(static_cast<size_t>(before.world()), 0) {
    for (const int rank : options.lost) lost_[static_cast<size_t>(rank)] = true;
  }

  absl::StatusOr<ReshardPlan> Run() {
    for (int rank = 0; rank < before_.world(); ++rank) {
      const auto& pieces = before_.ranks[static_cast<size_t>(rank)];
      for (size_t i = 0; i < pieces.size(); ++i) {
        if (lost_[static_cast<size_t>(rank)]) {
          lost_holders_[pieces[i].piece.name].push_back(NameOfLost(rank));
        } else {
          AddHolder(pieces[i].piece, rank, static_cast<int>(i));
        }
      }
    }
    IndexHolders();
    for (int rank = 0; rank < after_.world(); ++rank) {
      const auto& pieces = after_.ranks[static_cast<size_t>(rank)];
      for (size_t i = 0; i < pieces.size(); ++i) {
        COHORT_RETURN_IF_ERROR(PlanPiece(pieces[i], rank, static_cast<int>(i)));
      }
    }
    ReshardPlan plan;
    for (auto& [key, copies] : copies_) plan.copies.insert(plan.copies.end(), copies.begin(), copies.end());
    return plan;
  }

 private:
  void AddHolder(const Piece& piece, int rank, int index) {
    if (piece.empty()) return;
    Holders& holders = holders_[piece.name][{piece.dim, piece.begin, piece.end, piece.first, piece.last}];
    if (holders.ranks.empty()) {
      holders.piece = piece;
      holders.runs = RunsOf(piece);
    }
    holders.ranks.emplace_back(rank, index);
  }

  void IndexHolders() {
    for (const auto& [name, all] : holders_) {
      std::vector<Near>& index = index_[name];
      int order = 0;
      for (const auto& [what, holders] : all) {
        if (holders.runs.empty()) continue;
        index.push_back({&holders, order++, holders.runs.front().full, End(holders.runs)});
      }
      std::stable_sort(index.begin(), index.end(),
                       [](const Near& a, const Near& b) { return a.begin < b.begin; });
      for (size_t i = 1; i < index.size(); ++i) index[i].end = std::max(index[i].end, index[i - 1].end);
    }
  }

  // Those that may have some of a piece, in the order of what they hold.
  std::vector<const Holders*> HoldersNear(const Piece& piece, const std::vector<PieceRun>& runs) const {
    const auto found = index_.find(piece.name);
    if (found == index_.end() || runs.empty()) return {};
    const std::vector<Near>& index = found->second;
    auto at = std::partition_point(index.begin(), index.end(),
                                   [&](const Near& near) { return near.begin < End(runs); });
    std::vector<std::pair<int, const Holders*>> near;
    while (at != index.begin() && (--at)->end > runs.front().full) {
      if (MayOverlap(*at->holders, piece, runs)) near.emplace_back(at->order, at->holders);
    }
    std::sort(near.begin(), near.end());
    std::vector<const Holders*> holders;
    for (const auto& [order, one] : near) holders.push_back(one);
    return holders;
  }

  static int64_t End(const std::vector<PieceRun>& runs) { return runs.back().full + runs.back().count; }

  // A place in the runs of pieces that some ranks hold.
  struct Cursor {
    const Holders* holders;
    size_t run = 0;
    int own = -1;  // the destination's own piece among them

    bool Covers(int64_t at) const { return run < holders->runs.size() && holders->runs[run].full <= at; }
    int64_t OffsetOf(int64_t at) const { return holders->runs[run].offset + at - holders->runs[run].full; }
    // Where coverage may change.
    int64_t Change(int64_t at) const {
      const PieceRun& r = holders->runs[run];
      return r.full <= at ? r.full + r.count : r.full;
    }
  };

  absl::Status PlanPiece(const HeldPiece& held, int destination, int to_piece) {
    const std::vector<PieceRun> runs = RunsOf(held.piece);
    std::vector<Cursor> cursors;
    for (const Holders* holders : HoldersNear(held.piece, runs)) {
      Cursor cursor{holders};
      for (const auto& [rank, index] : holders->ranks) {
        if (rank == destination) cursor.own = index;
      }
      cursors.push_back(cursor);
    }
    turn_ = {};
    for (const PieceRun& run : runs) {
      for (int64_t at = run.full; at < run.full + run.count;) {
        int64_t stop = run.full + run.count;
        const Cursor* own = nullptr;
        for (Cursor& cursor : cursors) {
          const std::vector<PieceRun>& theirs = cursor.holders->runs;
          while (cursor.run < theirs.size() && theirs[cursor.run].full + theirs[cursor.run].count <= at)
            ++cursor.run;
          if (cursor.run == theirs.size()) continue;
          stop = std::min(stop, cursor.Change(at));
          if (cursor.own >= 0 && cursor.Covers(at)) own = &cursor;
        }
        PieceCopy copy{.destination = destination, .to_piece = to_piece, .to = run.offset + at - run.full};
        if (own != nullptr) {
          copy.source = destination;
          copy.from_piece = own->own;
          copy.from = own->OffsetOf(at);
        } else if (!Choose(cursors, at, held, &copy, &stop)) {
          return Missing(held.piece, destination, at);
        }
        copy.count = stop - at;
        Add(copy);
        at = stop;
      }
    }
    return absl::OkStatus();
  }

  int NameOfLost(int rank) const {
    if (options_.lost_names.empty()) return rank;
    const auto at = std::find(options_.lost.begin(), options_.lost.end(), rank);
    return options_.lost_names[static_cast<size_t>(at - options_.lost.begin())];
  }

  int HostOf(int rank) const {
    return options_.host_of.empty() ? 0 : options_.host_of[static_cast<size_t>(rank)];
  }

  // Sets the source. False where nobody has the element at `at`. `stop` moves down to the end of the source's turn.
  bool Choose(const std::vector<Cursor>& cursors, int64_t at, const HeldPiece& held, PieceCopy* copy,
              int64_t* stop) {
    struct Best {
      int rank = -1, index = 0;
      bool near = false;
      int64_t from = 0;
    } best;
    const int host = HostOf(copy->destination);
    bool several = false, goes_on = false;
    for (const Cursor& cursor : cursors) {
      if (!cursor.Covers(at)) continue;
      for (const auto& [rank, index] : cursor.holders->ranks) {
        several |= best.rank >= 0;
        const bool near = HostOf(rank) == host;
        const auto order = [&](bool is_near, bool has_turn, int r) {
          return std::make_tuple(!is_near, !has_turn, sent_[static_cast<size_t>(r)], r);
        };
        const auto has_turn = [&](int r) { return r == turn_.rank && turn_.bytes > 0; };
        if (best.rank < 0 ||
            order(near, has_turn(rank), rank) < order(best.near, has_turn(best.rank), best.rank)) {
          best = {rank, index, near, cursor.OffsetOf(at)};
          goes_on = has_turn(rank);
        }
      }
    }
    if (best.rank < 0) return false;
    const auto element = static_cast<int64_t>(SizeOf(held.dtype));
    if (!goes_on) turn_ = {best.rank, std::max(options_.turn_bytes, element)};
    if (several) *stop = std::min(*stop, at + std::max<int64_t>(1, turn_.bytes / element));
    const int64_t bytes = (*stop - at) * element;
    turn_.bytes -= bytes;
    sent_[static_cast<size_t>(best.rank)] += bytes;
    copy->source = best.rank;
    copy->from_piece = best.index;
    copy->from = best.from;
    return true;
  }

  absl::Status Missing(const Piece& piece, int destination, int64_t at) const {
    const auto lost = lost_holders_.find(piece.name);
    return absl::NotFoundError(absl::StrCat(
        "rank ", destination, " needs element ", at, " of tensor '", piece.name, "', which no rank has",
        lost == lost_holders_.end() ? ""
                                    : absl::StrCat(" that is left (of those lost, ",
                                                   absl::StrJoin(lost->second, ", "), " had some of it)"),
        "; it has to be read from a checkpoint"));
  }

  // Joins it with the one before where they lie together, or repeat at an equal distance.
  void Add(const PieceCopy& copy) {
    std::vector<PieceCopy>& copies = copies_[{copy.source, copy.destination, copy.to_piece, copy.from_piece}];
    if (!copies.empty()) {
      PieceCopy& last = copies.back();
      const int64_t from_end = last.from + (last.blocks - 1) * last.from_stride + last.count;
      const int64_t to_end = last.to + (last.blocks - 1) * last.to_stride + last.count;
      if (copy.from == from_end && copy.to == to_end) {
        if (last.blocks == 1) {
          last.count += copy.count;
          Fold(copies);
          return;
        }
        // The last block grows out of the others' size: it begins a copy of its own.
        PieceCopy grown = copy;
        grown.from = from_end - last.count;
        grown.to = to_end - last.count;
        grown.count += last.count;
        if (--last.blocks == 1) last.from_stride = last.to_stride = 0;
        copies.push_back(grown);
        return;
      }
    }
    copies.push_back(copy);
    Fold(copies);
  }

  // The last copy into the one before it, as one block more.
  static void Fold(std::vector<PieceCopy>& copies) {
    if (copies.size() < 2) return;
    PieceCopy& into = copies[copies.size() - 2];
    const PieceCopy& last = copies.back();
    if (last.blocks != 1 || last.count != into.count) return;
    const int64_t from_stride = last.from - (into.from + (into.blocks - 1) * into.from_stride);
    const int64_t to_stride = last.to - (into.to + (into.blocks - 1) * into.to_stride);
    if (from_stride < into.count || to_stride < into.count) return;
    if (into.blocks > 1 && (from_stride != into.from_stride || to_stride != into.to_stride)) return;
    into.from_stride = from_stride;
    into.to_stride = to_stride;
    ++into.blocks;
    copies.pop_back();
  }

  struct Turn {
    int rank = -1;
    int64_t bytes = 0;
  };

  const Layout &before_, &after_;
  const ReshardOptions& options_;
  std::vector<bool> lost_;
  std::vector<int64_t> sent_;  // bytes, by rank
  // By tensor, then (dim, begin, end, first, last).
  std::map<std::string, std::map<std::tuple<int, int64_t, int64_t, int64_t, int64_t>, Holders>> holders_;
  // Of a tensor, by where they begin: of many ranks each has a little of every tensor, and few have some of a piece.
  struct Near {
    const Holders* holders;
    int order;           // by what they hold
    int64_t begin, end;  // in the whole tensor; end: the furthest of this one and those before it
  };
  std::map<std::string, std::vector<Near>> index_;
  std::map<std::string, std::vector<int>> lost_holders_;
  Turn turn_;
  std::map<std::tuple<int, int, int, int>, std::vector<PieceCopy>> copies_;
};

std::string Bytes(int64_t bytes) {
  if (bytes >= int64_t{10} << 30) return absl::StrCat(bytes >> 30, " GiB");
  if (bytes >= int64_t{10} << 20) return absl::StrCat(bytes >> 20, " MiB");
  if (bytes >= int64_t{10} << 10) return absl::StrCat(bytes >> 10, " KiB");
  return absl::StrCat(bytes, " B");
}

}  // namespace

absl::StatusOr<ReshardPlan> PlanReshard(const Layout& before, const Layout& after,
                                        const ReshardOptions& options) {
  COHORT_RETURN_IF_ERROR(CheckLayouts(before, after));
  if (!options.lost_names.empty() && options.lost_names.size() != options.lost.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.lost_names.size(), " names for ", options.lost.size(), " lost ranks"));
  }
  if (!options.host_of.empty() && options.host_of.size() != before.ranks.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("hosts of ", options.host_of.size(), " ranks for layouts of ", before.world()));
  }
  for (const int rank : options.lost) {
    if (rank < 0 || rank >= after.world())
      return absl::InvalidArgumentError(absl::StrCat("there is no rank ", rank));
    if (!after.ranks[static_cast<size_t>(rank)].empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", rank, " is lost and is to hold ",
                       after.ranks[static_cast<size_t>(rank)][0].piece.DebugString()));
    }
  }
  return Planner(before, after, options).Run();
}

ReshardTotals TotalsOf(const Layout& after, const ReshardOptions& options, const ReshardPlan& plan) {
  const auto host = [&](int rank) {
    return options.host_of.empty() ? 0 : options.host_of[static_cast<size_t>(rank)];
  };
  ReshardTotals totals;
  for (const auto& pieces : after.ranks) {
    for (const HeldPiece& held : pieces) totals.total += held.bytes();
  }
  std::map<int, int64_t> sent, received, host_sent, host_received;
  for (const PieceCopy& copy : plan.copies) {
    const HeldPiece& to =
        after.ranks[static_cast<size_t>(copy.destination)][static_cast<size_t>(copy.to_piece)];
    const int64_t bytes = copy.elements() * static_cast<int64_t>(SizeOf(to.dtype));
    if (copy.stays()) {
      totals.stay += bytes;
      continue;
    }
    ++totals.messages;
    totals.blocks += copy.blocks;
    sent[copy.source] += bytes;
    received[copy.destination] += bytes;
    const int a = host(copy.source), b = host(copy.destination);
    (a == b ? totals.within_hosts : totals.between_hosts) += bytes;
    if (a != b) {
      host_sent[a] += bytes;
      host_received[b] += bytes;
    }
  }
  for (const auto& [rank, bytes] : sent) {
    if (bytes > totals.most_sent) totals.most_sent = bytes, totals.most_sent_rank = rank;
  }
  for (const auto& [rank, bytes] : received) {
    if (bytes > totals.most_received) totals.most_received = bytes, totals.most_received_rank = rank;
  }
  for (const auto& bytes_of : {host_sent, host_received}) {
    for (const auto& [h, bytes] : bytes_of) totals.host_bytes = std::max(totals.host_bytes, bytes);
  }
  return totals;
}

double LeastSeconds(const ReshardTotals& totals, const ReshardRates& rates) {
  const auto rank_bytes = static_cast<double>(std::max(totals.most_sent, totals.most_received));
  return std::max(rates.rank_bytes_per_second > 0 ? rank_bytes / rates.rank_bytes_per_second : 0.0,
                  rates.host_bytes_per_second > 0
                      ? static_cast<double>(totals.host_bytes) / rates.host_bytes_per_second
                      : 0.0);
}

std::string DebugString(const ReshardTotals& totals, const ReshardRates* rates) {
  std::string text = absl::StrCat(Bytes(totals.stay), " of ", Bytes(totals.total), " stay where they are\n",
                                  Bytes(totals.moved()), " move in ", totals.messages, " messages of ",
                                  totals.blocks, " blocks: ", Bytes(totals.within_hosts), " within hosts, ",
                                  Bytes(totals.between_hosts), " between them\n");
  if (totals.moved() == 0) return text;
  absl::StrAppend(&text, "most sent: ", Bytes(totals.most_sent), " by rank ", totals.most_sent_rank,
                  "; most received: ", Bytes(totals.most_received), " by rank ", totals.most_received_rank,
                  "\n");
  if (totals.between_hosts > 0) {
    absl::StrAppend(&text, "busiest host: ", Bytes(totals.host_bytes), " one way\n");
  }
  if (rates != nullptr) absl::StrAppend(&text, "at least ", LeastSeconds(totals, *rates), " s\n");
  return text;
}

}  // namespace cohort::parallel
