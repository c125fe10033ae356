// What a completed configuration must satisfy to be run.
#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "runtime/config/config.h"
#include "runtime/config/policy.h"
#include "runtime/optim/schedule.h"

namespace cohort::runtime {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

absl::Status Bad(absl::string_view key, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(key, " ", problem));
}

struct IntRule {
  const char* key;
  int64_t value, low;
  int64_t high = std::numeric_limits<int64_t>::max();
  const char* high_is = nullptr;  // the key that says it
};

absl::Status CheckInts(std::initializer_list<IntRule> rules) {
  for (const IntRule& rule : rules) {
    if (rule.value < rule.low || rule.value > rule.high) {
      return Bad(rule.key, absl::StrCat("is ", rule.value, "; it must be ", rule.low,
                                        rule.high == std::numeric_limits<int64_t>::max()
                                            ? std::string(" or more")
                                            : absl::StrCat(" to ", rule.high),
                                        rule.high_is == nullptr ? "" : absl::StrCat(", ", rule.high_is)));
    }
  }
  return absl::OkStatus();
}

// An interval whose ends are open or closed.
struct RealRule {
  const char* key;
  double value, low, high;
  bool low_open, high_open;
};

absl::Status CheckReals(std::initializer_list<RealRule> rules) {
  for (const RealRule& rule : rules) {
    const bool low = rule.low_open ? rule.value > rule.low : rule.value >= rule.low;
    const bool high = rule.high_open ? rule.value < rule.high : rule.value <= rule.high;
    if (low && high) continue;
    std::string allowed = absl::StrCat(rule.low_open ? "above " : "at least ", rule.low);
    if (rule.high != kInfinity)
      absl::StrAppend(&allowed, " and ", rule.high_open ? "below " : "at most ", rule.high);
    return Bad(rule.key, absl::StrCat("is ", rule.value, "; it must be ", allowed));
  }
  return absl::OkStatus();
}

absl::Status CheckName(const char* key, const std::string& value, const std::vector<std::string>& known) {
  for (const std::string& name : known) {
    if (value == name) return absl::OkStatus();
  }
  return Bad(key, absl::StrCat("is '", value, "'; it must be ", absl::StrJoin(known, " or ")));
}

absl::Status CheckDivides(const char* key, int64_t divisor, absl::string_view what, int64_t value) {
  if (divisor > 0 && value % divisor == 0) return absl::OkStatus();
  return Bad(key, absl::StrCat("is ", divisor, "; it must divide ", what, ", which is ", value));
}

absl::Status CheckPresence(const cohort::v1::TrainConfig& config) {
  if (config.output().empty())
    return Bad("output", "is not set; it names the folder for checkpoints and logs");
  if (config.data().train().empty()) {
    return Bad("data.train", "is not set; it lists folders that `cohort data prepare` wrote");
  }
  for (const auto* folders : {&config.data().train(), &config.data().validation()}) {
    for (const std::string& folder : *folders) {
      if (folder.empty()) return Bad("data", "lists a folder without a name");
    }
  }
  if (!config.train().has_steps()) return Bad("train.steps", "is not set; give it or train.minutes");
  if (!config.model().has_path()) return absl::OkStatus();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  config.model().GetReflection()->ListFields(config.model(), &fields);
  for (const auto* field : fields) {
    if (field->name() == "path") continue;
    return Bad(
        absl::StrCat("model.", field->name()),
        absl::StrCat("cannot be given beside model.path: ", config.model().path(), "/config.json says it"));
  }
  return absl::OkStatus();
}

