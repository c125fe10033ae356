// Constants of sequence parallelism that all ranks of a group must agree on.
#pragma once

#include <cstddef>

namespace cohort::parallel::policy {

// Tags of messages, from here on, in whatever communicator the group is.
inline constexpr int kRingTag = 1 << 16;
inline constexpr int kHeadsTag = 1 << 15;
inline constexpr int kSumsTag = 1 << 14;
// What hybrid batches take a rank to compute while a byte goes to another host, and to a rank of its own. A counted price
// of links, not a measured one: plans must not change between runs. 400 Gbit/s and 400 TFLOP/s are 8,000 (eight devices
// share the link: 64,000), 1 Gbit/s and 200 GFLOP/s are 1,600.
inline constexpr double kFlopsPerByte = 4000, kNearFlopsPerByte = 100;
// Tensors of one message begin at multiples of this many bytes.
inline constexpr size_t kParcelAlignment = 64;

}  // namespace cohort::parallel::policy
