// Small models and batches for tests of the rooms from runtime on. A header, so that tests of
// comm do not link runtime.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "runtime/model/decoder.h"
#include "runtime/model/families.h"
#include "runtime/ops/ops.h"

namespace cohort::runtime {

// Two blocks, all sizes different, grouped queries, head_dim x heads other than the width. Sparse families:
// four experts, two a token, a shared one.
inline ModelConfig TinyConfig(const std::string& model_type) {
  ModelConfig config;
  config.model_type = model_type;
  config.vocab_size = 19;
  config.hidden_size = 10;
  config.intermediate_size = 14;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  config.max_position_embeddings = 64;
  config.initializer_range = 0.3;  // large enough for every path to matter
  const Family* family = FindFamily(model_type);
  config.qk_norm = family->qk_norm;
  if (family->sparse) {
    config.num_experts = 4;
    config.num_experts_per_tok = 2;
    config.moe_intermediate_size = family->own_moe_width ? 6 : config.intermediate_size;
    config.shared_expert_intermediate_size = 8;
    config.router.aux_loss_coef = 0.01;
  }
  return config;
}

// The same at sizes that vector code needs more than one step for.
inline ModelConfig SmallConfig(const std::string& model_type) {
  ModelConfig config = TinyConfig(model_type);
  config.vocab_size = 131;
  config.hidden_size = 72;
  config.intermediate_size = 88;
  config.num_hidden_layers = 3;
  config.head_dim = 24;
  config.initializer_range = 0.1;
  if (config.num_experts > 0) {
    config.moe_intermediate_size = FindFamily(model_type)->own_moe_width ? 40 : config.intermediate_size;
  }
  return config;
}

// Sequences as they are packed: for each, its tokens; the targets are the next tokens, none after the last.
inline TokenBatch PackBatch(Device& device, const std::vector<std::vector<int32_t>>& sequences) {
  std::vector<int32_t> tokens, targets, positions, offsets = {0};
  for (const auto& sequence : sequences) {
    for (size_t i = 0; i < sequence.size(); ++i) {
      tokens.push_back(sequence[i]);
      targets.push_back(i + 1 < sequence.size() ? sequence[i + 1] : -1);
      positions.push_back(static_cast<int32_t>(i));
    }
    offsets.push_back(static_cast<int32_t>(tokens.size()));
  }
  const auto tensor = [&](const std::vector<int32_t>& values) {
    return Tensor::FromHost(device, {static_cast<int64_t>(values.size())}, absl::MakeConstSpan(values));
  };
  return {tensor(tokens), tensor(targets), tensor(positions), tensor(offsets), offsets};
}

inline std::vector<std::vector<int32_t>> RandomSequences(const std::vector<int>& lengths, int64_t vocabulary,
                                                         uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::vector<int32_t>> sequences;
  for (int length : lengths) {
    auto& sequence = sequences.emplace_back();
    for (int i = 0; i < length; ++i) sequence.push_back(static_cast<int32_t>(random() % vocabulary));
  }
  return sequences;
}

inline TokenBatch RandomBatch(Device& device, const std::vector<int>& lengths, int64_t vocabulary,
                              uint32_t seed) {
  return PackBatch(device, RandomSequences(lengths, vocabulary, seed));
}

inline std::unique_ptr<Decoder> MakeDecoder(const ModelConfig& config, Device& device, DecoderOptions options,
                                            uint64_t seed = 1) {
  auto decoder = Decoder::Create(config, device, std::move(options));
  EXPECT_TRUE(decoder.ok()) << decoder.status();
  if (!decoder.ok()) return nullptr;
  (*decoder)->Initialize(seed);
  return *std::move(decoder);
}

inline std::vector<Parameter*> AllParameters(Decoder& decoder) {
  std::vector<Parameter*> all;
  for (ParameterGroup& group : decoder.groups()) {
    for (const auto& parameter : group.parameters()) all.push_back(parameter.get());
  }
  return all;
}

inline void ZeroGrad(Decoder& decoder) {
  for (ParameterGroup& group : decoder.groups()) group.ZeroGrad();
}

// Gives `to` the weights that `from` computes with.
inline void CopyWeights(Decoder& from, Decoder& to) {
  for (Parameter* parameter : AllParameters(to)) {
    const Parameter* source = from.Find(parameter->name);
    ASSERT_NE(source, nullptr) << parameter->name;
    to.device().ops().Copy(source->value.To(to.device(), parameter->value.dtype()), parameter->value);
    if (parameter->master.defined()) to.device().ops().Copy(parameter->value, parameter->master);
  }
}

inline double Norm(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value * value;
  return std::sqrt(sum);
}

// |a - b| / |b|, in the Euclidean norm.
inline double RelativeError(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  std::vector<double> difference(b.size());
  for (size_t i = 0; i < b.size(); ++i) difference[i] = a[i] - b[i];
  const double norm = Norm(b);
  return norm == 0 ? Norm(difference) : Norm(difference) / norm;
}

}  // namespace cohort::runtime
