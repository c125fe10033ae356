// The limits of the devices' memory pools and reads, in one place.
#pragma once

#include <cstddef>

namespace cohort::runtime::device_policy {

// Alignment of every block: one cache line, one vector register.
inline constexpr size_t kAlignment = 64;
// Blocks of this size and more are mapped on their own, aligned to huge pages, and ask for them: a page fault
// costs about as much as writing the 4 KiB page three times, and a huge page needs one fault for 512 of
// those.
inline constexpr size_t kHugePage = size_t{2} << 20;
// Block sizes are rounded up to one of this many steps per power of two, so at most 1/8 of a block is unused.
inline constexpr size_t kSizeStepsPerOctave = 8;
// Free blocks are given back to the system when they would exceed this much plus the bytes in use.
inline constexpr size_t kCacheSlackBytes = size_t{1} << 30;
// What moves from a device by way of the host is read (HostReader) in pieces of this size, for which pinned memory is kept:
// large enough that starting a copy is small beside it, as kStagingBytes of CUDA.
inline constexpr size_t kHostReadBytes = size_t{4} << 20;

}  // namespace cohort::runtime::device_policy
