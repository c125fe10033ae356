// The defaults that the comments of proto/cohort/v1/config.proto promise, section by section.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <numeric>

#include "absl/time/time.h"
#include "comm/policy.h"
#include "runtime/checkpoint/policy.h"
#include "runtime/config/config.h"
#include "runtime/config/policy.h"
#include "runtime/model/families.h"

namespace cohort::runtime {
namespace {

// COHORT_DEFAULT(section, key, value): sets an unset key.
#define COHORT_DEFAULT(section, key, value) \
  if (!(section).has_##key()) (section).set_##key(value)

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// For quotients of what a user wrote: zero is refused later, by ValidateConfig.
int64_t Quotient(int64_t value, int64_t divisor) {
  return divisor > 0 ? std::max<int64_t>(1, value / divisor) : 0;
}

void ApplyModel(cohort::v1::ModelSection& model, int64_t sequence_length, const ConfigFacts& facts) {
  using config_policy::kRoundTo;
  COHORT_DEFAULT(model, model_type, "llama");
  const Family* family = FindFamily(model.model_type());
  if (facts.tokenizer_size > 0) COHORT_DEFAULT(model, vocab_size, RoundUp(facts.tokenizer_size, kRoundTo));
  COHORT_DEFAULT(model, hidden_size, 256);
  COHORT_DEFAULT(model, intermediate_size, RoundUp((int64_t{8} * model.hidden_size() + 2) / 3, kRoundTo));
  COHORT_DEFAULT(model, num_hidden_layers, 4);
  COHORT_DEFAULT(model, num_attention_heads, Quotient(model.hidden_size(), 64));
  COHORT_DEFAULT(model, num_key_value_heads, model.num_attention_heads());
  COHORT_DEFAULT(model, head_dim, Quotient(model.hidden_size(), model.num_attention_heads()));
  COHORT_DEFAULT(model, max_position_embeddings, sequence_length);
  COHORT_DEFAULT(model, rope_theta, 10000);
  COHORT_DEFAULT(model, rms_norm_eps, 1e-5);
  COHORT_DEFAULT(model, tie_word_embeddings, false);
  COHORT_DEFAULT(model, initializer_range, 0.02);
  if (family == nullptr || !family->sparse) return;

  COHORT_DEFAULT(model, num_experts, 8);
  COHORT_DEFAULT(model, num_experts_per_tok, 2);
  COHORT_DEFAULT(model, moe_intermediate_size,
                 family->own_moe_width ? Quotient(model.intermediate_size(), model.num_experts_per_tok())
                                       : model.intermediate_size());
  COHORT_DEFAULT(model, shared_expert_intermediate_size, 0);
  cohort::v1::RouterSection& router = *model.mutable_router();
  COHORT_DEFAULT(router, gate, "softmax");
  const bool sigmoid = router.gate() == "sigmoid";
  COHORT_DEFAULT(router, aux_loss_coef, sigmoid ? 0 : 0.01);
  COHORT_DEFAULT(router, z_loss_coef, 0);
  COHORT_DEFAULT(router, bias_update_rate, sigmoid ? 0.001 : 0);
  COHORT_DEFAULT(router, capacity_factor, 0);
  COHORT_DEFAULT(router, normalize_weights, true);
}

void ApplyTrain(cohort::v1::TrainSection& train, const cohort::v1::ParallelSection& parallel,
                const ConfigFacts& facts) {
  COHORT_DEFAULT(train, minutes, 0);
  if (train.minutes() > 0) COHORT_DEFAULT(train, steps, config_policy::kUnlimitedSteps);
  COHORT_DEFAULT(train, global_batch, 8 * facts.ranks);
  // The largest share of a rank; the sums are made in 64 bits, whatever the user's numbers are.
  const int64_t pipeline = std::max(1, parallel.pipeline());
  const int64_t together = std::max<int64_t>(1, pipeline * parallel.context() * parallel.tensor());
  const int64_t sharers = std::max<int64_t>(1, facts.ranks / together);
  const int64_t share = (int64_t{train.global_batch()} + sharers - 1) / sharers;
  const int64_t parts = pipeline == 1 ? 1 : config_policy::kMicroBatchesPerStage * pipeline;
  COHORT_DEFAULT(train, deterministic, false);
  COHORT_DEFAULT(train, virtual_shards, std::clamp(train.global_batch(), 1, config_policy::kVirtualShards));
  // What must not depend on the ranks is cut without them.
  const int64_t shards = std::max(1, train.virtual_shards());
  COHORT_DEFAULT(train, micro_batch,
                 std::max<int64_t>(1, train.deterministic() ? (train.global_batch() + shards - 1) / shards
                                                            : share / parts));
  COHORT_DEFAULT(train, dtype, facts.fast_bf16 ? "bf16" : "f32");
  COHORT_DEFAULT(train, recompute, false);
  COHORT_DEFAULT(train, clip_grad_norm, 1);
  COHORT_DEFAULT(train, eval_every, 0);
  COHORT_DEFAULT(train, eval_sequences, 64);
  COHORT_DEFAULT(train, threads, Quotient(facts.cores, facts.ranks_on_host));
}

void ApplyParallel(cohort::v1::ParallelSection& parallel, const ConfigFacts& facts) {
  COHORT_DEFAULT(parallel, pipeline, 1);
  COHORT_DEFAULT(parallel, context, 1);
  COHORT_DEFAULT(parallel, tensor, 1);
  COHORT_DEFAULT(parallel, expert, 1);
  COHORT_DEFAULT(parallel, schedule, "1f1b");
  COHORT_DEFAULT(parallel, context_split, "zigzag");
  COHORT_DEFAULT(parallel, context_way, "ring");
  COHORT_DEFAULT(parallel, split_batch, false);
  // What is left of a host, and of all ranks, when the other axes have had theirs.
  const auto left = [](int64_t ranks, std::initializer_list<int64_t> axes) {
    for (const int64_t axis : axes) ranks = axis > 0 ? ranks / axis : ranks;
    return std::max<int64_t>(ranks, 1);
  };
  const bool whole_hosts = facts.ranks_on_host > 0 && facts.ranks % facts.ranks_on_host == 0;
  COHORT_DEFAULT(
      parallel, shard,
      whole_hosts ? std::gcd(left(facts.ranks_on_host, {parallel.context(), parallel.tensor()}),
                             left(facts.ranks, {parallel.pipeline(), parallel.context(), parallel.tensor()}))
                  : 1);
  COHORT_DEFAULT(parallel, sharding, "ddp");
  COHORT_DEFAULT(parallel, hybrid_tokens, 0);
  COHORT_DEFAULT(parallel, timeout_seconds, absl::ToDoubleSeconds(comm::policy::kTimeout));
}

void ApplySchedule(cohort::v1::ScheduleSection& schedule, bool has_end, int64_t steps) {
  COHORT_DEFAULT(schedule, decay, has_end ? "cosine" : "constant");
  COHORT_DEFAULT(schedule, warmup_steps, has_end ? steps / 100 : config_policy::kUnlimitedWarmup);
  COHORT_DEFAULT(schedule, min_lr_ratio, 0.1);
  COHORT_DEFAULT(schedule, wsd_decay_ratio, 0.2);
}

}  // namespace

std::string TokenizerPath(const cohort::v1::TrainConfig& config) {
  if (config.data().has_tokenizer()) return config.data().tokenizer();
  if (config.data().train().empty()) return "";
  return (std::filesystem::path(config.data().train(0)) / "tokenizer.json").string();
}

void ApplyDefaults(cohort::v1::TrainConfig& config, const ConfigFacts& facts) {
  COHORT_DEFAULT(config, seed, 1);
  COHORT_DEFAULT(config, device, "cpu");
  cohort::v1::DataSection& data = *config.mutable_data();
  COHORT_DEFAULT(data, sequence_length, 512);
  COHORT_DEFAULT(data, samples, "windows");
  if (const std::string tokenizer = TokenizerPath(config); !tokenizer.empty()) data.set_tokenizer(tokenizer);
  if (data.validation().empty()) {
    for (const std::string& folder : data.train()) {
      std::error_code error;
      if (std::filesystem::exists(std::filesystem::path(folder) / "validation", error))
        data.add_validation(folder);
    }
  }

  const bool has_end = config.train().has_steps();
  if (!config.model().has_path()) ApplyModel(*config.mutable_model(), data.sequence_length(), facts);
  ApplyParallel(*config.mutable_parallel(), facts);
  ApplyTrain(*config.mutable_train(), config.parallel(), facts);
  COHORT_DEFAULT(*config.mutable_elastic(), snapshot_every, 1);
  COHORT_DEFAULT(*config.mutable_elastic(), patience_seconds, 5);
  COHORT_DEFAULT(*config.mutable_elastic(), lost_hosts, 0);
  COHORT_DEFAULT(*config.mutable_elastic(), parity_data, 4);
  COHORT_DEFAULT(*config.mutable_elastic(), check_every, 100);
  COHORT_DEFAULT(*config.mutable_elastic(), stragglers, "name");
  COHORT_DEFAULT(*config.mutable_elastic(), straggler_steps, 50);
  COHORT_DEFAULT(*config.mutable_elastic(), straggler_return_seconds, 600);
  ApplySchedule(*config.mutable_schedule(), has_end, config.train().steps());

  cohort::v1::OptimizerSection& optimizer = *config.mutable_optimizer();
  COHORT_DEFAULT(optimizer, name, "adamw");
  COHORT_DEFAULT(optimizer, lr, 3e-4);
  COHORT_DEFAULT(optimizer, beta1, 0.9);
  COHORT_DEFAULT(optimizer, beta2, 0.95);
  COHORT_DEFAULT(optimizer, eps, 1e-8);
  COHORT_DEFAULT(optimizer, weight_decay, 0.1);

  cohort::v1::CheckpointSection& checkpoint = *config.mutable_checkpoint();
  COHORT_DEFAULT(checkpoint, every, 0);
  COHORT_DEFAULT(checkpoint, keep, 2);
  COHORT_DEFAULT(checkpoint, resume, true);
  COHORT_DEFAULT(checkpoint, shard_megabytes, checkpoint_policy::kShardBytes >> 20);

  cohort::v1::MetricsSection& metrics = *config.mutable_metrics();
  COHORT_DEFAULT(metrics, tensorboard, true);
  COHORT_DEFAULT(metrics, log_every, 10);
  COHORT_DEFAULT(metrics, trace_steps, 0);
}

}  // namespace cohort::runtime
