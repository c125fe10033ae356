#include "serving/serve.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "serving/distributed_runner.h"

namespace cohort::serving {
namespace {

v1::GetModelInfoResponse Describe(const ServeOptions& options, const runtime::Decoder& decoder,
                                  const runtime::Tokenizer& tokenizer, const RunnerInfo& runner,
                                  int32_t capacity) {
  const runtime::ModelConfig& config = decoder.config();
  v1::GetModelInfoResponse info;
  info.set_name(options.model_name);
  info.set_model_type(config.model_type);
  info.set_parameters(config.NumParameters());
  info.set_vocabulary_size(runner.vocabulary_size);
  info.set_context_length(capacity);
  info.set_dtype(Name(decoder.compute()));
  info.set_num_experts(static_cast<int32_t>(config.num_experts));
  if (tokenizer.bos_id()) info.set_bos_token_id(*tokenizer.bos_id());
  for (int32_t id : tokenizer.eos_ids()) info.add_eos_token_ids(id);
  info.set_ranks(runner.ranks);
  return info;
}

absl::Status Lead(const ServeOptions& options, const runtime::Decoder& decoder,
                  std::shared_ptr<const runtime::Tokenizer> tokenizer, std::unique_ptr<ModelRunner> runner) {
  const RunnerInfo info = runner->info();
  Metrics metrics(options.model_name);
  if (!options.metrics_address.empty()) COHORT_RETURN_IF_ERROR(metrics.Expose(options.metrics_address));
  COHORT_ASSIGN_OR_RETURN(const auto engine,
                          Engine::Create(std::move(runner), tokenizer, options.engine, metrics));
  COHORT_ASSIGN_OR_RETURN(const auto server,
                          Server::Start(options.server, *engine, tokenizer,
                                        Describe(options, decoder, *tokenizer, info, engine->capacity())));
  spdlog::info("serving {} on port {}: {} ranks, each {} pages of {} tokens", options.model_name,
               server->port(), info.ranks, info.pages, info.page_size);
  if (options.on_ready) options.on_ready(server->port(), metrics.port());
  while (!options.should_stop()) {
    const absl::Status health = engine->health();
    if (!health.ok()) {
      spdlog::error("the model has failed, the server ends: {}", health.ToString());
      server->SetUnhealthy();
      return health;
    }
    absl::SleepFor(policy::kSupervisionInterval);
  }
  spdlog::info("draining for at most {}", absl::FormatDuration(options.drain_grace));
  server->Drain(absl::Now() + options.drain_grace);
  spdlog::info("drained");
  return absl::OkStatus();
}

}  // namespace

absl::Status Serve(const ServeOptions& options, runtime::Decoder& decoder,
                   std::shared_ptr<const runtime::Tokenizer> tokenizer, comm::Communicator& communicator) {
  COHORT_CHECK(options.should_stop != nullptr, "Serve is never told when to stop");
  COHORT_ASSIGN_OR_RETURN(auto local,
                          DecoderRunner::Create(decoder, options.cache, options.engine.max_sequences));
  if (communicator.size() == 1) return Lead(options, decoder, std::move(tokenizer), std::move(local));
  const auto run_rank = [&local](const RankStep& step) { return local->RunRank(step); };
  if (communicator.rank() != 0) return RunFollower(communicator, run_rank);
  return Lead(options, decoder, std::move(tokenizer),
              std::make_unique<DistributedRunner>(communicator, local->info(), run_rank));
}

}  // namespace cohort::serving
