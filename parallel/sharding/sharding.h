// Sharding as a table: over how many neighbouring ranks each kind of training state is split. A pure value. DDP, ZeRO,
// hybrid sharding and their kin are rows of it; one mechanism (sharded_parameters.h) runs them all.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "comm/codec/codec.h"

namespace cohort::parallel {

// Over how many neighbouring ranks of its replica group something is split.
class Level {
 public:
  constexpr Level() = default;  // none: every rank has all of it
  static constexpr Level None() { return Level(); }
  // The ranks of the mesh's shard axis with their context and tensor groups: usually a host.
  static constexpr Level Shard() { return Level(-1); }
  // All ranks that hold the same parameters.
  static constexpr Level World() { return Level(-2); }
  // So many neighbours.
  static constexpr Level Ranks(int ranks) { return Level(ranks); }

  bool operator==(const Level&) const = default;
  // In ranks of a pipeline stage of `stage` ranks, `shard` of which are neighbours.
  int Span(int shard, int stage) const { return ranks_ == -1 ? shard : ranks_ == -2 ? stage : ranks_; }
  bool is_number() const { return ranks_ > 1; }
  // How fine it is where that does not depend on the mesh: none 0, shard 1, world 2.
  int letter() const { return ranks_ == -1 ? 1 : ranks_ == -2 ? 2 : 0; }
  // "none", "shard", "world", "4".
  std::string DebugString() const;

 private:
  explicit constexpr Level(int ranks) : ranks_(ranks) {}
  int ranks_ = 1;
};

struct Sharding {
  Level parameters, gradients, optimizer;
  // After the first gather since the optimizer ran, every rank keeps its piece of a split over so many neighbours, and
  // later gathers come from these (the secondary shard of ZeRO++'s hpZ). None: nothing is kept.
  Level secondary = Level::None();
  // What gathers of parameters and sums of gradients are encoded with on the wire. Norms never are.
  std::optional<comm::CodecKind> gather_codec = std::nullopt, reduce_codec = std::nullopt;

  bool operator==(const Sharding&) const = default;
  // "parameters shard, gradients shard, optimizer world", and what else there is.
  std::string DebugString() const;
};

struct ShardingRow {
  const char* name;
  const char* meaning;
  Sharding sharding;
};
// Every named arrangement.
absl::Span<const ShardingRow> ShardingRows();

// A row's name; three letters for parameters, gradients and optimizer state, each N (not split), I (over the shard axis)
// or G (over all), as PaRO writes them (Wu et al., "Rethinking memory and communication cost for efficient large
// language model training", 2023); or three levels with slashes, "2/shard/world". INVALID_ARGUMENT says what is known.
absl::StatusOr<Sharding> ParseSharding(absl::string_view text);
// The same, with what a configuration says beside it; empty: as the row says.
absl::StatusOr<Sharding> ParseSharding(absl::string_view text, absl::string_view secondary,
                                       absl::string_view gather_codec, absl::string_view reduce_codec);
// none, shard, world or a number of ranks.
absl::StatusOr<Level> ParseLevel(absl::string_view text);
// The name of a codec, or none.
absl::StatusOr<std::optional<comm::CodecKind>> ParseCodec(absl::string_view text);

// The same in ranks of one replica group: 1 | .. each divides the next one of the chain of those that differ.
struct Splits {
  int parameters = 1, secondary = 1, gradients = 1, optimizer = 1;
  int replicas = 1;  // ranks of the group

  bool operator==(const Splits&) const = default;
  bool keeps_secondary() const { return secondary > 1 && secondary < parameters; }
};

// Over the `stage` ranks of a pipeline stage, of which `shard` are neighbours. INVALID_ARGUMENT gives the reason why an
// arrangement makes no sense: the optimizer's state must be split at least as finely as parameters and gradients (of
// PaRO's letters that leaves fourteen combinations), and levels must divide each other.
absl::StatusOr<Splits> Resolve(const Sharding& sharding, int shard, int stage);

// Of a replica group whose members are `stride` ranks apart. A level that spans a run of neighbours without two members
// splits nothing there.
Splits OfEvery(int stride, const Splits& stage);

}  // namespace cohort::parallel
