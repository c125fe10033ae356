// The model that a benchmark runs, and how its rows are written.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "runtime/model/model_config.h"

namespace cohort::tools {

struct BenchFlags {
  bool moe = false;
  std::vector<std::string> overrides;  // model.hidden_size=2048 ...
  std::string dtype = "bf16";
  int threads = 0;
  std::string json;
};

// Adds --moe, --set, --dtype, --threads and --json.
void AddBenchFlags(CLI::App& app, const std::shared_ptr<BenchFlags>& flags, int default_threads);

// `dense` or `moe` (with --moe), with the overrides of the model section.
absl::StatusOr<runtime::ModelConfig> BenchModel(const BenchFlags& flags, const char* dense, const char* moe);

// The shape of a model as the config's keys, for a row.
nlohmann::ordered_json ShapeOf(const runtime::ModelConfig& config);

// The middle of the values; they must not be empty.
double Median(std::vector<double> values);

// Writes the rows to `file`, one a line; nothing where it is empty.
absl::Status WriteRows(const std::vector<nlohmann::ordered_json>& rows, const std::string& file);

}  // namespace cohort::tools
