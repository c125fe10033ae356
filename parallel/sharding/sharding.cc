#include "parallel/sharding/sharding.h"

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"

namespace cohort::parallel {
namespace {

constexpr Level kN = Level::None(), kI = Level::Shard(), kG = Level::World();
using comm::CodecKind;

constexpr ShardingRow kShardingRows[] = {
    {"ddp", "whole copies everywhere; gradients are summed once a step", {kN, kN, kN}},
    {"zero-1", "optimizer state over all ranks (Rajbhandari et al., 2020)", {kN, kN, kG}},
    {"zero-2", "gradients too", {kN, kG, kG}},
    {"zero-3", "parameters too: gathered around each use", {kG, kG, kG}},
    {"hsdp",
     "everything over the shard axis, copies beyond it (PyTorch FSDP's hybrid sharding)",
     {kI, kI, kI}},
    {"mics", "the same split as hsdp (Zhang et al., 2022)", {kI, kI, kI}},
    {"zero++",
     "zero-3 with a secondary shard on the shard axis, int8 gathers and int4 sums (Wang et al., 2023)",
     {kG, kG, kG, kI, CodecKind::kInt8, CodecKind::kInt4}},
    {"qsdp",
     "zero-3 with gathers and sums in 8 bits, by a shifted lattice and at random (Markov et al., 2023)",
     {kG, kG, kG, kN, CodecKind::kMinMax8, CodecKind::kMinMax8}},
    {"frontier",
     "parameters over 2 neighbours, gradients over the shard axis, optimizer state over all (ZeRO-topo)",
     {Level::Ranks(2), kI, kG}},
    {"paro:NNN", "ddp", {kN, kN, kN}},
    {"paro:NNI", "optimizer state over the shard axis", {kN, kN, kI}},
    {"paro:NNG", "zero-1", {kN, kN, kG}},
    {"paro:NII", "gradients and optimizer state over the shard axis", {kN, kI, kI}},
    {"paro:NIG", "gradients over the shard axis, optimizer state over all", {kN, kI, kG}},
    {"paro:NGG", "zero-2", {kN, kG, kG}},
    {"paro:INI", "parameters and optimizer state over the shard axis, gradients whole", {kI, kN, kI}},
    {"paro:ING", "parameters over the shard axis, gradients whole, optimizer state over all", {kI, kN, kG}},
    {"paro:III", "hsdp", {kI, kI, kI}},
    {"paro:IIG", "hsdp with the optimizer state over all", {kI, kI, kG}},
    {"paro:IGG", "parameters over the shard axis, the rest over all", {kI, kG, kG}},
    {"paro:GNG", "parameters and optimizer state over all, gradients whole", {kG, kN, kG}},
    {"paro:GIG", "gradients over the shard axis, the rest over all", {kG, kI, kG}},
    {"paro:GGG", "zero-3", {kG, kG, kG}},
};

absl::Status BadSharding(auto&&... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); }

const char* const kOptimizerTooCoarse =
    "; optimizer state must be split at least as finely, because a rank updates only what it has the state "
    "of";

std::optional<Level> LevelOfLetter(char letter) {
  switch (letter) {
    case 'N':
      return kN;
    case 'I':
      return kI;
    case 'G':
      return kG;
    default:
      return std::nullopt;
  }
}

// What is wrong with the order of levels, as far as it does not depend on the mesh.
absl::Status CheckLetters(const Sharding& s) {
  if (s.optimizer.is_number()) return absl::OkStatus();
  for (const auto& [what, level] : {std::pair{"parameters", s.parameters}, {"gradients", s.gradients}}) {
    if (!level.is_number() && level.letter() > s.optimizer.letter()) {
      return BadSharding("sharding has ", what, " split over ", level.DebugString(),
                         " and optimizer state over ", s.optimizer.DebugString(), kOptimizerTooCoarse);
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string Level::DebugString() const {
  if (ranks_ == -1) return "shard";
  if (ranks_ == -2) return "world";
  return ranks_ == 1 ? "none" : absl::StrCat(ranks_);
}

std::string Sharding::DebugString() const {
  std::string text = absl::StrCat("parameters ", parameters.DebugString(), ", gradients ",
                                  gradients.DebugString(), ", optimizer ", optimizer.DebugString());
  if (secondary != Level::None()) absl::StrAppend(&text, ", secondary ", secondary.DebugString());
  if (gather_codec) absl::StrAppend(&text, ", gathers ", comm::GetCodec(*gather_codec).name);
  if (reduce_codec) absl::StrAppend(&text, ", sums ", comm::GetCodec(*reduce_codec).name);
  return text;
}

absl::Span<const ShardingRow> ShardingRows() { return kShardingRows; }

absl::StatusOr<Level> ParseLevel(absl::string_view text) {
  for (const Level level : {kN, kI, kG}) {
    if (text == level.DebugString()) return level;
  }
  int ranks = 0;
  if (absl::SimpleAtoi(text, &ranks) && ranks >= 1) return Level::Ranks(ranks);
  return BadSharding("'", text, "' is no level of sharding; use none, shard, world or a number of ranks");
}

absl::StatusOr<std::optional<CodecKind>> ParseCodec(absl::string_view text) {
  if (text.empty() || text == "none") return std::optional<CodecKind>();
  const comm::Codec* codec = comm::FindCodec(text);
  if (codec != nullptr) return std::optional<CodecKind>(codec->kind);
  const auto name = [](std::string* out, const comm::Codec& row) { out->append(row.name); };
  return BadSharding("'", text, "' is no codec; use none, ", absl::StrJoin(comm::Codecs(), ", ", name));
}

absl::StatusOr<Sharding> ParseSharding(absl::string_view text) {
  for (const ShardingRow& row : kShardingRows) {
    if (text == row.name) return row.sharding;
  }
  Sharding sharding;
  Level* const levels[] = {&sharding.parameters, &sharding.gradients, &sharding.optimizer};
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '/');
  if (parts.size() == 3) {
    for (size_t i = 0; i < 3; ++i) {
      COHORT_ASSIGN_OR_RETURN(*levels[i], ParseLevel(parts[i]));
    }
    COHORT_RETURN_IF_ERROR(CheckLetters(sharding));
    return sharding;
  }
  const std::string letters = absl::AsciiStrToUpper(absl::StripPrefix(text, "paro:"));
  bool known = letters.size() == 3;
  for (size_t i = 0; known && i < 3; ++i) {
    const std::optional<Level> level = LevelOfLetter(letters[i]);
    known = level.has_value();
    if (known) *levels[i] = *level;
  }
  if (known) {
    COHORT_RETURN_IF_ERROR(CheckLetters(sharding));
    return sharding;
  }
  std::vector<std::string> names;
  for (const ShardingRow& row : kShardingRows) names.emplace_back(row.name);
  return BadSharding(
      "sharding '", text, "' is not known; use one of ", absl::StrJoin(names, ", "),
      ", three of the letters N, I, G for parameters, gradients and optimizer state, or three levels as in "
      "2/shard/world");
}

absl::StatusOr<Sharding> ParseSharding(absl::string_view text, absl::string_view secondary,
                                       absl::string_view gather_codec, absl::string_view reduce_codec) {
  COHORT_ASSIGN_OR_RETURN(Sharding sharding, ParseSharding(text));
  if (!secondary.empty()) {
    COHORT_ASSIGN_OR_RETURN(sharding.secondary, ParseLevel(secondary));
  }
  if (!gather_codec.empty()) {
    COHORT_ASSIGN_OR_RETURN(sharding.gather_codec, ParseCodec(gather_codec));
  }
  if (!reduce_codec.empty()) {
    COHORT_ASSIGN_OR_RETURN(sharding.reduce_codec, ParseCodec(reduce_codec));
  }
  return sharding;
}

absl::StatusOr<Splits> Resolve(const Sharding& sharding, int shard, int stage) {
  COHORT_CHECK(shard >= 1 && stage >= 1 && stage % shard == 0, "%d neighbours of a stage of %d", shard,
               stage);
  COHORT_RETURN_IF_ERROR(CheckLetters(sharding));
  Splits splits = {.replicas = stage};
  const struct {
    const char* what;
    Level level;
    int* ranks;
  } kinds[] = {{"parameters", sharding.parameters, &splits.parameters},
               {"gradients", sharding.gradients, &splits.gradients},
               {"optimizer state", sharding.optimizer, &splits.optimizer},
               {"the secondary shard", sharding.secondary, &splits.secondary}};
  std::vector<int> chain = {1};
  for (const auto& kind : kinds) {
    *kind.ranks = kind.level.Span(shard, stage);
    if (stage % *kind.ranks != 0) {
      return BadSharding("sharding splits ", kind.what, " over ", *kind.ranks,
                         " ranks, which does not divide the ", stage, " ranks of a pipeline stage");
    }
    chain.push_back(*kind.ranks);
  }
  if (splits.parameters > splits.optimizer) {
    return BadSharding("sharding splits parameters over ", splits.parameters,
                       " ranks and optimizer state over ", splits.optimizer, kOptimizerTooCoarse);
  }
  if (splits.gradients > splits.optimizer) {
    return BadSharding("sharding splits gradients over ", splits.gradients,
                       " ranks and optimizer state over ", splits.optimizer, kOptimizerTooCoarse);
  }
  std::sort(chain.begin(), chain.end());
  for (size_t i = 1; i < chain.size(); ++i) {
    if (chain[i] % chain[i - 1] != 0) {
      return BadSharding("sharding has levels of ", chain[i - 1], " and ", chain[i],
                         " ranks; each must divide the next one, so that shards nest");
    }
  }
  if (sharding.secondary != Level::None() && splits.secondary > splits.parameters) {
    return BadSharding("the secondary shard is split over ", splits.secondary, " ranks and parameters over ",
                       splits.parameters, "; it must be coarser than they are, or none");
  }
  if (sharding.gather_codec && sharding.parameters == Level::None()) {
    return BadSharding("gathers are to be encoded as ", comm::GetCodec(*sharding.gather_codec).name,
                       ", and parameters are not split: nothing is gathered; split them or use no codec");
  }
  return splits;
}

Splits OfEvery(int stride, const Splits& stage) {
  COHORT_CHECK(stage.replicas % stride == 0, "a member every %d of %d ranks", stride, stage.replicas);
  const auto of = [&](int span) { return span % stride == 0 ? span / stride : 1; };
  return {.parameters = of(stage.parameters),
          .secondary = of(stage.secondary),
          .gradients = of(stage.gradients),
          .optimizer = of(stage.optimizer),
          .replicas = stage.replicas / stride};
}

}  // namespace cohort::parallel
