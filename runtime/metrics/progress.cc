#include "runtime/metrics/progress.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/metrics/policy.h"

namespace cohort::runtime {

std::string ShortDuration(absl::Duration duration) {
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(duration));
  if (seconds >= 3600) return absl::StrFormat("%dh %02dm", seconds / 3600, seconds / 60 % 60);
  if (seconds >= 60) return absl::StrFormat("%dm %02ds", seconds / 60, seconds % 60);
  return absl::StrFormat("%ds", seconds);
}

std::string Progress::Line(const ProgressStep& step, absl::Time now) const {
  std::string line =
      absl::StrFormat("step %d/%d  loss %.4f  %s tokens/s", step.step, options_.total_steps, step.loss,
                      tokens_per_second_ >= 1e5 ? absl::StrFormat("%.0fk", tokens_per_second_ / 1e3)
                                                : absl::StrFormat("%.0f", tokens_per_second_));
  if (options_.peak_flops > 0 && options_.flops_per_token > 0) {
    absl::StrAppendFormat(&line, "  %.1f%% of peak",
                          100 * tokens_per_second_ * options_.flops_per_token / options_.peak_flops);
  }
  const absl::Duration by_steps =
      absl::Seconds(static_cast<double>(options_.total_steps - step.step) * seconds_per_step_);
  const absl::Duration left = std::min(by_steps, options_.limit - (now - begin_));
  absl::StrAppend(&line, "  ", ShortDuration(left), " left");
  return line;
}

void Progress::Step(const ProgressStep& step) {
  // An average that forgets: exact over the first steps, then of about the last kProgressWindow.
  const double weight =
      1.0 / static_cast<double>(std::min<int64_t>(++steps_, metrics_policy::kProgressWindow));
  seconds_per_step_ += (step.seconds - seconds_per_step_) * weight;
  if (step.seconds > 0) {
    tokens_per_second_ += (static_cast<double>(step.tokens) / step.seconds - tokens_per_second_) * weight;
  }
  if (options_.live) {
    std::fprintf(options_.out, "\r%s\033[K", Line(step, absl::Now()).c_str());
    open_ = true;
  } else if (step.step % std::max<int64_t>(1, options_.every) == 0 || step.step == options_.total_steps ||
             steps_ == 1) {
    std::fprintf(options_.out, "%s\n", Line(step, absl::Now()).c_str());
  }
  std::fflush(options_.out);
}

void Progress::Note(const std::string& message) {
  std::fprintf(options_.out, "%s%s\n", open_ ? "\r\033[K" : "", message.c_str());
  std::fflush(options_.out);
  open_ = false;
}

void Progress::EndLine() {
  if (open_) std::fputc('\n', options_.out);
  open_ = false;
}

}  // namespace cohort::runtime
