// A checkpoint that the ranks of a mesh write from their snapshots while they train.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "comm/communicator.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/elastic/snapshot/image.h"
#include "runtime/train/trainable.h"

namespace cohort::parallel {

// Writes this rank's part of a checkpoint of one step, and gives back its path: runtime::SaveWritten with whatever else
// it takes. Called by another thread.
using WriteCheckpoint = std::function<absl::StatusOr<std::string>(
    runtime::SavingRanks&, absl::Span<const runtime::WrittenState>, const std::string& attempt)>;

// What `trainable` would write of the state that the image holds: views of the image. The image's pieces are those of
// HeldBy (training_layout.h) from piece `first` on.
std::vector<runtime::WrittenState> WrittenFrom(const runtime::elastic::Image& image, size_t first,
                                               runtime::Trainable& trainable);

// One rank's side: one checkpoint at a time. Two threads while it is written: one that says to the other ranks how it
// goes, and one with a low priority that writes. One thread calls.
class BackgroundSave {
 public:
  struct Outcome {
    int64_t step = 0;
    absl::StatusOr<std::string> path;
    double seconds = 0;
  };

  // Collective over `group`. attempt: names the mesh.
  static absl::StatusOr<std::unique_ptr<BackgroundSave>> Create(comm::Communicator& group,
                                                                std::string attempt);
  // Ends what is under way, and waits until nothing is read any more.
  ~BackgroundSave();

  // All ranks start the same step, each when it has what it writes, which stays until the save is over. Nothing is
  // under way.
  void Start(int64_t step, std::vector<runtime::WrittenState> written, WriteCheckpoint write);
  bool under_way() const { return saving_.valid(); }
  // How it ended, once; nothing while it goes on, or where nothing was started. wait: until it is over.
  std::optional<Outcome> Take(bool wait);
  // This rank takes no part any more, so no rank's save succeeds. The group is not used when it returns; what is being
  // written goes on until Take has something.
  void Cancel(const absl::Status& why);

 private:
  class Ranks;

  BackgroundSave() = default;
  std::unique_ptr<comm::Communicator> group_;  // nobody else's
  std::unique_ptr<Ranks> ranks_;
  std::string attempt_;
  int64_t step_ = 0;
  absl::Time began_;
  std::future<absl::StatusOr<std::string>> saving_;
};

}  // namespace cohort::parallel
