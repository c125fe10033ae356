// The schedule: what one rank does in one collective operation, as data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace cohort::comm {

// The wire buffer holds elements as a codec encodes them (codec/): copying to it encodes, copying or reducing from
// it decodes, and sends and receives move the encoded bytes. The sums buffer holds f32 whatever the call's data type.
// Only schedules of calls with a codec have them.
enum class Buffer : uint8_t { kInput, kOutput, kScratch, kWire, kSums };
inline constexpr int kNumBuffers = 5;

// `count` elements of a buffer from `offset` on. All sizes in a schedule are elements.
struct Slice {
  Buffer buffer = Buffer::kOutput;
  size_t offset = 0;
  size_t count = 0;

  Slice Part(size_t from, size_t length) const { return {buffer, offset + from, length}; }
  friend bool operator==(const Slice&, const Slice&) = default;
};

enum class StepKind : uint8_t {
  kSend,        // source goes to peer; over when source may be overwritten
  kRecv,        // destination = what peer sent
  kRecvReduce,  // destination = source (op) what peer sent; source may be destination
  kCopy,        // destination = source
  kReduce,      // destination = destination (op) source
};

using StepId = int32_t;
inline constexpr StepId kNoStep = -1;

struct Step {
  StepKind kind = StepKind::kCopy;
  int32_t peer = -1;  // rank in the group
  uint32_t tag = 0;   // a send matches the receive of equal tag at the peer; unique for a pair and direction
  Slice source;
  Slice destination;
  uint32_t first_after = 0;  // range in Schedule::after: steps that must be over before this one starts
  uint32_t num_after = 0;
};

// A directed acyclic graph of steps, in an order in which each follows what it depends on. Steps without a
// path between them may run in any order or at once. A send may last until the peer has posted the receive.
struct Schedule {
  std::vector<Step> steps;
  std::vector<StepId> after;
  // The same edges the other way: steps to look at when step i is over are
  // before[first_before[i] .. first_before[i + 1]).
  std::vector<uint32_t> first_before;
  std::vector<StepId> before;
  size_t input_count = 0;  // elements; 0 in place
  size_t output_count = 0;
  size_t scratch_count = 0;
  size_t wire_count = 0;
  size_t sums_count = 0;
  size_t encoded_count = 0;  // of the wire buffer, from its begin on: where this rank encodes
  size_t local_count = 0;    // elements that copies and reductions touch

  absl::Span<const StepId> After(StepId step) const {
    return absl::MakeConstSpan(after).subspan(steps[step].first_after, steps[step].num_after);
  }
  absl::Span<const StepId> Before(StepId step) const {
    return absl::MakeConstSpan(before).subspan(first_before[step],
                                               first_before[step + 1] - first_before[step]);
  }
};

// Adds steps one by one. Steps on empty slices are left out (their id is kNoStep, which is ignored as a
// dependency), but for Signal and Await, messages without content.
class ScheduleBuilder {
 public:
  ScheduleBuilder(size_t input_count, size_t output_count);

  // Room in the scratch buffer.
  Slice Scratch(size_t count);
  // Room in the wire buffer, from the begin of a block of the codecs.
  Slice Wire(size_t count);
  Slice Sums(size_t count);

  StepId Send(int peer, uint32_t tag, Slice source, absl::Span<const StepId> after = {});
  StepId Recv(int peer, uint32_t tag, Slice destination, absl::Span<const StepId> after = {});
  StepId RecvReduce(int peer, uint32_t tag, Slice source, Slice destination,
                    absl::Span<const StepId> after = {});
  StepId Copy(Slice source, Slice destination, absl::Span<const StepId> after = {});
  StepId Reduce(Slice source, Slice destination, absl::Span<const StepId> after = {});
  StepId Signal(int peer, uint32_t tag, absl::Span<const StepId> after = {});
  StepId Await(int peer, uint32_t tag, absl::Span<const StepId> after = {});

  Schedule Build() &&;

 private:
  StepId Add(StepKind kind, int peer, uint32_t tag, Slice source, Slice destination,
             absl::Span<const StepId> after);

  Schedule schedule_;
};

// Whether the schedule is one that rank `rank` of `size` can run: slices inside their buffers,
// peers inside the group, dependencies on earlier steps only, tags unique. (That it computes the
// right thing is the simulator's.)
absl::Status Validate(const Schedule& schedule, int rank, int size);

}  // namespace cohort::comm
