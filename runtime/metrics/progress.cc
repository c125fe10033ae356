#include "runtime/metrics/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/metrics/policy.h"

namespace cohort::runtime {
namespace {

// To the first column and clear to the line's end (ECMA-48).
constexpr char kEraseLine[] = "\r\x1b[K";

std::string CountText(double count) {
  if (count >= 1e6) return absl::StrFormat("%.2fM", count / 1e6);
  if (count >= 1e3) return absl::StrFormat("%.1fk", count / 1e3);
  return absl::StrFormat("%.0f", count);
}

int Columns(std::FILE* stream) {
  winsize size;
  if (ioctl(fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

std::string DurationText(double seconds) {
  const int64_t s = std::llround(std::clamp(seconds, 0.0, 1e9));
  if (s < 60) return absl::StrFormat("%ds", s);
  if (s < 3600) return absl::StrFormat("%dm%02ds", s / 60, s % 60);
  if (s < 86400) return absl::StrFormat("%dh%02dm", s / 3600, s % 3600 / 60);
  return absl::StrFormat("%dd%02dh", s / 86400, s % 86400 / 3600);
}

std::string ProgressText(const ProgressOptions& options, const ProgressStep& step, double tokens_per_second,
                         double seconds_per_step) {
  std::string text = absl::StrCat("step ", step.step);
  if (options.steps > 0) absl::StrAppend(&text, "/", options.steps);
  absl::StrAppendFormat(&text, "  loss %.4f  %s tok/s", step.loss, CountText(tokens_per_second));
  if (options.peak_flops > 0 && options.flops_per_token > 0) {
    absl::StrAppendFormat(&text, "  %.0f%% of peak",
                          100 * tokens_per_second * options.flops_per_token / options.peak_flops);
  }
  double left = std::numeric_limits<double>::infinity();
  if (options.steps > 0) left = seconds_per_step * static_cast<double>(options.steps - step.step);
  if (options.seconds_limit > 0) left = std::min(left, options.seconds_limit - step.elapsed);
  if (std::isfinite(left)) absl::StrAppend(&text, "  ", DurationText(left), " left");
  return text;
}

Progress::Progress(ProgressOptions options, std::FILE* stream)
    : Progress(options, stream, isatty(fileno(stream)) != 0) {}

Progress::Progress(ProgressOptions options, std::FILE* stream, bool is_terminal)
    : options_(options), stream_(stream), is_terminal_(is_terminal) {}

Progress::~Progress() { Finish(); }

void Progress::Update(const ProgressStep& step) {
  // An exponential average that starts as the plain one, so that the first steps are not believed too long.
  ++updates_;
  const double weight = std::max(1.0 / static_cast<double>(updates_), 1 / metrics_policy::kSmoothingSteps);
  const double rate = step.seconds > 0 ? static_cast<double>(step.tokens) / step.seconds : 0;
  tokens_per_second_ += weight * (rate - tokens_per_second_);
  seconds_per_step_ += weight * (step.seconds - seconds_per_step_);
  if (options_.peak_flops > 0) {
    options_.peak_flops = std::max(options_.peak_flops, tokens_per_second_ * options_.flops_per_token);
  }

  last_ = ProgressText(options_, step, tokens_per_second_, seconds_per_step_);
  last_shown_ = false;
  const bool is_last = options_.steps > 0 && step.step >= options_.steps;
  if (is_terminal_) {
    if (!is_last && last_draw_ >= 0 && step.elapsed - last_draw_ < metrics_policy::kRedrawSeconds) return;
    last_draw_ = step.elapsed;
    Draw(last_);
  } else if (is_last || updates_ == 1 || step.step % options_.log_every == 0) {
    absl::FPrintF(stream_, "%s\n", last_);
    std::fflush(stream_);
    last_shown_ = true;
  }
}

void Progress::Draw(const std::string& text) {
  // A line that wraps could not be erased; bytes are columns, the text is ASCII.
  const size_t columns = static_cast<size_t>(std::max(1, Columns(stream_) - 1));
  absl::FPrintF(stream_, "%s%s", kEraseLine, text.substr(0, columns));
  std::fflush(stream_);
  drawn_ = true;
  last_shown_ = true;
}

void Progress::Clear() {
  if (!drawn_) return;
  std::fputs(kEraseLine, stream_);
  std::fflush(stream_);
  drawn_ = false;
}

void Progress::Log(const std::string& line) {
  const bool redraw = drawn_;
  Clear();
  absl::FPrintF(stream_, "%s\n", line);
  std::fflush(stream_);
  if (redraw) Draw(last_);
}

void Progress::Finish() {
  if (is_terminal_) {
    if (!drawn_ && (last_.empty() || updates_ == 0)) return;
    Draw(last_);
    std::fputc('\n', stream_);
  } else if (!last_shown_) {
    absl::FPrintF(stream_, "%s\n", last_);
  }
  std::fflush(stream_);
  drawn_ = false;
  last_shown_ = true;
  last_.clear();
}

}  // namespace cohort::runtime
