// The limits of reading and writing checkpoints, in one place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::runtime::checkpoint_policy {

// A longer safetensors header is taken for garbage (the format's own limit).
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;
// Where a safetensors file's data begins: a multiple of this, so that whole vectors
// are aligned in the mapping.
inline constexpr size_t kDataAlignment = 64;
// Elements converted at once when a tensor is written in another type.
inline constexpr int64_t kConvertElements = int64_t{1} << 20;
// Names listed in an error before "and N more".
inline constexpr size_t kListedNames = 5;
// Digits of a step in a folder's name: step-00000100.
inline constexpr int kStepDigits = 8;
// The size past which a weight file is followed by another one, where nobody says otherwise.
inline constexpr int64_t kShardBytes = int64_t{2048} << 20;

}  // namespace cohort::runtime::checkpoint_policy
