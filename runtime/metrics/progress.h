// What a person sees of a run: one live line on a terminal, a line every some steps elsewhere.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace cohort::runtime {

struct ProgressOptions {
  int64_t steps = 0;           // in all; 0: not known, only the limit ends the run
  double seconds_limit = 0;    // the run ends after so many seconds, whatever `steps` says; 0: never
  double flops_per_token = 0;  // of the model, forward and backward; with peak: the share of it
  // Of all ranks together, as it was measured; 0: not known, not shown. Other work on the machine makes that too low:
  // where the training itself is faster, its own rate is the peak from then on.
  double peak_flops = 0;
  int64_t log_every = 10;  // steps between lines where the stream is no terminal
};

struct ProgressStep {
  int64_t step = 0;  // steps done, this one included
  double loss = 0;
  int64_t tokens = 0;  // of this step over all ranks
  double seconds = 0;  // of this step
  double elapsed = 0;  // of the run so far
};

// The text of a line: "step 120/400  loss 3.214  5.1k tok/s  38% of peak  2m10s left". `tokens_per_second` is
// the smoothed rate and `seconds_per_step` the smoothed step; pure, for tests. The share of peak is the model FLOP/s
// (what forward and backward need, nothing computed anew counted) over `peak_flops`.
std::string ProgressText(const ProgressOptions& options, const ProgressStep& step, double tokens_per_second,
                         double seconds_per_step);

// "2m10s", "3h05m", "42s".
std::string DurationText(double seconds);

// Draws on a stream. Whoever else writes to that stream calls Clear first: the line is then drawn again by
// the next step and nothing is garbled. Not thread-safe.
class Progress {
 public:
  // Whether the stream is a terminal decides how it is drawn.
  Progress(ProgressOptions options, std::FILE* stream);
  Progress(ProgressOptions options, std::FILE* stream, bool is_terminal);
  Progress(const Progress&) = delete;
  ~Progress();  // Finish

  void Update(const ProgressStep& step);
  // Removes the live line, if one stands there.
  void Clear();
  // A line that stays, above the live one.
  void Log(const std::string& line);
  // Leaves the last line on the screen and goes to the next.
  void Finish();

 private:
  void Draw(const std::string& text);

  ProgressOptions options_;
  std::FILE* const stream_;
  const bool is_terminal_;
  bool drawn_ = false;                                   // a live line stands on the screen
  std::string last_;                                     // its text, also when it is cleared
  bool last_shown_ = true;                               // whether last_ was ever written
  double tokens_per_second_ = 0, seconds_per_step_ = 0;  // smoothed
  int64_t updates_ = 0;
  double last_draw_ = -1;  // elapsed at the last drawing
};

}  // namespace cohort::runtime
