// The format: "Trace Event Format" (Google), complete events (ph X), times in microseconds.
#include "runtime/metrics/chrome_trace.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <mutex>
#include <system_error>
#include <vector>

#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "runtime/checkpoint/file.h"

namespace cohort::runtime {
namespace {

struct Event {
  const char* name;
  int64_t begin, end;  // nanoseconds
  int64_t thread;
};

struct Recording {
  std::mutex mutex;
  std::vector<Event> events;
  int rank = 0;
};

Recording& TheRecording() {
  static auto* recording = new Recording();
  return *recording;
}

}  // namespace

std::atomic<bool> ChromeTrace::on_ = false;

void ChromeTrace::Start(int rank) {
  Recording& recording = TheRecording();
  const std::lock_guard lock(recording.mutex);
  recording.rank = rank;
  recording.events.clear();
  on_ = true;
}

int64_t ChromeTrace::Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void ChromeTrace::Add(const char* name, int64_t begin, int64_t end) {
  Recording& recording = TheRecording();
  const std::lock_guard lock(recording.mutex);
  if (on_) recording.events.push_back({name, begin, end, syscall(SYS_gettid)});
}

absl::Status ChromeTrace::Stop(const std::string& path) {
  Recording& recording = TheRecording();
  std::string json = "[";
  {
    const std::lock_guard lock(recording.mutex);
    on_ = false;
    for (size_t i = 0; i < recording.events.size(); ++i) {
      const Event& event = recording.events[i];
      absl::StrAppendFormat(
          &json, "%s\n{\"name\":\"%s\",\"ph\":\"X\",\"ts\":%.3f,\"dur\":%.3f,\"pid\":%d,\"tid\":%d}",
          i == 0 ? "" : ",", event.name, static_cast<double>(event.begin) / 1e3,
          static_cast<double>(event.end - event.begin) / 1e3, recording.rank, event.thread);
    }
    recording.events.clear();
  }
  json += "\n]\n";
  std::error_code ignored;  // writing says what is wrong
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  return WriteFileDurably(path, json);
}

}  // namespace cohort::runtime
