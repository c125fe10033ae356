// Which tokens begin and end a text, from the files beside a tokenizer.json.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

struct SpecialIds {
  std::optional<int32_t> bos;
  std::vector<int32_t> eos;  // without repetitions
};

// Reads tokenizer_config.json (bos_token, eos_token), generation_config.json and config.json (bos_token_id,
// eos_token_id) in `folder`; each may be absent. The first file that names a BOS decides it; the EOS of all
// count. InvalidArgument for a file that is malformed or names a token that `id_of` does not know.
absl::StatusOr<SpecialIds> ReadSpecialIds(
    const std::string& folder, const std::function<std::optional<int32_t>(absl::string_view)>& id_of);

}  // namespace cohort::runtime
