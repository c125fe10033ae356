// Timelines for chrome://tracing and Perfetto: who did what when, by rank and thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "runtime/metrics/activity.h"

namespace cohort::runtime {

// The process's trace; off until Start. While off, and nobody watches (activity.h), a TraceScope costs one relaxed load.
// Thread-safe.
class ChromeTrace {
 public:
  // Begins to record into a new file, in a folder that is made where it does not exist; the rank is the
  // process id that viewers show. FAILED_PRECONDITION while on.
  static absl::Status Start(const std::string& path, int rank);
  // Ends the file. The first failure since Start, a full disk for instance: the events since
  // are lost. OK when off.
  static absl::Status Stop();
  static bool enabled() { return (uses_.load(std::memory_order_relaxed) & kTrace) != 0; }
  // Whether a scope has anything to do.
  static bool used() { return uses_.load(std::memory_order_relaxed) != 0; }
  // PublishActivity's: scopes tell it their names.
  static void Watch() { uses_.fetch_or(kWatched, std::memory_order_relaxed); }

  // Microseconds of a steady clock.
  static int64_t Now();
  // An event of the calling thread. `name` must live until Stop: a literal.
  static void Add(const char* name, int64_t begin, int64_t end);

 private:
  enum Use : int { kTrace = 1, kWatched = 2 };
  static std::atomic<int> uses_;
};

// The time from its construction to its destruction is an event. `name` must be a literal.
class TraceScope {
 public:
  explicit TraceScope(const char* name) : name_(ChromeTrace::used() ? name : nullptr) {
    if (name_ == nullptr) return;
    around_ = EnterActivity(name_);
    begin_ = ChromeTrace::Now();
  }
  TraceScope(const TraceScope&) = delete;
  ~TraceScope() {
    if (name_ == nullptr) return;
    if (around_ != nullptr) (void)EnterActivity(around_);
    if (ChromeTrace::enabled()) ChromeTrace::Add(name_, begin_, ChromeTrace::Now());
  }

 private:
  const char* name_;
  const char* around_ = nullptr;
  int64_t begin_ = 0;
};

}  // namespace cohort::runtime
