// How all ranks come to choose alike: what each was told is compared when they meet, and what is measured is spread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "comm/rendezvous.h"
#include "comm/tuner/tuner.h"

namespace cohort::comm {

struct CommunicatorOptions;

// What this rank was told: by the environment, or else by the options.
struct TuningInputs {
  Tuning tuning;
  // What the prices are from.
  enum class Source : uint64_t { kAutomatic, kDefault, kMeasured, kFile };
  Source source = Source::kAutomatic;
  // Where ranks are, as a file says; null: as found.
  std::shared_ptr<const HostMap> declared;
  // What the prices were read from, byte for byte the same on all ranks; empty: they are the default ones.
  std::string prices_text;

  // One number for each of kInputNames: equal where the inputs are.
  static constexpr int kNumInputs = 3;
  using Digests = std::array<uint64_t, kNumInputs>;
  Digests digests() const;
};

// Reads the variables and files named in the README. Errors say where, and what is known there.
absl::StatusOr<TuningInputs> ReadTuningInputs(const CommunicatorOptions& options);

// OK where all are equal; else names the ranks that differ from most, and in what.
absl::Status CompareDigests(absl::Span<const TuningInputs::Digests> digests);

// Every rank says what it has, and hears of all others. The same error on all ranks where they differ, or where one of
// them could not read its own.
absl::Status CompareAtRendezvous(Rendezvous& rendezvous, const absl::StatusOr<TuningInputs>& own,
                                 absl::Time deadline);

// What one pair of ranks has measured.
struct MeasuredLink {
  Distance distance = Distance::kRack;
  double latency = 0, seconds_per_byte = 0, gap = 0;
};
// As a topology file without hosts: all get the median of what `measurers` have measured. `own`: what this rank has.
absl::StatusOr<std::string> SpreadPrices(Rendezvous& rendezvous, const Prices& before,
                                         absl::Span<const int> measurers,
                                         const std::vector<MeasuredLink>& own, absl::Time deadline);

// What a member of a group tells a newcomer, and what this makes of its own inputs: the same with the members' prices.
std::string EncodeForNewcomer(const TuningInputs& inputs);
absl::StatusOr<TuningInputs> AdoptAsNewcomer(TuningInputs own, absl::string_view members);

}  // namespace cohort::comm
