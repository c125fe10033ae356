#include "runtime/metrics/chrome_trace.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/file.h"
#include "runtime/metrics/policy.h"

namespace cohort::runtime {
namespace {

struct Event {
  const char* name;
  int64_t begin, end;  // microseconds
  int64_t thread;
};

struct Recorder {
  std::mutex mutex;
  std::optional<OutputFile> file;
  int rank = 0;
  int64_t zero = 0;  // the clock at Start
  std::vector<Event> events;
  absl::Status status;
};
Recorder& TheRecorder() {
  static Recorder& recorder = *new Recorder;
  return recorder;
}

int64_t ThreadId() {
  thread_local const int64_t id = syscall(SYS_gettid);
  return id;
}

std::string Quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Writes what is in memory. The format allows an array without its end, so a kill leaves a readable file.
void Flush(Recorder& recorder) {
  std::string text;
  for (const Event& event : recorder.events) {
    absl::StrAppend(
        &text, ",\n{\"name\":", Quoted(event.name), ",\"ph\":\"X\",\"ts\":", event.begin - recorder.zero,
        ",\"dur\":", event.end - event.begin, ",\"pid\":", recorder.rank, ",\"tid\":", event.thread, "}");
  }
  recorder.events.clear();
  if (recorder.status.ok()) recorder.status = recorder.file->WriteWhole(text);
}

}  // namespace

std::atomic<int> ChromeTrace::uses_{0};

int64_t ChromeTrace::Now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

absl::Status ChromeTrace::Start(const std::string& path, int rank) {
  Recorder& recorder = TheRecorder();
  const std::lock_guard lock(recorder.mutex);
  if (recorder.file.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("a trace is already written to ", recorder.file->path()));
  }
  COHORT_RETURN_IF_ERROR(MakeFolderOf(path));
  COHORT_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path));
  const std::string name = Quoted(absl::StrCat("rank ", rank));
  COHORT_RETURN_IF_ERROR(file.Write(absl::StrCat("[{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":", rank,
                                                 ",\"args\":{\"name\":", name, "}}")));
  recorder.file.emplace(std::move(file));
  recorder.rank = rank;
  recorder.zero = Now();
  recorder.status = absl::OkStatus();
  recorder.events.reserve(metrics_policy::kTraceBufferEvents);
  uses_.fetch_or(kTrace, std::memory_order_relaxed);
  return absl::OkStatus();
}

void ChromeTrace::Add(const char* name, int64_t begin, int64_t end) {
  Recorder& recorder = TheRecorder();
  const std::lock_guard lock(recorder.mutex);
  if (!recorder.file.has_value() || begin < recorder.zero) return;  // begun before this trace was
  recorder.events.push_back({name, begin, end, ThreadId()});
  if (recorder.events.size() >= metrics_policy::kTraceBufferEvents) Flush(recorder);
}

absl::Status ChromeTrace::Stop() {
  Recorder& recorder = TheRecorder();
  const std::lock_guard lock(recorder.mutex);
  uses_.fetch_and(~kTrace, std::memory_order_relaxed);
  if (!recorder.file.has_value()) return absl::OkStatus();
  Flush(recorder);
  if (recorder.status.ok()) recorder.status = recorder.file->Write("\n]\n");
  const absl::Status closed = recorder.file->Close();
  recorder.file.reset();
  return recorder.status.ok() ? closed : recorder.status;
}

}  // namespace cohort::runtime
