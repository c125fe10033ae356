// The header of a safetensors file: parsed from and written as JSON, with every claim it makes checked.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/checkpoint/safetensors.h"

namespace cohort::runtime {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their bytes
  std::vector<uint64_t> offsets;    // of each, from the end of the header
  std::map<std::string, std::string> metadata;
};

// `json` is the header's text, `data_bytes` what follows it in the file. The tensors must cover exactly those
// bytes, without gaps and overlaps. `file` is for messages.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json, uint64_t data_bytes,
                                                         const std::string& file);

// The length field and the JSON, padded so that the data begins aligned. Tensors lie in this order.
std::string MakeSafetensorsHeader(const std::vector<TensorInfo>& tensors,
                                  const std::map<std::string, std::string>& metadata);

}  // namespace cohort::runtime
