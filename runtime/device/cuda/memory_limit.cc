#include "runtime/device/cuda/memory_limit.h"

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "runtime/device/cuda/policy.h"

namespace cohort::runtime {

absl::StatusOr<size_t> MemoryLimit(size_t free_bytes, const char* asked) {
  constexpr double kGiB = 1 << 30;
  const auto free = static_cast<double>(free_bytes);
  if (asked == nullptr || *asked == '\0') return static_cast<size_t>(cuda_policy::kMemoryShare * free);
  double gigabytes = 0;
  if (!absl::SimpleAtod(asked, &gigabytes) || !(gigabytes > 0)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("COHORT_CUDA_MEMORY_GB=%s is no number of GiB above 0, such as 20 or 7.5", asked));
  }
  if (gigabytes * kGiB > free) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "COHORT_CUDA_MEMORY_GB=%s, but the device has %.2f GiB free: ask for less, or end what uses the rest",
        asked, free / kGiB));
  }
  return static_cast<size_t>(gigabytes * kGiB);
}

}  // namespace cohort::runtime
