// Turns a corpus into a folder of tokens that training maps into memory.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/data/corpus.h"
#include "runtime/data/policy.h"
#include "runtime/data/token_files.h"

namespace cohort::runtime {

struct PrepareProgress {
  int64_t documents = 0, total_documents = 0;
  int64_t text_bytes = 0, total_text_bytes = 0;
  int64_t tokens = 0;
};

struct PrepareOptions {
  CorpusOptions corpus;
  std::string tokenizer_json;
  // The folder to make: tokenizer.json, tokenizer_config.json, train/ and,
  // with a validation split, validation/.
  std::string output_folder;
  // Replaces a folder of that name; otherwise one that exists is an error.
  bool overwrite = false;
  // The share of the text held out, in [0, 1). With many documents, whole ones are held out, chosen by
  // `seed`; with few (data_policy::kMinDocumentsToSplitWhole), the tail of each.
  double validation_fraction = 0;
  uint64_t seed = 0;
  int threads = 0;  // 0: as many as the machine has cores
  int64_t tokens_per_shard = data_policy::kTokensPerShard;
  // Called now and then, from the calling thread. May be empty.
  std::function<void(const PrepareProgress&)> progress;
};

struct PrepareSummary {
  SplitIndex train;
  std::optional<SplitIndex> validation;
  int64_t files = 0;
  std::vector<std::string> passed_over;  // binary files in the folders given
};

// Reads the corpus twice: first to check it and count, then to encode. The folder appears whole or not at
// all: it is written under a temporary name beside its place and then renamed. The documents and their order,
// and so every byte of the output, do not depend on the number of threads.
//
// Errors: those of the corpus and the tokenizer; InvalidArgument for an empty corpus, a tokenizer
// without an EOS token and a validation split that would be empty; AlreadyExists; ResourceExhausted
// where the disk is full.
absl::StatusOr<PrepareSummary> PrepareData(const PrepareOptions& options);

}  // namespace cohort::runtime
