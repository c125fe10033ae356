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

// The parameters of a rank's stages, without their values, and what is held of them, in the order in which ParallelModel
// lists it: what is optimised of all parts of a kind before the buffers of the part.
struct Parts {
  struct Entry {
    size_t row = 0;  // of Placements(): a flat tensor, of which replicas hold shards
    FlatTensor flat;
    int64_t elements = 0;
    const runtime::Parameter* buffer = nullptr;  // instead: a buffer, which all hold
  };
  std::vector<std::unique_ptr<Decoder>> decoders;
  std::vector<Entry> entries;
};

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
    for (const PlacementRow& row : Placements()) {
      trees_.emplace_back(OfEvery(row.stride(shape), splits_));
    }
    Layout layout;
    for (int rank = 0; rank < mesh_.world(); ++rank) {
      COHORT_ASSIGN_OR_RETURN(const Parts* parts, PartsOf(rank));
      // Which shards a rank has of each placement: with the parameters that is all that tells what ranks hold apart.
      std::vector<int> replicas, shards;
      for (size_t row = 0; row < trees_.size(); ++row) {
        replicas.push_back(mesh_.Coordinate(Placements()[row].axes, rank));
        shards.push_back(trees_[row].tree.Piece(trees_[row].optimizer, replicas.back()));
      }
      const auto [known, is_new] = lists_.try_emplace({parts, std::move(shards)});
      if (is_new) known->second = HeldOf(*parts, replicas);
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
    Parts& parts = at->second;
    if (!is_new) return &parts;
    const MeshShape& shape = mesh_.shape();
    for (const int stage : plan_->StagesOf(stage_rank)) {
      const runtime::DecoderOptions options = {
          .trainable = true,
          .allocate = false,
          .computes = false,
          .experts = moe::MakeMoeFactory(std::make_shared<moe::ExpertGroup>(expert, shape.expert)),
          .part = plan_->PartOf(stage, deterministic_),
          .tensor = std::make_shared<TensorPlace>(tensor, shape.tensor)};
      COHORT_ASSIGN_OR_RETURN(auto decoder, Decoder::Create(config_, runtime::CpuDevice(), options));
      for (ParameterGroup& group : decoder->groups()) {
        for (size_t row = 0; row < trees_.size(); ++row) {
          for (FlatTensor& flat : FlatTensorsOf(group, Placements()[row].placement, arrangement_.sharding)) {
            const int64_t elements = flat.elements();
            parts.entries.push_back({row, std::move(flat), elements, nullptr});
          }
        }
      }
      for (ParameterGroup& group : decoder->groups()) {
        for (const auto& parameter : group.parameters()) {
          if (parameter->buffer) parts.entries.push_back({0, {}, 0, parameter.get()});
        }
      }
      parts.decoders.push_back(std::move(decoder));
    }
    return &parts;
  }

  HeldPieces HeldOf(const Parts& parts, const std::vector<int>& replicas) const {
    std::vector<HeldPiece> pieces;
    for (const Parts::Entry& entry : parts.entries) {
      if (entry.buffer != nullptr) {
        pieces.push_back({entry.buffer->piece(), state_});
        continue;
      }
      const Tree& row = trees_[entry.row];
      const ElementRange held = row.tree.RangeOf(row.optimizer, replicas[entry.row], entry.elements);
      for (const FlatRun& run : RunsIn(entry.flat.parts, held)) {
        AddKinds(run.parameter->piece().Range(run.first, run.first + run.count), pieces);
      }
    }
    return pieces;
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
  struct Tree {
    explicit Tree(const Splits& splits) : tree(splits), optimizer(splits.optimizer) {}
    ShardTree tree;
    int optimizer;  // the level over which its state is split
  };
  std::vector<Tree> trees_;  // by row of Placements()
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
