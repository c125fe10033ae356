// Elementwise operations. Memory-bound: each byte is moved once, sixteen at a time where the addresses allow.
#include "runtime/ops/cuda/elementwise.h"

#include "runtime/ops/cuda/for_groups.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

template <typename T>
struct FillBody {
  T* x;
  T value;
  __device__ void operator()(int64_t i) const { x[i] = value; }
};

// Through double, which holds all others: still one rounding.
struct ConvertAny {
  const void* x;
  void* y;
  FloatType from, to;
  __device__ void operator()(int64_t i) const { StoreAny(y, to, i, LoadAny(x, from, i)); }
};
struct AccumulateAny {
  const void* x;
  void* y;
  FloatType from, to;
  double scale;
  __device__ void operator()(int64_t i) const {
    StoreAny(y, to, i, LoadAny(y, to, i) + scale * LoadAny(x, from, i));
  }
};

template <typename From, typename To>
struct ConvertGroups {
  const From* x;
  To* y;
  __device__ void operator()(int64_t i, bool wide, int count) const {
    float a[kGroup];
    Load8(x + i, wide, count, a);
    Store8(y + i, wide, count, a);
  }
};
template <typename From, typename To>
struct AccumulateGroups {
  const From* x;
  To* y;
  float scale;
  __device__ void operator()(int64_t i, bool wide, int count) const {
    float a[kGroup], b[kGroup];
    Load8(x + i, wide, count, a);
    Load8(y + i, wide, count, b);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) b[j] = __fmaf_rn(scale, a[j], b[j]);
    Store8(y + i, wide, count, b);
  }
};

template <typename T>
struct AddGroups {
  const T *a, *b;
  T* c;
  __device__ void operator()(int64_t i, bool wide, int count) const {
    float x[kGroup], y[kGroup];
    Load8(a + i, wide, count, x);
    Load8(b + i, wide, count, y);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) x[j] += y[j];
    Store8(c + i, wide, count, x);
  }
};
template <typename T>
struct ScaleGroups {
  T* x;
  float factor;
  __device__ void operator()(int64_t i, bool wide, int count) const {
    float a[kGroup];
    Load8(x + i, wide, count, a);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) a[j] *= factor;
    Store8(x + i, wide, count, a);
  }
};

bool Computes(FloatType type) { return type == FloatType::kF32 || type == FloatType::kBF16; }

// body(From{}, To{}) for the types in which models compute.
template <typename Body>
void WithComputeTypes(FloatType from, FloatType to, const Body& body) {
  if (from == FloatType::kF32) {
    to == FloatType::kF32 ? body(float{}, float{}) : body(float{}, Bf16{});
  } else {
    to == FloatType::kF32 ? body(Bf16{}, float{}) : body(Bf16{}, Bf16{});
  }
}

}  // namespace

void FillBits(const Queue& queue, void* x, int64_t n, size_t element_bytes, uint64_t bits) {
  const auto fill = [&](auto value) {
    using T = decltype(value);
    LaunchEach(queue, FillBody<T>{static_cast<T*>(x), value}, n);
  };
  switch (element_bytes) {
    case 1:
      return fill(static_cast<uint8_t>(bits));
    case 2:
      return fill(static_cast<uint16_t>(bits));
    case 4:
      return fill(static_cast<uint32_t>(bits));
    default:
      return fill(bits);
  }
}

void CopyBytes(const Queue& queue, const void* x, void* y, size_t bytes) {
#if defined(COHORT_CUDA_EMULATED)
  emulator::CopyBytes(x, y, bytes);
#else
  const cudaError_t error = cudaMemcpyAsync(y, x, bytes, cudaMemcpyDeviceToDevice, queue.stream);
  if (error != cudaSuccess) LaunchFailed(1, 1, bytes, cudaGetErrorString(error));
#endif
}

void ConvertElements(const Queue& queue, const void* x, FloatType from, void* y, FloatType to, int64_t n) {
  if (!Computes(from) || !Computes(to)) return LaunchEach(queue, ConvertAny{x, y, from, to}, n);
  WithComputeTypes(from, to, [&](auto source, auto target) {
    const auto* in = static_cast<const decltype(source)*>(x);
    auto* out = static_cast<decltype(target)*>(y);
    LaunchGroups(queue, ConvertGroups<decltype(source), decltype(target)>{in, out}, n, in, out);
  });
}

void AccumulateElements(const Queue& queue, const void* x, FloatType from, double scale, void* y,
                        FloatType to, int64_t n) {
  if (!Computes(from) || !Computes(to)) return LaunchEach(queue, AccumulateAny{x, y, from, to, scale}, n);
  WithComputeTypes(from, to, [&](auto source, auto target) {
    using From = decltype(source);
    using To = decltype(target);
    const auto* in = static_cast<const From*>(x);
    auto* out = static_cast<To*>(y);
    LaunchGroups(queue, AccumulateGroups<From, To>{in, out, static_cast<float>(scale)}, n, in, out);
  });
}

template <typename T>
void AddElements(const Queue& queue, const T* a, const T* b, T* c, int64_t n) {
  LaunchGroups(queue, AddGroups<T>{a, b, c}, n, a, b, c);
}
template void AddElements(const Queue&, const float*, const float*, float*, int64_t);
template void AddElements(const Queue&, const Bf16*, const Bf16*, Bf16*, int64_t);

template <typename T>
void ScaleElements(const Queue& queue, T* x, float factor, int64_t n) {
  LaunchGroups(queue, ScaleGroups<T>{x, factor}, n, x);
}
template void ScaleElements(const Queue&, float*, float, int64_t);
template void ScaleElements(const Queue&, Bf16*, float, int64_t);

}  // namespace cohort::runtime::COHORT_CUDA
