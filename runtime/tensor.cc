#include "runtime/tensor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "runtime/ops/convert.h"
#include "runtime/ops/ops.h"

namespace cohort::runtime {
namespace {

int64_t SizeOfShape(const Shape& shape) {
  int64_t size = 1;
  for (int64_t dim : shape) {
    COHORT_CHECK(dim >= 0, "a dimension of %ld in a shape", static_cast<long>(dim));
    size *= dim;
  }
  return size;
}

template <typename T>
Tensor FromValues(Device& device, Shape shape, absl::Span<const T> values) {
  Tensor tensor = Tensor::Empty(device, std::move(shape), DataTypeOf<T>());
  COHORT_CHECK(tensor.size() == static_cast<int64_t>(values.size()), "%zu values for %s", values.size(),
               tensor.DebugString().c_str());
  device.CopyFromHost(values.data(), tensor);
  return tensor;
}

}  // namespace

Tensor Tensor::Empty(Device& device, Shape shape, DataType dtype) {
  Tensor tensor;
  tensor.device_ = &device;
  tensor.size_ = SizeOfShape(shape);
  tensor.shape_ = std::move(shape);
  tensor.dtype_ = dtype;
  tensor.owner_ = device.Allocate(tensor.bytes());
  tensor.data_ = tensor.owner_.get();
  return tensor;
}

Tensor Tensor::Zeros(Device& device, Shape shape, DataType dtype) {
  Tensor tensor = Empty(device, std::move(shape), dtype);
  device.ops().Fill(tensor, 0);
  return tensor;
}

Tensor Tensor::Wrap(Device& device, std::shared_ptr<void> owner, void* data, Shape shape, DataType dtype) {
  Tensor tensor;
  tensor.device_ = &device;
  tensor.owner_ = std::move(owner);
  tensor.data_ = data;
  tensor.size_ = SizeOfShape(shape);
  tensor.shape_ = std::move(shape);
  tensor.dtype_ = dtype;
  return tensor;
}

Tensor Tensor::FromHost(Device& device, Shape shape, DataType dtype, absl::Span<const double> values) {
  if (dtype == DataType::kF64) return FromValues<double>(device, std::move(shape), values);
  // Converted on the host: fewer bytes go to the device.
  Device& host = device.in_host_memory() ? device : CpuDevice();
  return FromValues<double>(host, std::move(shape), values).To(device, dtype);
}

Tensor Tensor::FromHost(Device& device, Shape shape, absl::Span<const float> values) {
  return FromValues<float>(device, std::move(shape), values);
}

Tensor Tensor::FromHost(Device& device, Shape shape, absl::Span<const int32_t> values) {
  return FromValues<int32_t>(device, std::move(shape), values);
}

int64_t Tensor::dim(int i) const {
  const int index = i < 0 ? rank() + i : i;
  COHORT_CHECK(index >= 0 && index < rank(), "dimension %d of %s", i, DebugString().c_str());
  return shape_[index];
}

Tensor Tensor::View(Shape shape) const {
  int64_t known = 1;
  int64_t* unknown = nullptr;
  for (int64_t& dim : shape) {
    if (dim == -1) {
      COHORT_CHECK(unknown == nullptr, "two dimensions of -1 in a view of %s", DebugString().c_str());
      unknown = &dim;
    } else {
      known *= dim;
    }
  }
  if (unknown != nullptr) {
    COHORT_CHECK(known > 0 && size_ % known == 0, "%s seen as rows of %ld", DebugString().c_str(),
                 static_cast<long>(known));
    *unknown = size_ / known;
  }
  COHORT_CHECK(SizeOfShape(shape) == size_, "%s seen as [%s]", DebugString().c_str(),
               absl::StrJoin(shape, ",").c_str());
  Tensor view = *this;
  view.shape_ = std::move(shape);
  return view;
}

Tensor Tensor::Slice(int64_t begin, int64_t end) const {
  COHORT_CHECK(rank() >= 1 && 0 <= begin && begin <= end && end <= shape_[0], "rows [%ld, %ld) of %s",
               static_cast<long>(begin), static_cast<long>(end), DebugString().c_str());
  Tensor slice = *this;
  const int64_t row = shape_[0] == 0 ? 0 : size_ / shape_[0];
  slice.data_ = static_cast<char*>(data_) + static_cast<size_t>(begin * row) * SizeOf(dtype_);
  slice.shape_[0] = end - begin;
  slice.size_ = (end - begin) * row;
  return slice;
}

Tensor Tensor::Row(int64_t i) const {
  Tensor row = Slice(i, i + 1);
  row.shape_.erase(row.shape_.begin());
  return row;
}

Tensor Tensor::To(Device& device, DataType dtype) const {
  COHORT_CHECK(defined(), "a copy of an undefined tensor");
  Tensor copy = Empty(device, shape_, dtype);
  CopyValues(*this, copy);
  return copy;
}

std::string Tensor::DebugString() const {
  if (!defined()) return "undefined tensor";
  return absl::StrCat(Name(dtype_), "[", absl::StrJoin(shape_, ","), "] on ", device_->name());
}

void Tensor::CheckType(DataType wanted) const {
  COHORT_CHECK(defined() && dtype_ == wanted, "%s read as %s", DebugString().c_str(), Name(wanted));
}

void CopyValues(const Tensor& from, const Tensor& to) {
  COHORT_CHECK(from.defined() && to.defined() && from.size() == to.size(), "%s copied to %s",
               from.DebugString().c_str(), to.DebugString().c_str());
  Device& source = from.device();
  Device& target = to.device();
  if (&source == &target) return target.ops().Copy(from, to);
  if (source.in_host_memory() && target.in_host_memory()) {
    source.Synchronize();  // the copy is enqueued on the other device's queue
    return target.ops().Copy(from, to);
  }
  if (from.dtype() == to.dtype()) return target.CopyFromDevice(from, to);
  // Between memories bytes move, in the narrower type.
  if (SizeOf(from.dtype()) <= SizeOf(to.dtype())) {
    const Tensor arrived = Tensor::Empty(target, from.shape(), from.dtype());
    target.CopyFromDevice(from, arrived);
    target.ops().Copy(arrived, to.View(from.shape()));
  } else {
    const Tensor narrow = Tensor::Empty(source, from.shape(), to.dtype());
    source.ops().Copy(from, narrow);
    target.CopyFromDevice(narrow, to);
  }
}

Tensor OnHost(const Tensor& tensor) {
  COHORT_CHECK(tensor.defined(), "the values of an undefined tensor");
  Device& device = tensor.device();
  if (device.in_host_memory()) {
    device.Synchronize();
    return tensor;
  }
  const Tensor copy = Tensor::Empty(CpuDevice(), tensor.shape(), tensor.dtype());
  device.CopyToHost(tensor, copy.raw());
  return copy;
}

std::vector<double> ToHost(const Tensor& tensor) {
  const Tensor host = OnHost(tensor);
  std::vector<double> values(static_cast<size_t>(host.size()));
  switch (host.dtype()) {
#define COHORT_X(enumerator, type, name, accumulator)                                     \
  case DataType::enumerator:                                                              \
    for (int64_t i = 0; i < host.size(); ++i) values[i] = ToDouble(host.data<type>()[i]); \
    break;
    COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
  }
  return values;
}

}  // namespace cohort::runtime
