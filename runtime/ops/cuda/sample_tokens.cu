// The next token of each row of logits, a block a row. top_k and top_p keep a beginning of the order of tokens; its end is
// found by halving an interval of that order, each time with a pass over the row, which lies in the second-level cache:
// about twenty passes a filter, no sorting, and sums in a fixed order without atomics. The numbers are those of
// runtime/ops/cpu/row_sampler.cc but for the order of sums in f64 and the last bit of rare weights.
#include "runtime/ops/cuda/reduce.h"
#include "runtime/ops/cuda/sampling.h"
#include "runtime/ops/cuda/softmax_stats.h"
#include "runtime/ops/sampling.h"
#include "runtime/random/philox.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kWarps = kRowThreads / kWarp;

// A place in the order of tokens as a number, the first token's the largest: the logit's bits made to rise with it, then
// the index, the lower the larger. No two tokens have the same.
__device__ __forceinline__ uint64_t PlaceOf(float x, uint32_t index) {
  const uint32_t bits = x == 0 ? 0u : FloatToBits(x);  // both zeros are equal
  const uint32_t rising = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(rising) << 32 | (0xffffffffu - index);
}
__device__ __forceinline__ int32_t TokenAt(uint64_t place) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(place));
}

__device__ __forceinline__ uint64_t WarpLargest(uint64_t x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x = Most(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

struct Kept {
  int count;
  double mass;  // sum of weights
};

// One row, as every thread of its block sees it; all methods are for the whole block.
template <typename T>
struct SampledRow {
  const T* logits;
  float* weights;
  int64_t v;
  double* room;  // 32 elements each
  int* count_room;
  uint64_t* place_room;

  __device__ __forceinline__ uint64_t Place(int64_t i) const {
    return PlaceOf(ToFloat(logits[i]), static_cast<uint32_t>(i));
  }

  // The place of the first token, or 0 where a logit is a NaN or +inf.
  __device__ uint64_t First() const {
    uint64_t best = 1;
    int broken = 0;
    for (int64_t i = threadIdx.x; i < v; i += kRowThreads) {
      broken |= !(ToFloat(logits[i]) < __builtin_inff());
      best = Most(best, Place(i));
    }
    broken = BlockSum(broken, count_room);
    best = WarpLargest(best);
    if (threadIdx.x % kWarp == 0) place_room[threadIdx.x / kWarp] = best;
    __syncthreads();
    best = WarpLargest(place_room[threadIdx.x % kWarps]);
    return broken != 0 ? 0 : best;
  }

  // exp in f64, as exponentials of one precision differ between libraries.
  __device__ void Weigh(float largest, float temperature) const {
    const float inverse = 1.0f / temperature;
    for (int64_t i = threadIdx.x; i < v; i += kRowThreads) {
      weights[i] = static_cast<float>(exp(static_cast<double>((ToFloat(logits[i]) - largest) * inverse)));
    }
    __syncthreads();
  }

  // Of the tokens at `cut` and before.
  __device__ Kept KeptBy(uint64_t cut) const {
    Kept mine = {0, 0};
    for (int64_t i = threadIdx.x; i < v; i += kRowThreads) {
      if (Place(i) < cut) continue;
      ++mine.count;
      mine.mass += weights[i];
    }
    return {BlockSum(mine.count, count_room), BlockSum(mine.mass, room)};
  }

  // The fewest tokens that are enough, of those that `cut` keeps, which is moved there and `kept` with it.
  template <typename Enough>
  __device__ void Narrow(uint64_t first, uint64_t& cut, Kept& kept, const Enough& enough) const {
    uint64_t beyond = first + 1;  // keeps none
    int count_beyond = 0;
    while (kept.count - count_beyond > 1) {
      const uint64_t middle = cut + (beyond - cut) / 2;
      const Kept there = KeptBy(middle);
      if (there.count > 0 && enough(there)) {
        cut = middle;
        kept = there;
      } else {
        beyond = middle;
        count_beyond = there.count;
      }
    }
  }

  // The token where `uniform` of the weight of what is kept is used up, by index. A warp has a run of the row.
  __device__ int32_t Draw(uint64_t first, uint64_t cut, double uniform) const {
    const int warp = static_cast<int>(threadIdx.x / kWarp), lane = static_cast<int>(threadIdx.x % kWarp);
    const int64_t run = RoundUp(CeilDiv(v, kWarps), kWarp);
    const auto weight = [&](int64_t i) {
      return i < v && Place(i) >= cut ? static_cast<double>(weights[i]) : 0.0;
    };
    double mine = 0;
    for (int64_t i = warp * run + lane; i < (warp + 1) * run; i += kWarp) mine += weight(i);
    mine = WarpSum(mine);
    __syncthreads();
    if (lane == 0) room[warp] = mine;
    __syncthreads();
    double total = 0;
    for (int w = 0; w < kWarps; ++w) total += room[w];
    double left = uniform * total;
    int last = -1;  // the run in which it is used up, or the last one with anything
    double left_of_last = left;
    for (int w = 0; w < kWarps; ++w) {
      if (room[w] == 0) continue;
      last = w;
      left_of_last = left;
      left -= room[w];
      if (left < 0) break;
    }
    if (warp != last) return -1;
    int32_t token = TokenAt(first);
    left = left_of_last;
    for (int64_t begin = warp * run; begin < (warp + 1) * run; begin += kWarp) {
      const double own = weight(begin + lane);
      double upto = own;  // of this lane and those before
#pragma unroll
      for (int step = 1; step < kWarp; step *= 2) {
        const double before = __shfl_up_sync(kAllLanes, upto, step);
        if (lane >= step) upto += before;
      }
      const unsigned some = __ballot_sync(kAllLanes, own > 0);
      const unsigned over = __ballot_sync(kAllLanes, own > 0 && left - upto < 0);
      if (over != 0) return static_cast<int32_t>(begin + __ffs(static_cast<int>(over)) - 1);
      if (some != 0) token = static_cast<int32_t>(begin + 31 - __clz(static_cast<int>(some)));
      left -= __shfl_sync(kAllLanes, upto, kWarp - 1);
    }
    return token;  // rounding left something after the last weight
  }
};

template <typename T>
__global__ void __launch_bounds__(kRowThreads) SampleKernel(const T* logits, SamplingCall call, bool wide) {
  __shared__ double room[kWarp];
  __shared__ int count_room[kWarp];
  __shared__ uint64_t place_room[kWarps];
  __shared__ int32_t token_room;
  const int64_t r = blockIdx.x, v = call.v;
  const SampledRow<T> row = {logits + r * v, call.weights + r * v, v, room, count_room, place_room};
  const float temperature = call.temperatures[r];
  const uint64_t first = row.First();
  int32_t token = TokenAt(first);
  if (first == 0) {
    token = kBrokenLogits;
  } else if (first == 1 || ToFloat(row.logits[token]) == -__builtin_inff()) {
    token = kNothingToDraw;
  } else if (temperature >= kGreedyTemperature) {
    const float largest = ToFloat(row.logits[token]);
    row.Weigh(largest, temperature);
    uint64_t cut = 0;
    const int64_t top_k = call.top_k[r];
    const float top_p = call.top_p[r], min_p = call.min_p[r];
    const bool fewer = top_k > 0 && top_k < v;
    if (fewer || top_p < 1) {
      Kept kept = row.KeptBy(cut);
      if (fewer) row.Narrow(first, cut, kept, [&](const Kept& there) { return there.count >= top_k; });
      const double wanted = kept.mass * static_cast<double>(top_p);
      if (top_p < 1) row.Narrow(first, cut, kept, [&](const Kept& there) { return there.mass >= wanted; });
    }
    if (min_p > 0) {  // in logits, as weights that have underflowed could not be told apart
      const auto log_min_p = static_cast<float>(log(static_cast<double>(min_p)));
      const float least = __fadd_rn(largest, __fmul_rn(temperature, log_min_p));
      cut = Most(cut, PlaceOf(least, 0xffffffffu));
    }
    const int32_t* const words = call.draws + r * kDrawWords;
    const PhiloxCounter bits =
        RandomBits(WideWord(words), RandomPurpose::kSampling, WideWord(words + 2), WideWord(words + 4));
    const int32_t drawn = row.Draw(first, cut, UniformDouble(bits[0], bits[1]));
    if (drawn >= 0 && threadIdx.x % kWarp == 0) token_room = drawn;  // one warp has it
    __syncthreads();
    token = token_room;
  }
  if (threadIdx.x == 0) call.tokens[r] = token;
  if (call.logprobs == nullptr) return;
  if (token < 0) {
    if (threadIdx.x == 0) {
      call.logprobs[r] = 0;
      call.ranks[r] = 0;
    }
    return;
  }
  const RowStats stats = SoftmaxStats(row.logits, v, wide, room);
  const uint64_t place = row.Place(token);
  int before = 0;
  for (int64_t i = threadIdx.x; i < v; i += kRowThreads) before += row.Place(i) > place ? 1 : 0;
  before = BlockSum(before, count_room);
  if (threadIdx.x != 0) return;
  call.logprobs[r] =
      static_cast<float>(static_cast<double>(ToFloat(row.logits[token])) - stats.max - log(stats.sum));
  call.ranks[r] = before + 1;
}

}  // namespace

template <typename T>
void SampleRows(const Queue& queue, const T* logits, const SamplingCall& call) {
  Launch(queue, SampleKernel<T>, static_cast<unsigned>(call.rows), kRowThreads, 0, logits, call,
         WideGroups(call.v, logits));
}
template void SampleRows(const Queue&, const float*, const SamplingCall&);
template void SampleRows(const Queue&, const Bf16*, const SamplingCall&);

}  // namespace cohort::runtime::COHORT_CUDA
