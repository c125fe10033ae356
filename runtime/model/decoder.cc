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
  std::vector<ParameterGroup>& groups() override { return groups_; }
  Parameter* Find(const std::string& name) override;
  void Initialize(uint64_t seed) override;
  void SetHooks(ParameterHooks hooks) override { hooks_ = std::move(hooks); }

  absl::StatusOr<LossSums> ForwardBackward(const TokenBatch& batch, const LossScale& scale) override;
  absl::StatusOr<LossSums> Evaluate(const TokenBatch& batch) override;
  absl::StatusOr<Tensor> Logits(const TokenBatch& batch) override;
  absl::StatusOr<Tensor> ForwardPaged(const PagedBatch& batch, KvCache& cache) override;
  KvCache MakeCache(int64_t pages, int64_t page_size) override;
  void UpdateBalance(const std::vector<std::vector<int64_t>>& load) override;

 private:
  // Group of block i; the embedding's is 0 and the head's the last.
  static int BlockGroup(size_t block) { return static_cast<int>(block) + 1; }
  int HeadGroup() const { return static_cast<int>(groups_.size()) - 1; }

  absl::Status CheckMemory() const;
  absl::Status CheckBatch(const TokenBatch& batch) const;
  absl::StatusOr<Stream> Embed(const Tensor& tokens);
  absl::Status EmbeddingBackward(const Tensor& dy, const Tensor& tokens);
  // The embedding and all blocks, nothing kept.
  absl::StatusOr<Stream> ForwardOnly(const TokenBatch& batch, LossSums* sums);
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
  const size_t blocks = static_cast<size_t>(config_.num_hidden_layers);
  groups_.reserve(blocks + 2);
  groups_.emplace_back("embedding");
  for (size_t i = 0; i < blocks; ++i) groups_.emplace_back(absl::StrCat("block.", i));
  groups_.emplace_back("head");

  embedding_ = groups_.front().Add("model.embed_tokens.weight", {config_.vocab_size, config_.hidden_size},
                                   Init::kNormal, InitStddev(config_), true);
  const Tensor rope = MakeRopeTable(config_, device_);
  for (size_t i = 0; i < blocks; ++i) {
    COHORT_ASSIGN_OR_RETURN(auto block, Block::Create(config_, static_cast<int>(i), rope, device_,
                                                      options_.compute, options_.experts, groups_[i + 1]));
    blocks_.push_back(std::move(block));
  }
  head_ = std::make_unique<LossHead>(config_, options_.compute,
                                     config_.tie_word_embeddings ? embedding_ : nullptr, groups_.back());
  COHORT_RETURN_IF_ERROR(CheckMemory());
  for (ParameterGroup& group : groups_) {
    group.Allocate(device_, options_.compute, options_.trainable);
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

absl::StatusOr<Stream> DecoderImpl::Embed(const Tensor& tokens) {
  COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, 0));
  Stream stream;
  stream.base = Tensor::Empty(device_, {tokens.size(), config_.hidden_size}, options_.compute);
  device_.ops().GatherRows(embedding_->value, tokens, stream.base);
  COHORT_RETURN_IF_ERROR(Call(hooks_.after_forward, 0));
  return stream;
}

absl::Status DecoderImpl::EmbeddingBackward(const Tensor& dy, const Tensor& tokens) {
  if (!config_.tie_word_embeddings) COHORT_RETURN_IF_ERROR(Call(hooks_.before_backward, 0));
  device_.ops().EmbeddingGrad(dy, tokens, embedding_->grad);
  return Call(hooks_.after_backward, 0);
}

absl::Status DecoderImpl::HeadUses(const Hook& hook) {
  if (config_.tie_word_embeddings) COHORT_RETURN_IF_ERROR(Call(hook, 0));
  return Call(hook, HeadGroup());
}

template <typename Use>
absl::Status DecoderImpl::WithHead(Use use) {
  COHORT_RETURN_IF_ERROR(HeadUses(hooks_.before_forward));
  use();
  return HeadUses(hooks_.after_forward);
}

