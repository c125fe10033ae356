// Reads the fields of JSON objects with type checks; every error names the file and the component.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

// Reads and parses a whole file: NotFound, or InvalidArgument with the parser's message. Never throws.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path);

// A view of an object and of its place, such as "tokenizer.json: normalizer.normalizers[0]". A field that is
// null counts as absent. Both must outlive the view.
class JsonFields {
 public:
  static absl::StatusOr<JsonFields> Of(const nlohmann::json& value, std::string where);

  const std::string& where() const { return where_; }
  const nlohmann::json* Find(absl::string_view key) const;  // nullptr where absent or null
  absl::StatusOr<const nlohmann::json*> Array(absl::string_view key) const;
  absl::StatusOr<std::string> String(absl::string_view key) const;
  absl::StatusOr<std::string> StringOr(absl::string_view key, absl::string_view fallback) const;
  absl::StatusOr<bool> BoolOr(absl::string_view key, bool fallback) const;
  // An integer in [low, high].
  absl::StatusOr<int64_t> Int(absl::string_view key, int64_t low, int64_t high) const;

  absl::Status Error(absl::string_view message) const;

 private:
  JsonFields(const nlohmann::json& value, std::string where) : value_(&value), where_(std::move(where)) {}
  const nlohmann::json* value_;
  std::string where_;
};

}  // namespace cohort::runtime
