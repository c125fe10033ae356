// A mixture-of-experts layer by itself, outside a decoder.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "moe/moe_layer.h"
#include "tests/support/tiny_model.h"

namespace cohort::moe {

struct LayerUnderTest {
  runtime::ParameterGroup group{"block"};
  std::unique_ptr<runtime::FeedForward> layer;

  LayerUnderTest(const runtime::ModelConfig& config, runtime::Device& device, DataType compute,
                 std::shared_ptr<const ExpertGroup> ranks = std::make_shared<ExpertGroup>()) {
    auto made = MakeMoeFactory(std::move(ranks))(config, 0, "model.layers.0.", device, compute, group);
    EXPECT_TRUE(made.ok()) << made.status();
    layer = *std::move(made);
    group.Allocate(device, compute, /*trainable=*/true);
    group.Initialize(1);
  }

  runtime::Parameter& Find(const std::string& name) {
    for (const auto& parameter : group.parameters()) {
      if (parameter->name == "model.layers.0." + name) return *parameter;
    }
    ADD_FAILURE() << "no parameter " << name;
    return *group.parameters().front();
  }
};

// The gates, losses and limits that the tests go through.
struct LayerCase {
  const char* name;
  const char* gate;
  bool normalize;
  double aux, z, capacity;
  int64_t shared;
};
inline void PrintTo(const LayerCase& c, std::ostream* out) { *out << c.name; }

inline const std::vector<LayerCase>& LayerCases() {
  static const auto& cases = *new std::vector<LayerCase>{
      {"softmax", "softmax", true, 0.02, 0.003, 0, 0},
      {"softmax_plain_shared", "softmax", false, 0, 0, 0, 8},
      {"softmax_capacity", "softmax", true, 0.02, 0.003, 0.8, 8},
      {"sigmoid", "sigmoid", true, 0, 0, 0, 8},
      {"sigmoid_losses_capacity", "sigmoid", true, 0.02, 0.003, 1.0, 0},
  };
  return cases;
}

inline runtime::ModelConfig ConfigOf(const LayerCase& c, const char* model_type = "qwen3_moe") {
  runtime::ModelConfig config = runtime::TinyConfig(model_type);
  config.router.gate = c.gate;
  config.router.normalize_weights = c.normalize;
  config.router.aux_loss_coef = c.aux;
  config.router.z_loss_coef = c.z;
  config.router.capacity_factor = c.capacity;
  config.router.bias_update_rate = 0.01;
  config.shared_expert_intermediate_size = c.shared;
  return config;
}

}  // namespace cohort::moe
