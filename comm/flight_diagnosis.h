// What flight records of several ranks say together: who is late, who waits for whom, who called something else.
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "comm/flight_recorder.h"

namespace cohort::comm {

// Ranks are world ranks.
struct Diagnosis {
  // An operation that a rank is in, or that failed there, and what it waited for.
  struct Stuck {
    int rank = -1;
    FlightOperation operation;
    std::vector<int> awaits;      // with their part of the operation
    std::vector<int> not_called;  // members of the group whose records show that they have not called it
  };
  // Ranks that called the operation of this number in the group alike. The most common first.
  struct Call {
    std::string what;
    std::vector<int> ranks;
  };
  struct Disagreement {
    uint32_t context = 0, epoch = 0, sequence = 0;
    std::vector<Call> calls;
  };

  std::vector<int> recorded;  // ranks whose records were given
  std::vector<int> missing;   // members of their groups without a record
  std::vector<int> late;      // those the others wait for, who themselves wait for nobody
  std::vector<Stuck> stuck;   // one a rank: the first that it could not end, and has not got over
  std::vector<Disagreement> disagreements;
};

// Pure. One record for each rank at most: of two, the later counts.
Diagnosis Diagnose(absl::Span<const FlightRecord> records);

// For people, several lines.
std::string Describe(const Diagnosis& diagnosis);

}  // namespace cohort::comm
