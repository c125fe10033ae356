// A link: one way from this engine to one peer. Used under the engine's lock; never blocks.
#pragma once

#include <cstddef>
#include <string>

#include "absl/types/span.h"
#include "comm/transfer/wire.h"

namespace cohort::comm::transfer {

struct Piece {
  const void* data = nullptr;
  size_t bytes = 0;
};

// Where links deliver what arrives. The payload is valid during the call. Returns the bytes that the engine
// moved.
class LinkEvents {
 public:
  virtual ~LinkEvents() = default;
  virtual void OnFrame(const Frame& frame, absl::Span<const std::byte> payload) = 0;
};

class Link {
 public:
  virtual ~Link() = default;
  // Copies the frame and its payload, at most MaxPayload() bytes, and sends them; false where there is no
  // room now.
  virtual bool TrySend(const Frame& frame, absl::Span<const Piece> payload) = 0;
  // Why it no longer works; empty while it does.
  virtual const std::string& broken() const = 0;
  // Ends it: nothing more is sent or, after this, delivered.
  virtual void End(std::string why) = 0;
  virtual size_t MaxPayload() const = 0;
  // Whether the peer can read this process's memory, and from how many bytes on it should.
  virtual bool pulls() const { return false; }
};

}  // namespace cohort::comm::transfer
