#include "runtime/model/rope_table.h"

#include <cmath>
#include <numbers>

namespace cohort::runtime {
namespace {

// Llama 3.1's scaling (Hugging Face's rope_type "llama3"): wavelengths longer than the original context over
// low_freq_factor are stretched by `factor`, those shorter than it over high_freq_factor stay, and those
// between are mixed linearly in the number of turns within the original context.
double Llama3Frequency(double frequency, const RopeScaling& scaling) {
  const double turns =
      static_cast<double>(scaling.original_max_position) * frequency / (2 * std::numbers::pi);
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  if (turns > scaling.high_freq_factor) return frequency;
  const double kept =
      (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - kept) * frequency / scaling.factor + kept * frequency;
}

}  // namespace

std::vector<double> RopeFrequencies(const ModelConfig& config) {
  std::vector<double> frequencies;
  for (int64_t i = 0; i < config.head_dim; i += 2) {
    const double exponent = static_cast<double>(i) / static_cast<double>(config.head_dim);
    double frequency = std::pow(config.rope_theta, -exponent);
    if (config.rope_scaling.type == "linear") frequency /= config.rope_scaling.factor;
    if (config.rope_scaling.type == "llama3") frequency = Llama3Frequency(frequency, config.rope_scaling);
    frequencies.push_back(frequency);
  }
  return frequencies;
}

Tensor MakeRopeTable(const ModelConfig& config, Device& device) {
  const std::vector<double> frequencies = RopeFrequencies(config);
  std::vector<double> values;
  values.reserve(static_cast<size_t>(config.max_position_embeddings * config.head_dim));
  for (int64_t position = 0; position < config.max_position_embeddings; ++position) {
    for (double frequency : frequencies)
      values.push_back(std::cos(static_cast<double>(position) * frequency));
    for (double frequency : frequencies)
      values.push_back(std::sin(static_cast<double>(position) * frequency));
  }
  return Tensor::FromHost(device, {config.max_position_embeddings, config.head_dim}, device.state_dtype(),
                          values);
}

}  // namespace cohort::runtime
