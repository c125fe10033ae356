// y = x W^T with at most eight rows of x: decoding. Bound by the bytes of W, which are read once, sixteen at a time.
//
// Tensor cores do the arithmetic, so that eight rows cost no more than one: W's rows are the sixteen rows of an
// mma.m16n8k16, x's rows its eight columns. The sum over k may take its terms in any order that both operands share, so
// a lane takes eight neighbours of each of its rows in one load: four words, of which two mma take two each.
#include "runtime/ops/cuda/products.h"
#include "runtime/ops/cuda/ptx.h"
#include "runtime/ops/cuda/tiles.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kRowsOfW = 16;  // a block's, and a warp's: warps share k
constexpr int kStep = 32;     // of k that a warp takes in a step: 4 lanes x 8 elements
constexpr int kSteps = 4;     // steps whose loads are under way together
constexpr int kMostWarps = 16;

// kWarps at most. So many blocks on a multiprocessor leave a thread 80 registers, or more: with fewer, the loads of a
// turn would not be under way together.
template <typename O, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarp, 24 / kWarps)
    SkinnyKernel(const Bf16* x, const Bf16* w, O* y, int64_t m, int64_t n, int64_t k) {
  __shared__ float parts[kWarps][kRowsOfW * 8];
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int g = lane / 4, t = lane % 4;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsOfW;
  // Rows past the end are other rows again: what comes out for them is not written. So no load is conditional, and all
  // of a turn are under way together.
  constexpr int kTurn = kStep * kSteps;
  const Range range = PartOf(k, warps, warp, kTurn);
  const Bf16* first = w + Least(row + g, n - 1) * k + range.begin + t * 8;
  const Bf16* second = w + Least(row + g + 8, n - 1) * k + range.begin + t * 8;
  const Bf16* of_x = x + Least<int64_t>(g, m - 1) * k + range.begin + t * 8;
  float c[4] = {};
  // A turn: all its loads of W, then the products. `left`: how much of k there is from this lane's place on; k ends
  // with a whole piece, but maybe within the last turn, whose other loads read a piece that is there.
  const auto turn = [&](int left, bool whole) {
    uint4 a0[kSteps], a1[kSteps];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int at = whole || s * kStep < left ? s * kStep : left - 8;
      a0[s] = LoadOnce(first + at);
      a1[s] = LoadOnce(second + at);
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      uint4 b = make_uint4(0, 0, 0, 0);
      // From the first-level cache.
      if (whole || s * kStep < left) b = *reinterpret_cast<const uint4*>(of_x + s * kStep);
      const uint32_t low[4] = {a0[s].x, a1[s].x, a0[s].y, a1[s].y},
                     high[4] = {a0[s].z, a1[s].z, a0[s].w, a1[s].w};
      Multiply16x8x16(c, low, b.x, b.y);
      Multiply16x8x16(c, high, b.z, b.w);
    }
  };
  int turns = static_cast<int>((range.end - range.begin) / kTurn);
#pragma unroll 1  // with several in one, loads of the later ones would wait for products of the earlier ones
  for (; turns > 0; --turns) {
    turn(0, true);
    first += kTurn;
    second += kTurn;
    of_x += kTurn;
  }
  const int rest = static_cast<int>((range.end - range.begin) % kTurn);
  if (rest > 0) turn(rest - t * 8, false);
    // c[i] is W's row g (+ 8), x's rows 2t, 2t + 1.
#pragma unroll
  for (int i = 0; i < 4; ++i) parts[warp][(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
  __syncthreads();
  for (int i = threadIdx.x; i < kRowsOfW * 8; i += blockDim.x) {
    const int64_t column = row + i % kRowsOfW, to_row = i / kRowsOfW;
    if (column >= n || to_row >= m) continue;
    float sum = 0;
    for (int other = 0; other < warps; ++other) sum += parts[other][i % kRowsOfW * 8 + to_row];
    y[to_row * n + column] = FromFloat<O>(sum);
  }
}

}  // namespace

bool SkinnyProductTakes(int64_t m, int64_t n, int64_t k, const void* x, const void* w) {
  return m >= 1 && m <= kSkinnyRows && n >= 1 && k >= 1 && k % 8 == 0 && Aligned16(x) && Aligned16(w);
}

template <typename O>
void SkinnyProduct(const Queue& queue, const Bf16* x, const Bf16* w, O* y, int64_t m, int64_t n, int64_t k) {
  const int64_t blocks = CeilDiv(n, kRowsOfW);
  // As many warps as keep 64 KB of W under way on each multiprocessor (at 800 ns, 5 TB/s are 30 KB on each of 132), and
  // have a turn of k to do. All blocks run at once but where there are very many.
  const int64_t useful = Most<int64_t>(1, k / (kStep * kSteps));
  const auto run = [&](auto kernel, int64_t warps) {
    Launch(queue, kernel, static_cast<unsigned>(blocks), static_cast<unsigned>(Least(warps, useful) * kWarp),
           0, x, w, y, m, n, k);
  };
  if (blocks >= 4 * queue.multiprocessors) return run(SkinnyKernel<O, 4>, 4);
  if (blocks >= queue.multiprocessors) return run(SkinnyKernel<O, 8>, 8);
  run(SkinnyKernel<O, kMostWarps>, kMostWarps);
}
template void SkinnyProduct(const Queue&, const Bf16*, const Bf16*, float*, int64_t, int64_t, int64_t);
template void SkinnyProduct(const Queue&, const Bf16*, const Bf16*, Bf16*, int64_t, int64_t, int64_t);

}  // namespace cohort::runtime::COHORT_CUDA
