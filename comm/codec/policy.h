// Blocks of codecs. Equal on all ranks: part of the wire formats.
#pragma once

#include <cstddef>

namespace cohort::comm::policy {

// Elements that share a scale. With its four bytes an int8 block takes 0.254 of the f32 bytes.
inline constexpr size_t kCodecBlock = 256;
// The same of codecs by the smallest and the largest value (the bucket of QSDP, Markov et al., 2023).
// Multiples of the other: parts that are encoded apart begin at multiples of it whatever the codec.
inline constexpr size_t kCodecBucket = 1024;
static_assert(kCodecBucket % kCodecBlock == 0);

}  // namespace cohort::comm::policy
