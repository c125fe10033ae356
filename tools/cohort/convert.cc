// cohort convert: a checkpoint of any mesh, or a folder from elsewhere, as a Hugging Face folder of weights alone.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "comm/check.h"
#include "moe/moe_layer.h"
#include "runtime/checkpoint/hf_export.h"
#include "runtime/device/device.h"
#include "runtime/model/decoder.h"
#include "tools/cohort/command.h"
#include "tools/cohort/overwrite.h"

namespace cohort::tools {
namespace {

struct ConvertFlags {
  std::string input, output, dtype = "as-is";
  int64_t shard_megabytes = runtime::checkpoint_policy::kShardBytes >> 20;
  bool overwrite = false;
};

absl::Status Convert(const ConvertFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig config, runtime::ModelConfig::Load(flags.input));
  COHORT_ASSIGN_OR_RETURN(const runtime::HfFolder weights, runtime::HfFolder::Open(flags.input));
  // The parameters that a whole model of this configuration has, without their values.
  COHORT_ASSIGN_OR_RETURN(
      const auto decoder,
      runtime::Decoder::Create(
          config, runtime::CpuDevice(),
          {.allocate = false, .experts = moe::MakeMoeFactory(std::make_shared<moe::ExpertGroup>())}));
  std::vector<runtime::NamedParameter> parameters;
  for (runtime::ParameterGroup& group : decoder->groups()) {
    for (const auto& parameter : group.parameters()) parameters.push_back({parameter->name, parameter.get()});
  }
  runtime::ExportOptions options = {
      .dtype = std::nullopt, .shard_bytes = flags.shard_megabytes << 20, .overwrite = flags.overwrite};
  if (flags.dtype != "as-is") options.dtype = *ParseDataType(flags.dtype);
  COHORT_RETURN_IF_ERROR(
      WithOverwriteHint(runtime::ExportFolder(weights, config, parameters, flags.output, options)));
  std::printf("%s: %s, %lld parameters\n", flags.output.c_str(), config.model_type.c_str(),
              static_cast<long long>(config.NumParameters()));
  return absl::OkStatus();
}

}  // namespace

void AddConvert(CLI::App& app, const Selected& selected) {
  CLI::App* convert = app.add_subcommand(
      "convert",
      "Make a Hugging Face folder of a checkpoint, whatever ranks wrote it, or of another such folder");
  const auto flags = std::make_shared<ConvertFlags>();
  convert->add_option("--input", flags->input, "A checkpoint, or a Hugging Face folder")->required();
  convert->add_option("--output", flags->output, "The folder to make; it appears whole or not at all")
      ->required();
  convert
      ->add_option("--dtype", flags->dtype,
                   "Of the weights: as-is, f32 (of a bf16 training its exact masters), bf16 or f16")
      ->check(CLI::IsMember({"as-is", "f32", "bf16", "f16"}))
      ->capture_default_str();
  convert->add_option("--shard-megabytes", flags->shard_megabytes, "When another file begins")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  AddOverwriteFlag(*convert, flags->overwrite, "the folder");
  convert->callback([=] { selected([=] { return Convert(*flags); }); });
}

}  // namespace cohort::tools
