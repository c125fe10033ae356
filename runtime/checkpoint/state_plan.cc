#include "runtime/checkpoint/state_plan.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "runtime/checkpoint/safetensors_pieces.h"
#include "runtime/checkpoint/weight_shards.h"

namespace cohort::runtime {
namespace {

// What one rank announces of one tensor; `state` is the optimizer state's type, where there is any.
struct Announced {
  Piece piece;
  DataType value;
  std::optional<DataType> state;
};

std::vector<Announced> ParseAnnouncement(const std::string& text, size_t rank) {
  const nlohmann::json list = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  COHORT_CHECK(list.is_array(), "rank %zu announced no list of tensors", rank);
  std::vector<Announced> result;
  for (const nlohmann::json& item : list) {
    Announced one;
    one.piece.name = item[0].get<std::string>();
    for (const nlohmann::json& dim : item[1]) one.piece.full.push_back(dim.get<int64_t>());
    one.piece.dim = item[2].get<int>();
    one.piece.begin = item[3].get<int64_t>();
    one.piece.end = item[4].get<int64_t>();
    one.piece.first = item[5].get<int64_t>();
    one.piece.last = item[6].get<int64_t>();
    one.value = *ParseDataType(item[7].get<std::string>());
    if (item[8].is_string()) one.state = *ParseDataType(item[8].get<std::string>());
    const absl::Status status = CheckPiece(one.piece);
    COHORT_CHECK(status.ok(), "rank %zu announced %s", rank, std::string(status.message()).c_str());
    result.push_back(std::move(one));
  }
  return result;
}

// A tensor, as all ranks that write some of it describe it.
struct Gathered {
  Announced first;
  std::vector<Piece> pieces;
  std::vector<size_t> ranks;  // of the pieces; ranks[0] owns it
};

absl::Status CheckGathered(const Gathered& tensor) {
  const absl::Status cover = CheckCover(tensor.pieces);
  if (cover.ok()) return cover;
  return absl::FailedPreconditionError(
      absl::StrCat(cover.message(), " (it is written by ranks ", absl::StrJoin(tensor.ranks, ", "), ")"));
}

void AddFile(StateFile file, StatePlan* plan) {
  for (size_t i = 0; i < file.tensors.size(); ++i)
    plan->places[file.tensors[i].name] = {plan->files.size(), i};
  plan->files.push_back(std::move(file));
}

}  // namespace

std::string OptimizerFileName(int rank, int world) {
  return absl::StrFormat("optimizer-%05d-of-%05d.safetensors", rank, world);
}

StateTensors TensorsOf(const StateEntry& entry, Trainable& trainable, const OptimizerState& optimizer) {
  const int64_t size = entry.piece.size();
  if (entry.slice < 0) return {entry.parameter->value.View({size}), {}};
  const auto part = [&](const Tensor& flat) { return flat.Slice(entry.offset, entry.offset + size); };
  const auto slice = static_cast<size_t>(entry.slice);
  const OptimizerSlice& tensors = trainable.slices()[slice];
  return {part(tensors.value.defined() ? tensors.value : tensors.master),
          {part(tensors.master), part(optimizer.m[slice]), part(optimizer.v[slice])}};
}

std::vector<WrittenState> WrittenBy(Trainable& trainable, const OptimizerState& optimizer) {
  std::vector<WrittenState> written;
  for (const StateEntry& entry : trainable.state()) {
    // A tensor without elements has to be announced by somebody too.
    if (!entry.writes || (entry.piece.empty() && entry.piece.full_size() > 0)) continue;
    StateTensors tensors = TensorsOf(entry, trainable, optimizer);
    const DataType dtype = tensors.value.dtype();
    written.push_back({entry.piece, dtype, std::move(tensors.value), std::move(tensors.state)});
  }
  return written;
}

std::string AnnounceState(absl::Span<const WrittenState> written) {
  nlohmann::json mine = nlohmann::json::array();
  for (const WrittenState& one : written) {
    const Piece& piece = one.piece;
    nlohmann::json state;  // null
    if (!one.state.empty()) state = Name(one.state[0].dtype());
    mine.push_back({piece.name, std::vector<int64_t>(piece.full.begin(), piece.full.end()), piece.dim,
                    piece.begin, piece.end, piece.first, piece.last, Name(one.dtype), state});
  }
  return mine.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::StatusOr<StatePlan> PlanState(absl::Span<const std::string> announced, int64_t shard_bytes) {
  std::vector<Gathered> tensors;  // in the order in which they are first announced
  absl::flat_hash_map<std::string, size_t> index;
  for (size_t rank = 0; rank < announced.size(); ++rank) {
    for (Announced& one : ParseAnnouncement(announced[rank], rank)) {
      const auto [it, is_new] = index.try_emplace(one.piece.name, tensors.size());
      if (is_new) tensors.push_back({one, {}, {}});
      Gathered& tensor = tensors[it->second];
      if (one.piece.full != tensor.first.piece.full || one.value != tensor.first.value ||
          one.state != tensor.first.state) {
        return absl::FailedPreconditionError(absl::StrCat("tensor '", one.piece.name,
                                                          "' has one shape or type on rank ", tensor.ranks[0],
                                                          " and another on rank ", rank));
      }
      tensor.pieces.push_back(std::move(one.piece));
      tensor.ranks.push_back(rank);
    }
  }
  std::vector<PlannedTensor> weights;
  std::vector<StateFile> optimizer(announced.size());
  for (const Gathered& tensor : tensors) {
    COHORT_RETURN_IF_ERROR(CheckGathered(tensor));
    const Piece& piece = tensor.first.piece;
    const size_t owner = tensor.ranks[0];
    weights.push_back({{piece.name, tensor.first.value, piece.full}, static_cast<int>(owner)});
    if (!tensor.first.state) continue;
    for (const char* kind : kStateKinds) {
      // Where compute and state type are one, the weights are the masters.
      if (absl::string_view(kind) == kMaster && *tensor.first.state == tensor.first.value) continue;
      optimizer[owner].tensors.push_back(
          {absl::StrCat(piece.name, "/", kind), *tensor.first.state, piece.full});
    }
  }

  StatePlan plan;
  if (!weights.empty()) plan.dtype = weights[0].info.dtype;
  const std::vector<WeightShard> shards = PlanWeightShards(weights, shard_bytes);
  for (const WeightShard& shard : shards) {
    StateFile file{shard.file, shard.writer, {}};
    for (const size_t i : shard.tensors) file.tensors.push_back(weights[i].info);
    AddFile(std::move(file), &plan);
  }
  if (shards.size() > 1) plan.index = WeightsIndexJson(weights, shards);
  for (size_t rank = 0; rank < announced.size(); ++rank) {
    optimizer[rank].name = OptimizerFileName(static_cast<int>(rank), static_cast<int>(announced.size()));
    optimizer[rank].owner = static_cast<int>(rank);
    AddFile(std::move(optimizer[rank]), &plan);
  }
  return plan;
}

absl::Status CreateStateFiles(const std::string& folder, const StatePlan& plan, int rank) {
  for (const StateFile& file : plan.files) {
    if (file.owner != rank) continue;
    COHORT_RETURN_IF_ERROR(CreateForPieces(absl::StrCat(folder, "/", file.name), file.tensors));
  }
  return SyncFolder(folder);
}

absl::Status WriteStatePieces(const std::string& folder, const StatePlan& plan, int rank, int world,
                              absl::Span<const WrittenState> written) {
  struct Part {
    size_t tensor;
    const Piece* piece;
    Tensor values;
  };
  std::map<size_t, std::vector<Part>> of_file;
  for (const WrittenState& one : written) {
    if (one.piece.empty()) continue;
    const auto add = [&](const std::string& name, const Tensor& values) {
      const StatePlan::Place& place = plan.places.at(name);
      of_file[place.file].push_back({place.tensor, &one.piece, values});
    };
    add(one.piece.name, one.value);
    for (size_t i = 0; i < one.state.size(); ++i) {
      if (absl::string_view(kStateKinds[i]) == kMaster && one.state[i].dtype() == one.dtype) continue;
      add(absl::StrCat(one.piece.name, "/", kStateKinds[i]), one.state[i]);
    }
  }
  // Every rank begins with another file: a file system lets one write at a time into each.
  std::vector<size_t> order;
  for (const auto& [f, parts] : of_file) order.push_back(f);
  if (!order.empty()) {
    const size_t first = order.size() * static_cast<size_t>(rank) / static_cast<size_t>(world);
    std::rotate(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(first), order.end());
  }
  for (const size_t f : order) {
    const std::vector<Part>& parts = of_file[f];
    const StateFile& file = plan.files[f];
    COHORT_ASSIGN_OR_RETURN(SafetensorsPieceWriter writer,
                            SafetensorsPieceWriter::Open(absl::StrCat(folder, "/", file.name), file.tensors));
    for (const Part& part : parts)
      COHORT_RETURN_IF_ERROR(writer.Write(part.tensor, *part.piece, part.values));
    COHORT_RETURN_IF_ERROR(writer.Finish());
  }
  return absl::OkStatus();
}

}  // namespace cohort::runtime
