#include "runtime/model/decoder.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "comm/check.h"
#include "runtime/metrics/chrome_trace.h"
#include "runtime/model/block.h"
#include "runtime/model/families.h"
#include "runtime/model/loss_head.h"
#include "runtime/model/rope_table.h"

namespace cohort::runtime {
namespace {

using Hook = std::function<absl::Status(int group)>;

absl::Status Call(const Hook& hook, int group) { return hook ? hook(group) : absl::OkStatus(); }

class DecoderImpl final : public Decoder {
 public:
  DecoderImpl(ModelConfig config, Device& device, DecoderOptions options)
      : config_(std::move(config)), device_(device), options_(std::move(options)) {}

  absl::Status Build();

  const ModelConfig& config() const override { return config_; }
  Device& device() const override { return device_; }
  DataType compute() const override { return options_.compute; }
  const DecoderPart& part() const override { return options_.part; }
  std::vector<ParameterGroup>& groups() override { return groups_; }
  Parameter* Find(const std::string& name) override;
  void Initialize(uint64_t seed) override;
  void SetHooks(ParameterHooks hooks) override { hooks_ = std::move(hooks); }

  absl::StatusOr<LossSums> ForwardBackward(const TokenBatch& batch, const LossScale& scale) override;
  absl::StatusOr<LossSums> Evaluate(const TokenBatch& batch) override;
  absl::StatusOr<Tensor> Forward(const TokenBatch& batch, const LossScale& scale, const Tensor& x,
                                 std::unique_ptr<Saved>* saved, LossSums* sums) override;
  absl::StatusOr<Tensor> Backward(const Tensor& dy, Saved& saved) override;
  absl::StatusOr<Tensor> BackwardInput(const Tensor& dy, Saved& saved) override;
  absl::Status BackwardWeight(Saved& saved) override;
  absl::StatusOr<Tensor> Logits(const TokenBatch& batch) override;
  absl::StatusOr<Tensor> ForwardPaged(const PagedBatch& batch, KvCache& cache) override;
  KvCache MakeCache(int64_t pages, int64_t page_size) override;
  void UpdateBalance(const std::vector<std::vector<int64_t>>& load) override;

 private:
  struct PartSaved final : Saved {
    TokenBatch batch;
    StreamRows rows;
    LossScale scale;
    std::vector<Block::Saved> blocks;
    std::vector<HalfGradient> gradient;  // of the last block's output, where the head is here
  };

  // Group of the i-th block here; the embedding's is 0 and the head's the last.
  int BlockGroup(size_t block) const { return static_cast<int>(block) + (options_.part.embedding ? 1 : 0); }
  int HeadGroup() const { return static_cast<int>(groups_.size()) - 1; }
  TensorGroup& tensor() const { return options_.tensor == nullptr ? WholeTensors() : *options_.tensor; }

  absl::Status CheckMemory() const;
  absl::Status CheckBatch(const TokenBatch& batch) const;
  // kI32 [T]: rows of this part's embedding; -1 for words of other parts.
  Tensor EmbeddingRows(const Tensor& tokens) const;
  // This rank's rows of tokens [T].
  absl::StatusOr<RowsInFlight> Embed(const Tensor& tokens);
  absl::Status EmbeddingBackward(const std::vector<HalfGradient>& gradient, const StreamRows& rows);
  // The embedding or x, and all blocks; saved null: nothing is kept. The stream has arrived.
  absl::StatusOr<std::vector<HalfStream>> ForwardBlocks(const TokenBatch& batch, const StreamRows& rows,
                                                        const LossScale& scale, const Tensor& x,
                                                        PartSaved* saved, LossSums* sums);
  absl::StatusOr<Tensor> BackwardBlocks(const Tensor& dy, PartSaved& saved, bool weights);
  // Calls `hook` of every group that the head uses: its own, and the embedding's where tied.
  absl::Status HeadUses(const Hook& hook);
  template <typename Use>
  absl::Status WithHead(Use use);

