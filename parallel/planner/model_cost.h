// What a model's layers cost, from its configuration alone: parameters, FLOPs, and what a forward keeps. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/model/model_config.h"

namespace cohort::parallel::planner {

// By placement (runtime/model/parameter.h): equal on every rank of a stage, divided over a tensor group, divided over
// an expert group.
struct ParameterCount {
  int64_t replicated = 0, tensor = 0, expert = 0;

  int64_t total() const { return replicated + tensor + expert; }
  bool operator==(const ParameterCount&) const = default;
};

// Layers that are alike: a decoder is an embedding, dense and sparse blocks, and a head.
enum class Layer : uint8_t { kEmbedding, kDense, kSparse, kHead };
inline constexpr int kNumLayers = 4;

struct LayerCost {
  ParameterCount parameters;
  // Of one token's forward; the gradients of inputs and of weights cost as much again each.
  double matrix_flops = 0;     // products with parameters: of a routed token, with its chosen experts'
  double attention_flops = 0;  // scores and their product with the values, causal

  double flops() const { return matrix_flops + attention_flops; }
};

// Of an element of state: f32.
inline constexpr double kStateBytes = 4;

class ModelCost {
 public:
  // `sequence_length` in tokens. The config is valid.
  ModelCost(const runtime::ModelConfig& config, int64_t sequence_length);

  const runtime::ModelConfig& config() const { return config_; }
  int64_t sequence_length() const { return sequence_length_; }
  const LayerCost& layer(Layer layer) const { return layers_[static_cast<int>(layer)]; }
  // What a layer's ranks hold. `apart`: the embedding and the head are in two stages, so that tied ones are there twice.
  ParameterCount ParametersOf(Layer layer, bool apart) const;
  // By block.
  Layer block(int index) const { return blocks_[index]; }
  int blocks() const { return static_cast<int>(blocks_.size()); }
  // Of the whole model.
  ParameterCount parameters() const;
  double forward_flops() const;  // of one token

  // Bytes that a layer keeps on one rank from the forward of `tokens` tokens to their backward. The tokens are those
  // of a tensor group of `tensor` ranks, each of which has its part of the rows between the matrices. Elements of the
  // compute type have `compute_bytes`, statistics four. As Block, Mlp and MoeLayer keep them, with
  // experts equally loaded.
  double KeptBytes(Layer layer, double tokens, int tensor, int compute_bytes, bool recompute) const;
  // Bytes that a layer needs besides, while it computes: the head's logits, a chunk at a time; where activations are
  // computed again, a block's.
  double WorkingBytes(Layer layer, double tokens, int tensor, int compute_bytes, bool recompute) const;

 private:
  runtime::ModelConfig config_;
  int64_t sequence_length_;
  LayerCost layers_[kNumLayers];
  std::vector<Layer> blocks_;
};

}  // namespace cohort::parallel::planner
