// CRC-32C (Castagnoli), as TFRecord files use it.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace cohort::runtime {

uint32_t Crc32c(absl::string_view bytes);
// TFRecord's masked form: a checksum of data that itself contains checksums.
uint32_t MaskedCrc32c(absl::string_view bytes);

}  // namespace cohort::runtime
