// cohort data: from text to a tokenizer and to token shards.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "runtime/data/corpus.h"
#include "runtime/data/prepare.h"
#include "runtime/tokenizer/trainer.h"
#include "tools/cohort/command.h"
#include "tools/cohort/overwrite.h"

namespace cohort::tools {
namespace {

using runtime::CorpusOptions;

void AddCorpusFlags(CLI::App& app, const std::shared_ptr<CorpusOptions>& corpus) {
  app.add_option("--input", corpus->inputs,
                 "Text files, JSON-lines files (*.jsonl, *.ndjson), and folders of them")
      ->required()
      ->expected(1, -1);
  app.add_option(
      "--separator", corpus->document_separator,
      "A line that separates documents in text files (\"%\" in fortunes). Default: a file is a document");
  app.add_option("--field", corpus->json_field, "The field of a JSON line that holds the text")
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--invalid-utf8",
         [corpus](const std::string& value) {
           corpus->invalid_utf8 =
               value == "replace" ? runtime::InvalidUtf8::kReplace : runtime::InvalidUtf8::kError;
         },
         "What to do with bytes that are not UTF-8: error names the place, replace puts U+FFFD. Default: "
         "error")
      ->check(CLI::IsMember({"error", "replace"}));
}

struct TokenizerFlags {
  CorpusOptions corpus;
  runtime::BpeTrainerOptions options;
  std::string output;
  bool overwrite = false;
};

// Data that was prepared with a tokenizer is worth nothing without it.
absl::Status CheckNoTokenizer(const std::string& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    const std::string path = folder + "/" + name;
    std::error_code unreadable;  // then it cannot be written either, which says so
    if (std::filesystem::exists(path, unreadable)) return absl::AlreadyExistsError(path + " exists already");
  }
  return absl::OkStatus();
}

absl::Status TrainTokenizer(const TokenizerFlags& flags) {
  const auto& [corpus, options, output, overwrite] = flags;
  if (!overwrite) COHORT_RETURN_IF_ERROR(WithOverwriteHint(CheckNoTokenizer(output)));
  COHORT_ASSIGN_OR_RETURN(const runtime::CorpusFiles files, FindCorpusFiles(corpus));
  COHORT_ASSIGN_OR_RETURN(const auto trainer, runtime::BpeTrainer::Create(options));
  int64_t documents = 0, bytes = 0;
  COHORT_RETURN_IF_ERROR(ForEachDocument(files, corpus, [&](runtime::Document document) {
    ++documents;
    bytes += static_cast<int64_t>(document.text.size());
    return trainer->Feed(document.text);
  }));
  COHORT_ASSIGN_OR_RETURN(const runtime::TrainedBpe trained, trainer->Train());
  COHORT_RETURN_IF_ERROR(trained.Write(output));
  std::printf("%s/tokenizer.json: %zu tokens, from %d documents (%.1f MB) in %zu files\n", output.c_str(),
              trained.tokens.size(), static_cast<int>(documents), static_cast<double>(bytes) / 1e6,
              files.files.size());
  return absl::OkStatus();
}

void PrintSplit(const char* name, const runtime::SplitIndex& split) {
  std::printf("  %-10s %9s documents, %11s tokens, %.2f bytes a token\n", name,
              absl::StrFormat("%d", split.documents).c_str(), absl::StrFormat("%d", split.tokens).c_str(),
              static_cast<double>(split.text_bytes) / static_cast<double>(split.tokens));
}

absl::Status Prepare(runtime::PrepareOptions options) {
  const bool terminal = isatty(STDERR_FILENO) != 0;
  if (terminal) {
    options.progress = [](const runtime::PrepareProgress& progress) {
      std::fprintf(
          stderr, "\rencoding: %3.0f%%  %.1f of %.1f MB, %.1f million tokens ",
          100.0 * static_cast<double>(progress.text_bytes) / static_cast<double>(progress.total_text_bytes),
          static_cast<double>(progress.text_bytes) / 1e6,
          static_cast<double>(progress.total_text_bytes) / 1e6, static_cast<double>(progress.tokens) / 1e6);
    };
  }
  const absl::StatusOr<runtime::PrepareSummary> summary = PrepareData(options);
  if (terminal) std::fprintf(stderr, "\r\033[K");
  if (!summary.ok()) return WithOverwriteHint(summary.status());
  for (const std::string& file : summary->passed_over) {
    std::fprintf(stderr, "cohort data prepare: passed over %s: not text\n", file.c_str());
  }
  std::printf("%s: %d files\n", options.output_folder.c_str(), static_cast<int>(summary->files));
  PrintSplit("train", summary->train);
  if (summary->validation) PrintSplit("validation", *summary->validation);
  return absl::OkStatus();
}

void AddTokenizer(CLI::App& data, const Selected& selected) {
  CLI::App* app = data.add_subcommand("tokenizer", "Train a byte-level BPE tokenizer on text");
  const auto flags = std::make_shared<TokenizerFlags>();
  AddCorpusFlags(*app, {flags, &flags->corpus});
  app->add_option("--vocab-size", flags->options.vocab_size,
                  "Tokens, the special ones and the 256 bytes included")
      ->capture_default_str();
  app->add_option("--special-token", flags->options.special_tokens,
                  "Special tokens; the first begins and ends texts. Default: <|endoftext|>");
  app->add_option("--output", flags->output, "The folder that gets tokenizer.json and tokenizer_config.json")
      ->required();
  AddOverwriteFlag(*app, flags->overwrite, "these files");
  app->callback([=] { selected([=] { return TrainTokenizer(*flags); }); });
}

void AddPrepare(CLI::App& data, const Selected& selected) {
  CLI::App* app = data.add_subcommand("prepare", "Encode text into memory-mapped token shards for training");
  const auto corpus = std::make_shared<CorpusOptions>();
  const auto options = std::make_shared<runtime::PrepareOptions>();
  AddCorpusFlags(*app, corpus);
  app->add_option("--tokenizer", options->tokenizer_json, "tokenizer.json")->required();
  app->add_option("--output", options->output_folder, "The folder to make; it appears whole or not at all")
      ->required();
  app->add_option(
         "--validation-fraction", options->validation_fraction,
         "The share of the text that is held out, in [0, 1): documents where there are many, the end of each "
         "where there are few")
      ->capture_default_str();
  app->add_option("--seed", options->seed, "Which documents are held out")->capture_default_str();
  app->add_option("--threads", options->threads, "Default: one a core");
  AddOverwriteFlag(*app, options->overwrite, "the folder");
  app->callback([=] {
    options->corpus = *corpus;
    selected([=] { return Prepare(*options); });
  });
}

}  // namespace

void AddData(CLI::App& app, const Selected& selected) {
  CLI::App* data = app.add_subcommand("data", "Turn text into a tokenizer and into training data");
  data->require_subcommand(1);
  AddTokenizer(*data, selected);
  AddPrepare(*data, selected);
}

}  // namespace cohort::tools
