#include "comm/codec/quantized_collectives.h"

#include "absl/strings/str_format.h"
#include "comm/group_communicator.h"

namespace cohort::comm {

Work QuantizedAllReduce(Communicator& group, const void* send, void* recv, size_t count, DataType dtype,
                        const QuantizedOptions& options) {
  return group.Quantized({Operation::kAllReduce, send, recv, count, {}, {}, dtype, options});
}

Work QuantizedReduceScatter(Communicator& group, const void* send, void* recv,
                            absl::Span<const size_t> counts, DataType dtype,
                            const QuantizedOptions& options) {
  return group.Quantized({Operation::kReduceScatter, send, recv, 0, counts, {}, dtype, options});
}

Work QuantizedAllGather(Communicator& group, const void* send, void* recv, absl::Span<const size_t> counts,
                        DataType dtype, const QuantizedOptions& options) {
  return group.Quantized({Operation::kAllGather, send, recv, 0, counts, {}, dtype, options});
}

Work QuantizedAllToAll(Communicator& group, const void* send, void* recv, size_t count, DataType dtype,
                       const QuantizedOptions& options) {
  const std::vector<size_t> counts(group.size(), count);
  return group.Quantized({Operation::kAllToAll, send, recv, 0, counts, counts, dtype, options});
}

Work QuantizedAllToAllV(Communicator& group, const void* send, absl::Span<const size_t> send_counts,
                        void* recv, absl::Span<const size_t> recv_counts, DataType dtype,
                        const QuantizedOptions& options) {
  return group.Quantized({Operation::kAllToAllV, send, recv, 0, send_counts, recv_counts, dtype, options});
}

absl::Status GroupCommunicator::AddCodec(const QuantizedCall& call, Run::Arguments* arguments) const {
  const QuantizedOptions& options = call.options;
  if (call.dtype != DataType::kF32 && call.dtype != DataType::kBF16) {
    return absl::InvalidArgumentError(absl::StrFormat("%s of %s with a codec: only f32 and bf16 are encoded",
                                                      Name(call.operation), Name(call.dtype)));
  }
  if (options.step >> 48 != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("step %d of a codec: below 2^48 is needed", options.step));
  }
  arguments->codec = &GetCodec(options.codec);
  if (options.rounding == Rounding::kShift && !arguments->codec->shifts()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s as %s with a shifted lattice: its wire has no room for the shift; round to nearest or at random",
        Name(call.operation), arguments->codec->name));
  }
  arguments->signature.codec = static_cast<uint8_t>(1 + static_cast<int>(options.codec));
  arguments->encoding = {options.rounding, options.seed, options.step, static_cast<uint32_t>(rank())};
  if (options.feedback == nullptr) return absl::OkStatus();
  std::vector<float>& residual = options.feedback->residual_;
  const size_t encoded = arguments->schedule->encoded_count;
  if (residual.empty()) residual.resize(encoded);
  if (residual.size() != encoded) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the error feedback of %s holds %d elements where this call encodes %d: each buffer "
                        "needs one of its own",
                        Name(call.operation), residual.size(), encoded));
  }
  arguments->residual = residual.data();
  return absl::OkStatus();
}

}  // namespace cohort::comm
