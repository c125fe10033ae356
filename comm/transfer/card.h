// What an engine tells its peers of itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace cohort::comm::transfer {

// For engines and incarnations; never 0 or 1.
uint64_t RandomNumber();

struct Card {
  uint64_t engine = 0;  // a random number
  std::string name;
  std::string host;
  std::string local;  // the address in shared memory; empty: none
  struct Rail {
    std::string address;    // of a UCX worker
    std::string interface;  // ucx::Interface as text; empty: paired by its number
  };
  std::vector<Rail> rails;

  // One line of text, and back.
  std::string ToText() const;
  static absl::StatusOr<Card> FromText(const std::string& text);
};

}  // namespace cohort::comm::transfer
