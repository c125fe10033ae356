// Normalizers: what tokenizer.json does to a text before it is split.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace cohort::runtime {

// Immutable and thread-safe. A default-made one does nothing.
class Normalizer {
 public:
  // One step: text in, text out.
  class Step {
   public:
    virtual ~Step() = default;
    virtual absl::StatusOr<std::string> Apply(std::string text) const = 0;
  };

  Normalizer() = default;

  // `value` is the "normalizer" of a tokenizer.json (may be null), `where` names it in errors.
  // InvalidArgument for unknown types and malformed fields.
  static absl::StatusOr<Normalizer> FromJson(const nlohmann::json* value, const std::string& where);

  // `text` must be valid UTF-8, and so is the result.
  absl::StatusOr<std::string> Normalize(std::string text) const;

 private:
  std::vector<std::shared_ptr<const Step>> steps_;
};

}  // namespace cohort::runtime
