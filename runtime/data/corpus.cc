#include "runtime/data/corpus.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "comm/check.h"
#include "runtime/data/policy.h"
#include "runtime/tokenizer/unicode.h"

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;
using Visit = std::function<absl::Status(Document)>;

bool IsJsonLines(absl::string_view path) {
  return absl::EndsWithIgnoreCase(path, ".jsonl") || absl::EndsWithIgnoreCase(path, ".ndjson");
}

bool LooksBinary(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string start(data_policy::kBinaryProbeBytes, '\0');
  file.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(file.gcount()));
  return start.find('\0') != std::string::npos;
}

absl::Status AddFolder(const fs::path& folder, std::set<std::string>* seen, CorpusFiles* corpus) {
  std::error_code error;
  std::vector<fs::path> paths;
  auto entry = fs::recursive_directory_iterator(folder, error);
  for (const auto end = fs::recursive_directory_iterator(); !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    if (absl::StartsWith(entry->path().filename().string(), ".")) {
      if (entry->is_directory(ignored)) entry.disable_recursion_pending();
    } else if (entry->is_regular_file(ignored)) {
      paths.push_back(entry->path());
    }
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot list the folder ", folder.string(), ": ", error.message()));
  }
  std::sort(paths.begin(), paths.end());
  // Files before links, so that a file is read under its own name.
  std::stable_partition(paths.begin(), paths.end(),
                        [](const fs::path& path) { return !fs::is_symlink(path); });
  std::vector<std::string> files;
  for (const fs::path& path : paths) {
    std::error_code ignored;
    if (!seen->insert(fs::canonical(path, ignored).string()).second) continue;
    (LooksBinary(path) ? corpus->passed_over : files).push_back(path.string());
  }
  std::sort(files.begin(), files.end());
  corpus->files.insert(corpus->files.end(), files.begin(), files.end());
  return absl::OkStatus();
}

// Makes `text` valid UTF-8 or says where it is not. `offset` and `line` are those of
// its beginning in the file.
absl::Status CheckUtf8(const std::string& file, int64_t offset, int64_t line, InvalidUtf8 policy,
                       std::string* text) {
  const size_t invalid = FindInvalidUtf8(*text);
  if (invalid == std::string::npos) return absl::OkStatus();
  if (policy == InvalidUtf8::kReplace) {
    *text = ReplaceInvalidUtf8(*text);
    return absl::OkStatus();
  }
  const auto lines_before = std::count(text->begin(), text->begin() + static_cast<int64_t>(invalid), '\n');
  return absl::InvalidArgumentError(
      absl::StrFormat("%s:%d: the text is not valid UTF-8 at byte %d of the file (0x%02X); convert the file, "
                      "or replace such bytes "
                      "(--invalid-utf8=replace)",
                      file, line + lines_before, offset + static_cast<int64_t>(invalid),
                      static_cast<uint8_t>((*text)[invalid])));
}

bool IsBlank(absl::string_view text) {
  while (!text.empty()) {
    const DecodedChar decoded = DecodeUtf8(text);
    if (!IsWhitespace(decoded.code_point)) return false;
    text.remove_prefix(decoded.bytes);
  }
  return true;
}

// Gathers lines into documents and checks them.
class DocumentReader {
 public:
  DocumentReader(const std::string& path, const CorpusOptions& options, const Visit& visit)
      : path_(path), options_(options), visit_(visit) {}

  absl::Status Read() {
    std::ifstream file(path_, std::ios::binary);
    if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path_, ": ", std::strerror(errno)));
    std::string line;
    while (std::getline(file, line)) {
      if (!file.eof()) line += '\n';
      ++line_;
      const auto bytes = static_cast<int64_t>(line.size());
      if (line_ == 1 && absl::StartsWith(line, "\xEF\xBB\xBF")) line.erase(0, 3);  // a byte order mark
      COHORT_RETURN_IF_ERROR(IsJsonLines(path_) ? TakeJson(line) : TakeText(line));
      offset_ += bytes;
    }
    if (file.bad())
      return absl::DataLossError(absl::StrCat("cannot read ", path_, ": ", std::strerror(errno)));
    return EndText();
  }

 private:
  absl::Status TakeText(const std::string& line) {
    if (!options_.document_separator.empty()) {
      const absl::string_view bare = absl::StripSuffix(absl::StripSuffix(line, "\n"), "\r");
      if (bare == options_.document_separator) return EndText();
    }
    if (text_.empty()) text_offset_ = offset_, text_line_ = line_;
    text_ += line;
    return absl::OkStatus();
  }

  absl::Status EndText() {
    std::string text = std::move(text_);
    text_.clear();
    COHORT_RETURN_IF_ERROR(CheckUtf8(path_, text_offset_, text_line_, options_.invalid_utf8, &text));
    return Emit(std::move(text),
                options_.document_separator.empty() ? path_ : absl::StrCat(path_, ":", text_line_));
  }

  absl::Status TakeJson(std::string line) {
    COHORT_RETURN_IF_ERROR(CheckUtf8(path_, offset_, line_, options_.invalid_utf8, &line));
    if (IsBlank(line)) return absl::OkStatus();
    const std::string place = absl::StrCat(path_, ":", line_);
    const nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": the line is not a JSON object"));
    }
    const auto field = object.find(options_.json_field);
    if (field == object.end() || !field->is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": the object has no string \"",
                                                     options_.json_field,
                                                     "\"; name the field that holds the text"));
    }
    return Emit(field->get<std::string>(), place);
  }

  absl::Status Emit(std::string text, std::string source) {
    if (IsBlank(text)) return absl::OkStatus();
    return visit_(Document{std::move(text), std::move(source)});
  }

  const std::string& path_;
  const CorpusOptions& options_;
  const Visit& visit_;
  int64_t line_ = 0, offset_ = 0;
  std::string text_;
  int64_t text_offset_ = 0, text_line_ = 1;
};

}  // namespace

absl::StatusOr<CorpusFiles> FindCorpusFiles(const CorpusOptions& options) {
  CorpusFiles corpus;
  std::set<std::string> seen;
  for (const std::string& input : options.inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (!fs::exists(status)) {
      return absl::NotFoundError(absl::StrCat("there is no file or folder ", input, " to read text from"));
    }
    if (fs::is_directory(status)) {
      COHORT_RETURN_IF_ERROR(AddFolder(input, &seen, &corpus));
    } else {
      seen.insert(fs::canonical(input, error).string());
      corpus.files.push_back(input);
    }
  }
  if (corpus.files.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "there are no text files to read", corpus.passed_over.empty() ? "" : ", only binary files, such as ",
        corpus.passed_over.empty() ? "" : corpus.passed_over[0]));
  }
  return corpus;
}

absl::Status ForEachDocument(const CorpusFiles& corpus, const CorpusOptions& options, const Visit& visit) {
  for (const std::string& path : corpus.files) {
    COHORT_RETURN_IF_ERROR(DocumentReader(path, options, visit).Read());
  }
  return absl::OkStatus();
}

}  // namespace cohort::runtime