  ModelConfig config_;
  Device& device_;
  DecoderOptions options_;
  ParameterHooks hooks_;
  std::vector<ParameterGroup> groups_;
  std::unordered_map<std::string, Parameter*> by_name_;
  Parameter* embedding_ = nullptr;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::unique_ptr<LossHead> head_;
};

absl::Status DecoderImpl::Build() {
  DecoderPart& part = options_.part;
  if (part.last_block < 0) part.last_block = static_cast<int>(config_.num_hidden_layers);
  groups_.reserve(static_cast<size_t>(part.last_block - part.first_block) + 2);
  if (part.embedding) {
    groups_.emplace_back("embedding");
    embedding_ = groups_.back().Add("model.embed_tokens.weight", {config_.vocab_size, config_.hidden_size},
                                    Init::kNormal, InitStddev(config_), true, PlacementIn(tensor()),
                                    SplitOver(tensor(), 0));
  }
  const Tensor rope = MakeRopeTable(config_, device_);
  for (int layer = part.first_block; layer < part.last_block; ++layer) {
    groups_.emplace_back(absl::StrCat("block.", layer));
    COHORT_ASSIGN_OR_RETURN(auto block, Block::Create(config_, layer, rope, device_, options_.compute,
                                                      options_.experts, tensor(), groups_.back()));
    blocks_.push_back(std::move(block));
  }
  if (part.head) {
    groups_.emplace_back("head");
    head_ = std::make_unique<LossHead>(config_, options_.compute,
                                       config_.tie_word_embeddings ? embedding_ : nullptr, tensor(),
                                       groups_.back());
  }
  if (options_.allocate) COHORT_RETURN_IF_ERROR(CheckMemory());
  for (ParameterGroup& group : groups_) {
    if (options_.allocate) {
      group.Allocate(device_, options_.compute, options_.trainable);
    } else {
      group.Partition(device_);
    }
    for (const auto& parameter : group.parameters()) {
      const bool fresh = by_name_.emplace(parameter->name, parameter.get()).second;
      COHORT_CHECK(fresh, "two parameters are called %s", parameter->name.c_str());
    }
  }
  return absl::OkStatus();
}

absl::Status DecoderImpl::CheckMemory() const {
  int64_t needed = 0;
  for (const ParameterGroup& group : groups_) {
    needed += group.StateBytes(device_, options_.compute, options_.trainable);
  }
  const int64_t limit = options_.memory_limit > 0 ? options_.memory_limit : device_.free_bytes();
  if (needed <= limit) return absl::OkStatus();
  const auto gigabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  return absl::ResourceExhaustedError(absl::StrFormat(
      "the model is too large: %s of its part on this rank take %.2f GB, and there are %.2f GB for it on %s; "
      "spread it over more hosts, compute in a smaller type, or take a smaller model",
      options_.trainable ? "parameters, gradients and optimizer state" : "the parameters", gigabytes(needed),
      gigabytes(limit), device_.name()));
}

Parameter* DecoderImpl::Find(const std::string& name) {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

void DecoderImpl::Initialize(uint64_t seed) {
  for (ParameterGroup& group : groups_) group.Initialize(seed);
}

absl::Status DecoderImpl::CheckBatch(const TokenBatch& batch) const {
  const std::vector<int32_t>& offsets = batch.host_offsets;
  if (offsets.empty() || offsets.front() != 0 || offsets.back() != batch.num_tokens()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a batch of ", batch.num_tokens(), " tokens whose sequence offsets do not go from 0 to that"));
  }
  for (size_t s = 1; s < offsets.size(); ++s) {
    if (offsets[s] < offsets[s - 1]) return absl::InvalidArgumentError("sequence offsets that do not ascend");
  }
  const auto check = [](const char* what, const Tensor& values, double low, int64_t limit,
                        const char* field) {
    for (double value : ToHost(values)) {
      if (value < low || value >= static_cast<double>(limit)) {
        return absl::InvalidArgumentError(
            absl::StrCat(what, " ", value, " in a batch for a model whose ", field, " is ", limit));
      }
    }
    return absl::OkStatus();
  };
  COHORT_RETURN_IF_ERROR(check("token", batch.tokens, 0, config_.vocab_size, "vocab_size"));
  COHORT_RETURN_IF_ERROR(check("target", batch.targets, INT32_MIN, config_.vocab_size, "vocab_size"));
  return check("position", batch.positions, 0, config_.max_position_embeddings, "max_position_embeddings");
}

Tensor DecoderImpl::EmbeddingRows(const Tensor& tokens) const {
  if (tensor().size() == 1) return tokens;
  const RowRange here = RowsOf(config_.vocab_size, tensor().rank(), tensor().size());
  std::vector<int32_t> rows;
  for (const double token : ToHost(tokens)) {
    const auto word = static_cast<int64_t>(token);
    rows.push_back(word >= here.begin && word < here.end ? static_cast<int32_t>(word - here.begin) : -1);
  }
  return Tensor::FromHost(device_, tokens.shape(), absl::MakeConstSpan(rows));
}

absl::StatusOr<RowsInFlight> DecoderImpl::Embed(const Tensor& tokens) {
  const Tensor found = Tensor::Empty(device_, {tokens.size(), config_.hidden_size}, options_.compute);
  device_.ops().GatherRows(embedding_->value, EmbeddingRows(tokens), found);
  return tensor().StartReduceScatterRows(found);
}

absl::Status DecoderImpl::EmbeddingBackward(const std::vector<HalfGradient>& gradient,
                                            const StreamRows& rows) {
  if (!config_.tie_word_embeddings) COHORT_RETURN_IF_ERROR(Call(hooks_.before_backward, 0));
  for (size_t h = 0; h < gradient.size(); ++h) {
    const Tensor& tokens = rows.halves[h].batch.tokens;
    COHORT_ASSIGN_OR_RETURN(const Tensor all, tensor().GatherRows(gradient[h].rows, tokens.size()));
    device_.ops().EmbeddingGrad(all, EmbeddingRows(tokens), embedding_->grad);
  }
  return Call(hooks_.after_backward, 0);
}

absl::Status DecoderImpl::HeadUses(const Hook& hook) {
  if (config_.tie_word_embeddings) COHORT_RETURN_IF_ERROR(Call(hook, 0));
  return Call(hook, HeadGroup());
}

template <typename Use>
absl::Status DecoderImpl::WithHead(Use use) {
  COHORT_RETURN_IF_ERROR(HeadUses(hooks_.before_forward));
  COHORT_RETURN_IF_ERROR(use());
  return HeadUses(hooks_.after_forward);
}

absl::StatusOr<std::vector<HalfStream>> DecoderImpl::ForwardBlocks(const TokenBatch& batch,
                                                                   const StreamRows& rows,
                                                                   const LossScale& scale, const Tensor& x,
                                                                   PartSaved* saved, LossSums* sums) {
  COHORT_RETURN_IF_ERROR(CheckBatch(batch));
  std::vector<HalfStream> stream;
  if (options_.part.embedding) {
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, 0));
    std::vector<RowsInFlight> found;
    for (const StreamRows::Half& half : rows.halves) {
      COHORT_ASSIGN_OR_RETURN(RowsInFlight embedded, Embed(half.batch.tokens));
      found.push_back(std::move(embedded));
    }
    for (size_t h = 0; h < found.size(); ++h) {
      COHORT_ASSIGN_OR_RETURN(const Tensor base, found[h].Arrive());
      stream.emplace_back(base, rows.halves[h].batch.num_tokens());
    }
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_forward, 0));
  } else {
    COHORT_CHECK(x.dim(0) == rows.halves.back().local.end, "%s comes in for %d rows", x.DebugString().c_str(),
                 static_cast<int>(rows.halves.back().local.end));
    for (const StreamRows::Half& half : rows.halves) {
      stream.emplace_back(x.Slice(half.local.begin, half.local.end), half.batch.num_tokens());
    }
  }
  if (saved != nullptr) saved->blocks.resize(blocks_.size());
  Block::Saved nothing;
  const Block::Keep keep = saved == nullptr     ? Block::Keep::kNothing
                           : options_.recompute ? Block::Keep::kInput
                                                : Block::Keep::kAll;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const TraceScope trace("block forward");
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, BlockGroup(i)));
    COHORT_RETURN_IF_ERROR(blocks_[i]->Forward(stream, batch, rows, scale, keep,
                                               saved == nullptr ? nothing : saved->blocks[i], sums));
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_forward, BlockGroup(i)));
  }
  for (HalfStream& half : stream) half.Send(tensor());
  for (HalfStream& half : stream) COHORT_RETURN_IF_ERROR(half.Arrive(tensor()));
  return stream;
}

