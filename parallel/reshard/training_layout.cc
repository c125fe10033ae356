#include "parallel/reshard/training_layout.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "moe/moe_layer.h"
#include "parallel/pipeline_plan.h"
#include "parallel/placements.h"
#include "parallel/sharding/flat_tensors.h"
#include "parallel/sharding/shard_tree.h"
#include "runtime/checkpoint/state_plan.h"
#include "runtime/model/decoder.h"
#include "runtime/model/spread.h"

namespace cohort::parallel {
namespace {

using runtime::Decoder;
using runtime::ParameterGroup;
using runtime::Piece;
using runtime::Tensor;

// A place in a tensor group that is not there.
class TensorPlace final : public runtime::TensorGroup {
 public:
  TensorPlace(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  runtime::RowsInFlight StartGatherRows(const Tensor& x, int64_t) override {
    Nobody();
    return runtime::RowsInFlight(x);
  }
  runtime::RowsInFlight StartReduceScatterRows(const Tensor& y) override {
    Nobody();
    return runtime::RowsInFlight(y);
  }
  absl::Status Sum(const Tensor&) override {
    Nobody();
    return absl::OkStatus();
  }
  absl::Status Max(const Tensor&) override {
    Nobody();
    return absl::OkStatus();
  }

 private:
  static void Nobody() { COHORT_CHECK(false, "a model that is made to be looked at computes nothing"); }
  const int rank_, size_;
};

// The parameters of a rank's stages, without their values.
using Parts = std::vector<std::unique_ptr<Decoder>>;

class Layouter {
 public:
  Layouter(const runtime::ModelConfig& config, const Arrangement& arrangement, const Mesh& mesh,
           DataType state, bool deterministic)
      : config_(config),
        arrangement_(arrangement),
        mesh_(mesh),
        state_(state),
        deterministic_(deterministic) {}

  absl::StatusOr<Layout> Run() {
    const MeshShape& shape = mesh_.shape();
    COHORT_ASSIGN_OR_RETURN(splits_, Resolve(arrangement_.sharding,
                                             shape.shard * shape.context * shape.tensor, mesh_.stage_size()));
    COHORT_ASSIGN_OR_RETURN(plan_, PipelinePlan::Create(config_, arrangement_.schedule, shape.pipeline,
                                                        arrangement_.stages_per_rank, 0, BlockCosts()));
    Layout layout;
    for (int rank = 0; rank < mesh_.world(); ++rank) {
      COHORT_ASSIGN_OR_RETURN(const Parts* parts, PartsOf(rank));
      const auto [known, is_new] = lists_.try_emplace({parts, ShardsOf(rank)});
      if (!is_new) {
        layout.ranks.push_back(known->second);
        continue;
      }
      std::vector<HeldPiece> pieces;
      // As ParallelModel lists them: what is optimised of all parts of a kind before the buffers of the part.
      for (const auto& decoder : *parts) {
        for (ParameterGroup& group : decoder->groups()) AddOptimised(group, rank, pieces);
        for (ParameterGroup& group : decoder->groups()) {
          for (const auto& parameter : group.parameters()) {
            if (parameter->buffer) pieces.push_back({parameter->piece(), state_});
          }
        }
      }
      known->second = std::move(pieces);
      layout.ranks.push_back(known->second);
    }
    return layout;
  }

 private:
  // The same for all ranks that hold the same parameters.
  absl::StatusOr<const Parts*> PartsOf(int rank) {
    const int stage_rank = mesh_.Coordinate(Axis::kPipeline, rank);
    const int tensor = mesh_.Coordinate(Axis::kTensor, rank), expert = mesh_.Coordinate(Axis::kExpert, rank);
    const auto [at, is_new] = parts_.try_emplace({stage_rank, tensor, expert});
    if (!is_new) return &at->second;
    const MeshShape& shape = mesh_.shape();
    for (const int stage : plan_->StagesOf(stage_rank)) {
      const runtime::DecoderOptions options = {
          .trainable = true,
          .allocate = false,
          .experts = moe::MakeMoeFactory(std::make_shared<moe::ExpertGroup>(expert, shape.expert)),
          .part = plan_->PartOf(stage, deterministic_),
          .tensor = std::make_shared<TensorPlace>(tensor, shape.tensor)};
      COHORT_ASSIGN_OR_RETURN(auto decoder, Decoder::Create(config_, runtime::CpuDevice(), options));
      at->second.push_back(std::move(decoder));
    }
    return &at->second;
  }

  // Which shard of the optimizer's state a rank has, of each placement. With the parameters that is all that tells what
  // ranks hold apart.
  std::vector<int> ShardsOf(int rank) const {
    std::vector<int> shards;
    for (const PlacementRow& row : Placements()) {
      const Splits splits = OfEvery(row.stride(mesh_.shape()), splits_);
      shards.push_back(ShardTree(splits).Piece(splits.optimizer, mesh_.Coordinate(row.axes, rank)));
    }
    return shards;
  }

  void AddOptimised(ParameterGroup& group, int rank, std::vector<HeldPiece>& pieces) const {
    for (const PlacementRow& row : Placements()) {
      const Splits splits = OfEvery(row.stride(mesh_.shape()), splits_);
      const ShardTree tree(splits);
      const int replica = mesh_.Coordinate(row.axes, rank);
      for (const FlatTensor& flat : FlatTensorsOf(group, row.placement, arrangement_.sharding)) {
        const ElementRange held = tree.RangeOf(splits.optimizer, replica, flat.elements());
        for (const FlatRun& run : RunsIn(flat.parts, held)) {
          AddKinds(run.parameter->piece().Range(run.first, run.first + run.count), pieces);
        }
      }
    }
  }

  void AddKinds(Piece piece, std::vector<HeldPiece>& pieces) const {
    const std::string name = piece.name;
    for (const char* kind : runtime::kStateKinds) {
      piece.name = absl::StrCat(name, "/", kind);
      pieces.push_back({piece, state_});
    }
  }

  const runtime::ModelConfig& config_;
  const Arrangement& arrangement_;
  const Mesh& mesh_;
  const DataType state_;
  const bool deterministic_;
  Splits splits_;
  std::optional<PipelinePlan> plan_;
  std::map<std::tuple<int, int, int>, Parts> parts_;
  std::map<std::pair<const Parts*, std::vector<int>>, HeldPieces> lists_;
};

}  // namespace

absl::StatusOr<Layout> TrainingLayout(const runtime::ModelConfig& config, const Arrangement& arrangement,
                                      const Mesh& mesh, DataType state, bool deterministic) {
  return Layouter(config, arrangement, mesh, state, deterministic).Run();
}

HeldState HeldBy(runtime::Trainable& trainable, const runtime::OptimizerState& optimizer) {
  HeldState held;
  for (const runtime::StateEntry& entry : trainable.state()) {
    const runtime::StateTensors tensors = TensorsOf(entry, trainable, optimizer);
    const auto add = [&](const std::string& name, const Tensor& tensor) {
      HeldPiece piece = {entry.piece, tensor.dtype()};
      piece.piece.name = name;
      held.memory.push_back(piece.piece.empty() ? nullptr : tensor.raw());
      held.pieces.push_back(std::move(piece));
    };
    if (tensors.state.empty()) add(entry.piece.name, tensors.value);
    for (size_t i = 0; i < tensors.state.size(); ++i) {
      add(absl::StrCat(entry.piece.name, "/", runtime::kStateKinds[i]), tensors.state[i]);
    }
  }
  return held;
}

}  // namespace cohort::parallel
