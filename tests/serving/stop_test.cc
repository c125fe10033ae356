#include "serving/stop.h"

#include <gtest/gtest.h>

#include <random>

namespace cohort::serving {
namespace {

struct Outcome {
  std::string text, matched;
};

// Feeds pieces until a match or the end.
Outcome Feed(StopMatcher matcher, const std::vector<std::string>& pieces) {
  Outcome outcome;
  for (const std::string& piece : pieces) {
    const auto result = matcher.Add(piece);
    outcome.text += result.text;
    if (!result.matched.empty()) return {outcome.text, result.matched};
  }
  outcome.text += matcher.Finish();
  return outcome;
}

// The definition: the match that ends first, of these the longest.
Outcome Reference(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string* best = nullptr;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0 &&
          (best == nullptr || stop.size() > best->size())) {
        best = &stop;
      }
    }
    if (best != nullptr) return {text.substr(0, end - best->size()), *best};
  }
  return {text, ""};
}

TEST(StopTest, AcrossPieces) {
  const Outcome outcome = Feed(StopMatcher({"STOP"}, false), {"some te", "xt S", "T", "O", "P and more"});
  EXPECT_EQ(outcome.text, "some text ");
  EXPECT_EQ(outcome.matched, "STOP");
}

TEST(StopTest, HoldsBackOnlyWhatCouldStillMatch) {
  StopMatcher matcher({"abc"}, false);
  EXPECT_EQ(matcher.Add("xxab").text, "xx");
  EXPECT_EQ(matcher.Add("ab").text, "ab");
  EXPECT_EQ(matcher.Add("d").text, "abd");
  EXPECT_EQ(matcher.Add("a").text, "");
  EXPECT_EQ(matcher.Finish(), "a");
}

TEST(StopTest, IncludeStop) {
  const Outcome outcome = Feed(StopMatcher({"."}, true), {"One", ". Two."});
  EXPECT_EQ(outcome.text, "One.");
}

TEST(StopTest, UnarmedMatchesAreText) {
  StopMatcher matcher({"aa"}, false);
  EXPECT_EQ(matcher.Add("aa", false).text, "a");  // the second a may begin a match that counts
  const auto result = matcher.Add("a");
  EXPECT_EQ(result.matched, "aa");
  EXPECT_EQ(result.text, "");
}

TEST(StopTest, RandomTextsInRandomPieces) {
  std::mt19937 random(1);
  const auto word = [&](size_t length) {
    std::string text;
    for (size_t i = 0; i < length; ++i) text += static_cast<char>('a' + random() % 2);
    return text;
  };
  int matches = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = 0; i <= random() % 3; ++i) stops.push_back(word(3 + random() % 4));
    const std::string text = word(random() % 30);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t length = random() % 5;
      pieces.push_back(text.substr(at, length));
      at += length;
    }
    const Outcome expected = Reference(text, stops), outcome = Feed(StopMatcher(stops, false), pieces);
    ASSERT_EQ(outcome.text, expected.text) << text;
    ASSERT_EQ(outcome.matched, expected.matched) << text;
    matches += !expected.matched.empty();
  }
  EXPECT_GT(matches, 500);
}

}  // namespace
}  // namespace cohort::serving
