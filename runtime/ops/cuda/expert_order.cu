// The order of choices by expert: a stable counting sort, and the capacity of experts. A warp walks over its choices 32
// at a time; lanes that chose the same expert find each other (match.any) and take neighbouring places in order of the
// lanes, so nothing depends on which thread comes first.
#include "runtime/ops/cuda/for_groups.h"
#include "runtime/ops/cuda/moe.h"
#include "runtime/ops/cuda/ptx.h"
#include "runtime/ops/cuda/reduce.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

// Gives this lane's choice its number among those of its expert, counted on in taken[experts] (shared memory of this
// warp), and adds the warp's choices to it. expert < 0: none.
__device__ __forceinline__ int32_t TakeNumber(int32_t expert, int32_t* taken) {
  const unsigned lane = threadIdx.x % kWarp;
  const unsigned same = __match_any_sync(kAllLanes, expert);
  const int rank = __popc(same & ((1u << lane) - 1u));
  const int32_t number = expert >= 0 ? taken[expert] + rank : -1;
  __syncwarp();
  if (expert >= 0 && rank == 0) taken[expert] += __popc(same);
  __syncwarp();
  return number;
}

// counts[chunk, e] of a chunk of choices. Integers: the order of additions does not show.
__global__ void __launch_bounds__(kWarp)
    CountKernel(const int32_t* indices, int32_t* counts, int64_t choices, int64_t chunk, int64_t experts) {
  int32_t* taken = reinterpret_cast<int32_t*>(SharedMemory());
  for (int64_t e = threadIdx.x; e < experts; e += kWarp) taken[e] = 0;
  __syncwarp();
  const int64_t begin = blockIdx.x * chunk, end = Least(choices, begin + chunk);
  for (int64_t i = begin + threadIdx.x; i < end; i += kWarp) {
    CheckOnDevice(indices[i] >= -1 && indices[i] < experts);
    if (indices[i] >= 0) atomicAdd(&taken[indices[i]], 1);
  }
  __syncwarp();
  for (int64_t e = threadIdx.x; e < experts; e += kWarp) counts[blockIdx.x * experts + e] = taken[e];
}

constexpr int kScanThreads = 256;
constexpr int kChunksAtOnce = 16;

// counts[chunk, e] := the place of the chunk's first choice of e; offsets. One block; experts in turns of 256.
__global__ void __launch_bounds__(kScanThreads)
    PlacesKernel(int32_t* counts, int32_t* offsets, int64_t chunks, int64_t experts) {
  __shared__ int32_t warp_sums[kScanThreads / kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int32_t before = 0;  // choices of experts of earlier turns
  for (int64_t first = 0; first < experts; first += kScanThreads) {
    const int64_t e = first + threadIdx.x;
    int32_t total = 0;
    if (e < experts) {
#pragma unroll 8
      for (int64_t c = 0; c < chunks; ++c) total += counts[c * experts + e];
    }
    int32_t scan = total;  // inclusive, within the warp
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const int32_t below = __shfl_up_sync(kAllLanes, scan, step);
      if (lane >= step) scan += below;
    }
    if (lane == kWarp - 1) warp_sums[warp] = scan;
    __syncthreads();
    int32_t place = before + scan - total;
    for (int w = 0; w < kScanThreads / kWarp; ++w) {
      if (w < warp) place += warp_sums[w];
      before += warp_sums[w];
    }
    __syncthreads();
    if (e < experts) {
      offsets[e] = place;
      // Many are read before one is written, which a read could not be moved over: one thread has all chunks of an
      // expert, and would wait for each.
      for (int64_t first_chunk = 0; first_chunk < chunks; first_chunk += kChunksAtOnce) {
        int32_t here[kChunksAtOnce];
#pragma unroll
        for (int c = 0; c < kChunksAtOnce; ++c) {
          here[c] = first_chunk + c < chunks ? counts[(first_chunk + c) * experts + e] : 0;
        }
#pragma unroll
        for (int c = 0; c < kChunksAtOnce; ++c) {
          if (first_chunk + c < chunks) counts[(first_chunk + c) * experts + e] = place;
          place += here[c];
        }
      }
    }
  }
  if (threadIdx.x == 0) offsets[experts] = before;
}

