// The transfer engine: one-sided writes into registered memory of other processes, counted by immediates.
//
// Units: sizes, offsets and strides are bytes; immediates are 32-bit numbers of the application's choice;
// deadlines are absolute. Every function may be called from any thread. Callbacks run on a thread of the
// engine's, without its locks, one at a time.
//
// Ordering. Writes are not ordered among each other: they travel over several rails, and what was written
// second may arrive first. What is guaranteed:
//  - An immediate is counted at the target only after all bytes of its write are visible there, to the thread
//    that has seen the count (acquire).
//  - A Work is over with OK only after all bytes of all its writes are visible at their targets.
//  - A barrier orders execution, not writes: wait for their Work first.
// Failures. A write that failed (deadline, lost peer) may have happened in whole, in part, or not at all, and
// its immediate may have been counted; nothing of it reaches the target's memory after the target has removed
// the peer or unregistered the region. The source's memory may be reused as soon as the Work is over, also
// with an error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "comm/policy.h"
#include "comm/transfer/policy.h"
#include "comm/work.h"

namespace cohort::comm::transfer {

enum class PeerId : uint64_t {};

// Registered memory. Plain numbers: send it to peers as it is. Numbers are not used again within one engine.
struct Region {
  uint64_t number = 0;
  uint64_t bytes = 0;
};

// Memory of the engine's own, and the region that it is.
struct Allocation {
  Region region;
  std::byte* data = nullptr;
};

struct Options {
  // How errors and peers call this engine, as "rank 3".
  std::string name;
  // The network interfaces, one rail each, as UCX names them ("eth0", "mlx5_0:1"): rail i of one engine talks to rail i
  // of the other (modulo their numbers). None: all interfaces of this host, or of COHORT_NET_DEVICES, paired with those
  // of a peer by their networks.
  std::vector<std::string> rails;
  // Peers of this host are reached through shared memory; false: over the network like all others.
  bool shared_memory = true;
  // A write is cut for several rails into shards of at least so many bytes.
  uint64_t min_shard_bytes = policy::kMinShardBytes;
  // Of every request that does not bring a deadline of its own.
  absl::Duration timeout = policy::kTimeout;
};

// A write of one range. `bytes` may be 0: then only the immediate travels.
struct WriteRequest {
  PeerId peer = {};
  Region from = {};  // of this engine
  uint64_t from_offset = 0;
  Region to = {};  // of the peer's
  uint64_t to_offset = 0;
  uint64_t bytes = 0;
  std::optional<uint32_t> immediate = {};
  std::optional<absl::Time> deadline = {};
};

// Page from_pages[i] of `from` to page to_pages[i] of `to`; page p begins at offset + p * stride.
struct Pages {
  std::vector<uint32_t> indices = {};
  uint64_t offset = 0;
  uint64_t stride = 0;
};
struct PagedWriteRequest {
  PeerId peer = {};
  Region from = {};
  Pages from_pages = {};
  Region to = {};
  Pages to_pages = {};
  uint64_t page_bytes = 0;
  std::optional<uint32_t> immediate = {};  // one for all pages
  std::optional<absl::Time> deadline = {};
};

// Block i of `blocks` blocks, of `block_bytes` each: from from_offset + i * from_stride to to_offset + i *
// to_stride.
struct StridedWriteRequest {
  PeerId peer = {};
  Region from = {};
  uint64_t from_offset = 0;
  uint64_t from_stride = 0;
  Region to = {};
  uint64_t to_offset = 0;
  uint64_t to_stride = 0;
  uint64_t block_bytes = 0;
  uint64_t blocks = 0;
  std::optional<uint32_t> immediate = {};
  std::optional<absl::Time> deadline = {};
};

// `count` immediates of number `immediate`, whoever sends them.
struct ExpectRequest {
  uint32_t immediate = 0;
  uint64_t count = 1;
  // Fails as soon as one of these is lost, rather than at the deadline.
  std::vector<PeerId> from = {};
  std::optional<absl::Time> deadline = {};
};

class Engine;

class TransferEngine {
 public:
  static absl::StatusOr<std::unique_ptr<TransferEngine>> Create(Options options);
  // What is in flight fails with CANCELLED; peers hear that this engine has left.
  ~TransferEngine();

  // What a peer needs to add this engine, as text of one line.
  std::string Card() const;
  // Both sides add each other, in any order: writes wait (until their deadline) for the peer to do so too.
  // The callback is called once if the peer is lost: it died, is silent on all rails, or has removed this
  // engine. From then on requests to it fail with UNAVAILABLE; removed and added again it may be back.
  absl::StatusOr<PeerId> AddPeer(const std::string& card,
                                 std::function<void(PeerId, const absl::Status&)> on_lost = nullptr);
  // What is in flight to the peer fails; after this nothing of it is written to this engine's regions.
  // DEADLINE_EXCEEDED where a peer of this host was stopped in the middle of a write into allocated memory: then it
  // is still there, and removing it can be tried again.
  absl::Status RemovePeer(PeerId peer);

  // The memory must live until it is unregistered.
  absl::StatusOr<Region> Register(void* data, uint64_t bytes);
  // Memory of zeros that begins at a page. Peers of this host map it, so that their small writes are stores into it
  // and cost this process nothing. A thread that waits for a write without an immediate by looking at its last byte should
  // pause between looks (comm/pause.h). It goes with its region: after Unregister or the engine's end, it is not to be
  // touched. RESOURCE_EXHAUSTED where there is not so much.
  absl::StatusOr<Allocation> Allocate(uint64_t bytes);
  // Fails with FAILED_PRECONDITION while writes from the region are in flight; writes to it are refused afterwards,
  // NOT_FOUND at their sources.
  absl::Status Unregister(Region region);

  // A wrong local range or peer is INVALID_ARGUMENT or NOT_FOUND; a range outside of the target's region
  // OUT_OF_RANGE, an unregistered one NOT_FOUND: both found by the target, and nothing was written then.
  Work Write(const WriteRequest& request);
  Work WritePaged(const PagedWriteRequest& request);
  Work WriteStrided(const StridedWriteRequest& request);
  // Writes to many peers, one Work for all; the first error counts.
  Work Scatter(absl::Span<const WriteRequest> requests);
  // Over when all of the peers have called it with the same tag (and list this engine). Names who has not.
  // After one that failed, use another tag: some may have passed it.
  Work Barrier(const std::vector<PeerId>& peers, uint32_t tag,
               std::optional<absl::Time> deadline = std::nullopt);

  // Over when so many have been counted, and takes them off the counter: the next Expect of that number waits
  // for the next ones. Those of one number are served in the order of calls.
  Work Expect(const ExpectRequest& request);
  // Counted and not yet taken off.
  uint64_t Count(uint32_t immediate) const;

  // How many rails to the peer work (1 for shared memory). 0 until both have added each other.
  absl::StatusOr<int> LiveRails(PeerId peer) const;

 private:
  explicit TransferEngine(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {}
  std::shared_ptr<Engine> engine_;
};

}  // namespace cohort::comm::transfer