absl::Status CheckRanges(const cohort::v1::TrainConfig& config) {
  const auto& train = config.train();
  const auto& optimizer = config.optimizer();
  const auto& schedule = config.schedule();
  COHORT_RETURN_IF_ERROR(CheckInts({
      {"data.sequence_length", config.data().sequence_length(), 1},
      {"train.steps", train.steps(), 1},
      {"train.global_batch", train.global_batch(), 1, config_policy::kMaxBatch},
      {"train.micro_batch", train.micro_batch(), 1, config_policy::kMaxBatch},
      {"train.virtual_shards", train.virtual_shards(), 1, config_policy::kMaxBatch},
      {"train.eval_every", train.eval_every(), 0},
      {"train.eval_sequences", train.eval_sequences(), 0},
      {"train.threads", train.threads(), 1, config_policy::kMaxThreads},
      {"schedule.warmup_steps", schedule.warmup_steps(), 0, train.steps(), "train.steps"},
      {"parallel.expert", config.parallel().expert(), 1},
      {"parallel.shard", config.parallel().shard(), 1},
      {"parallel.pipeline", config.parallel().pipeline(), 1},
      {"parallel.context", config.parallel().context(), 1},
      {"parallel.tensor", config.parallel().tensor(), 1},
      {"parallel.hybrid_tokens", config.parallel().hybrid_tokens(), 0},
      {"parallel.stages_per_rank",
       config.parallel().has_stages_per_rank() ? config.parallel().stages_per_rank() : 1, 1},
      {"checkpoint.every", config.checkpoint().every(), 0},
      {"checkpoint.keep", config.checkpoint().keep(), 1},
      {"checkpoint.shard_megabytes", config.checkpoint().shard_megabytes(), 1, int64_t{1} << 30},
      {"elastic.snapshot_every", config.elastic().snapshot_every(), 0},
      {"elastic.check_every", config.elastic().check_every(), 0},
      {"elastic.lost_hosts", config.elastic().lost_hosts(), 0, 64},
      {"elastic.parity_data", config.elastic().parity_data(), 1, 64},
      {"elastic.straggler_steps", config.elastic().straggler_steps(), 1},
      {"metrics.log_every", config.metrics().log_every(), 1},
      {"metrics.trace_steps", config.metrics().trace_steps(), 0},
  }));
  return CheckReals({
      {"train.clip_grad_norm", train.clip_grad_norm(), 0, kInfinity, false, true},
      {"elastic.patience_seconds", config.elastic().patience_seconds(), 0, kInfinity, true, true},
      {"elastic.straggler_return_seconds", config.elastic().straggler_return_seconds(), 0, kInfinity, false,
       true},
      {"train.minutes", train.minutes(), 0, kInfinity, false, true},
      {"optimizer.lr", optimizer.lr(), 0, kInfinity, true, true},
      {"optimizer.beta1", optimizer.beta1(), 0, 1, false, true},
      {"optimizer.beta2", optimizer.beta2(), 0, 1, false, true},
      {"optimizer.eps", optimizer.eps(), 0, kInfinity, true, true},
      {"optimizer.weight_decay", optimizer.weight_decay(), 0, kInfinity, false, true},
      {"schedule.min_lr_ratio", schedule.min_lr_ratio(), 0, 1, false, false},
      {"schedule.wsd_decay_ratio", schedule.wsd_decay_ratio(), 0, 1, false, false},
      {"parallel.timeout_seconds", config.parallel().timeout_seconds(), 0, kInfinity, true, true},
  });
}

absl::Status CheckNames(const cohort::v1::TrainConfig& config) {
  std::vector<std::string> decays;
  for (const DecayRow& row : DecayTable()) decays.push_back(row.name);
  COHORT_RETURN_IF_ERROR(CheckName("device", config.device(), {"cpu", "cuda"}));
  COHORT_RETURN_IF_ERROR(CheckName("train.dtype", config.train().dtype(), {"bf16", "f32"}));
  COHORT_RETURN_IF_ERROR(CheckName("data.samples", config.data().samples(), {"windows", "documents"}));
  COHORT_RETURN_IF_ERROR(CheckName("optimizer.name", config.optimizer().name(), {"adamw"}));
  COHORT_RETURN_IF_ERROR(CheckName("elastic.stragglers", config.elastic().stragglers(), {"name", "evict"}));
  if (config.parallel().has_mesh()) {
    COHORT_RETURN_IF_ERROR(CheckName("parallel.mesh", config.parallel().mesh(), {"auto"}));
  }
  COHORT_RETURN_IF_ERROR(CheckName("schedule.decay", config.schedule().decay(), decays));
  if (config.train().steps() < config_policy::kUnlimitedSteps || config.schedule().decay() == "constant") {
    return absl::OkStatus();
  }
  return Bad("schedule.decay",
             absl::StrCat("is '", config.schedule().decay(), "'; without train.steps it must be constant"));
}

