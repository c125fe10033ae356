// Tensors: a shape, a type and a piece of a device's memory. Always contiguous, row-major.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "comm/data_type.h"
#include "runtime/device/device.h"

namespace cohort::runtime {

using Shape = absl::InlinedVector<int64_t, 4>;

// A handle; copies share the memory, which lives as long as the last of them. A default-constructed tensor is
// undefined (no memory, defined() == false). Shape errors are bugs of the caller: they abort with a message.
class Tensor {
 public:
  Tensor() { shape_.clear(); }

  // Uninitialised memory of `device`.
  static Tensor Empty(Device& device, Shape shape, DataType dtype);
  static Tensor Zeros(Device& device, Shape shape, DataType dtype);
  // Wraps memory owned by somebody else (a mapped file, say), kept alive by `owner`.
  static Tensor Wrap(Device& device, std::shared_ptr<void> owner, void* data, Shape shape, DataType dtype);
  // A tensor on `device` with these values, converted to `dtype`.
  static Tensor FromHost(Device& device, Shape shape, DataType dtype, absl::Span<const double> values);
  static Tensor FromHost(Device& device, Shape shape, absl::Span<const float> values);    // kF32
  static Tensor FromHost(Device& device, Shape shape, absl::Span<const int32_t> values);  // kI32

  bool defined() const { return device_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return static_cast<int>(shape_.size()); }
  int64_t dim(int i) const;  // negative: from the end
  int64_t size() const { return size_; }
  size_t bytes() const { return static_cast<size_t>(size_) * SizeOf(dtype_); }
  DataType dtype() const { return dtype_; }
  Device& device() const { return *device_; }

  // An address of the device: the host may look there only where device().in_host_memory(), and after Synchronize.
  void* raw() const { return data_; }
  // The same. Aborts where T is not the tensor's type.
  template <typename T>
  T* data() const {
    CheckType(DataTypeOf<T>());
    return static_cast<T*>(data_);
  }

  // The same memory with another shape of the same size; one dimension may be -1.
  Tensor View(Shape shape) const;
  // Rows [begin, end) of the first dimension: the same memory.
  Tensor Slice(int64_t begin, int64_t end) const;
  // The i-th row, with one dimension less.
  Tensor Row(int64_t i) const;

  // A copy on `device` as `dtype` (any of f32, bf16, f16, f64; or equal integers).
  Tensor To(Device& device, DataType dtype) const;
  Tensor Clone() const { return To(*device_, dtype_); }
  std::string DebugString() const;  // "bf16[4,8] on cpu"

 private:
  void CheckType(DataType wanted) const;

  Device* device_ = nullptr;
  std::shared_ptr<void> owner_;
  void* data_ = nullptr;
  // Filled, then emptied by the constructor: GCC 12 warns where an empty
  // InlinedVector's unset bytes are moved.
  Shape shape_ = Shape(4, 0);
  int64_t size_ = 0;
  DataType dtype_ = DataType::kF32;
};

// to = from, converted between any float types (or equal integer types), whatever devices they are on. Enqueued where
// `to` lives; memory of the host that `from` lies in may be freed or unmapped when the call returns.
void CopyValues(const Tensor& from, const Tensor& to);

// The tensor where the host can read it, with all that was enqueued for it done: the tensor itself where its device's
// memory is the host's, else a copy of it on the CPU. The one way by which the host gets at results.
Tensor OnHost(const Tensor& tensor);
// The tensor's values as doubles, on the host. For tests and small things.
std::vector<double> ToHost(const Tensor& tensor);

}  // namespace cohort::runtime
