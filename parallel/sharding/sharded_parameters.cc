#include "parallel/sharding/sharded_parameters.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "parallel/sharding/flat_tensors.h"
#include "runtime/metrics/waited.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel {

using runtime::ParameterBucket;
using runtime::ParameterGroup;

absl::StatusOr<std::unique_ptr<ShardedParameters>> ShardedParameters::Create(
    runtime::Decoder& decoder, const Sharding& sharding, const MeshCommunicators& groups,
    int64_t memory_limit, const VirtualShards* shards, absl::Span<const pipeline::Action> actions) {
  const MeshShape& shape = groups.mesh.shape();
  COHORT_ASSIGN_OR_RETURN(const Splits stage, Resolve(sharding, shape.shard * shape.context * shape.tensor,
                                                      groups.mesh.stage_size()));
  const bool encodes = sharding.gather_codec || sharding.reduce_codec;
  if (encodes && decoder.device().state_dtype() != DataType::kF32) {
    return absl::InvalidArgumentError(absl::StrCat("codecs encode f32 and bf16, and the ",
                                                   decoder.device().name(), " device has state in ",
                                                   Name(decoder.device().state_dtype())));
  }
  std::unique_ptr<ShardedParameters> made(new ShardedParameters(decoder, sharding));
  for (const PlacementRow& row : Placements()) {
    COHORT_ASSIGN_OR_RETURN(auto replicas, ReplicaGroup::Connect(row, stage, groups, shards != nullptr));
    made->replicas_.push_back(std::move(replicas));
    if (shards == nullptr) continue;
    made->orders_.push_back(
        std::make_unique<LeafOrder>(OrderOf(row.placement, groups.mesh, *shards, groups.world->rank())));
  }
  made->MakeBuckets(actions);
  if (memory_limit > 0 && made->plan_.peak > memory_limit) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("the model is too large: its part on this rank takes %.2f GB (%s), and there are "
                        "%.2f GB for it on %s; split "
                        "it further (parallel.sharding), spread it over more hosts, compute in a smaller "
                        "type, or take a smaller model",
                        static_cast<double>(made->plan_.peak) / 1e9, made->plan_.DebugString(),
                        static_cast<double>(memory_limit) / 1e9, decoder.device().name()));
  }
  for (const auto& group : made->buckets_) {
    for (const auto& bucket : group) bucket->Allocate();
  }
  made->ListSlices();
  made->InstallHooks();
  return made;
}

ShardedParameters::ShardedParameters(runtime::Decoder& decoder, const Sharding& sharding)
    : decoder_(decoder),
      sharding_(sharding),
      layout_{.groups = static_cast<int>(decoder.groups().size()),
              .embedding = decoder.part().embedding,
              .head = decoder.part().head,
              .tied = decoder.config().tie_word_embeddings && decoder.part().head,
              .copy = decoder.part().head_copy},
      order_(layout_),
      gradients_(layout_) {}

ShardedParameters::~ShardedParameters() {
  decoder_.SetHooks({});
  Finish().IgnoreError();
}

void ShardedParameters::MakeBuckets(absl::Span<const pipeline::Action> actions) {
  std::vector<std::vector<BucketSize>> sizes;
  uint64_t number = 0;
  for (ParameterGroup& group : decoder_.groups()) {
    buckets_.emplace_back();
    sizes.emplace_back();
    for (size_t p = 0; p < replicas_.size(); ++p) {
      const auto& replicas = replicas_[p];
      const LeafOrder* order = orders_.empty() ? nullptr : orders_[p].get();
      for (FlatTensor& flat : FlatTensorsOf(group, replicas->row->placement, sharding_)) {
        buckets_.back().push_back(std::make_unique<ShardedBucket>(
            *replicas, std::move(flat.parts), decoder_.device(), decoder_.compute(), memory_,
            flat.encoded ? sharding_.gather_codec : std::nullopt,
            flat.encoded ? sharding_.reduce_codec : std::nullopt, ++number, order));
        sizes.back().push_back({buckets_.back().back()->elements(), replicas->splits, replicas->rank, order});
      }
    }
  }
  const DataType state = decoder_.device().state_dtype();
  plan_ = PlanMemory(sizes, layout_, static_cast<int64_t>(SizeOf(decoder_.compute())),
                     static_cast<int64_t>(SizeOf(state)), decoder_.compute() == state, actions);
}