absl::StatusOr<Tensor> DecoderImpl::Forward(const TokenBatch& batch, const LossScale& scale, const Tensor& x,
                                            std::unique_ptr<Saved>* saved, LossSums* sums) {
  COHORT_CHECK(saved == nullptr || options_.trainable, "a model made for inference is asked for gradients");
  std::unique_ptr<PartSaved> kept = saved == nullptr ? nullptr : std::make_unique<PartSaved>();
  const StreamRows rows = RowsOfBatch(batch, tensor());
  COHORT_ASSIGN_OR_RETURN(std::vector<HalfStream> stream,
                          ForwardBlocks(batch, rows, scale, x, kept.get(), sums));
  Tensor y;
  if (!options_.part.head) {
    std::vector<Tensor> halves;
    for (HalfStream& half : stream) {
      const Tensor &base = half.stream.base, &delta = half.stream.delta;
      if (delta.defined()) device_.ops().Add(delta, base, delta);
      halves.push_back(delta.defined() ? delta : base);
    }
    y = Join(halves);
  } else if (kept != nullptr) {
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, HeadGroup()));
    COHORT_RETURN_IF_ERROR(HeadUses(hooks_.before_backward));
    const TraceScope trace("head");
    for (size_t h = 0; h < stream.size(); ++h) {
      COHORT_ASSIGN_OR_RETURN(const Tensor gradient,
                              head_->ForwardBackward(std::exchange(stream[h].stream, {}),
                                                     rows.halves[h].batch.targets, 1 / scale.tokens, *sums));
      kept->gradient.emplace_back(gradient, stream[h].tokens);
    }
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_backward, HeadGroup()));
  } else {
    COHORT_RETURN_IF_ERROR(WithHead([&] {
      absl::Status status;
      for (size_t h = 0; h < stream.size() && status.ok(); ++h) {
        status = head_->Evaluate(std::exchange(stream[h].stream, {}), rows.halves[h].batch.targets, *sums);
      }
      return status;
    }));
  }
  if (saved != nullptr) {
    kept->batch = batch, kept->rows = rows, kept->scale = scale;
    *saved = std::move(kept);
  }
  return y;
}