absl::StatusOr<Stream> DecoderImpl::ForwardOnly(const TokenBatch& batch, LossSums* sums) {
  COHORT_RETURN_IF_ERROR(CheckBatch(batch));
  COHORT_ASSIGN_OR_RETURN(Stream stream, Embed(batch.tokens));
  for (size_t i = 0; i < blocks_.size(); ++i) {
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, BlockGroup(i)));
    COHORT_RETURN_IF_ERROR(blocks_[i]->Forward(stream, batch, LossScale(), nullptr, nullptr, sums));
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_forward, BlockGroup(i)));
  }
  return stream;
}

absl::StatusOr<LossSums> DecoderImpl::ForwardBackward(const TokenBatch& batch, const LossScale& scale) {
  COHORT_CHECK(options_.trainable, "a model made for inference is asked for gradients");
  COHORT_RETURN_IF_ERROR(CheckBatch(batch));
  LossSums sums;
  std::vector<Block::Saved> saved(blocks_.size());
  COHORT_ASSIGN_OR_RETURN(Stream stream, Embed(batch.tokens));
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const TraceScope trace("block forward");
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, BlockGroup(i)));
    COHORT_RETURN_IF_ERROR(options_.recompute
                               ? blocks_[i]->Forward(stream, batch, scale, nullptr, &saved[i].x, &sums)
                               : blocks_[i]->Forward(stream, batch, scale, &saved[i], nullptr, &sums));
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_forward, BlockGroup(i)));
  }

  COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, HeadGroup()));
  COHORT_RETURN_IF_ERROR(HeadUses(hooks_.before_backward));
  Tensor gradient;
  {
    const TraceScope trace("head");
    gradient = head_->ForwardBackward(std::exchange(stream, {}), batch.targets, 1 / scale.tokens, sums);
  }
  COHORT_RETURN_IF_ERROR(Call(hooks_.after_backward, HeadGroup()));

  for (size_t i = blocks_.size(); i-- > 0;) {
    const TraceScope trace("block backward");
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_backward, BlockGroup(i)));
    if (options_.recompute) {
      const Tensor input = saved[i].x;
      COHORT_RETURN_IF_ERROR(blocks_[i]->Recompute(input, batch, scale, saved[i]));
    }
    COHORT_ASSIGN_OR_RETURN(gradient, blocks_[i]->BackwardInput(gradient, saved[i]));
    blocks_[i]->BackwardWeight(saved[i]);
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_backward, BlockGroup(i)));
  }
  COHORT_RETURN_IF_ERROR(EmbeddingBackward(gradient, batch.tokens));
  return sums;
}

absl::StatusOr<LossSums> DecoderImpl::Evaluate(const TokenBatch& batch) {
  LossSums sums;
  COHORT_ASSIGN_OR_RETURN(Stream stream, ForwardOnly(batch, &sums));
  COHORT_RETURN_IF_ERROR(WithHead([&] { head_->Evaluate(std::exchange(stream, {}), batch.targets, sums); }));
  return sums;
}

absl::StatusOr<Tensor> DecoderImpl::Logits(const TokenBatch& batch) {
  COHORT_ASSIGN_OR_RETURN(Stream stream, ForwardOnly(batch, nullptr));
  Tensor logits;
  COHORT_RETURN_IF_ERROR(WithHead([&] { logits = head_->Logits(std::exchange(stream, {})); }));
  return logits;
}

absl::StatusOr<Tensor> DecoderImpl::ForwardPaged(const PagedBatch& batch, KvCache& cache) {
  COHORT_CHECK(cache.blocks.size() == blocks_.size(), "a cache of %zu blocks for a model of %zu",
               cache.blocks.size(), blocks_.size());
  COHORT_ASSIGN_OR_RETURN(Stream stream, Embed(batch.tokens));
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
  COHORT_RETURN_IF_ERROR(WithHead([&] { logits = head_->Logits(picked); }));
  return logits;
}

KvCache DecoderImpl::MakeCache(int64_t pages, int64_t page_size) {
  const Shape shape = {pages, config_.num_key_value_heads, page_size, config_.head_dim};
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
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
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