void ShardedParameters::ListSlices() {
  for (size_t g = 0; g < buckets_.size(); ++g) {
    for (const auto& bucket : buckets_[g]) {
      std::vector<runtime::OptimizerSlice> slices = bucket->Slices();
      for (const FlatRun& run : RunsIn(bucket->parts(), bucket->optimised())) {
        runs_.push_back({.parameter = run.parameter,
                         .slice = static_cast<int>(slices_.size() + run.part),
                         .offset = run.offset,
                         .first = run.first,
                         .count = run.count});
      }
      for (size_t i = 0; i < slices.size(); ++i) {
        slices[i].name = absl::StrCat(decoder_.groups()[g].name(), "/", bucket->group().row->name, "/",
                                      slices[i].decay ? "decay" : "no_decay");
        slices_.push_back(std::move(slices[i]));
      }
    }
  }
}

void ShardedParameters::InstallHooks() {
  decoder_.SetHooks({.before_forward = [this](int g) { return BeforeForward(g); },
                     .after_forward = [this](int g) { return Apply(order_.AfterForward(g), -1); },
                     .before_backward = [this](int g) { return BeforeBackward(g); },
                     .after_backward_input = [this](int g) { return Apply(order_.AfterBackward(g), -1); },
                     .after_backward = [this](int g) { return AfterBackward(g); }});
}

const ReplicaGroup& ShardedParameters::GroupOf(runtime::Placement placement) const {
  for (const auto& group : replicas_) {
    if (group->row->placement == placement) return *group;
  }
  COHORT_CHECK(false, "no replica group for placement %d", static_cast<int>(placement));
}

