// cohort bench decode: one sequence, token by token, by what computes a server's steps. Each token reads every weight
// once, so the limit is memory: the bytes read a second are compared with a copy of memory measured in the same run.
#include <chrono>
#include <cstdio>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "comm/check.h"
#include "runtime/model/decoder.h"
#include "runtime/ops/machine_rates.h"
#include "serving/batch_plan.h"
#include "serving/decoder_runner.h"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/model.h"
#include "tools/cohort/chosen_device.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

constexpr BenchShape kShape = {.dense = R"(  num_hidden_layers: 12
  num_key_value_heads: 4
  max_position_embeddings: 4096
)",
                               .moe = R"(  num_hidden_layers: 6
  num_key_value_heads: 4
  max_position_embeddings: 4096
  num_experts: 16
  num_experts_per_tok: 4
  moe_intermediate_size: 1024
)"};

struct DecodeFlags {
  std::shared_ptr<BenchFlags> bench = std::make_shared<BenchFlags>();
  int64_t context = 128;  // tokens in the cache when the measuring begins
  int tokens = 64;        // measured
};

// One sequence as a server runs it, alone: each step brings back a token, and is replayed where the device records.
class Sequence {
 public:
  static absl::StatusOr<Sequence> Create(runtime::Decoder& decoder) {
    constexpr int64_t kWholeContext = int64_t{1} << 62;  // bytes: no more is made than one sequence can need
    COHORT_ASSIGN_OR_RETURN(auto runner,
                            serving::DecoderRunner::Create(decoder, {.bytes = kWholeContext}, 1));
    return Sequence(std::move(runner));
  }

  absl::Status Append(const std::vector<int32_t>& tokens) {
    const auto count = static_cast<int32_t>(tokens.size());
    serving::RankStep step;
    step.tokens = tokens;
    step.positions.resize(tokens.size());
    std::iota(step.positions.begin(), step.positions.end(), length_);
    step.slots = step.positions;  // pages one after another
    step.query_offsets.push_back(count);
    step.context_lengths.push_back(length_ + count);
    std::vector<int32_t> pages(serving::PagesFor(length_ + count, runner_->info().page_size));
    std::iota(pages.begin(), pages.end(), 0);
    step.page_table.push_back(std::move(pages));
    serving::WantedRow last;
    last.row = count - 1;
    last.params.temperature = 0;
    step.rows.push_back(std::move(last));
    length_ += count;
    COHORT_ASSIGN_OR_RETURN(const serving::RankResult result, runner_->RunRank(step));
    const std::string& error = result.rows.front().error;
    return error.empty() ? absl::OkStatus() : absl::InternalError(error);
  }

  int64_t length() const { return length_; }

 private:
  explicit Sequence(std::unique_ptr<serving::DecoderRunner> runner) : runner_(std::move(runner)) {}

  std::unique_ptr<serving::DecoderRunner> runner_;
  int32_t length_ = 0;
};

absl::Status BenchDecode(const DecodeFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig config, BenchModel(*flags.bench, kShape));
  if (flags.context + 1 + flags.tokens > config.max_position_embeddings) {
    return absl::InvalidArgumentError("--context and --tokens do not fit in model.max_position_embeddings");
  }
  SetBenchThreads(*flags.bench);
  const DataType dtype = *ParseDataType(flags.bench->dtype);
  COHORT_ASSIGN_OR_RETURN(const auto decoder, BenchDecoder(config, *flags.bench));
  COHORT_ASSIGN_OR_RETURN(Sequence sequence, Sequence::Create(*decoder));
  COHORT_RETURN_IF_ERROR(sequence.Append(std::vector<int32_t>(static_cast<size_t>(flags.context), 1)));
  COHORT_RETURN_IF_ERROR(sequence.Append({1}));  // warms up, and records where the device does

  // A token reads the parameters it multiplies by, and the keys and values of all before it.
  const int64_t kv_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim;
  double bytes = 0;
  std::vector<double> seconds, bandwidths;
  for (int token = 0; token < flags.tokens; ++token) {
    if (token % 16 == 0) bandwidths.push_back(runtime::MeasureCopyBandwidth(decoder->device()));
    const auto begin = std::chrono::steady_clock::now();
    COHORT_RETURN_IF_ERROR(sequence.Append({token % 100}));
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    bytes += static_cast<double>(config.NumActiveParameters() + kv_bytes * sequence.length()) *
             static_cast<double>(SizeOf(dtype));
  }
  const double token_seconds = Median(seconds), copy = Median(bandwidths);
  const double rate = bytes / flags.tokens / token_seconds;
  std::printf("%s, %.0f million parameters (%.0f a token), %s on %s, %d threads, context %d\n",
              config.model_type.c_str(), static_cast<double>(config.NumParameters()) / 1e6,
              static_cast<double>(config.NumActiveParameters()) / 1e6, Name(dtype),
              decoder->device().name().c_str(), runtime::CpuThreads(), static_cast<int>(flags.context));
  std::printf("  %.1f tokens/s, reading %.2f GB/s; a copy of memory moves %.2f GB/s; share %.3f\n",
              1 / token_seconds, rate / 1e9, copy / 1e9, rate / copy);
  nlohmann::ordered_json row = BenchRow("decode", config, *flags.bench);
  row.update({{"context", flags.context},
              {"tokens_per_s", 1 / token_seconds},
              {"bytes_per_s", rate},
              {"copy_bytes_per_s", copy},
              {"bandwidth_share", rate / copy}});
  return WriteRows({row}, flags.bench->json);
}

}  // namespace

void AddBenchDecode(CLI::App& bench, const Selected& selected) {
  CLI::App* app =
      bench.add_subcommand("decode", "Decoding of one sequence, as a share of the memory's bandwidth");
  const auto flags = std::make_shared<DecodeFlags>();
  AddBenchFlags(*app, flags->bench, 0);
  AddDeviceFlag(*app, flags->bench->device);
  app->add_option("--context", flags->context, "Tokens in the cache at the beginning")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--tokens", flags->tokens, "Tokens measured; the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->callback([=] { selected([=] { return BenchDecode(*flags); }); });
}

}  // namespace cohort::tools
