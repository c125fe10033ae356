// metrics.jsonl: one JSON object a line, one line a step or an evaluation.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/file.h"

namespace cohort::runtime {

struct StepMetrics {
  int64_t step = 0;
  double loss = 0;       // nats a token
  int64_t tokens = 0;    // predicted in this step
  double seconds = 0;    // this step took
  double grad_norm = 0;  // before clipping
  double lr = 0;
  double aux_loss = 0;
  std::vector<std::vector<int64_t>> expert_load;  // tokens by sparse block and expert; empty: a dense model
  int64_t dropped = 0;                            // choices that found no room
};

struct EvaluationMetrics {
  int64_t step = 0;
  double loss = 0, bits_per_byte = 0;
  int64_t tokens = 0;
};

// One line, without its end. Numbers that are not finite become null, which is what JSON has for them.
std::string ToJson(const StepMetrics& metrics);
std::string ToJson(const EvaluationMetrics& metrics);  // keys eval_loss, bits_per_byte, eval_tokens

// Appends to a file, one write a line: a kill loses at most the last line. Not thread-safe.
class JsonLinesWriter {
 public:
  // Makes the folder where it does not exist. Goes on with what is there: ends a line that a kill left torn,
  // and, resuming after `resume_step`, forgets the lines of later steps, which are about to be done again.
  // -1: forgets nothing.
  static absl::StatusOr<JsonLinesWriter> Open(const std::string& path, int64_t resume_step = -1);

  // Resuming: the step of the last line that says a loss; 0: there is none.
  int64_t resumed_at() const { return resumed_at_; }
  // A full disk is RESOURCE_EXHAUSTED: this line is lost, later ones may be tried.
  absl::Status Add(const std::string& json);

 private:
  explicit JsonLinesWriter(OutputFile file) : file_(std::move(file)) {}
  OutputFile file_;
  int64_t resumed_at_ = 0;
  bool torn_ = false;  // the file ends in the middle of a line
};

}  // namespace cohort::runtime
