#include "runtime/ops/machine_rates.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <dnnl.hpp>
#include <vector>

#include "runtime/device/cpu_features.h"
#include "runtime/device/device.h"
#include "runtime/ops/ops.h"
#include "runtime/tensor.h"

namespace cohort::runtime {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Of one operation, which is enqueued some times before anybody waits.
template <typename Enqueue>
double SecondsOf(Device& device, double seconds, const Enqueue& enqueue) {
  constexpr int kTogether = 8;
  enqueue();  // warms up
  device.Synchronize();
  std::vector<double> times;
  for (const auto begin = Clock::now(); Since(begin) < seconds || times.size() < 5;) {
    const auto start = Clock::now();
    for (int i = 0; i < kTogether; ++i) enqueue();
    device.Synchronize();
    times.push_back(Since(start) / kTogether);
  }
  return Median(times);
}

}  // namespace

double MeasureMatMulRate(DataType dtype, double seconds) {
  // Machines without bf16 instructions, for which oneDNN has no such product, multiply widened operands.
  if (dtype == DataType::kBF16 && ActiveCpuIsa() < CpuIsa::kAvx512) dtype = DataType::kF32;
  constexpr int64_t m = 2048, n = 4096, k = 1024;
  const auto type = dtype == DataType::kBF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const dnnl::memory::desc a({m, k}, type, dnnl::memory::format_tag::ab);
  const dnnl::memory::desc b({k, n}, type, dnnl::memory::format_tag::any);
  const dnnl::memory::desc c({m, n}, type, dnnl::memory::format_tag::ab);
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, c), engine);
  const dnnl::matmul product(description);
  Tensor source = Tensor::Empty(CpuDevice(), {m, k}, dtype);
  Tensor result = Tensor::Empty(CpuDevice(), {m, n}, dtype);
  const size_t weight_bytes = description.weights_desc().get_size();
  Tensor weights = Tensor::Empty(CpuDevice(), {static_cast<int64_t>(weight_bytes)}, DataType::kU8);
  // Not zeros: some machines multiply those at a higher clock.
  std::fill_n(static_cast<uint16_t*>(source.raw()), source.bytes() / 2, uint16_t{0x3f9d});
  std::fill_n(static_cast<uint16_t*>(weights.raw()), weight_bytes / 2, uint16_t{0x3e81});
  const std::unordered_map<int, dnnl::memory> arguments = {
      {DNNL_ARG_SRC, dnnl::memory(a, engine, source.raw())},
      {DNNL_ARG_WEIGHTS, dnnl::memory(description.weights_desc(), engine, weights.raw())},
      {DNNL_ARG_DST, dnnl::memory(c, engine, result.raw())}};
  omp_set_num_threads(CpuThreads());
  std::vector<double> times;
  product.execute(stream, arguments);
  stream.wait();
  for (const auto begin = Clock::now(); Since(begin) < seconds || times.size() < 5;) {
    const auto start = Clock::now();
    product.execute(stream, arguments);
    stream.wait();
    times.push_back(Since(start));
  }
  return 2.0 * m * n * k / Median(times);
}

double MeasureMatMulRate(Device& device, DataType dtype, double seconds) {
  if (device.in_host_memory()) return MeasureMatMulRate(dtype, seconds);
  constexpr int64_t n = 4096;
  const Tensor a = Tensor::Empty(device, {n, n}, dtype), b = Tensor::Empty(device, {n, n}, dtype);
  const Tensor c = Tensor::Empty(device, {n, n}, dtype);
  device.ops().FillNormal(a, 1, 1, 0, 1);
  device.ops().FillNormal(b, 1, 2, 0, 1);
  return 2.0 * n * n * n /
         SecondsOf(device, seconds, [&] { device.ops().MatMul(a, b, c, {.transpose_b = true}); });
}

double MeasureCopyBandwidth(Device& device, size_t bytes) {
  if (device.in_host_memory()) return MeasureCopyBandwidth(bytes);
  const auto size = static_cast<int64_t>(bytes / sizeof(float));
  const Tensor from = Tensor::Zeros(device, {size}, DataType::kF32),
               to = Tensor::Empty(device, {size}, DataType::kF32);
  return 2.0 * static_cast<double>(from.bytes()) / SecondsOf(device, 0, [&] { device.ops().Copy(from, to); });
}

double MeasureCopyBandwidth(size_t bytes) {
  const auto size = static_cast<int64_t>(bytes);
  Tensor from = Tensor::Zeros(CpuDevice(), {size}, DataType::kU8);
  Tensor to = Tensor::Zeros(CpuDevice(), {size}, DataType::kU8);
  std::vector<double> times;
  for (int repetition = 0; repetition < 7; ++repetition) {
    const auto start = Clock::now();
#pragma omp parallel for schedule(static) num_threads(CpuThreads())
    for (int part = 0; part < CpuThreads(); ++part) {
      const int64_t begin = size * part / CpuThreads(), end = size * (part + 1) / CpuThreads();
      std::memcpy(to.data<uint8_t>() + begin, from.data<uint8_t>() + begin, static_cast<size_t>(end - begin));
    }
    times.push_back(Since(start));
  }
  return 2.0 * static_cast<double>(bytes) / Median(times);
}

}  // namespace cohort::runtime
