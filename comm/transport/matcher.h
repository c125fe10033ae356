// Brings together messages that have come and receives that wait for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <vector>

#include "comm/transport/message.h"
#include "comm/transport/transport.h"

namespace cohort::comm {

// A message that came before its receive.
struct Arrival {
  Transport* transport = nullptr;
  int peer = -1;
  MessageHeader header;
  bool announced = false;       // the body is still at the sender
  std::vector<std::byte> body;  // where not announced
};

// Not thread-safe. One per engine; keys are exact, so order of posting does not matter.
class Matcher {
 public:
  explicit Matcher(int num_peers) : peers_(num_peers) {}
  // Makes room for more peers.
  void Grow(int num_peers) { peers_.resize(num_peers); }

  // Posts a receive; takes effect at once where its message is here.
  void Post(RecvRequest& recv);
  void Cancel(RecvRequest& recv);

  // A message came. Returns whether a receive took it; else the caller decides whether to Keep it.
  bool Offer(Transport& from, int peer, const MessageHeader& header, bool announced, const std::byte* body);
  void Keep(Transport& from, int peer, const MessageHeader& header, bool announced, const std::byte* body);

  // Whether a message for `key` from `peer` is kept.
  bool Has(int peer, const MessageKey& key) const;
  // Calls `visit` on each kept arrival; it is dropped (and its sender refused) where `visit` returns true.
  void DropIf(const std::function<bool(const Arrival&)>& visit);
  bool empty() const { return num_kept_ == 0; }

 private:
  struct Peer {
    std::vector<RecvRequest*> posted;
    std::list<Arrival> kept;
  };
  // Joins the two, or fails the receive where they disagree.
  static void Join(RecvRequest& recv, Transport& from, const MessageHeader& header, bool announced,
                   const std::byte* body);

  std::vector<Peer> peers_;
  size_t num_kept_ = 0;
};

}  // namespace cohort::comm
