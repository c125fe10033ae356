// Measures what a model's layers take on this rank: a few blocks of each kind, run forward and backward.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/data_type.h"
#include "parallel/planner/layer_times.h"
#include "parallel/planner/model_cost.h"
#include "runtime/device/device.h"

namespace cohort::parallel::planner {

struct MeasuredRange {
  double fewest = 1, most = 1;  // tokens of a tensor group's micro-batch
  int tensor = 1,
      expert = 1;  // up to so many ranks: powers of two of those that the model can be divided over
};

// Every kind of layer of `model` over this range, at three or four numbers of tokens. Messages are left out: a tensor
// group's other parts are taken to be there. Layers are several, so that their weights come from memory as in training.
// Takes some policy::kMeasuringSeconds in all; what would take longer is left out, most tokens first. No ranks: nothing
// is communicated.
absl::StatusOr<LayerTimes> MeasureLayers(const ModelCost& model, runtime::Device& device, DataType compute,
                                         const MeasuredRange& range);

// A few blocks that are run again and again: a load, whose time shows what ranks take from each other.
class BlockLoad {
 public:
  static absl::StatusOr<BlockLoad> Create(const ModelCost& model, runtime::Device& device, DataType compute,
                                          int64_t tokens);
  BlockLoad(BlockLoad&&) noexcept;
  ~BlockLoad();

  // The middle one of so many times, in seconds, of a forward and a backward of all of them, and of `meet` after each
  // where it is not null.
  absl::StatusOr<double> Run(int times, const std::function<absl::Status()>& meet = nullptr);

 private:
  struct State;
  explicit BlockLoad(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Seconds of AdamW's update of an element.
double MeasureUpdate(runtime::Device& device, DataType compute);

}  // namespace cohort::parallel::planner
