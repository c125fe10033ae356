// Which blocks of which hosts are encoded together, and who keeps the parity: a plan, made by a pure function.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime::elastic {

// What is to be protected. All ranks say the same and get the same plan.
struct StripeRequest {
  int data = 4;    // k: blocks of a stripe that hold data
  int parity = 2;  // m: blocks of a stripe that hold parity; so many hosts can be lost
  // Of blocks; 0: what gives the host of most bytes as many blocks as policy.h says.
  uint64_t block_bytes = 0;
  struct Member {
    int rank = 0;        // unique over all hosts
    uint64_t bytes = 0;  // of its image
  };
  struct Host {
    std::string name;
    std::vector<Member> members;
  };
  std::vector<Host> hosts;
};
// As text, for the layout of parity images, and back. DATA_LOSS where it is none.
std::string ToText(const StripeRequest& request);
absl::StatusOr<StripeRequest> ParseStripeRequest(absl::string_view text);

// The images of a host, one after the other in the order of its members, are its stream, cut into blocks. A stripe is at
// most k blocks of different hosts, and m parity blocks on m other hosts. A block that ends early, or is not there, is
// continued by zeros that nobody stores or sends.
struct Stripe {
  struct Block {
    int host = 0;         // index into the request's hosts
    uint64_t offset = 0;  // in the host's stream
    uint64_t bytes = 0;
  };
  std::vector<Block> data;  // block i is symbol i of the code
  // Ranks that keep parity; parity[j] is symbol k + j. parity[0] gets the data, encodes, and sends the others theirs.
  std::vector<int> parity;
  // Of the longest block: what each parity block takes.
  uint64_t bytes = 0;
};

struct StripePlan {
  StripeRequest request;
  uint64_t block_bytes = 0;
  std::vector<Stripe> stripes;

  // By rank (as the request numbers them; ranks that it does not have are empty): the parity blocks kept there, in the
  // order of stripes, one after the other.
  struct Kept {
    int stripe = 0;
    int index = 0;        // of Stripe::parity
    uint64_t offset = 0;  // in what the rank keeps
  };
  std::vector<std::vector<Kept>> kept;
  uint64_t KeptBytes(int rank) const;
  // By rank: its host's index, or -1, and where its image begins in the host's stream.
  std::vector<int> host_of;
  std::vector<uint64_t> stream_offset;
  int ranks() const { return static_cast<int>(host_of.size()); }
};

// Every host's blocks in as few stripes as possible, parity as evenly over the hosts as the rule "on no host of the
// stripe" allows (among equal hosts to within one block), and over the ranks of a host. INVALID_ARGUMENT where there are
// fewer than k + m hosts, or the request contradicts itself.
absl::StatusOr<StripePlan> PlanStripes(const StripeRequest& request);

// Judges a plan by itself: every byte in exactly one stripe, at most k of them on distinct hosts, parity on m further
// hosts, everything in bounds.
absl::Status CheckStripes(const StripePlan& plan);

// Parts of a range of a host's stream, by the ranks that hold them.
struct RankRange {
  int rank = 0;
  uint64_t offset = 0;  // in its image
  uint64_t bytes = 0;
  uint64_t range_offset = 0;  // from the beginning of the range
};
std::vector<RankRange> RanksOf(const StripePlan& plan, int host, uint64_t offset, uint64_t bytes);

}  // namespace cohort::runtime::elastic
