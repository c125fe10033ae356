// Post-processors: the special tokens put around an encoded text.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace cohort::runtime {

struct PostProcessor {
  std::vector<int32_t> prefix, suffix;

  // `value` is the "post_processor" of a tokenizer.json (may be null). Only its template for single texts
  // counts. `is_token` says whether an id exists. InvalidArgument for unknown types and ids.
  static absl::StatusOr<PostProcessor> FromJson(const nlohmann::json* value, const std::string& where,
                                                const std::function<bool(int64_t)>& is_token);
};

}  // namespace cohort::runtime
