#include "parallel/reshard/training_layout.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
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

// What there is of a rank's stages, in the order in which ParallelModel lists it: what is optimised of all parts of a kind
// before the buffers of the part.
struct Parts {
  struct Parameter {
    int64_t begin = 0;  // in the flat tensor
    HeldBundle whole;   // what of it is in this rank's model
  };
  struct Entry {
    size_t row = 0;      // of Placements(): a flat tensor, of which replicas hold shards
    bool whole = false;  // instead: a buffer, which all hold
    int64_t elements = 0;
    std::vector<Parameter> parameters;  // one after another; none is empty
  };
  std::shared_ptr<std::deque<TensorBundle>> tensors = std::make_shared<std::deque<TensorBundle>>();
  std::vector<Entry> entries;

  void Add(const Piece& piece, std::vector<std::string> names, DataType dtype, Entry& entry) {
    const TensorBundle& made = tensors->emplace_back(TensorBundle{std::move(names), piece.full, dtype});
    const HeldBundle whole = {.tensors = &made,
                              .dim = piece.dim,
                              .begin = piece.begin,
                              .end = piece.end,
                              .first = piece.first,
                              .last = piece.last};
    entry.parameters.push_back({entry.elements, whole});
    entry.elements += piece.size();
  }
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
    layout.ranks.reserve(static_cast<size_t>(mesh_.world()));
    for (int rank = 0; rank < mesh_.world(); ++rank) {
      COHORT_ASSIGN_OR_RETURN(const Parts* parts, PartsOf(rank));
      // Which shards a rank has of each placement: with the parameters that is all that tells what ranks hold apart.
      ByRow replicas, shards;
      for (size_t row = 0; row < trees_.size(); ++row) {
        replicas.push_back(mesh_.Coordinate(Placements()[row].axes, rank));
        shards.push_back(trees_[row].tree.Piece(trees_[row].optimizer, replicas.back()));
      }
      const auto [known, is_new] = lists_.try_emplace({parts, shards});
      if (is_new) known->second = HeldOf(*parts, replicas);
      layout.ranks.push_back(known->second);
    }
    return layout;
  }

 private:
  using ByRow = absl::InlinedVector<int, 4>;  // of Placements()

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
          for (const FlatTensor& flat :
               FlatTensorsOf(group, Placements()[row].placement, arrangement_.sharding)) {
            AddFlat(flat, row, parts);
          }
        }
      }
      for (ParameterGroup& group : decoder->groups()) {
        for (const auto& parameter : group.parameters()) {
          if (!parameter->buffer) continue;
          Parts::Entry& entry = parts.entries.emplace_back();
          entry.whole = true;
          parts.Add(parameter->piece(), {parameter->name}, state_, entry);
        }
      }
    }
    return &parts;
  }

  void AddFlat(const FlatTensor& flat, size_t row, Parts& parts) const {
    Parts::Entry& entry = parts.entries.emplace_back();
    entry.row = row;
    for (const runtime::ParameterBucket* bucket : flat.parts) {
      for (const runtime::Parameter* parameter : bucket->parameters) {
        if (parameter->elements() == 0) continue;
        std::vector<std::string> names;
        for (const char* kind : runtime::kStateKinds)
          names.push_back(absl::StrCat(parameter->name, "/", kind));
        parts.Add(parameter->piece(), std::move(names), state_, entry);
      }
    }
  }

  HeldPieces HeldOf(const Parts& parts, const ByRow& replicas) const {
    std::vector<HeldBundle> bundles;
    bundles.reserve(parts.entries.size());
    for (const Parts::Entry& entry : parts.entries) {
      if (entry.whole) {
        bundles.push_back(entry.parameters[0].whole);
        continue;
      }
      const Tree& row = trees_[entry.row];
      const ElementRange held = row.tree.RangeOf(row.optimizer, replicas[entry.row], entry.elements);
      if (held.size() == 0) continue;
      // The runs of RunsIn, from the parameter on in which the range begins.
      auto at = std::upper_bound(entry.parameters.begin(), entry.parameters.end(), held.begin,
                                 [](int64_t element, const auto& other) { return element < other.begin; });
      if (at != entry.parameters.begin()) --at;
      for (; at != entry.parameters.end() && at->begin < held.end; ++at) {
        HeldBundle& bundle = bundles.emplace_back(at->whole);
        bundle.first = at->whole.first + std::max<int64_t>(0, held.begin - at->begin);
        bundle.last = at->whole.first + std::min(at->whole.size(), held.end - at->begin);
      }
    }
    return HeldPieces(parts.tensors, std::move(bundles));
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
  absl::flat_hash_map<std::pair<const Parts*, ByRow>, HeldPieces> lists_;
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
      held.devices.push_back(&tensor.device());
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
