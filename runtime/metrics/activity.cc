#include "runtime/metrics/activity.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "comm/check.h"
#include "runtime/file.h"
#include "runtime/metrics/chrome_trace.h"

namespace cohort::runtime {
namespace {

// The file: zero-terminated, a cache line, which a reader sees torn at worst.
constexpr size_t kBytes = 64;

char* page = nullptr;
thread_local bool publishes = false;
thread_local const char* current = "";

}  // namespace

absl::Status PublishActivity(const std::string& path) {
  if (page != nullptr) return absl::FailedPreconditionError("what this process does is published already");
  COHORT_RETURN_IF_ERROR(MakeFolderOf(path));
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return ErrnoStatus(errno, "make", path);
  const absl::Cleanup shut = [file] { close(file); };
  if (ftruncate(file, kBytes) != 0) return ErrnoStatus(errno, "make room in", path);
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return ErrnoStatus(errno, "map", path);
  page = static_cast<char*>(memory);
  publishes = true;
  ChromeTrace::Watch();
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadActivity(const std::string& path) {
  COHORT_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  text.resize(std::strlen(text.c_str()));
  return text;
}

std::string CurrentActivity() { return publishes ? current : ""; }

const char* EnterActivity(const char* name) {
  if (!publishes) return nullptr;
  const char* before = std::exchange(current, name);
  std::strncpy(page, name, kBytes - 1);
  return before;
}

}  // namespace cohort::runtime