absl::StatusOr<Tensor> DecoderImpl::BackwardBlocks(const Tensor& dy, PartSaved& saved, bool weights) {
  std::vector<HalfGradient> gradient = std::exchange(saved.gradient, {});
  if (!options_.part.head) {
    for (const StreamRows::Half& half : saved.rows.halves) {
      gradient.emplace_back(dy.Slice(half.local.begin, half.local.end), half.batch.num_tokens());
    }
  }
  for (size_t i = blocks_.size(); i-- > 0;) {
    const TraceScope trace(weights ? "block backward" : "block backward input");
    const Block* before = i > 0 ? blocks_[i - 1].get() : nullptr;
    Block::Saved& kept = saved.blocks[i];
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_backward, BlockGroup(i)));
    if (options_.recompute) {
      COHORT_RETURN_IF_ERROR(blocks_[i]->Recompute(saved.batch, saved.rows, saved.scale, kept));
    }
    COHORT_RETURN_IF_ERROR(weights ? blocks_[i]->Backward(gradient, kept, before)
                                   : blocks_[i]->BackwardInput(gradient, kept, before));
    COHORT_RETURN_IF_ERROR(
        Call(weights ? hooks_.after_backward : hooks_.after_backward_input, BlockGroup(i)));
  }
  if (options_.part.embedding) {
    COHORT_RETURN_IF_ERROR(EmbeddingBackward(gradient, saved.rows));
    return Tensor();
  }
  std::vector<Tensor> halves;
  for (const HalfGradient& half : gradient) halves.push_back(half.rows);
  return Join(halves);
}

