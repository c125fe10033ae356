#include "tests/parallel/elastic/elastic_setup.h"

#include <cstdlib>

namespace cohort::parallel {

v1::TrainConfig ElasticConfig(v1::ParallelSection parallel, int founders) {
  v1::TrainConfig config;
  config.mutable_train()->set_steps(kElasticSteps);
  config.mutable_train()->set_global_batch(8);
  config.mutable_train()->set_micro_batch(1);
  config.mutable_train()->set_dtype("f32");
  config.mutable_train()->set_deterministic(true);
  config.mutable_train()->set_virtual_shards(8);
  config.mutable_data()->set_sequence_length(16);
  if (!parallel.has_sharding()) parallel.set_sharding("ddp");
  if (!parallel.has_pipeline()) parallel.set_pipeline(1);
  if (!parallel.has_tensor()) parallel.set_tensor(1);
  if (!parallel.has_expert()) parallel.set_expert(1);
  parallel.set_context(1);
  parallel.set_shard(founders / parallel.pipeline() / parallel.tensor());
  parallel.set_context_split("zigzag");
  parallel.set_context_way("ring");
  parallel.set_schedule("1f1b");
  *config.mutable_parallel() = std::move(parallel);
  return config;
}

runtime::ModelConfig ElasticModel(const std::string& family) {
  runtime::ModelConfig config = runtime::TinyConfig(family);
  config.num_hidden_layers = 4;
  config.tie_word_embeddings = false;
  return config;
}

ElasticOptions ElasticRunOptions(v1::ParallelSection parallel, int founders,
                                 const runtime::ModelConfig& model) {
  ElasticOptions options = {.config = ElasticConfig(std::move(parallel), founders), .model = model};
  options.loop.steps = kElasticSteps;
  options.loop.schedule = {
      .peak = 0.004, .total_steps = kElasticSteps, .warmup_steps = 0, .decay = runtime::Decay::kConstant};
  return options;
}

runtime::elastic::KeeperOptions TestKeeper(const std::string& job) {
  return {.job = job, .command = {COHORT_TEST_KEEPER}, .idle_life = absl::Seconds(1)};
}

void BeginProcess(int process, const std::vector<std::string>& hosts) {
  runtime::SetCpuThreads(1);
  if (!hosts.empty()) setenv("COHORT_HOST_ID", hosts[static_cast<size_t>(process)].c_str(), 1);
}

}  // namespace cohort::parallel
