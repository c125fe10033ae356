// What travels between two UCX transports: one kind of active message.
#pragma once

#include <cstdint>

#include "comm/transport/message.h"

namespace cohort::comm::ucx {

enum class FrameType : uint8_t {
  kHello,         // first in each direction: the sender takes frames; where `slot` is 0, it asks for one
  kMessage,       // a message with its body
  kAnnouncement,  // of a large message in `slot`: its first bytes come along
  kClear,         // of the message in `slot`: it has its receive, send the rest
  kPiece,         // part of the body of the message in the sender's `slot`, at `offset`
  kTaken,         // answers to `slot`
  kRefused,
  kAbort,  // the body says why
  kPing,   // asks for a pong
  kPong,   // the body: the sender's board, then `slot` ranks, for whom it waited `offset` nanoseconds ago
  kLeave,  // the last message; `offset`: how many frames came before it
  kBye,    // answers a leave: all of them are here
  kHave,   // says `below` only
};

inline constexpr int64_t kUnheardNanos = 16'000'000;
inline constexpr uint8_t kUnheardMost = 255;

// The header of the active message; what belongs to the type comes as its data.
struct Frame {
  FrameType type = FrameType::kHello;
  uint8_t code = 0;  // of an abort's status
  uint8_t rail = 0;  // of the peer, on which it travels
  // How long the sender has not heard of the receiver over this rail, in units of kUnheardNanos; at most kUnheardMost.
  uint8_t unheard = 0;
  int32_t from = -1;  // the sender's rank
  // Of the sender, as its address says: frames of a former rank are not for the next.
  uint64_t incarnation = 0;
  MessageKey key;
  uint32_t slot = 0;
  Signature signature;
  uint64_t bytes = 0;  // of the whole message
  uint64_t offset = 0;
  // Over several rails frames come out of order, and again where a rail has failed: their number, 0 where they belong
  // to their rail, and below which number the sender has all of the receiver's.
  uint64_t sequence = 0;
  uint64_t below = 0;
};
static_assert(sizeof(Frame) == 80);

// How far the sender is in a group, as pongs carry it.
struct BoardEntry {
  uint32_t context = 0;
  uint32_t begun = 0;  // one more than the last operation that it has begun
};

}  // namespace cohort::comm::ucx
