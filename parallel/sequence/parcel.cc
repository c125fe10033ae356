#include "parallel/sequence/parcel.h"

#include "parallel/sequence/policy.h"

namespace cohort::parallel {

using runtime::Device;
using runtime::Shape;
using runtime::Tensor;

Parcel MakeParcel(Device& device, const std::vector<std::pair<Shape, DataType>>& contents) {
  Parcel parcel;
  std::vector<size_t> begins;
  for (const auto& [shape, dtype] : contents) {
    size_t bytes = SizeOf(dtype);
    for (const int64_t dim : shape) bytes *= static_cast<size_t>(dim);
    begins.push_back(parcel.bytes);
    parcel.bytes +=
        (bytes + policy::kParcelAlignment - 1) / policy::kParcelAlignment * policy::kParcelAlignment;
  }
  parcel.memory = device.Allocate(parcel.bytes);
  for (size_t i = 0; i < contents.size(); ++i) {
    parcel.tensors.push_back(Tensor::Wrap(device, parcel.memory,
                                          static_cast<char*>(parcel.memory.get()) + begins[i],
                                          contents[i].first, contents[i].second));
  }
  return parcel;
}

}  // namespace cohort::parallel
