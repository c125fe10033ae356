// What the step loop trains: a model however it is spread over ranks. The loop does not know how.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/batch.h"
#include "runtime/model/parameter.h"

namespace cohort::runtime {

// A flat piece of the parameters that this rank updates, and a name for its optimizer state. All [size].
struct OptimizerSlice {
  std::string name;
  Tensor master, grad;  // state type
  Tensor value;         // compute type; undefined where it is the master itself
  bool decay = true;
};

// A piece of a parameter whose state is here. Its values, and where it is optimised its master and moments, lie in
// elements [offset, offset + piece.size()) of that slice (and of the optimizer's tensors of that slice); slice -1: a
// buffer, which is state in itself, in parameter->value.
struct StateEntry {
  Piece piece;  // its name is the parameter's, as on disk
  Parameter* parameter;
  int slice;
  int64_t offset;
  // Whether this rank writes it to a checkpoint. What all ranks write covers each tensor exactly once.
  bool writes;
};

struct StepResult {
  LossSums sums;  // over the whole global batch, the same on every rank
};

// Every call is collective over the ranks that train together: all make it, in the same order, and all get
// the same result or an error. One thread.
class Trainable {
 public:
  virtual ~Trainable() = default;

  virtual int rank() const = 0;
  virtual int world() const = 0;

  // The loss over the global batch of this step; afterwards each slice's grad is complete (reduced
  // over ranks, divided by the global batch's tokens). Draws its own part of the batch from the
  // loader it was made with.
  virtual absl::StatusOr<StepResult> ComputeGradients(int64_t step) = 0;
  // Global L2 norm of those gradients.
  virtual absl::StatusOr<double> GradientNorm() = 0;
  // The same slices, in the same order, for the life of the object.
  virtual const std::vector<OptimizerSlice>& slices() = 0;
  // After the optimizer: makes the new values known to whoever uses them and moves gates' balancing biases.
  virtual absl::Status AfterStep(const StepResult& result) = 0;
  // Mean loss over at most `sequences` held-out sequences (0: all), in nats a token, and bits
  // a byte of their text.
  struct Evaluation {
    double loss = 0, bits_per_byte = 0;
    int64_t tokens = 0;
  };
  virtual absl::StatusOr<Evaluation> Evaluate(int64_t sequences) = 0;

  // What a checkpoint restores here: each rank reads its own pieces, also those that another one writes.
  virtual const std::vector<StateEntry>& state() = 0;
  // After the state was restored: makes the values known to whoever uses them, as after a step.
  virtual absl::Status StateRestored() { return absl::OkStatus(); }
  virtual absl::Status Barrier() = 0;
  // The largest of `value` over the ranks: how they agree that somebody failed or was told to stop.
  virtual absl::StatusOr<int64_t> AgreeMax(int64_t value) = 0;
  // Every rank's string, by rank: how ranks agree on the files of a checkpoint. Kilobytes, at
  // most a few megabytes each.
  virtual absl::StatusOr<std::vector<std::string>> GatherStrings(const std::string& mine) = 0;
};

}  // namespace cohort::runtime
