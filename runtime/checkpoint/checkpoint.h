// Training checkpoints: a folder that Hugging Face tools can open, with the optimizer's and the trainer's
// state beside the weights, written by all ranks together so that a failed or killed save loses nothing.
//
//   <root>/step-00000100/config.json, model*.safetensors (+ index), tokenizer*.json
//                        optimizer-RRRRR-of-NNNNN.safetensors   <name>/master (where the weights are of another type),
//                                                               <name>/m, <name>/v: whole tensors
//                        trainer_state.json
//   <root>/step-00000200.partial/   a save under way or one that died; the next save removes it. In the background of an
//                                   elastic training step-00000200.e<epoch>.partial
//   <root>/latest -> step-00000100  replaced atomically, after the folder it names is complete and on the
//   disk
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/checkpoint/policy.h"
#include "runtime/checkpoint/state_plan.h"
#include "runtime/model/model_config.h"
#include "runtime/optim/optimizer.h"
#include "runtime/train/trainable.h"

namespace cohort::runtime {

// What a run needs besides tensors to go on: the data's order is a function of (seed,
// epoch, sample), so counts do.
struct TrainerState {
  int64_t step = 0;    // steps done
  int64_t tokens = 0;  // trained on so far
  uint64_t seed = 0;
  int64_t global_batch = 0;      // sequences a step
  int64_t sequence_length = 0;   // tokens
  std::string data_fingerprint;  // of the training data, as runtime/data computes it
  double seconds = 0;            // spent so far
};

struct CheckpointOptions {
  std::string root;    // output/checkpoints; made where it does not exist
  ModelConfig config;  // torch_dtype is set to the type of the weights
  std::string
      tokenizer;  // a tokenizer.json, copied with its siblings (tokenizer_config.json, ...); empty: none
  int keep = 2;   // newest checkpoints that stay
  int64_t shard_bytes = checkpoint_policy::kShardBytes;
};

// Collective. Writes root/step-<state.step> and makes it `latest`; returns its path. Ranks may hold any pieces of
// tensors; those that they write cover each tensor exactly once, else FAILED_PRECONDITION. The same result on every
// rank: RESOURCE_EXHAUSTED where a disk is full anywhere (training may go on), with every failed rank's
// message. After an error the earlier checkpoints and `latest` are what they were.
absl::StatusOr<std::string> SaveCheckpoint(Trainable& trainable, const OptimizerState& optimizer,
                                           const TrainerState& state, const CheckpointOptions& options);

// The ranks that save together what they have in memory that nobody changes meanwhile.
class SavingRanks {
 public:
  virtual ~SavingRanks() = default;
  virtual int rank() const = 0;
  virtual int world() const = 0;
  // As Trainable's.
  virtual absl::StatusOr<std::vector<std::string>> GatherStrings(const std::string& mine) = 0;
  // Collective: each rank does its own work, which takes as long as it takes; the result is as AgreeStatus has it.
  virtual absl::Status Together(const std::function<absl::Status()>& work) = 0;
};
// The same as SaveCheckpoint, of what each rank says that it writes; but where ranks are lost when it is `latest` already,
// rank 0 returns its path and others an error. state.step: of the optimizer too. `attempt`, the same
// on all ranks: of two saves of the same step with different ones the files never mix, also where a rank still writes for
// one that the others have given up.
absl::StatusOr<std::string> SaveWritten(SavingRanks& ranks, absl::Span<const WrittenState> written,
                                        const TrainerState& state, const CheckpointOptions& options,
                                        const std::string& attempt);

// Collective. Restores the weights, the optimizer's state and the trainer's from `folder` (a checkpoint or a
// symlink to one), written by any number of ranks that held any pieces. Each rank reads the pieces of its own state
// alone. On the arrangement that wrote it, training goes on bit for
// bit. After an error, which is the same on every rank, the trainable's values are undefined.
absl::StatusOr<TrainerState> LoadCheckpoint(Trainable& trainable, const ModelConfig& config,
                                            OptimizerState& optimizer, const std::string& folder);

// root/latest where it exists, else the newest complete checkpoint, else nothing.
std::optional<std::string> LatestCheckpoint(const std::string& root);

}  // namespace cohort::runtime