absl::StatusOr<Tensor> DecoderImpl::Backward(const Tensor& dy, Saved& saved) {
  return BackwardBlocks(dy, static_cast<PartSaved&>(saved), /*weights=*/true);
}

absl::StatusOr<Tensor> DecoderImpl::BackwardInput(const Tensor& dy, Saved& saved) {
  return BackwardBlocks(dy, static_cast<PartSaved&>(saved), /*weights=*/false);
}

absl::Status DecoderImpl::BackwardWeight(Saved& saved) {
  auto& kept = static_cast<PartSaved&>(saved);
  for (size_t i = blocks_.size(); i-- > 0;) {
    const TraceScope trace("block backward weight");
    blocks_[i]->BackwardWeight(kept.blocks[i]);
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_backward, BlockGroup(i)));
  }
  return absl::OkStatus();
}

absl::StatusOr<LossSums> DecoderImpl::ForwardBackward(const TokenBatch& batch, const LossScale& scale) {
  LossSums sums;
  std::unique_ptr<Saved> saved;
  COHORT_RETURN_IF_ERROR(Forward(batch, scale, Tensor(), &saved, &sums).status());
  COHORT_RETURN_IF_ERROR(Backward(Tensor(), *saved).status());
  return sums;
}

absl::StatusOr<LossSums> DecoderImpl::Evaluate(const TokenBatch& batch) {
  LossSums sums;
  COHORT_RETURN_IF_ERROR(Forward(batch, LossScale(), Tensor(), nullptr, &sums).status());
  return sums;
}

absl::StatusOr<Tensor> DecoderImpl::Logits(const TokenBatch& batch) {
  const StreamRows rows = RowsOfBatch(batch, tensor());
  COHORT_ASSIGN_OR_RETURN(std::vector<HalfStream> stream,
                          ForwardBlocks(batch, rows, LossScale(), Tensor(), nullptr, nullptr));
  std::vector<Tensor> halves;
  COHORT_RETURN_IF_ERROR(WithHead([&] {
    for (HalfStream& half : stream) halves.push_back(head_->Logits(std::exchange(half.stream, {})));
    return absl::OkStatus();
  }));
  return Join(halves);
}

