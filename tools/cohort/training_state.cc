#include "tools/cohort/training_state.h"

#include <filesystem>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "comm/check.h"
#include "runtime/checkpoint/agree.h"

namespace cohort::tools {
namespace {

bool HasWeights(const std::string& folder) {
  return std::filesystem::exists(folder + "/model.safetensors") ||
         std::filesystem::exists(folder + "/model.safetensors.index.json");
}

absl::Status AnotherTraining(const std::string& folder, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(folder, " was trained with ", what,
                   ": set it back, give another output, or start anew with checkpoint.resume=false"));
}

}  // namespace

TrainingState::TrainingState(const v1::TrainConfig& config, const runtime::ModelConfig& model,
                             const TrainingData& data)
    : config_(config),
      model_config_(model),
      tokenizer_json_(data.tokenizer_json),
      state_{.seed = config.seed(),
             .global_batch = config.train().global_batch(),
             .sequence_length = config.data().sequence_length(),
             .data_fingerprint = data.training->dataset().fingerprint()} {}

absl::Status TrainingState::Load(parallel::ParallelModel& model, runtime::OptimizerState& optimizer,
                                 bool resume) {
  const std::optional<std::string> latest =
      resume ? runtime::LatestCheckpoint(config_.output() + "/checkpoints") : std::nullopt;
  // All ranks must decide alike: a rank that sees another disk is told so here and not by a hang later.
  COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> seen, model.GatherStrings(latest.value_or("")));
  for (const std::string& other : seen) {
    if (other != seen[0]) {
      return absl::FailedPreconditionError(
          absl::StrCat("the ranks see different checkpoints to resume from (", seen[0], " and ", other,
                       "): output must be a folder that all of them share"));
    }
  }
  state_.step = state_.tokens = 0;
  state_.seconds = 0;
  if (latest) {
    // Of one rank: what it finds is the same for all, and is said once.
    const absl::Status same = model.rank() == 0 ? CheckModel(*latest) : absl::OkStatus();
    COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> found,
                            model.GatherStrings(std::string(same.message())));
    if (!found[0].empty()) return absl::InvalidArgumentError(found[0]);
    COHORT_ASSIGN_OR_RETURN(const runtime::TrainerState saved,
                            LoadCheckpoint(model, model_config_, optimizer, *latest));
    COHORT_RETURN_IF_ERROR(CheckResume(saved, *latest));
    state_ = saved;
  } else if (!config_.model().path().empty() && HasWeights(config_.model().path())) {
    COHORT_RETURN_IF_ERROR(AgreeStatus(model, model.LoadWeights(config_.model().path())));
  } else {
    model.Initialize(config_.seed());
  }
  return absl::OkStatus();
}

runtime::CheckpointOptions TrainingState::Options() const {
  return {.root = config_.output() + "/checkpoints",
          .config = model_config_,
          .tokenizer = tokenizer_json_,
          .keep = config_.checkpoint().keep(),
          .shard_bytes = config_.checkpoint().shard_megabytes() << 20};
}

absl::StatusOr<std::string> TrainingState::Save(parallel::ParallelModel& model,
                                                const runtime::OptimizerState& optimizer, int64_t step) {
  state_.step = step;
  return SaveCheckpoint(model, optimizer, state_, Options());
}

std::function<absl::StatusOr<std::string>(runtime::SavingRanks&, absl::Span<const runtime::WrittenState>,
                                          const std::string&)>
TrainingState::Writer(int64_t step) const {
  runtime::TrainerState state = state_;
  state.step = step;
  return [state, options = Options()](
             runtime::SavingRanks& ranks, absl::Span<const runtime::WrittenState> written,
             const std::string& attempt) { return SaveWritten(ranks, written, state, options, attempt); };
}

// Before tensors are compared, of which one key can change all; some keys no shape of a tensor shows.
absl::Status TrainingState::CheckModel(const std::string& folder) const {
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig then, runtime::ModelConfig::Load(folder));
  const runtime::ModelConfig& now = model_config_;
  std::vector<std::string> differences;
  const auto compare = [&](const char* key, const auto& was, const auto& is) {
    if (was != is) differences.push_back(absl::StrCat("model.", key, " ", was, " and the config says ", is));
  };
  compare("model_type", then.model_type, now.model_type);
  compare("num_hidden_layers", then.num_hidden_layers, now.num_hidden_layers);
  compare("hidden_size", then.hidden_size, now.hidden_size);
  compare("intermediate_size", then.intermediate_size, now.intermediate_size);
  compare("vocab_size", then.vocab_size, now.vocab_size);
  compare("num_attention_heads", then.num_attention_heads, now.num_attention_heads);
  compare("num_key_value_heads", then.num_key_value_heads, now.num_key_value_heads);
  compare("head_dim", then.head_dim, now.head_dim);
  if (then.num_experts > 0 || now.num_experts > 0) {
    compare("num_experts", then.num_experts, now.num_experts);
    compare("num_experts_per_tok", then.num_experts_per_tok, now.num_experts_per_tok);
    compare("moe_intermediate_size", then.moe_intermediate_size, now.moe_intermediate_size);
    compare("shared_expert_intermediate_size", then.shared_expert_intermediate_size,
            now.shared_expert_intermediate_size);
  }
  const auto word = [](bool is) { return absl::string_view(is ? "true" : "false"); };
  compare("tie_word_embeddings", word(then.tie_word_embeddings), word(now.tie_word_embeddings));
  compare("rope_theta", then.rope_theta, now.rope_theta);
  compare("rms_norm_eps", then.rms_norm_eps, now.rms_norm_eps);
  return differences.empty() ? absl::OkStatus() : AnotherTraining(folder, absl::StrJoin(differences, ", "));
}

// The data's order is a function of these, so a run goes on exactly only where they are the same.
absl::Status TrainingState::CheckResume(const runtime::TrainerState& saved, const std::string& folder) const {
  const auto differs = [&](const char* key, auto then, auto now) {
    return AnotherTraining(folder, absl::StrCat(key, " ", then, " and the config says ", now));
  };
  if (saved.seed != state_.seed) return differs("seed", saved.seed, state_.seed);
  if (saved.global_batch != state_.global_batch) {
    return differs("train.global_batch", saved.global_batch, state_.global_batch);
  }
  if (saved.sequence_length != state_.sequence_length) {
    return differs("data.sequence_length", saved.sequence_length, state_.sequence_length);
  }
  if (saved.data_fingerprint != state_.data_fingerprint) {
    return differs("data of fingerprint", saved.data_fingerprint, state_.data_fingerprint);
  }
  return absl::OkStatus();
}

}  // namespace cohort::tools