// Fast mode cuts no shards. What a complete configuration says all the same is let pass.
absl::Status CheckShards(const cohort::v1::TrainSection& train) {
  const int64_t shards = train.virtual_shards(), usual = config_policy::kVirtualShards;
  if (train.deterministic() || shards == usual || shards == std::min<int64_t>(train.global_batch(), usual)) {
    return absl::OkStatus();
  }
  return Bad("train.virtual_shards",
             absl::StrCat("is ", shards,
                          "; only train.deterministic cuts the batch into shards: set "
                          "that too, or leave virtual_shards out"));
}

absl::Status CheckModel(const cohort::v1::TrainConfig& config, const ModelConfig& model,
                        const ConfigFacts& facts) {
  if (!config.model().has_path() && !config.model().has_vocab_size()) {
    return Bad("model.vocab_size", "is not set, and there is no tokenizer to take it from");
  }
  if (absl::Status status = model.Validate(); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("section model: ", status.message()));
  }
  if (model.vocab_size < facts.tokenizer_size) {
    return Bad("model.vocab_size",
               absl::StrCat("is ", model.vocab_size, "; the tokenizer has ", facts.tokenizer_size, " ids"));
  }
  if (config.data().sequence_length() > model.max_position_embeddings) {
    return Bad("data.sequence_length",
               absl::StrCat("is ", config.data().sequence_length(),
                            "; the model's max_position_embeddings is ", model.max_position_embeddings));
  }
  return absl::OkStatus();
}

// The longest sequence must fit the ranks that may share it.
absl::Status CheckHybrid(const cohort::v1::TrainConfig& config, const ConfigFacts& facts) {
  const auto& parallel = config.parallel();
  const int64_t tokens = parallel.hybrid_tokens();
  const int64_t ranks = std::max<int64_t>(1, facts.ranks / (parallel.pipeline() * parallel.tensor()));
  if (tokens == 0 || tokens * ranks >= config.data().sequence_length()) return absl::OkStatus();
  return Bad(
      "parallel.hybrid_tokens",
      absl::StrCat("is ", tokens, "; the ", ranks, ranks == 1 ? " rank that shares" : " ranks that share",
                   " sequences must hold data.sequence_length, which is ", config.data().sequence_length()));
}

absl::Status CheckDivisions(const cohort::v1::TrainConfig& config, const ModelConfig& model) {
  const int64_t expert = config.parallel().expert();
  if (expert > 1 && model.num_experts == 0) {
    return Bad("parallel.expert",
               absl::StrCat("is ", expert, "; a ", model.model_type, " model has no experts"));
  }
  return CheckDivides("parallel.expert", expert, "model.num_experts", model.num_experts);
}

}  // namespace

absl::Status ValidateConfig(const cohort::v1::TrainConfig& config, const ModelConfig& model,
                            const ConfigFacts& facts) {
  COHORT_RETURN_IF_ERROR(CheckPresence(config));
  COHORT_RETURN_IF_ERROR(CheckRanges(config));
  COHORT_RETURN_IF_ERROR(CheckNames(config));
  COHORT_RETURN_IF_ERROR(CheckShards(config.train()));
  COHORT_RETURN_IF_ERROR(CheckModel(config, model, facts));
  COHORT_RETURN_IF_ERROR(CheckHybrid(config, facts));
  return CheckDivisions(config, model);
}

}  // namespace cohort::runtime