absl::StatusOr<Tensor> DecoderImpl::ForwardPaged(const PagedBatch& batch, KvCache& cache) {
  COHORT_CHECK(cache.blocks.size() == blocks_.size(), "a cache of %zu blocks for a model of %zu",
               cache.blocks.size(), blocks_.size());
  Stream stream;
  COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, 0));
  COHORT_ASSIGN_OR_RETURN(RowsInFlight embedded, Embed(batch.tokens));
  COHORT_ASSIGN_OR_RETURN(stream.base, embedded.Arrive());
  COHORT_RETURN_IF_ERROR(Call(hooks_.after_forward, 0));
  for (size_t i = 0; i < blocks_.size(); ++i) {
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, BlockGroup(i)));
    COHORT_RETURN_IF_ERROR(blocks_[i]->ForwardPaged(stream, batch, cache.blocks[i]));
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_forward, BlockGroup(i)));
  }
  const auto wanted = [&](const Tensor& rows) {
    const Tensor picked =
        Tensor::Empty(device_, {batch.logit_rows.size(), config_.hidden_size}, options_.compute);
    device_.ops().GatherRows(rows, batch.logit_rows, picked);
    return picked;
  };
  const Stream picked{wanted(stream.base), wanted(stream.delta)};
  Tensor logits;
  COHORT_RETURN_IF_ERROR(WithHead([&] {
    logits = head_->Logits(picked);
    return absl::OkStatus();
  }));
  return logits;
}

KvCache DecoderImpl::MakeCache(int64_t pages, int64_t page_size) {
  const Shape shape = {pages, config_.num_key_value_heads / tensor().size(), page_size, config_.head_dim};
  KvCache cache;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    cache.blocks.push_back({.keys = Tensor::Zeros(device_, shape, options_.compute),
                            .values = Tensor::Zeros(device_, shape, options_.compute)});
  }
  return cache;
}

void DecoderImpl::UpdateBalance(const std::vector<std::vector<int64_t>>& load) {
  size_t row = 0;
  for (const auto& block : blocks_) {
    if (!block->sparse()) continue;
    COHORT_CHECK(row < load.size(), "expert load of %zu sparse blocks, the model has more", load.size());
    block->feed_forward().UpdateBalance(load[row++]);
  }
  COHORT_CHECK(row == load.size(), "expert load of %zu sparse blocks, the model has %zu", load.size(), row);
}

absl::Status CheckOptions(const ModelConfig& config, const Device& device, const DecoderOptions& options) {
  const absl::Span<const DataType> known = device.compute_dtypes();
  if (std::find(known.begin(), known.end(), options.compute) == known.end()) {
    const std::string names =
        absl::StrJoin(known, " or ", [](std::string* out, DataType dtype) { out->append(Name(dtype)); });
    return absl::InvalidArgumentError(absl::StrCat("a model cannot compute in ", Name(options.compute),
                                                   " on ", device.name(), ": use ", names));
  }
  const DecoderPart& part = options.part;
  const int64_t last = part.last_block < 0 ? config.num_hidden_layers : part.last_block;
  COHORT_CHECK(part.first_block >= 0 && part.first_block <= last && last <= config.num_hidden_layers,
               "blocks %d to %d of a model of %d", part.first_block, static_cast<int>(last),
               static_cast<int>(config.num_hidden_layers));
  if (config.tie_word_embeddings && (part.embedding != part.head)) {
    return absl::InvalidArgumentError(
        "tied embeddings need the first and the last layers on one rank: no pipeline for this model");
  }
  const int parts = options.tensor == nullptr ? 1 : options.tensor->size();
  if (config.num_attention_heads % parts != 0 || config.num_key_value_heads % parts != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        config.num_attention_heads, " heads and ", config.num_key_value_heads,
        " key/value heads cannot be divided over ", parts, " ranks (parallel.tensor): it must divide both"));
  }
  for (int layer = part.first_block; layer < last; ++layer) {
    if (config.IsSparse(layer) && !options.experts) {
      return absl::InvalidArgumentError(absl::StrCat("block ", layer, " of this ", config.model_type,
                                                     " model is sparse, and DecoderOptions has no experts"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(const ModelConfig& config, Device& device,
                                                         DecoderOptions options) {
  COHORT_RETURN_IF_ERROR(config.Validate());
  COHORT_RETURN_IF_ERROR(CheckOptions(config, device, options));
  auto decoder = std::make_unique<DecoderImpl>(config, device, std::move(options));
  COHORT_RETURN_IF_ERROR(decoder->Build());
  return decoder;
}

}  // namespace cohort::runtime
