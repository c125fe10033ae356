// Where a completion's text ends: stop strings, also across the boundaries of tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cohort::serving {

// Text goes in as it is decoded and comes out once no stop string can begin in it any more. Of several stop
// strings the one that is complete first counts; of those complete at the same character, the longest.
class StopMatcher {
 public:
  StopMatcher() = default;
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  struct Result {
    std::string text;     // safe to show now
    std::string matched;  // the stop string that ends the completion, or empty
  };
  // Takes the next piece of text. While `armed` is false (min_tokens is not reached) a stop string that ends
  // in this piece is text like any other. After a match nothing more may be added.
  Result Add(std::string_view text, bool armed = true);
  // The completion ends for another reason: what was held back.
  std::string Finish();

 private:
  std::vector<std::string> stops_;
  bool include_stop_ = false;
  std::string held_;  // the longest end of the text that is a proper beginning of a stop string
};

}  // namespace cohort::serving
