// cohort bench serve: a server in this process, clients over the loopback, and what the clients see.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "runtime/tokenizer/trainer.h"
#include "serving/load_generator.h"
#include "serving/serve.h"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/model.h"
#include "tools/cohort/chosen_device.h"
#include "tools/cohort/served_model.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

constexpr BenchShape kShape = {.dense = R"(  num_hidden_layers: 12
  num_key_value_heads: 4
  max_position_embeddings: 1024
)",
                               .moe = R"(  num_hidden_layers: 6
  num_key_value_heads: 4
  max_position_embeddings: 1024
  num_experts: 16
  num_experts_per_tok: 4
  moe_intermediate_size: 1024
)"};

struct ServeBenchFlags {
  std::shared_ptr<BenchFlags> bench = std::make_shared<BenchFlags>();
  std::string model;
  std::vector<int> concurrency = {1, 32};
  int requests = 0;
  int prompt_tokens = 32, output_tokens = 64;
  double rate = 0, ttft_ms = 0, tpot_ms = 0;
};

// A tokenizer of bytes, for a model without one.
absl::StatusOr<std::shared_ptr<const runtime::Tokenizer>> MakeTokenizer() {
  const std::string folder =
      absl::StrCat(std::filesystem::temp_directory_path().string(), "/cohort-bench-", getpid());
  COHORT_ASSIGN_OR_RETURN(const auto trainer, runtime::BpeTrainer::Create({.vocab_size = 257}));
  COHORT_RETURN_IF_ERROR(trainer->Feed("bytes"));
  COHORT_ASSIGN_OR_RETURN(const runtime::TrainedBpe trained, trainer->Train());
  COHORT_RETURN_IF_ERROR(trained.Write(folder));
  auto tokenizer = runtime::Tokenizer::Load(folder + "/tokenizer.json");
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return tokenizer;
}

absl::StatusOr<ServedModel> MakeModel(const ServeBenchFlags& flags) {
  if (!flags.model.empty()) {
    COHORT_ASSIGN_OR_RETURN(runtime::Device* const device, ChosenDevice(flags.bench->device));
    return LoadServedModel(flags.model, flags.bench->dtype, *device, comm::Communicator::Single());
  }
  ServedModel model;
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig config, BenchModel(*flags.bench, kShape));
  COHORT_ASSIGN_OR_RETURN(model.decoder, BenchDecoder(config, *flags.bench));
  COHORT_ASSIGN_OR_RETURN(model.tokenizer, MakeTokenizer());
  return model;
}

void PrintHeader() {
  std::printf("%11s %9s %14s %21s %21s %21s %10s\n", "concurrency", "requests", "output tok/s",
              "TTFT ms p50/p99", "TPOT ms p50/p99", "ITL ms p50/p99", "goodput/s");
}

void PrintRow(int concurrency, const serving::LoadReport& report) {
  const auto pair = [](const serving::Distribution& d) {
    return absl::StrFormat("%.1f / %.1f", d.median, d.p99);
  };
  std::printf("%11d %9d %14.1f %21s %21s %21s %10.2f\n", concurrency, report.completed,
              report.output_throughput, pair(report.ttft_ms).c_str(), pair(report.tpot_ms).c_str(),
              pair(report.itl_ms).c_str(), report.goodput);
  std::fflush(stdout);
}

nlohmann::ordered_json ToJson(const serving::Distribution& d) {
  return {{"mean", d.mean}, {"p50", d.median}, {"p90", d.p90}, {"p99", d.p99}};
}

nlohmann::ordered_json RowOf(const ServeBenchFlags& flags, const runtime::ModelConfig& config,
                             int concurrency, const serving::LoadReport& report) {
  nlohmann::ordered_json row = BenchRow("serve", config, *flags.bench);
  row.update({{"concurrency", concurrency},
              {"rate", flags.rate},
              {"prompt_tokens", flags.prompt_tokens},
              {"output_tokens", flags.output_tokens},
              {"completed", report.completed},
              {"failed", report.failed},
              {"duration_s", report.duration_s},
              {"requests_per_s", report.request_throughput},
              {"output_tokens_per_s", report.output_throughput},
              {"total_tokens_per_s", report.total_throughput},
              {"goodput_requests_per_s", report.goodput},
              {"ttft_ms", ToJson(report.ttft_ms)},
              {"tpot_ms", ToJson(report.tpot_ms)},
              {"itl_ms", ToJson(report.itl_ms)},
              {"e2el_ms", ToJson(report.e2e_ms)}});
  return row;
}

