// The table of cosines and sines that Ops::Rope turns queries and keys by.
#pragma once

#include <vector>

#include "runtime/model/model_config.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

// Radians a position for each of the head_dim / 2 pairs, frequency scaling included.
std::vector<double> RopeFrequencies(const ModelConfig& config);

// state [max_position_embeddings, head_dim]: cosines, then sines, computed in f64.
Tensor MakeRopeTable(const ModelConfig& config, Device& device);

}  // namespace cohort::runtime
