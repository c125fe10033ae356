// Tensors that travel as one message.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "runtime/tensor.h"

namespace cohort::parallel {

struct Parcel {
  std::shared_ptr<void> memory;
  size_t bytes = 0;
  std::vector<runtime::Tensor> tensors;
  const runtime::Tensor& operator[](size_t i) const { return tensors[i]; }
};

// Uninitialised, each at a multiple of policy::kParcelAlignment bytes.
Parcel MakeParcel(runtime::Device& device, const std::vector<std::pair<runtime::Shape, DataType>>& contents);

}  // namespace cohort::parallel
