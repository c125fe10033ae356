// Timelines that chrome://tracing and Perfetto open: what each thread of a rank did when.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace cohort::runtime {

// The process's trace. Off (the default) a scope costs one relaxed load. Thread-safe.
class ChromeTrace {
 public:
  // Events are kept from now on; `rank` becomes the process id in the picture.
  static void Start(int rank);
  // Ends the recording and writes its events, as one JSON array, to `path` (folders are made). A second Stop
  // writes an empty array.
  static absl::Status Stop(const std::string& path);
  static bool on() { return on_.load(std::memory_order_relaxed); }

 private:
  friend class TraceScope;
  static int64_t Now();
  static void Add(const char* name, int64_t begin, int64_t end);
  static std::atomic<bool> on_;
};

// The time from its making to its end, under `name`, which must be a literal.
class TraceScope {
 public:
  explicit TraceScope(const char* name) : name_(name), begin_(ChromeTrace::on() ? ChromeTrace::Now() : -1) {}
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;
  ~TraceScope() {
    if (begin_ >= 0) ChromeTrace::Add(name_, begin_, ChromeTrace::Now());
  }

 private:
  const char* name_;
  int64_t begin_;
};

}  // namespace cohort::runtime