// The loads, one after another, on the server at this address.
absl::Status RunLoads(const ServeBenchFlags& flags, const runtime::ModelConfig& config,
                      const std::string& address, std::vector<nlohmann::ordered_json>& rows) {
  serving::LoadOptions options;
  options.address = address;
  options.rate = flags.rate;
  options.prompt_tokens = flags.prompt_tokens;
  options.output_tokens = flags.output_tokens;
  if (flags.ttft_ms > 0) options.limits.ttft = absl::Milliseconds(flags.ttft_ms);
  if (flags.tpot_ms > 0) options.limits.tpot = absl::Milliseconds(flags.tpot_ms);
  options.requests = options.concurrency = 2;  // warms up
  COHORT_RETURN_IF_ERROR(RunLoad(options).status());
  PrintHeader();
  for (const int concurrency : flags.concurrency) {
    options.concurrency = concurrency;
    options.requests = flags.requests > 0 ? flags.requests : std::max(3, 2 * concurrency);
    COHORT_ASSIGN_OR_RETURN(const serving::LoadReport report, RunLoad(options));
    if (report.completed == 0)
      return absl::InternalError(absl::StrCat("no request succeeded: ", report.first_error));
    PrintRow(concurrency, report);
    rows.push_back(RowOf(flags, config, concurrency, report));
  }
  return absl::OkStatus();
}

absl::Status BenchServe(const ServeBenchFlags& flags) {
  SetBenchThreads(*flags.bench);
  COHORT_ASSIGN_OR_RETURN(const ServedModel model, MakeModel(flags));
  const auto group = comm::Communicator::Single();
  std::promise<int> ready;
  std::future<int> port = ready.get_future();
  std::atomic<bool> stop = false;
  serving::ServeOptions options;
  options.model_name = "bench";
  options.server.address = "127.0.0.1:0";
  options.on_ready = [&](int bound, int) { ready.set_value(bound); };
  options.should_stop = [&] { return stop.load(); };
  std::future<absl::Status> server = std::async(
      std::launch::async, [&] { return serving::Serve(options, *model.decoder, model.tokenizer, *group); });
  while (port.wait_for(std::chrono::milliseconds(10)) != std::future_status::ready) {
    if (server.wait_for(std::chrono::seconds(0)) == std::future_status::ready) return server.get();
  }
  std::vector<nlohmann::ordered_json> rows;
  const absl::Status loads =
      RunLoads(flags, model.decoder->config(), absl::StrCat("127.0.0.1:", port.get()), rows);
  stop = true;
  const absl::Status served = server.get();
  if (!loads.ok()) return loads;
  COHORT_RETURN_IF_ERROR(served);
  if (rows.size() > 1) {
    const auto speed = [](const nlohmann::ordered_json& row) {
      return row["output_tokens_per_s"].get<double>();
    };
    std::printf("concurrency %d gives %.2f times the tokens/s of %d\n", flags.concurrency.back(),
                speed(rows.back()) / speed(rows.front()), flags.concurrency.front());
  }
  return WriteRows(rows, flags.bench->json);
}

}  // namespace

void AddBenchServe(CLI::App& bench, const Selected& selected) {
  CLI::App* app =
      bench.add_subcommand("serve", "A server and its clients: TTFT, TPOT, ITL, throughput, goodput");
  const auto flags = std::make_shared<ServeBenchFlags>();
  AddBenchFlags(*app, flags->bench, 0);
  AddDeviceFlag(*app, flags->bench->device);
  app->add_option("--model", flags->model, "Serve this folder instead of random weights");
  app->add_option("--concurrency", flags->concurrency, "Requests at a time, a row each")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--rate", flags->rate, "Poisson arrivals a second instead of a fixed concurrency");
  app->add_option("--requests", flags->requests,
                  "Requests a row. Default: twice the concurrency, at least 3");
  app->add_option("--prompt-tokens", flags->prompt_tokens, "Of each request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--output-tokens", flags->output_tokens, "Of each request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--ttft-ms", flags->ttft_ms,
                  "Goodput counts requests whose first token comes in this time");
  app->add_option("--tpot-ms", flags->tpot_ms, "... and whose later tokens come in this time each");
  app->callback([=] { selected([=] { return BenchServe(*flags); }); });
}

}  // namespace cohort::tools
