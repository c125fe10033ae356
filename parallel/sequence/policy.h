// Constants of sequence parallelism that all ranks of a group must agree on.
#pragma once

#include <cstddef>

namespace cohort::parallel::policy {

// Tags of messages, from here on, in whatever communicator the group is.
inline constexpr int kRingTag = 1 << 16;
inline constexpr int kHeadsTag = 1 << 15;
// Tensors of one message begin at multiples of this many bytes.
inline constexpr size_t kParcelAlignment = 64;

}  // namespace cohort::parallel::policy
