// Timelines for chrome://tracing and Perfetto: who did what when, by rank and thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace cohort::runtime {

// The process's trace; off until Start. While off, a TraceScope costs one relaxed load. Thread-safe.
class ChromeTrace {
 public:
  // Begins to record into a new file, in a folder that is made where it does not exist; the rank is the
  // process id that viewers show. FAILED_PRECONDITION while on.
  static absl::Status Start(const std::string& path, int rank);
  // Ends the file. The first failure since Start, a full disk for instance: the events since
  // are lost. OK when off.
  static absl::Status Stop();
  static bool enabled() { return enabled_.load(std::memory_order_relaxed); }

  // Microseconds of a steady clock.
  static int64_t Now();
  // An event of the calling thread. `name` must live until Stop: a literal.
  static void Add(const char* name, int64_t begin, int64_t end);

 private:
  static std::atomic<bool> enabled_;
};

// The time from its construction to its destruction is an event. `name` must be a literal.
class TraceScope {
 public:
  explicit TraceScope(const char* name) : name_(ChromeTrace::enabled() ? name : nullptr) {
    if (name_ != nullptr) begin_ = ChromeTrace::Now();
  }
  TraceScope(const TraceScope&) = delete;
  ~TraceScope() {
    if (name_ != nullptr) ChromeTrace::Add(name_, begin_, ChromeTrace::Now());
  }

 private:
  const char* name_;
  int64_t begin_ = 0;
};

}  // namespace cohort::runtime
