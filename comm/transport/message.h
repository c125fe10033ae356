// Messages between two ranks, as transports and the executor see them.
#pragma once

#include <cstddef>
#include <cstdint>

#include <memory>

#include "absl/status/status.h"
#include "comm/datatype/datatype.h"
#include "comm/operation.h"
#include "comm/reduce.h"

namespace cohort::comm {

// What a message belongs to. Unique for an ordered pair of ranks while either end is in flight.
struct MessageKey {
  uint32_t context = 0;   // the group; the top bit is set for send/recv
  uint32_t sequence = 0;  // the operation in the group; for send/recv, the how-manieth of its tag and peer
  uint32_t step = 0;      // the tag
  friend bool operator==(const MessageKey&, const MessageKey&) = default;
};
inline constexpr uint32_t kPointToPointContext = 0x80000000u;
// Set for messages about the group, comm/membership/.
inline constexpr uint32_t kMembershipContext = 0x40000000u;

// Hears of the end of messages. Called under the engine's lock, possibly from inside
// the call that posted one.
class RequestOwner {
 public:
  virtual ~RequestOwner() = default;
  virtual void OnRequestDone(uint32_t token, const absl::Status& status) = 0;
};

// A message on its way out. The object stays where it is until it is done or cancelled.
struct SendRequest {
  int peer = -1;  // world rank
  MessageKey key;
  Signature signature;
  const std::byte* data = nullptr;
  size_t bytes = 0;
  // Where not null, the message is what this packs of the buffer at `data`; `in_place`: receivers that can read this
  // process's memory read its runs there.
  const Datatype* layout = nullptr;
  bool in_place = false;
  bool confirmed = false;  // done only when the receiver has matched it and agreed with its size
  RequestOwner* owner = nullptr;
  uint32_t token = 0;

  // The transport's notes.
  uint32_t slot = 0;
  bool announced = false;  // the receiver reads it here, or asks for it
  bool lends = false;      // its pages, when it is announced
  size_t pushed = 0;
  uint64_t push_target = 0;

  // Copies part of the message.
  void Fetch(size_t offset, size_t part_bytes, std::byte* to) const;
};

// A message awaited.
struct RecvRequest {
  int peer = -1;
  MessageKey key;
  Signature signature;
  size_t bytes = 0;
  std::byte* destination = nullptr;
  // Where not null: destination = source (op) message.
  const std::byte* source = nullptr;
  ReduceFunction reduce = nullptr;
  size_t element_bytes = 1;
  // Where not null: the message is unpacked into the buffer at `destination`; `in_place`: by whoever copies it,
  // where that is possible.
  const Datatype* layout = nullptr;
  bool in_place = false;
  RequestOwner* owner = nullptr;
  uint32_t token = 0;

  // The transport's note of a body in motion.
  bool moving = false;
  uint64_t transfer = 0;

  // Whether the message is to lie at `destination` as it comes.
  bool direct() const { return reduce == nullptr && layout == nullptr; }
  // Part of the message, whole elements, is here.
  void Deliver(const std::byte* part, size_t offset, size_t part_bytes) const;
};

// The first thing that comes of a message.
struct MessageHeader {
  MessageKey key;
  Signature signature;
  uint64_t bytes = 0;
  uint32_t slot = 0;                                 // where the sender waits for an answer; 0: it does not
  uint32_t generation = 0;                           // of the slot
  uint64_t address = 0;                              // of an announced body, in the sender
  uint64_t lent = 0, lent_at = 0;                    // its first bytes in a pipe, and where there
  std::shared_ptr<const Datatype> layout = nullptr;  // of an announced body that does not lie together there
};

// A receiver's word on a message that waits for one.
enum class Answer : uint8_t { kTaken, kRefused };

}  // namespace cohort::comm
