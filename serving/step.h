// One step of the model as plain data: what each rank computes, and what comes back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "serving/generation.h"

namespace cohort::serving {

// A row of logits that is wanted, and what becomes of it where it was computed: a token is drawn from it, or
// a given token is scored. Logits themselves never leave their rank.
struct WantedRow {
  int32_t row = 0;                // token of RankStep::tokens after which it is wanted
  std::optional<int32_t> target;  // scored; unset: a token is drawn
  int32_t top_scores = -1;        // -1: no scores; else also of this many likeliest tokens
  // For a draw (see SampleInput); the history is given only where it is read.
  SamplingParams params;
  std::vector<int32_t> prompt, output, banned;
  uint64_t position = 0;
  uint64_t completion = 0;
};

// S sequences with T new tokens in all, as PagedBatch wants them.
struct RankStep {
  std::vector<int32_t> tokens, positions, slots;  // [T]
  std::vector<int32_t> query_offsets = {0};       // [S+1]
  std::vector<int32_t> context_lengths;           // [S]
  std::vector<std::vector<int32_t>> page_table;   // [S], each as long as the sequence has pages
  std::vector<WantedRow> rows;                    // ascending
};

struct Step {
  std::vector<RankStep> ranks;
};

struct RowResult {
  std::string error;  // not empty: the logits were unusable
  int32_t token = 0;  // drawn, or the target
  std::optional<TokenScores> scores;
};

// One a wanted row, in order.
struct RankResult {
  std::vector<RowResult> rows;
};

struct StepResult {
  std::vector<RankResult> ranks;
};

}  // namespace cohort::serving
