#include "tools/cohort/served_model.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "moe/moe_layer.h"
#include "parallel/memory_share.h"
#include "runtime/checkpoint/hf_folder.h"
#include "runtime/collectives/over_device.h"
#include "runtime/file.h"

namespace cohort::tools {

absl::StatusOr<ServedModel> LoadServedModel(const std::string& folder, const std::string& dtype,
                                            runtime::Device& device,
                                            std::shared_ptr<comm::Communicator> world) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    if (error && error != std::errc::no_such_file_or_directory) {
      return runtime::ErrnoStatus(error.value(), "look into --model", folder);
    }
    return absl::NotFoundError(absl::StrCat("--model ", folder,
                                            ": there is no such folder; name a model's (config.json, "
                                            "tokenizer.json, *.safetensors), in a container one "
                                            "that is mounted"));
  }
  ServedModel model;
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig config, runtime::ModelConfig::Load(folder));
  COHORT_ASSIGN_OR_RETURN(model.tokenizer, runtime::Tokenizer::Load(folder + "/tokenizer.json"));
  if (model.tokenizer->vocab_size() > config.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, ": tokenizer.json has ", model.tokenizer->vocab_size(),
                     " tokens, more than config.json's vocab_size ", config.vocab_size));
  }
  const DataType compute = dtype == "auto"
                               ? (config.torch_dtype == "bfloat16" ? DataType::kBF16 : DataType::kF32)
                               : *ParseDataType(dtype);
  COHORT_ASSIGN_OR_RETURN(const int64_t memory, parallel::ShareOfFreeMemory(device, *world));
  std::shared_ptr<comm::Communicator> over_device;
  if (config.num_experts > 0) {  // what else is on several ranks stays apart
    COHORT_ASSIGN_OR_RETURN(over_device, runtime::OverDevice(device, world));
  }
  const auto experts =
      std::make_shared<const moe::ExpertGroup>(std::move(world), /*apart=*/false, std::move(over_device));
  COHORT_ASSIGN_OR_RETURN(model.decoder, runtime::Decoder::Create(config, device,
                                                                  {.compute = compute,
                                                                   .trainable = false,
                                                                   .memory_limit = memory,
                                                                   .experts = moe::MakeMoeFactory(experts)}));
  COHORT_RETURN_IF_ERROR(runtime::LoadWeights(folder, *model.decoder));
  return model;
}

}  // namespace cohort::tools
