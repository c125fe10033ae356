// Snapshots of a rank: its state goes, in the background, into memory that outlives it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/device/device.h"
#include "runtime/elastic/keeper/keeper.h"
#include "runtime/elastic/snapshot/image.h"
#include "runtime/elastic/snapshot/slots.h"

namespace cohort::runtime::elastic {

inline constexpr char kSnapshotKind[] = "snapshot";

// A part of the state where it lies. It stays there for the snapshotter's life; its bytes may change between Finish and
// the next Begin only.
struct StatePiece {
  std::string name;
  const void* data = nullptr;
  size_t bytes = 0;
  bool on_device = false;  // SnapshotterOptions::device
};

struct SnapshotterOptions {
  // Of the mesh, and what the pieces are, for whoever reads the snapshot.
  std::string layout;
  // Every so many steps (Due).
  int64_t every = 1;
  // Images that there is memory for (Slots says who needs how many).
  int slots = 2;
  // Whose memory pieces lie in that are said to lie on it. They are read beside what it computes (HostReader), from the
  // place in its queue where Begin is called.
  Device* device = nullptr;
};

struct SnapshotCosts {
  int64_t snapshots = 0;
  uint64_t bytes = 0;         // copied
  double background_cpu = 0;  // processor seconds of the copying thread
  double caller_cpu = 0;      // of Finish: it copies too
  double waited = 0;          // seconds in Finish
};

// Begin, Finish and the rest are called by one thread.
class Snapshotter {
 public:
  // A segment of the keeper with slots for these pieces. RESOURCE_EXHAUSTED where the host has no room for it.
  // `keeper` must outlive the snapshotter.
  static absl::StatusOr<std::unique_ptr<Snapshotter>> Create(Keeper& keeper, const SegmentOwner& owner,
                                                             std::vector<StatePiece> pieces,
                                                             SnapshotterOptions options = {});
  // Waits for what is being copied; the segment stays with the keeper.
  ~Snapshotter();
  Snapshotter(const Snapshotter&) = delete;
  Snapshotter& operator=(const Snapshotter&) = delete;

  // Whether the state after this step is to be kept.
  bool Due(int64_t step) const;
  // Begins to copy the state, which is that after `step`. FAILED_PRECONDITION while the generation before is not
  // finished, and where no slot is free (Slots).
  absl::Status Begin(int64_t step);
  // The state may change again. Copies too, so that nobody waits for a thread that gets no processor. OK at once where
  // nothing was begun. DEADLINE_EXCEEDED: the copying goes on, call it again.
  absl::Status Finish(absl::Time deadline);
  // All ranks have finished the generation of this step, and all before it.
  void Complete(int64_t step);
  // Somebody reads the finished image of this step: it stays what it is until Unpin. NOT_FOUND: it is not here.
  absl::StatusOr<Image> Pin(int64_t step);
  void Unpin(int64_t step);

  // The newest finished generation here, and the newest known to be complete everywhere.
  std::optional<int64_t> newest() const;
  std::optional<int64_t> complete() const;
  // The finished image of a step that is in a slot, for parity and for peers. It stays until a later one is
  // complete and Begin takes its slot.
  absl::StatusOr<Image> ImageOf(int64_t step) const;
  // Of every image of these pieces.
  uint64_t image_bytes() const;

  // Gives the segment back: when a later generation of another segment is complete everywhere.
  absl::Status Drop();
  const SegmentOwner& owner() const;
  SnapshotCosts costs() const;

 private:
  struct Impl;
  explicit Snapshotter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The segments of this host that hold nothing that is needed once `complete` is complete everywhere: those of earlier
// epochs. Pure.
std::vector<uint64_t> Superseded(absl::Span<const SegmentEntry> entries, GenerationName complete);

}  // namespace cohort::runtime::elastic