absl::Status ShardedParameters::SetWhole(const std::function<absl::Status(ParameterGroup&)>& set) {
  for (size_t g = 0; g < buckets_.size(); ++g) {
    for (const auto& bucket : buckets_[g]) bucket->BeginWhole();
    const absl::Status status = set(decoder_.groups()[g]);
    for (const auto& bucket : buckets_[g]) bucket->EndWhole();
    COHORT_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

void ShardedParameters::BeginStep(int micro_batches) {
  micro_batches_ = micro_batches;
  backwards_.assign(buckets_.size(), {});
  order_.Begin(/*training=*/true);
  for (const auto& group : buckets_) {
    for (const auto& bucket : group) bucket->BeginStep();
  }
}

void ShardedParameters::EnterMicroBatch(int micro_batch) {
  for (const auto& group : buckets_) {
    for (const auto& bucket : group) bucket->EnterMicroBatch(micro_batch);
  }
}

void ShardedParameters::BeginEvaluation() { order_.Begin(/*training=*/false); }

absl::Status ShardedParameters::Apply(const GatherOrder::Actions& actions, int use) {
  Advance();
  for (const int group : actions.free) {
    for (const auto& bucket : buckets_[group]) bucket->FreeWhole();
  }
  for (const int group : actions.gather) {
    for (const auto& bucket : buckets_[group]) {
      bucket->BeginGather();
      gathers_.push_back({group, bucket.get()});
    }
  }
  if (use < 0) return StartGathers(use);
  const runtime::WaitScope waits("wait for parameters");
  COHORT_RETURN_IF_ERROR(StartGathers(use));
  for (const auto& bucket : buckets_[use]) {
    COHORT_RETURN_IF_ERROR(bucket->WaitPublished());
    COHORT_RETURN_IF_ERROR(bucket->WaitGather());
  }
  return absl::OkStatus();
}

absl::Status ShardedParameters::StartGathers(int use) {
  const auto needed = [&] {
    return std::any_of(gathers_.begin(), gathers_.end(), [&](const Gather& g) { return g.group == use; });
  };
  while (!gathers_.empty() && (gathers_.front().bucket->PublishDone() || needed())) {
    ShardedBucket& bucket = *gathers_.front().bucket;
    gathers_.pop_front();
    COHORT_RETURN_IF_ERROR(bucket.WaitPublished());
    bucket.StartGather();
  }
  return absl::OkStatus();
}

absl::Status ShardedParameters::BeforeForward(int group) {
  EndGradients(gradients_.BeforeForward(group));
  return Apply(order_.BeforeForward(group), group);
}

absl::Status ShardedParameters::BeforeBackward(int group) {
  ++backwards_[group].begun;
  EndGradients(gradients_.BeforeBackward(group));
  for (const auto& bucket : buckets_[group]) bucket->BeginGradient();
  return Apply(order_.BeforeBackward(group), group);
}

absl::Status ShardedParameters::AfterBackward(int group) {
  COHORT_RETURN_IF_ERROR(Apply(order_.AfterBackward(group), -1));
  Backwards& backwards = backwards_[group];
  const bool last = ++backwards.over == micro_batches_;
  if (orders_.empty()) {
    // Where the halves of backwards interleave, gradients leave when those of all that have begun are in.
    if (backwards.over < backwards.begun) return absl::OkStatus();
  } else {
    for (const auto& bucket : buckets_[group]) bucket->CloseMicroBatch();
    if (!last) return absl::OkStatus();
  }
  for (const auto& bucket : buckets_[group]) {
    reductions_.push_back({.group = group,
                           .bucket = bucket.get(),
                           .last = last,
                           .sum = ShardedBucket::kMicroBatch,
                           .work = bucket->StartSum(ShardedBucket::kMicroBatch)});
  }
  gradients_.AfterBackward(group);
  // What can go on goes on at the next hook, which comes at once.
  return absl::OkStatus();
}

void ShardedParameters::Advance() {
  // Ranks start the calls of a communicator in one order, whenever each of them notices that the sum before is over: no
  // reduction begins a sum that an earlier one has not begun.
  int begun = ShardedBucket::kDone;
  for (Reduction& reduction : reductions_) {
    while (reduction.sum < begun && reduction.sum < ShardedBucket::kDone && reduction.work.Done()) {
      failed_.Update(reduction.work.Wait());
      reduction.sum = reduction.last && failed_.ok() ? static_cast<ShardedBucket::Sum>(reduction.sum + 1)
                                                     : ShardedBucket::kDone;
      reduction.work = reduction.bucket->StartSum(reduction.sum);
    }
    begun = reduction.sum;
  }
  while (!reductions_.empty() && reductions_.front().sum == ShardedBucket::kDone) reductions_.pop_front();
}

void ShardedParameters::EndGradients(const std::vector<int>& groups) {
  if (groups.empty()) return;
  const runtime::WaitScope waits("wait for gradients");
  for (const Reduction& reduction : reductions_) {
    const bool ends = std::find(groups.begin(), groups.end(), reduction.group) != groups.end();
    if (ends && reduction.sum == ShardedBucket::kMicroBatch) failed_.Update(reduction.work.Wait());
  }
  Advance();
  for (const int group : groups) {
    for (const auto& bucket : buckets_[group]) bucket->EndGradient();
  }
}

absl::Status ShardedParameters::Finish() {
  {
    const runtime::WaitScope waits("wait for gradients");
    while (!reductions_.empty()) {
      failed_.Update(reductions_.front().work.Wait());
      Advance();
    }
  }
  {
    const runtime::WaitScope waits("wait for parameters");
    for (const auto& group : buckets_) {
      for (const auto& bucket : group) failed_.Update(bucket->WaitPublished());
    }
  }
  gathers_.clear();
  for (const int group : order_.End().free) {
    for (const auto& bucket : buckets_[group]) bucket->FreeWhole();
  }
  gradients_.End();
  for (const auto& group : buckets_) {
    for (const auto& bucket : group) bucket->EndGradient();  // also of a backward that an error ended
  }
  return std::exchange(failed_, absl::OkStatus());
}

void ShardedParameters::StartPublish() {
  for (const auto& group : buckets_) {
    for (const auto& bucket : group) bucket->StartPublish();
  }
}

runtime::Tensor ShardedParameters::EmbeddingGradient(bool copy) const {
  if (copy ? !layout_.copy : !layout_.embedding) return {};
  return buckets_[static_cast<size_t>(copy ? layout_.tied_group() : 0)].front()->gradient();
}

void ShardedParameters::AddSquares(const runtime::Tensor& squares) const {
  for (const auto& group : buckets_) {
    for (const auto& bucket : group) {
      if (bucket->group().copy() == 0 && !bucket->copy())
        decoder_.device().ops().SumSquares(bucket->gradient(), squares);
    }
  }
}

void ShardedParameters::AddSquares(runtime::ExactSquares& squares) const {
  for (const auto& group : buckets_) {
    for (const auto& bucket : group) {
      if (!bucket->copy()) squares.Add(bucket->gradient_of_one());
    }
  }
}

}  // namespace cohort::parallel
