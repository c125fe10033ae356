// The progress of a run on the terminal: one live line, or a line now and then where the output is no
// terminal.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace cohort::runtime {

struct ProgressOptions {
  std::FILE* out = stderr;
  bool live = false;   // rewrite one line (a terminal) instead of adding lines
  int64_t every = 10;  // steps between lines where not live
  int64_t total_steps = 0;
  absl::Duration limit = absl::InfiniteDuration();  // the run ends then, at the latest
  double peak_flops = 0;  // of all ranks together; 0: unknown, the share is not shown
  double flops_per_token = 0;
};

// What the line says of a step.
struct ProgressStep {
  int64_t step = 0;  // done so far
  double loss = 0;
  int64_t tokens = 0;  // of this step
  double seconds = 0;  // of this step
};

// Speeds are averaged over the last steps. Not thread-safe.
class Progress {
 public:
  explicit Progress(const ProgressOptions& options) : options_(options), begin_(absl::Now()) {}
  ~Progress() { EndLine(); }

  void Step(const ProgressStep& step);
  // A message of its own, which does not tear the live line.
  void Note(const std::string& message);
  // Ends the live line.
  void EndLine();

  // What Step prints, without a line break.
  std::string Line(const ProgressStep& step, absl::Time now) const;

 private:
  const ProgressOptions options_;
  const absl::Time begin_;
  int64_t steps_ = 0;
  double tokens_per_second_ = 0, seconds_per_step_ = 0;
  bool open_ = false;
};

// "2h 05m", "3m 20s", "7s".
std::string ShortDuration(absl::Duration duration);

}  // namespace cohort::runtime
