// oneDNN's matmul primitive, compiled once for each shape and kept.
#include <omp.h>

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <utility>

#include "comm/check.h"
#include "runtime/device/cpu_features.h"
#include "runtime/device/device.h"
#include "runtime/ops/cpu/matmul.h"
#include "runtime/ops/cpu/policy.h"

namespace cohort::runtime {
namespace {

using dnnl::memory;

const dnnl::engine& Engine() {
  static const dnnl::engine engine = [] {
    // Without AMX by our own choice: oneDNN must not use it either. Refused, harmlessly, after its first use.
    if (ActiveCpuIsa() < CpuIsa::kAmx) dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return engine;
}

memory::data_type TypeOf(DataType dtype) {
  COHORT_CHECK(dtype == DataType::kF32 || dtype == DataType::kBF16, "a product of %s", Name(dtype));
  return dtype == DataType::kF32 ? memory::data_type::f32 : memory::data_type::bf16;
}

// rows x columns, or the transposed view of columns x rows in memory, whose rows are `stride` elements apart.
memory::desc Matrix(int64_t rows, int64_t columns, int64_t stride, DataType dtype, bool transposed) {
  return transposed ? memory::desc({rows, columns}, TypeOf(dtype), memory::dims{1, stride})
                    : memory::desc({rows, columns}, TypeOf(dtype), memory::dims{stride, 1});
}

struct Compiled {
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul primitive;
};

Compiled Compile(const Product& p) {
  const dnnl::matmul::desc desc(Matrix(p.m, p.k, p.lda(), p.input, p.transpose_a),
                                Matrix(p.k, p.n, p.ldb(), p.input, p.transpose_b),
                                Matrix(p.m, p.n, p.ldc(), p.output, false));
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // several threads may run one primitive
  if (p.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  dnnl::matmul::primitive_desc primitive_desc(desc, attributes, Engine());
  return {primitive_desc, dnnl::matmul(primitive_desc)};
}

// The most recently used primitives by shape and number of threads. Thread-safe.
class Cache {
 public:
  std::shared_ptr<const Compiled> Get(const Product& product, int threads) {
    const std::pair<Product, int> key(product, threads);
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = index_.find(key);
    if (found != index_.end()) {
      order_.splice(order_.begin(), order_, found->second);
      return found->second->second;
    }
    order_.emplace_front(key, std::make_shared<const Compiled>(Compile(product)));
    index_[key] = order_.begin();
    if (order_.size() > cpu_policy::kMatMulPrimitives) {
      index_.erase(order_.back().first);
      order_.pop_back();
    }
    return order_.front().second;
  }

 private:
  using Order = std::list<std::pair<std::pair<Product, int>, std::shared_ptr<const Compiled>>>;
  std::mutex mutex_;
  Order order_;  // the most recently used first
  std::map<std::pair<Product, int>, Order::iterator> index_;
};

}  // namespace

void MultiplyWithPrimitive(const Product& product, int threads, const void* a, const void* b, void* c) {
  static Cache* const cache = new Cache;
  omp_set_num_threads(threads);
  const std::shared_ptr<const Compiled> compiled = cache->Get(product, threads);
  const dnnl::matmul::primitive_desc& desc = compiled->desc;
  const std::shared_ptr<void> scratch = CpuDevice().Allocate(desc.scratchpad_desc().get_size());
  thread_local dnnl::stream stream(Engine());
  compiled->primitive.execute(
      stream, {{DNNL_ARG_SRC, memory(desc.src_desc(), Engine(), const_cast<void*>(a))},
               {DNNL_ARG_WEIGHTS, memory(desc.weights_desc(), Engine(), const_cast<void*>(b))},
               {DNNL_ARG_DST, memory(desc.dst_desc(), Engine(), c)},
               {DNNL_ARG_SCRATCHPAD, memory(desc.scratchpad_desc(), Engine(), scratch.get())}});
  stream.wait();
}

}  // namespace cohort::runtime
