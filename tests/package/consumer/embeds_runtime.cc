// A program outside the tree that uses the runtime alone: reads a model's architecture and computes with it.
#include <cohort/runtime/model/decoder.h>
#include <cohort/runtime/model/model_config.h>

#include <cstdio>
#include <iostream>

constexpr char kConfig[] = R"({
  "model_type": "llama", "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
  "rope_theta": 10000.0, "tie_word_embeddings": false})";

int main() {
  const auto config = cohort::runtime::ModelConfig::FromJson(kConfig, "config.json");
  if (!config.ok()) {
    std::cerr << config.status() << "\n";
    return 1;
  }
  std::printf("%lld parameters\n", static_cast<long long>(config->NumParameters()));
  const auto decoder = cohort::runtime::Decoder::Create(*config, cohort::runtime::CpuDevice(), {});
  if (!decoder.ok()) {
    std::cerr << decoder.status() << "\n";
    return 1;
  }
  (*decoder)->Initialize(1);
  // Embedding and head 2 x 100 x 32; a block: q and o 2 x 32 x 32, k and v 2 x 16 x 32, feed-forward 3 x 64 x 32,
  // two norms; the last norm.
  return config->NumParameters() == 2 * 3200 + 2 * (2048 + 1024 + 6144 + 64) + 32 ? 0 : 1;
}
