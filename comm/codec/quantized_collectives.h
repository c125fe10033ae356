// Collectives whose bytes cross the wire in a codec's form. Sums are made in f32, and all ranks get the same bits.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "comm/codec/codec.h"
#include "comm/communicator.h"
#include "comm/operation.h"

namespace cohort::comm {

// What a rank's encoding has lost so far, for calls that repeat on one buffer (the gradients of each step): it is added
// to what is encoded next, so that over many calls nothing is lost ("error feedback"; Seide et al., "1-bit
// stochastic gradient descent", Interspeech 2014). It belongs to one buffer, operation and group, and to one call at a
// time; a call of another size is an error. Empty until the first call.
class ErrorFeedback {
 public:
  const std::vector<float>& residual() const { return residual_; }
  void Reset() { residual_.clear(); }

 private:
  friend class GroupCommunicator;
  std::vector<float> residual_;
};

struct QuantizedOptions {
  CodecKind codec = CodecKind::kInt8;
  Rounding rounding = Rounding::kNearest;
  // For rounding at random. `step` should differ from call to call.
  uint64_t seed = 0;
  uint64_t step = 0;
  ErrorFeedback* feedback = nullptr;
};

// Like the operations of the same names of Communicator, of f32 or bf16 and sums only. Inside a host elements travel as
// they are where the group has several hosts; across hosts, or in a group on one host, encoded. The own
// part of an all-to-all and what it brings from the own host are exact; everything else is what was encoded, also where
// a rank could know better, as otherwise ranks would differ.
Work QuantizedAllReduce(Communicator& group, const void* send, void* recv, size_t count, DataType dtype,
                        const QuantizedOptions& options);
Work QuantizedReduceScatter(Communicator& group, const void* send, void* recv,
                            absl::Span<const size_t> counts, DataType dtype, const QuantizedOptions& options);
Work QuantizedAllGather(Communicator& group, const void* send, void* recv, absl::Span<const size_t> counts,
                        DataType dtype, const QuantizedOptions& options);
Work QuantizedAllToAll(Communicator& group, const void* send, void* recv, size_t count, DataType dtype,
                       const QuantizedOptions& options);
Work QuantizedAllToAllV(Communicator& group, const void* send, absl::Span<const size_t> send_counts,
                        void* recv, absl::Span<const size_t> recv_counts, DataType dtype,
                        const QuantizedOptions& options);

// What these hand to Communicator::Quantized. Counts as in Collective.
struct QuantizedCall {
  Operation operation;
  const void* send;
  void* recv;
  size_t count;
  absl::Span<const size_t> counts;
  absl::Span<const size_t> recv_counts;
  DataType dtype;
  QuantizedOptions options;
};

}  // namespace cohort::comm
