// What one rank knows, told to all.
#pragma once

#include <cstdint>

#include "comm/check.h"
#include "comm/communicator.h"

namespace cohort::parallel {

// Collective over `group`: the bytes or numbers of rank `root` on all, which need not know how many they are.
// `values`: resizable, as std::string or std::vector. Errors are the broadcast's.
template <typename Values>
absl::Status ShareValues(comm::Communicator& group, DataType type, Values& values, int root = 0) {
  auto size = static_cast<int64_t>(values.size());
  COHORT_RETURN_IF_ERROR(group.Broadcast(&size, 1, DataType::kI64, root).Wait());
  values.resize(static_cast<size_t>(size));
  return group.Broadcast(values.data(), values.size(), type, root).Wait();
}

}  // namespace cohort::parallel
