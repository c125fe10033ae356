// The loop that packs and unpacks one strided block.
#pragma once

#include <cstddef>

#include "comm/datatype/datatype.h"

namespace cohort::comm {

// block.bytes() dense bytes from the layout over `buffer`, and back.
void PackBlock(const StridedBlock& block, const std::byte* buffer, std::byte* packed);
void UnpackBlock(const StridedBlock& block, const std::byte* packed, std::byte* buffer);

}  // namespace cohort::comm
