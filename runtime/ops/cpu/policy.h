// The thresholds of the CPU operations, in one place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::runtime::cpu_policy {

// Elements that are worth a thread of their own: waking one costs some microseconds, in which a core moves
// about this many elements.
inline constexpr int64_t kElementGrain = 16384;
// Elementwise ranges begin at multiples of this many elements, so no two threads write one cache line.
inline constexpr int64_t kElementAlign = 64;
// Sums over many elements or rows are made of partial sums of this many, added in order: the result does not
// depend on the number of threads.
inline constexpr int64_t kSumChunk = 65536;
inline constexpr int64_t kSumRows = 128;
// Compiled matrix products kept, least recently used first to go.
inline constexpr size_t kMatMulPrimitives = 512;
// The longer side of a product's tiles where they must not depend on the number of threads. Of 256 they cost
// 8% of a product's speed, of this 4% (f32, one thread, measured).
inline constexpr int64_t kFixedTile = 512;
// Products with at most this many rows stream the weights once
// (skinny_matmul.h); beyond, oneDNN's blocking wins.
inline constexpr int64_t kSkinnyRows = 32;
// Sampling sorts candidates into bins by their distance from the likeliest token, in nats after temperature: bins of
// 1/16 nat down to e^-64, below which nothing can matter in double precision.
inline constexpr int kSamplerBinsPerNat = 16;
inline constexpr int kSamplerBins = 64 * kSamplerBinsPerNat;

}  // namespace cohort::runtime::cpu_policy
