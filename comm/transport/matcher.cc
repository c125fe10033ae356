#include "comm/transport/matcher.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cohort::comm {

void SendRequest::Fetch(size_t offset, size_t part_bytes, std::byte* to) const {
  if (part_bytes == 0) return;
  if (layout != nullptr) {
    layout->PackPart(data, offset, part_bytes, to);
  } else {
    std::memcpy(to, data + offset, part_bytes);
  }
}

void RecvRequest::Deliver(const std::byte* part, size_t offset, size_t part_bytes) const {
  if (part_bytes == 0) return;
  if (reduce != nullptr && reinterpret_cast<uintptr_t>(part) % element_bytes != 0) {
    // A network's buffers are where its headers end.
    alignas(16) std::byte aligned[8 << 10];
    for (size_t at = 0; at < part_bytes; at += sizeof(aligned)) {
      const size_t bytes = std::min(sizeof(aligned), part_bytes - at);
      std::memcpy(aligned, part + at, bytes);
      reduce(source + offset + at, aligned, destination + offset + at, bytes / element_bytes);
    }
  } else if (layout != nullptr) {
    layout->UnpackPart(part, offset, part_bytes, destination);
  } else if (reduce != nullptr) {
    reduce(source + offset, part, destination + offset, part_bytes / element_bytes);
  } else {
    std::memcpy(destination + offset, part, part_bytes);
  }
}

void Matcher::Join(RecvRequest& recv, Transport& from, const MessageHeader& header, bool announced,
                   const std::byte* body) {
  if (header.signature != recv.signature || header.bytes != recv.bytes) {
    if (header.slot != 0) from.Reply(recv.peer, header, Answer::kRefused);
    recv.owner->OnRequestDone(
        recv.token,
        absl::InvalidArgumentError(absl::StrFormat(
            "rank %d sent %s (%d bytes) where this rank expected %s (%d bytes): all ranks must call the same "
            "operations in the same order with matching sizes",
            recv.peer, Describe(header.signature), header.bytes, Describe(recv.signature), recv.bytes)));
    return;
  }
  if (announced) {
    from.Accept(recv, header);
    return;
  }
  from.Deliver(recv, header, body);
  if (header.slot != 0) from.Reply(recv.peer, header, Answer::kTaken);
  recv.owner->OnRequestDone(recv.token, absl::OkStatus());
}

void Matcher::Post(RecvRequest& recv) {
  Peer& peer = peers_[recv.peer];
  for (auto it = peer.kept.begin(); it != peer.kept.end(); ++it) {
    if (it->header.key != recv.key) continue;
    const Arrival arrival = std::move(*it);
    peer.kept.erase(it);
    --num_kept_;
    Join(recv, *arrival.transport, arrival.header, arrival.announced, arrival.body.data());
    return;
  }
  peer.posted.push_back(&recv);
}

void Matcher::Cancel(RecvRequest& recv) { std::erase(peers_[recv.peer].posted, &recv); }

bool Matcher::Offer(Transport& from, int peer, const MessageHeader& header, bool announced,
                    const std::byte* body) {
  std::vector<RecvRequest*>& posted = peers_[peer].posted;
  for (auto it = posted.begin(); it != posted.end(); ++it) {
    RecvRequest* recv = *it;
    if (recv->key != header.key) continue;
    posted.erase(it);
    Join(*recv, from, header, announced, body);
    return true;
  }
  return false;
}

void Matcher::Keep(Transport& from, int peer, const MessageHeader& header, bool announced,
                   const std::byte* body) {
  Arrival arrival{&from, peer, header, announced, {}};
  if (!announced && header.bytes > 0) arrival.body.assign(body, body + header.bytes);
  peers_[peer].kept.push_back(std::move(arrival));
  ++num_kept_;
}

bool Matcher::Has(int peer, const MessageKey& key) const {
  const std::list<Arrival>& kept = peers_[peer].kept;
  return std::any_of(kept.begin(), kept.end(), [&](const Arrival& a) { return a.header.key == key; });
}

void Matcher::DropIf(const std::function<bool(const Arrival&)>& visit) {
  if (num_kept_ == 0) return;
  for (Peer& peer : peers_) {
    for (auto it = peer.kept.begin(); it != peer.kept.end();) {
      if (!visit(*it)) {
        ++it;
        continue;
      }
      if (it->header.slot != 0) it->transport->Reply(it->peer, it->header, Answer::kRefused);
      it = peer.kept.erase(it);
      --num_kept_;
    }
  }
}

}  // namespace cohort::comm
