// A corpus: text files and JSON-lines files, and the documents in them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

enum class InvalidUtf8 {
  kError,    // an error that names the file, the byte and the line
  kReplace,  // each ill-formed sequence becomes U+FFFD
};

struct CorpusOptions {
  // Files and folders. Folders are searched through and through, in the order of names; hidden files, binary
  // files (with NUL bytes at the beginning) and further names of a file already found are passed over there.
  std::vector<std::string> inputs;
  // Where set, lines equal to it separate documents in text files ("%" in fortunes' files). Otherwise a text
  // file is one document.
  std::string document_separator;
  // Files named *.jsonl or *.ndjson have a JSON object on each line, whose field of this name is a document.
  std::string json_field = "text";
  InvalidUtf8 invalid_utf8 = InvalidUtf8::kError;
};

struct CorpusFiles {
  std::vector<std::string> files;        // in the order in which they are read
  std::vector<std::string> passed_over;  // binary files in folders
};

// NotFound for an input that does not exist, InvalidArgument where nothing is left to read.
absl::StatusOr<CorpusFiles> FindCorpusFiles(const CorpusOptions& options);

struct Document {
  std::string text;    // valid UTF-8, not empty and not only white space
  std::string source;  // "file" or "file:line", for errors
};

// Calls `visit` with each document in order and stops at its first error. InvalidArgument, naming file and
// line, for text that is not UTF-8 and for lines that are no JSON objects with the field.
absl::Status ForEachDocument(const CorpusFiles& corpus, const CorpusOptions& options,
                             const std::function<absl::Status(Document document)>& visit);

}  // namespace cohort::runtime
