#include "tools/cohort/bench/model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "moe/moe_layer.h"
#include "runtime/config/config.h"
#include "runtime/config/yaml_message.h"
#include "runtime/file.h"
#include "tools/cohort/chosen_device.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

constexpr char kCommon[] = R"(
model:
  vocab_size: 8192
  hidden_size: 2048
  num_attention_heads: 16
  head_dim: 128
)";
constexpr char kDense[] = R"(  model_type: llama
  intermediate_size: 5632
)";
constexpr char kSparse[] = R"(  model_type: qwen3_moe
)";

// The shape of a model as the config's keys.
nlohmann::ordered_json ShapeOf(const runtime::ModelConfig& config) {
  nlohmann::ordered_json shape = {{"model_type", config.model_type},
                                  {"parameters", config.NumParameters()},
                                  {"vocab_size", config.vocab_size},
                                  {"hidden_size", config.hidden_size},
                                  {"intermediate_size", config.intermediate_size},
                                  {"num_hidden_layers", config.num_hidden_layers},
                                  {"num_attention_heads", config.num_attention_heads},
                                  {"num_key_value_heads", config.num_key_value_heads},
                                  {"head_dim", config.head_dim}};
  if (config.num_experts > 0) {
    shape["num_experts"] = config.num_experts;
    shape["num_experts_per_tok"] = config.num_experts_per_tok;
    shape["moe_intermediate_size"] = config.moe_intermediate_size;
  }
  return shape;
}

}  // namespace

void AddBenchFlags(CLI::App& app, const std::shared_ptr<BenchFlags>& flags, int default_threads) {
  flags->threads = default_threads;
  app.add_flag("--moe", flags->moe, "The mixture-of-experts shape instead of the dense one");
  app.add_option("--set", flags->overrides,
                 "Change the shape: --set model.hidden_size=2048 model.num_hidden_layers=8")
      ->expected(1, -1);
  app.add_option("--dtype", flags->dtype, "bf16 or f32")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  app.add_option("--threads", flags->threads, "Compute threads of a rank; 0: one a core")
      ->capture_default_str();
  app.add_option("--json", flags->json, "Write one JSON object a row to this file");
}

absl::StatusOr<runtime::ModelConfig> BenchModel(const BenchFlags& flags, const BenchShape& shape) {
  v1::TrainConfig config;
  COHORT_RETURN_IF_ERROR(runtime::ParseYaml(
      absl::StrCat(kCommon, flags.moe ? kSparse : kDense, flags.moe ? shape.moe : shape.dense),
      "the benchmark's shape", config));
  for (const std::string& assignment : flags.overrides) {
    COHORT_RETURN_IF_ERROR(runtime::ApplyOverride(assignment, config));
  }
  config.mutable_data()->set_sequence_length(config.model().max_position_embeddings());
  runtime::ApplyDefaults(config, {});
  COHORT_ASSIGN_OR_RETURN(runtime::ModelConfig model, runtime::ModelConfigFrom(config));
  COHORT_RETURN_IF_ERROR(model.Validate());
  return model;
}

absl::StatusOr<std::unique_ptr<runtime::Decoder>> BenchDecoder(const runtime::ModelConfig& config,
                                                               const BenchFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(runtime::Device* const device, ChosenDevice(flags.device));
  COHORT_ASSIGN_OR_RETURN(
      auto decoder,
      runtime::Decoder::Create(config, *device,
                               {.compute = *ParseDataType(flags.dtype),
                                .trainable = false,
                                .experts = moe::MakeMoeFactory(std::make_shared<const moe::ExpertGroup>())}));
  decoder->Initialize(1);
  return decoder;
}

void SetBenchThreads(const BenchFlags& flags) {
  runtime::SetCpuThreads(flags.threads > 0 ? flags.threads : HostCores());
}

nlohmann::ordered_json BenchRow(const char* bench, const runtime::ModelConfig& config,
                                const BenchFlags& flags) {
  return {{"bench", bench},
          {"model", ShapeOf(config)},
          {"dtype", flags.dtype},
          {"device", flags.device},
          {"threads", runtime::CpuThreads()}};
}

double Median(std::vector<double> values) {
  COHORT_CHECK(!values.empty(), "no values");
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

absl::Status WriteRows(const std::vector<nlohmann::ordered_json>& rows, const std::string& file) {
  if (file.empty()) return absl::OkStatus();
  std::string text;
  for (const nlohmann::ordered_json& row : rows) text += row.dump() + "\n";
  return runtime::WriteFileDurably(file, text);
}

}  // namespace cohort::tools
