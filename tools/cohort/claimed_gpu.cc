#include "tools/cohort/claimed_gpu.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/device/cuda/open_cuda_device.h"
#include "tools/cohort/chosen_device.h"

namespace cohort::tools {
namespace {

// A name that one process of the host has at a time, and that goes with it, however it ends: that of a socket in the
// abstract namespace.
bool Claim(const std::string& hardware) {
  const std::string name = absl::StrCat("cohort gpu ", hardware);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const size_t length = std::min(name.size(), sizeof(address.sun_path) - 1);
  std::memcpy(address.sun_path + 1, name.data(), length);
  const int claim = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (claim < 0) return false;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  if (bind(claim, reinterpret_cast<const sockaddr*>(&address), size) == 0) return true;  // and stays open
  close(claim);
  return false;
}

}  // namespace

int ClaimPlace(int count, int first, const std::function<std::string(int)>& hardware) {
  for (int i = 0; i < count; ++i) {
    const int place = (first + i) % count;
    if (Claim(hardware(place))) return place;
  }
  return first % std::max(count, 1);
}

absl::StatusOr<runtime::Device*> ClaimDevice(const std::string& name, int first) {
  const int count = runtime::CudaDeviceCount();
  if (name != "cuda" || count == 0) return ChosenDevice(name);
  return runtime::OpenCudaDevice(ClaimPlace(count, first, runtime::CudaHardware));
}

}  // namespace cohort::tools
