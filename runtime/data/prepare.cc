#include "runtime/data/prepare.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/data/permutation.h"
#include "runtime/file.h"
#include "runtime/staged_folder.h"
#include "runtime/tokenizer/tokenizer.h"

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;

// Copies the tokenizer, with a tokenizer_config.json that names its BOS and EOS.
absl::Status CopyTokenizer(const Tokenizer& tokenizer, const fs::path& folder) {
  COHORT_ASSIGN_OR_RETURN(const std::string model, ReadFile(tokenizer.path()));
  COHORT_RETURN_IF_ERROR(WriteFileDurably(folder / "tokenizer.json", model));
  const auto config = ReadFile(fs::path(tokenizer.path()).parent_path() / "tokenizer_config.json");
  if (config.ok()) return WriteFileDurably(folder / "tokenizer_config.json", *config);
  if (!absl::IsNotFound(config.status())) return config.status();
  nlohmann::ordered_json root = {{"eos_token", tokenizer.TokenOf(tokenizer.eos_ids()[0])}};
  if (tokenizer.bos_id()) root["bos_token"] = tokenizer.TokenOf(*tokenizer.bos_id());
  return WriteFileDurably(folder / "tokenizer_config.json", root.dump(2) + "\n");
}

// Where the held-out tail of a document begins: after a line end a little before the
// cut, else at a character.
size_t TailBegin(const std::string& text, double fraction) {
  const auto size = static_cast<double>(text.size());
  auto cut = std::min(static_cast<size_t>(size * (1 - fraction)), text.size());
  const size_t line_end = cut == 0 ? std::string::npos : text.rfind('\n', cut - 1);
  if (line_end != std::string::npos && static_cast<double>(cut - line_end) < size * fraction)
    return line_end + 1;
  while (cut > 0 && cut < text.size() && (static_cast<uint8_t>(text[cut]) & 0xC0) == 0x80) --cut;
  return cut;
}

// Which documents, or how much of each, are held out.
struct SplitPlan {
  double tail_fraction = 0;        // of every document
  int64_t held_out_documents = 0;  // those that the permutation maps below this
  std::optional<RandomPermutation> order;

  bool HoldsOut(int64_t document) const {
    return order && static_cast<int64_t>((*order)(static_cast<uint64_t>(document))) < held_out_documents;
  }
};

SplitPlan PlanSplit(double fraction, int64_t documents, uint64_t seed) {
  SplitPlan plan;
  if (fraction == 0) return plan;
  if (documents < data_policy::kMinDocumentsToSplitWhole) {
    plan.tail_fraction = fraction;
  } else {
    const auto count = static_cast<int64_t>(std::llround(fraction * static_cast<double>(documents)));
    plan.held_out_documents = std::clamp<int64_t>(count, 1, documents - 1);
    plan.order.emplace(static_cast<uint64_t>(documents), seed, RandomPurpose::kDataSplit, 0);
  }
  return plan;
}

// Encodes documents in batches with several threads and writes them in order.
class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, int threads) : tokenizer_(tokenizer), threads_(threads) {}

  // Empty texts are no documents.
  absl::Status Add(std::string text, const std::string& source, SplitWriter* writer) {
    if (text.empty()) return absl::OkStatus();
    batch_bytes_ += static_cast<int64_t>(text.size());
    batch_.push_back(Item{std::move(text), source, writer});
    return batch_bytes_ < data_policy::kEncodeBatchBytes ? absl::OkStatus() : Flush();
  }

  absl::Status Flush() {
    std::atomic<size_t> next = 0;
    const auto work = [&] {
      for (size_t i = next++; i < batch_.size(); i = next++) {
        batch_[i].tokens = tokenizer_.Encode(batch_[i].text, /*add_special_tokens=*/false);
      }
    };
    std::vector<std::thread> helpers;
    const size_t useful = std::min(batch_.size(), static_cast<size_t>(threads_));
    for (size_t i = 1; i < useful; ++i) helpers.emplace_back(work);
    work();
    for (std::thread& helper : helpers) helper.join();
    for (const Item& item : batch_) {
      if (!item.tokens.ok()) {
        return absl::Status(item.tokens.status().code(),
                            absl::StrCat(item.source, ": ", item.tokens.status().message()));
      }
      COHORT_RETURN_IF_ERROR(item.writer->AddDocument(*item.tokens, static_cast<int64_t>(item.text.size())));
    }
    batch_.clear();
    batch_bytes_ = 0;
    return absl::OkStatus();
  }

 private:
  struct Item {
    std::string text, source;
    SplitWriter* writer;
    absl::StatusOr<std::vector<int32_t>> tokens = std::vector<int32_t>();
  };
  const Tokenizer& tokenizer_;
  int threads_;
  std::vector<Item> batch_;
  int64_t batch_bytes_ = 0;
};

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizer(const std::string& path) {
  COHORT_ASSIGN_OR_RETURN(auto tokenizer, Tokenizer::Load(path));
  if (tokenizer->eos_ids().empty() || tokenizer->TokenOf(tokenizer->eos_ids()[0]).empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path,
                                                   " has no EOS token to put after documents; name one as "
                                                   "\"eos_token\" in a tokenizer_config.json beside it"));
  }
  return tokenizer;
}

}  // namespace

