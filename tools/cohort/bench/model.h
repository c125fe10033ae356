// The model that a benchmark runs, and how its rows are written.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "runtime/model/decoder.h"
#include "runtime/model/model_config.h"

namespace cohort::tools {

struct BenchFlags {
  bool moe = false;
  std::vector<std::string> overrides;  // model.hidden_size=2048 ...
  std::string dtype = "bf16";
  std::string device = "cpu";  // of those benchmarks that offer --device
  int threads = 0;
  std::string json;
};

// Adds --moe, --set, --dtype, --threads and --json.
void AddBenchFlags(CLI::App& app, const std::shared_ptr<BenchFlags>& flags, int default_threads);

// What a benchmark's shape has beside the width that all have in common: how deep, how long, which experts.
struct BenchShape {
  const char* dense;  // lines of the config's section `model`
  const char* moe;    // the same with --moe
};

// The common shape, `shape`'s lines and the overrides of the model section.
absl::StatusOr<runtime::ModelConfig> BenchModel(const BenchFlags& flags, const BenchShape& shape);

// A decoder for inference with random weights.
absl::StatusOr<std::unique_ptr<runtime::Decoder>> BenchDecoder(const runtime::ModelConfig& config,
                                                               const BenchFlags& flags);

// Compute threads as --threads says.
void SetBenchThreads(const BenchFlags& flags);

// What every row says of a run of this benchmark: its name, the model, the type and the threads.
nlohmann::ordered_json BenchRow(const char* bench, const runtime::ModelConfig& config,
                                const BenchFlags& flags);

// The middle of the values; they must not be empty.
double Median(std::vector<double> values);

// Writes the rows to `file`, one a line; nothing where it is empty.
absl::Status WriteRows(const std::vector<nlohmann::ordered_json>& rows, const std::string& file);

}  // namespace cohort::tools
