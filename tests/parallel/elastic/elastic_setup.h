// What the trainings of these tests have in common: model, configuration, data, and processes that believe in hosts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cohort/v1/config.pb.h"
#include "parallel/elastic/elastic_run.h"
#include "parallel/elastic/part_snapshots.h"
#include "runtime/model/model_config.h"
#include "tests/parallel/training_run.h"

namespace cohort::parallel {

inline constexpr int kElasticSteps = 12;

// `founders` ranks, all options given.
v1::TrainConfig ElasticConfig(v1::ParallelSection parallel, int founders);
runtime::ModelConfig ElasticModel(const std::string& family);
// Of a run over kElasticSteps.
ElasticOptions ElasticRunOptions(v1::ParallelSection parallel, int founders,
                                 const runtime::ModelConfig& model);
// A job's keepers: they go soon after the last of its processes.
runtime::elastic::KeeperOptions TestKeeper(const std::string& job);
// One process more, with a thread of its own for operations, on the host of that name among `hosts` (none: all on one).
void BeginProcess(int process, const std::vector<std::string>& hosts);

// The tests' random sequences; `at_step` is called first, in the middle of computing the gradients of a step.
class ElasticSource final : public BatchSource {
 public:
  ElasticSource(runtime::Device& device, int64_t vocabulary, std::function<void(int64_t step)> at_step)
      : at_step_(std::move(at_step)), data_(device, vocabulary) {}
  absl::StatusOr<Samples> Training(int64_t step, int64_t begin, int64_t count) override {
    at_step_(step);
    return data_.Training(step, begin, count);
  }
  int64_t held_out() const override { return 0; }
  absl::StatusOr<Samples> HeldOut(int64_t begin, int64_t count) override {
    return data_.HeldOut(begin, count);
  }

 private:
  std::function<void(int64_t step)> at_step_;
  TestSource data_;
};

}  // namespace cohort::parallel
