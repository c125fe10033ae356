// The keeper: a process of each host that holds memory for its ranks and outlives them. This is the ranks' side of it.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/elastic/keeper/policy.h"

namespace cohort::runtime::elastic {

// Whose memory it is. Opaque to the keeper, which only repeats it.
struct SegmentOwner {
  std::string member;  // a name that is not used again: a process keeps it for its life
  uint64_t epoch = 0;  // of the mesh
  int32_t rank = 0;    // in that mesh
};

struct SegmentEntry {
  uint64_t id = 0;  // not used again by this keeper
  SegmentOwner owner;
  std::string kind;  // "snapshot", "parity", ...
  uint64_t bytes = 0;
  int pid = 0;              // of the process that registered it
  bool owner_here = false;  // it is still connected: it lives, though it may be stopped
};

struct KeeperOptions {
  // Names the keeper together with `host` and the user: processes that say the same meet at the same one.
  std::string job;
  // Empty: comm::HostIdentity().
  std::string host = {};
  // What runs ServeKeeper (serve.h) with the arguments that follow: a binary and its subcommand. It is started, cut
  // off from this process's session and open files, where no keeper is there.
  std::vector<std::string> command = {};
  absl::Duration idle_life = keeper_policy::kIdleLife;
  absl::Duration start_wait = keeper_policy::kStartWait;
  absl::Duration answer_wait = keeper_policy::kAnswerWait;
};

// Memory of a segment in this process. Unmapped with the object; the segment stays.
class MappedSegment {
 public:
  MappedSegment() = default;
  MappedSegment(std::byte* data, size_t bytes) : data_(data), bytes_(bytes) {}
  MappedSegment(MappedSegment&& other) noexcept;
  MappedSegment& operator=(MappedSegment&& other) noexcept;
  ~MappedSegment();

  absl::Span<const std::byte> bytes() const { return {data_, bytes_}; }
  // Of a segment that this process has made itself; writing into others is a fault.
  absl::Span<std::byte> writable() const { return {data_, bytes_}; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

// A connection to the keeper of this host. Thread-safe; every call has a deadline. After UNAVAILABLE the keeper is gone
// or does not answer: Reconnect.
class Keeper {
 public:
  // Connects, and starts a keeper where none is there. However many processes do so at once, one keeper comes of it.
  static absl::StatusOr<std::unique_ptr<Keeper>> Connect(KeeperOptions options);
  // Only where one is there: NOT_FOUND otherwise.
  static absl::StatusOr<std::unique_ptr<Keeper>> Find(KeeperOptions options);
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  // Whether the keeper is still there. Costs a system call.
  bool Alive() const;
  // After the keeper was lost: connects to another, started where there is none, and registers again all segments that
  // this process has created and not released; their ids change, and `id` of what Create returned stays right. What
  // dead ranks had left with the old keeper is lost with it.
  absl::Status Reconnect();

  // A segment of zeros that lives until it is released or the keeper goes, whatever becomes of this process.
  // RESOURCE_EXHAUSTED, with the numbers, where the host's memory would not hold it. `handle` names it to this object.
  struct Created {
    uint64_t handle = 0;
    MappedSegment memory;
  };
  absl::StatusOr<Created> Create(const SegmentOwner& owner, const std::string& kind, size_t bytes);
  // Another epoch or rank for a segment of this process.
  absl::Status Rename(uint64_t handle, const SegmentOwner& owner);
  // Gives a segment of this process back. Its memory goes when nobody maps it any more.
  absl::Status Drop(uint64_t handle);

  // All segments of all processes, dead ones too, by id.
  absl::StatusOr<std::vector<SegmentEntry>> List();
  // Read-only. NOT_FOUND where it was released.
  absl::StatusOr<MappedSegment> Map(uint64_t id);
  // Of any owner.
  absl::Status Release(uint64_t id);

  // The job is over: the keeper goes, and everything that it holds, also for the others that are connected.
  absl::Status End();

  // The keeper's process.
  int pid() const { return pid_; }
  const KeeperOptions& options() const { return options_; }

 private:
  struct Own {
    int fd;
    uint64_t id;
    SegmentOwner owner;
    std::string kind;
    size_t bytes;
  };

  explicit Keeper(KeeperOptions options) : options_(std::move(options)) {}
  absl::Status Meet(bool start);
  absl::Status Register(Own& own);
  // Sends a request and gets its answer, with or without a file. A failure of the connection ends it.
  absl::StatusOr<std::string> Call(const std::string& request, int send_fd = -1, int* received_fd = nullptr);

  KeeperOptions options_;
  mutable std::mutex lock_;
  int socket_ = -1;
  int pid_ = 0;
  uint64_t next_handle_ = 1;
  std::map<uint64_t, Own> own_;
};

}  // namespace cohort::runtime::elastic
