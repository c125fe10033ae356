// What travels between two UCX transports: one kind of active message.
#pragma once

#include <cstdint>

#include "comm/transport/message.h"

namespace cohort::comm::ucx {

enum class FrameType : uint8_t {
  kHello,    // the first frame in each direction: the sender takes frames; `slot`: 1 where it has heard one
  kMessage,  // a message with its body
  kAnnouncement,  // of a large message in `slot`: its first bytes come along
  kClear,         // send the rest of the body of `slot` to `transfer`
  kPiece,         // part of a body, for `transfer`, at `offset`
  kTaken,         // answers to `slot`
  kRefused,
  kAbort,  // the body says why
  kPing,   // asks for a pong
  kPong,  // the body is the sender's board, and the `slot` ranks that keep it, as it was `offset` nanoseconds ago
  kLeave,  // the last message; `offset`: how many frames came before it
  kBye,    // answers a leave: all of them are here
};

// The header of the active message; what belongs to the type comes as its data.
struct Frame {
  FrameType type = FrameType::kHello;
  uint8_t code = 0;         // of an abort's status
  uint16_t unheard_ms = 0;  // how long the sender has not heard of the receiver
  int32_t from = -1;        // the sender's rank
  // Of the sender, as its address says: frames of a former rank are not for the next.
  uint64_t incarnation = 0;
  MessageKey key;
  uint32_t slot = 0;
  Signature signature;
  uint64_t bytes = 0;     // of the whole message
  uint64_t transfer = 0;  // the receiver's number of a body in motion
  uint64_t offset = 0;
};
static_assert(sizeof(Frame) == 72);

// How far the sender is in a group, as pongs carry it.
struct BoardEntry {
  uint32_t context = 0;
  uint32_t begun = 0;  // one more than the last operation that it has begun
};

}  // namespace cohort::comm::ucx
