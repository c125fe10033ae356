#include "runtime/model/decoder.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "comm/check.h"
#include "runtime/model/decoder_impl.h"
#include "runtime/model/families.h"
#include "runtime/model/rope_table.h"

namespace cohort::runtime {

absl::Status DecoderImpl::Build() {
  DecoderPart& part = options_.part;
  if (part.last_block < 0) part.last_block = static_cast<int>(config_.num_hidden_layers);
  groups_.reserve(static_cast<size_t>(part.last_block - part.first_block) + 3);
  if (part.embedding) {
    embedding_ = AddEmbedding("embedding");
    if (config_.tie_word_embeddings) head_matrix_ = embedding_;
  }
  const Tensor rope = options_.computes ? MakeRopeTable(config_, device_) : Tensor();
  for (int layer = part.first_block; layer < part.last_block; ++layer) {
    groups_.emplace_back(absl::StrCat("block.", layer));
    COHORT_ASSIGN_OR_RETURN(auto block, Block::Create(config_, layer, rope, device_, options_.compute,
                                                      options_.experts, tensor(), groups_.back()));
    blocks_.push_back(std::move(block));
  }
  if (part.head) {
    if (part.head_copy) {
      head_matrix_ = AddEmbedding("embedding of the head");
      head_matrix_->copy = true;
    }
    groups_.emplace_back("head");
    head_ = std::make_unique<LossHead>(config_, options_.compute, head_matrix_, tensor(), groups_.back());
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
      COHORT_CHECK(fresh || parameter->copy, "two parameters are called %s", parameter->name.c_str());
    }
  }
  return absl::OkStatus();
}

Parameter* DecoderImpl::AddEmbedding(const char* group) {
  groups_.emplace_back(group);
  return groups_.back().Add("model.embed_tokens.weight", {config_.vocab_size, config_.hidden_size},
                            Init::kNormal, InitStddev(config_), true, PlacementIn(tensor()),
                            SplitOver(tensor(), 0));
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

void DecoderImpl::UpdateBalance(const std::vector<std::vector<int64_t>>& load) {
  size_t row = 0;
  for (const auto& block : blocks_) {
    if (!block->sparse()) continue;
    COHORT_CHECK(row < load.size(), "expert load of %zu sparse blocks, the model has more", load.size());
    block->feed_forward().UpdateBalance(load[row++]);
  }
  COHORT_CHECK(row == load.size(), "expert load of %zu sparse blocks, the model has %zu", load.size(), row);
}

namespace {

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
  COHORT_CHECK(!part.head_copy || (config.tie_word_embeddings && part.head),
               "a copy of the embedding for a head that needs none");
  if (config.tie_word_embeddings && part.head && !part.embedding && !part.head_copy) {
    return absl::InvalidArgumentError(
        "the embeddings are tied, and the head's part has neither the embedding nor a copy of it "
        "(DecoderPart::head_copy)");
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
