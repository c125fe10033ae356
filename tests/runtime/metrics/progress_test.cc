#include "runtime/metrics/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace cohort::runtime {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A stream whose text can be looked at.
class Screen {
 public:
  Screen() : stream_(open_memstream(&data_, &size_)) {}
  ~Screen() {
    std::fclose(stream_);
    std::free(data_);
  }
  std::FILE* stream() { return stream_; }
  std::string text() {
    std::fflush(stream_);
    return std::string(data_, size_);
  }
  // What a terminal shows: "\r\x1b[K" erases the last line.
  std::string shown() {
    std::string shown;
    const std::string all = text();
    for (size_t i = 0; i < all.size(); ++i) {
      if (all.compare(i, 4, "\r\x1b[K") == 0) {
        shown.resize(shown.rfind('\n') == std::string::npos ? 0 : shown.rfind('\n') + 1);
        i += 3;
      } else {
        shown.push_back(all[i]);
      }
    }
    return shown;
  }

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
  std::FILE* stream_;
};

ProgressStep Step(int64_t step, double elapsed = 0) {
  ProgressStep result;
  result.step = step;
  result.loss = 3.25;
  result.tokens = 1000;
  result.seconds = 0.5;
  result.elapsed = elapsed;
  return result;
}

TEST(ProgressTextTest, SaysWhatAPersonWantsToKnow) {
  ProgressOptions options;
  options.steps = 400;
  options.flops_per_token = 1e6;
  options.peak_flops = 4e9;
  EXPECT_EQ(ProgressText(options, Step(100), 2000, 0.5),
            "step 100/400  loss 3.2500  2.0k tok/s  50% of peak  2m30s left");
  options.peak_flops = 0;
  options.seconds_limit = 60;
  EXPECT_EQ(ProgressText(options, Step(100, 50), 999, 0.5), "step 100/400  loss 3.2500  999 tok/s  10s left");
  options.steps = 0;
  EXPECT_EQ(ProgressText(options, Step(100, 55), 3.2e6, 0.5), "step 100  loss 3.2500  3.20M tok/s  5s left");
  options.seconds_limit = 0;
  EXPECT_EQ(ProgressText(options, Step(7), 1, 1), "step 7  loss 3.2500  1 tok/s");
}

TEST(ProgressTextTest, Durations) {
  EXPECT_EQ(DurationText(-5), "0s");
  EXPECT_EQ(DurationText(59.4), "59s");
  EXPECT_EQ(DurationText(60), "1m00s");
  EXPECT_EQ(DurationText(3 * 3600 + 300), "3h05m");
  EXPECT_EQ(DurationText(2 * 86400 + 3600), "2d01h");
}

TEST(ProgressTest, LinesWhereThereIsNoTerminal) {
  Screen screen;
  ProgressOptions options;
  options.steps = 25;
  options.log_every = 10;
  Progress progress(options, screen.stream(), /*is_terminal=*/false);
  for (int step = 1; step <= 25; ++step) progress.Update(Step(step));
  progress.Finish();
  const std::string text = screen.text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4);
  for (const char* line : {"step 1/25", "step 10/25", "step 20/25", "step 25/25"})
    EXPECT_THAT(text, HasSubstr(line));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(ProgressTest, ARunThatStopsEarlyShowsItsLastStep) {
  Screen screen;
  ProgressOptions options;
  options.steps = 25;
  Progress progress(options, screen.stream(), /*is_terminal=*/false);
  for (int step = 1; step <= 13; ++step) progress.Update(Step(step));
  progress.Finish();
  progress.Finish();
  EXPECT_THAT(screen.text(), HasSubstr("step 13/25"));
}

TEST(ProgressTest, OneLiveLineOnATerminal) {
  Screen screen;
  ProgressOptions options;
  options.steps = 100;
  Progress progress(options, screen.stream(), /*is_terminal=*/true);
  for (int step = 1; step <= 50; ++step) progress.Update(Step(step, 0.5 * step));
  EXPECT_EQ(screen.shown(), ProgressText(options, Step(50), 2000, 0.5));
  progress.Log("saved step 50");
  EXPECT_EQ(screen.shown(), "saved step 50\n" + ProgressText(options, Step(50), 2000, 0.5));
  progress.Clear();
  EXPECT_EQ(screen.shown(), "saved step 50\n");
  progress.Update(Step(51, 40));
  progress.Finish();
  EXPECT_EQ(screen.shown(), "saved step 50\n" + ProgressText(options, Step(51), 2000, 0.5) + "\n");
}

TEST(ProgressTest, FastStepsAreNotDrawnEach) {
  Screen screen;
  ProgressOptions options;
  options.steps = 100000;
  Progress progress(options, screen.stream(), /*is_terminal=*/true);
  for (int step = 1; step <= 1000; ++step) progress.Update(Step(step, 1e-4 * step));
  EXPECT_LT(screen.text().size(), 1000u);
  progress.Finish();
  EXPECT_THAT(screen.shown(), HasSubstr("step 1000/100000"));
}

TEST(ProgressTest, LongLinesAreCutToTheWidth) {
  Screen screen;
  ProgressOptions options;
  options.steps = 1'000'000'000'000;
  options.flops_per_token = options.peak_flops = 1;
  Progress progress(options, screen.stream(), /*is_terminal=*/true);
  ProgressStep step = Step(999'999'999'999);
  step.loss = 1e40;
  progress.Update(step);
  EXPECT_LT(screen.shown().size(), 80u);
}

TEST(ProgressTest, APeakThatTheTrainingPassesIsRaised) {
  Screen screen;
  ProgressOptions options;
  options.flops_per_token = 1e6;
  options.peak_flops = 1.6e9;  // steps have 2,000 tokens a second
  options.log_every = 1;
  Progress progress(options, screen.stream(), /*is_terminal=*/false);
  progress.Update(Step(1));
  EXPECT_THAT(screen.text(), HasSubstr("2.0k tok/s  100% of peak"));
  ProgressStep slow = Step(2);
  slow.seconds *= 3;
  progress.Update(slow);
  EXPECT_THAT(screen.text(), HasSubstr("1.3k tok/s  67% of peak"));
}

TEST(ProgressTest, NothingHappenedNothingShown) {
  Screen screen;
  { Progress progress(ProgressOptions(), screen.stream(), /*is_terminal=*/true); }
  { Progress progress(ProgressOptions(), screen.stream(), /*is_terminal=*/false); }
  EXPECT_EQ(screen.text(), "");
}

}  // namespace
}  // namespace cohort::runtime