__global__ void __launch_bounds__(kWarp)
    PlaceKernel(const int32_t* indices, const int32_t* counts, int32_t* order, int32_t* places,
                int64_t choices, int64_t chunk, int64_t experts) {
  int32_t* taken = reinterpret_cast<int32_t*>(SharedMemory());
  for (int64_t e = threadIdx.x; e < experts; e += kWarp) taken[e] = counts[blockIdx.x * experts + e];
  __syncwarp();
  const int64_t begin = blockIdx.x * chunk, end = Least(choices, begin + chunk);
  for (int64_t first = begin; first < end; first += kWarp) {
    const int64_t i = first + threadIdx.x;
    const int32_t place = TakeNumber(i < end ? indices[i] : -1, taken);
    if (i >= end) continue;
    places[i] = place;
    if (place >= 0) order[place] = static_cast<int32_t>(i);
  }
}

// order[p] = -1 for places past the last choice.
struct TailBody {
  int32_t* order;
  const int32_t* used;
  __device__ void operator()(int64_t p) const {
    if (p >= *used) order[p] = -1;
  }
};

// One warp a sequence: an expert takes its first ceil(factor length k / experts) choices (capacity.h, where the margin
// is explained).
__global__ void __launch_bounds__(kWarp)
    DropKernel(const int32_t* indices, const int32_t* offsets, int32_t* kept, int64_t k, int64_t experts,
               double factor) {
  int32_t* taken = reinterpret_cast<int32_t*>(SharedMemory());
  const int64_t length = offsets[blockIdx.x + 1] - offsets[blockIdx.x];
  const double exact = factor * static_cast<double>(length * k) / static_cast<double>(experts);
  const int64_t capacity = static_cast<int64_t>(ceil(exact - 1e-9));
  for (int64_t e = threadIdx.x; e < experts; e += kWarp) taken[e] = 0;
  __syncwarp();
  const int64_t begin = offsets[blockIdx.x] * k, end = begin + length * k;
  for (int64_t first = begin; first < end; first += kWarp) {
    const int64_t i = first + threadIdx.x;
    const int32_t expert = i < end ? indices[i] : -1;
    CheckOnDevice(expert < experts);
    const int32_t number = TakeNumber(expert < 0 ? -1 : expert, taken);
    if (i < end) kept[i] = expert >= 0 && number < capacity ? expert : -1;
  }
}

}  // namespace

void SortChoices(const Queue& queue, const int32_t* indices, int32_t* counts, int32_t* offsets,
                 int32_t* order, int32_t* places, int64_t choices, int64_t experts) {
  const int64_t chunk = SortChunk(choices), chunks = SortChunks(choices);
  const size_t shared = static_cast<size_t>(experts) * sizeof(int32_t);
  const unsigned blocks = static_cast<unsigned>(chunks);
  Launch(queue, CountKernel, blocks, kWarp, shared, indices, counts, choices, chunk, experts);
  Launch(queue, PlacesKernel, 1, kScanThreads, 0, counts, offsets, chunks, experts);
  Launch(queue, PlaceKernel, blocks, kWarp, shared, indices, counts, order, places, choices, chunk, experts);
  LaunchEach(queue, TailBody{order, offsets + experts}, choices);
}

void DropChoices(const Queue& queue, const int32_t* indices, const int32_t* offsets, int32_t* kept,
                 int64_t sequences, int64_t k, int64_t experts, double factor) {
  Launch(queue, DropKernel, static_cast<unsigned>(sequences), kWarp,
         static_cast<size_t>(experts) * sizeof(int32_t), indices, offsets, kept, k, experts, factor);
}

}  // namespace cohort::runtime::COHORT_CUDA
