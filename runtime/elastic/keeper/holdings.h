// What a keeper holds, and what it answers: apart from sockets, so that it can be tested without.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "runtime/elastic/keeper/keeper.h"

namespace cohort::runtime::elastic {

class Holdings {
 public:
  // `free_memory`: bytes that the host has left. Ids count from `first_id`.
  Holdings(std::function<int64_t()> free_memory, uint64_t first_id);
  ~Holdings();
  Holdings(const Holdings&) = delete;
  Holdings& operator=(const Holdings&) = delete;

  struct Answer {
    std::string message;
    int fd = -1;           // to be sent with it, and closed then
    bool hang_up = false;  // the client sends what nobody who was built with this keeper sends
    bool end = false;      // the keeper is to go
  };
  // Of one message of `client`, whose process is `pid`; `fd` came with it and is taken over.
  Answer Handle(int client, int pid, absl::string_view message, int fd);
  // Its segments stay.
  void Gone(int client);

  size_t size() const { return segments_.size(); }

 private:
  struct Segment {
    int fd;
    int client;  // -1: gone
    SegmentEntry entry;
  };
  // Whether the host would hold another so many bytes.
  absl::Status Room(const SegmentOwner& owner, uint64_t bytes) const;
  absl::StatusOr<uint64_t> Register(int client, int pid, SegmentEntry entry, int fd);
  absl::StatusOr<int> Open(uint64_t id) const;

  std::function<int64_t()> free_memory_;
  uint64_t next_id_;
  std::map<uint64_t, Segment> segments_;
};

}  // namespace cohort::runtime::elastic