absl::StatusOr<PrepareSummary> PrepareData(const PrepareOptions& options) {
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the validation fraction ", options.validation_fraction, " is not in [0, 1)"));
  }
  if (options.tokens_per_shard <= 0) return absl::InvalidArgumentError("tokens_per_shard must be positive");
  COHORT_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(options.tokenizer_json));
  COHORT_ASSIGN_OR_RETURN(const CorpusFiles corpus, FindCorpusFiles(options.corpus));
  StagedFolder folder(options.output_folder);
  COHORT_RETURN_IF_ERROR(folder.Make(options.overwrite));

  PrepareProgress progress;
  COHORT_RETURN_IF_ERROR(ForEachDocument(corpus, options.corpus, [&](const Document& document) {
    ++progress.total_documents;
    progress.total_text_bytes += static_cast<int64_t>(document.text.size());
    return absl::OkStatus();
  }));
  if (progress.total_documents == 0) {
    return absl::InvalidArgumentError(absl::StrCat("the corpus has no text: all of its ", corpus.files.size(),
                                                   " files are empty or blank (the first is ",
                                                   corpus.files[0], ")"));
  }

  const SplitPlan plan = PlanSplit(options.validation_fraction, progress.total_documents, options.seed);
  const auto make_writer = [&](const char* name) -> absl::StatusOr<std::unique_ptr<SplitWriter>> {
    COHORT_ASSIGN_OR_RETURN(std::string split_folder, folder.MakeInside(name));
    return std::make_unique<SplitWriter>(std::move(split_folder), tokenizer->vocab_size(),
                                         tokenizer->eos_ids()[0], tokenizer->hash(),
                                         options.tokens_per_shard);
  };
  std::unique_ptr<SplitWriter> train, validation;
  COHORT_ASSIGN_OR_RETURN(train, make_writer("train"));
  if (options.validation_fraction > 0) {
    COHORT_ASSIGN_OR_RETURN(validation, make_writer("validation"));
  }
  const int threads =
      options.threads > 0 ? options.threads : static_cast<int>(std::thread::hardware_concurrency());
  Encoder encoder(*tokenizer, std::max(threads, 1));
  int64_t next_report = 0;
  COHORT_RETURN_IF_ERROR(ForEachDocument(corpus, options.corpus, [&](Document document) {
    if (progress.documents == progress.total_documents) {
      return absl::AbortedError(
          absl::StrCat(document.source, ": the corpus grew while it was read; start again"));
    }
    const auto bytes = static_cast<int64_t>(document.text.size());
    if (plan.HoldsOut(progress.documents)) {
      COHORT_RETURN_IF_ERROR(encoder.Add(std::move(document.text), document.source, validation.get()));
    } else if (plan.tail_fraction > 0) {
      const size_t begin = TailBegin(document.text, plan.tail_fraction);
      COHORT_RETURN_IF_ERROR(encoder.Add(document.text.substr(0, begin), document.source, train.get()));
      COHORT_RETURN_IF_ERROR(encoder.Add(document.text.substr(begin), document.source, validation.get()));
    } else {
      COHORT_RETURN_IF_ERROR(encoder.Add(std::move(document.text), document.source, train.get()));
    }
    ++progress.documents;
    progress.text_bytes += bytes;
    if (options.progress && progress.text_bytes >= next_report) {
      progress.tokens = train->tokens() + (validation ? validation->tokens() : 0);
      options.progress(progress);
      next_report = progress.text_bytes + data_policy::kEncodeBatchBytes;
    }
    return absl::OkStatus();
  }));
  COHORT_RETURN_IF_ERROR(encoder.Flush());

  if (train->tokens() == 0 || (validation && validation->tokens() == 0)) {
    return absl::InvalidArgumentError(absl::StrCat("the corpus (", progress.total_text_bytes,
                                                   " bytes) is too small for a validation fraction of ",
                                                   options.validation_fraction, ": a split would be empty"));
  }
  PrepareSummary summary;
  COHORT_ASSIGN_OR_RETURN(summary.train, train->Finish());
  if (validation) {
    COHORT_ASSIGN_OR_RETURN(summary.validation, validation->Finish());
  }
  summary.files = static_cast<int64_t>(corpus.files.size());
  summary.passed_over = corpus.passed_over;
  COHORT_RETURN_IF_ERROR(CopyTokenizer(*tokenizer, folder.path()));
  COHORT_RETURN_IF_ERROR(folder.Publish());
  if (options.progress) {
    progress.tokens = summary.train.tokens + (summary.validation ? summary.validation->tokens : 0);
    options.progress(progress);
  }
  return summary;
}

}  // namespace cohort::runtime
