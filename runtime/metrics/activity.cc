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

std::atomic<bool> followed = false;
thread_local bool publishes = false;  // this thread is the one
std::atomic<const char*> current = "";
char* page = nullptr;  // of the thread that publishes; null: followed without a file

}  // namespace

absl::Status PublishActivity(const std::string& path) {
  if (followed.exchange(true)) {
    return absl::FailedPreconditionError("what this process does is published already");
  }
  absl::Cleanup back = [] { followed = false; };
  COHORT_RETURN_IF_ERROR(MakeFolderOf(path));
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return ErrnoStatus(errno, "make", path);
  const absl::Cleanup shut = [file] { close(file); };
  if (ftruncate(file, kBytes) != 0) return ErrnoStatus(errno, "make room in", path);
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return ErrnoStatus(errno, "map", path);
  page = static_cast<char*>(memory);
  std::move(back).Cancel();
  publishes = true;
  ChromeTrace::Watch();
  return absl::OkStatus();
}

void FollowActivity() {
  if (followed.exchange(true)) return;
  publishes = true;
  ChromeTrace::Watch();
}

absl::StatusOr<std::string> ReadActivity(const std::string& path) {
  COHORT_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  text.resize(std::strlen(text.c_str()));
  return text;
}

std::string CurrentActivity() { return current.load(std::memory_order_relaxed); }

const char* EnterActivity(const char* name) {
  if (!publishes) return nullptr;
  const char* before = current.load(std::memory_order_relaxed);
  current.store(name, std::memory_order_relaxed);
  if (page != nullptr) std::strncpy(page, name, kBytes - 1);
  return before;
}

}  // namespace cohort::runtime
