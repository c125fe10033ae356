// The limits of models, in one place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::runtime::model_policy {

// What config.json may ask for. Above these a number is a mistake rather than a model.
inline constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
inline constexpr int64_t kMaxWidth = int64_t{1} << 20;
inline constexpr int64_t kMaxBlocks = 4096;
inline constexpr int64_t kMaxExperts = 65536;
inline constexpr int64_t kMaxPositions = int64_t{1} << 24;

// The head computes logits for so many tokens at a time that they take about this many bytes. Every chunk
// reads and writes the whole f32 gradient of the head once, so small chunks cost memory traffic: at a width
// of 1024 the products of a chunk of 1024 tokens take about three times as long as moving that gradient.
inline constexpr size_t kLogitBytes = size_t{256} << 20;
// A chunk has at least this many tokens, and a multiple of them.
inline constexpr int64_t kLogitRows = 64;

}  // namespace cohort::runtime::model_policy
