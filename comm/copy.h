// How the executor copies bytes from one buffer of a call to another.
#pragma once

#include <cstddef>

namespace cohort::comm {

// Like memmove.
void CopyBytes(std::byte* to, const std::byte* from, size_t bytes);

// The same for what nobody reads soon and the caches cannot hold: where the processor can, it is written past them, which
// spares memory the fetch of each line that is overwritten. All is visible to others once it returns.
void CopyBytesPastCaches(std::byte* to, const std::byte* from, size_t bytes);

}  // namespace cohort::comm
