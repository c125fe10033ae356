// Packs and unpacks one strided block, or a part of it.
#pragma once

#include <cstddef>

#include "comm/datatype/datatype.h"

namespace cohort::comm {

// The bytes [from, to) of the block.bytes() that the layout over `buffer` packs to, and back. `packed` is where byte
// `from` is.
void PackBlock(const StridedBlock& block, const std::byte* buffer, size_t from, size_t to, std::byte* packed);
void UnpackBlock(const StridedBlock& block, const std::byte* packed, size_t from, size_t to,
                 std::byte* buffer);

}  // namespace cohort::comm
