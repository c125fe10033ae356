// What travels between two transfer engines, over rails and through rings alike.
#pragma once

#include <cstdint>

namespace cohort::comm::transfer {

enum class FrameType : uint8_t {
  kHello,    // the link works; `op`: the sender's engine
  kData,     // part of a write: a table of `segments` Extents, and the bytes behind it
  kPull,     // part of a write within one host: a table of PullExtents, to be read from the sender's memory
  kDone,     // write `op` is complete; 0: says `done_below` only
  kRefused,  // write `op` is refused; the payload says why
  kAbandon,  // the source has given write `op` up
  kPing,
  kPong,
  kBye,  // the sender has removed this peer, or has ended
};

// Flags of frames.
inline constexpr uint8_t kAnswerHello = 1;
inline constexpr uint8_t kHasImmediate = 2;
inline constexpr uint8_t kIsBarrier = 4;  // `immediate` is its tag
inline constexpr uint8_t kHasOp = 8;      // of a line: it ends the write `op`

struct Frame {
  FrameType type = FrameType::kHello;
  uint8_t flags = 0;
  uint8_t code = 0;  // of a refusal
  uint8_t link = 0;  // of the peer, on which it travels
  uint32_t immediate = 0;
  // Each AddPeer is an incarnation; those of one engine are numbered upwards from a random number. Frames between
  // other incarnations than the present ones are old, and are dropped.
  uint64_t from = 0;
  uint64_t to = 0;
  uint64_t op = 0;          // numbers the writes of an incarnation
  uint64_t settled = 0;     // all writes below are over at the sender: the receiver may forget them
  uint64_t done_below = 0;  // all of the receiver's writes below are complete, or it has given them up
  uint64_t bytes = 0;       // of the whole write
  uint64_t place = 0;       // of this frame's bytes in it; frames of one write never overlap
  uint64_t region = 0;
  uint32_t segments = 0;
  uint32_t slot = 0;  // of a pull, at the sender
  uint32_t generation = 0;
  uint32_t unused = 0;
  uint64_t reach = 0;  // the end of the whole write's last extent: it is refused before any of it is written
};
static_assert(sizeof(Frame) == 96);

// A range of the target's region.
struct Extent {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// And where the sender has it.
struct PullExtent {
  uint64_t address = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

}  // namespace cohort::comm::transfer
