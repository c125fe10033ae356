#include "runtime/device/caching_allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "comm/check.h"
#include "runtime/device/policy.h"

namespace cohort::runtime {
namespace {

using namespace device_policy;

void* FromSystem(size_t block_size) {
  if (block_size < kHugePage) return std::aligned_alloc(kAlignment, block_size);
  // Mapped with room to align, and the ends given back.
  const size_t mapped = block_size + kHugePage;
  void* map = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(map);
  const uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > begin) munmap(map, aligned - begin);
  const uintptr_t end = aligned + block_size;
  if (begin + mapped > end) munmap(reinterpret_cast<void*>(end), begin + mapped - end);
  void* block = reinterpret_cast<void*>(aligned);
  madvise(block, block_size,
          MADV_HUGEPAGE);  // a wish: without it the memory is as good, only slower to touch
  return block;
}

void ToSystem(void* block, size_t block_size) {
  if (block_size < kHugePage) {
    std::free(block);
  } else {
    munmap(block, block_size);
  }
}

}  // namespace

CachingAllocator::~CachingAllocator() { Trim(); }

size_t CachingAllocator::BlockSize(size_t bytes) {
  bytes = std::max(bytes, kAlignment);
  const size_t step = std::max(kAlignment, std::bit_floor(bytes) / kSizeStepsPerOctave);
  const size_t rounded = (bytes + step - 1) / step * step;
  if (rounded < kHugePage) return rounded;
  constexpr size_t kPage = 4096;
  return (rounded + kPage - 1) / kPage * kPage;
}

std::shared_ptr<void> CachingAllocator::Allocate(size_t bytes) {
  const size_t block_size = BlockSize(bytes);
  void* block = Take(block_size);
  return std::shared_ptr<void>(block, [this, block_size](void* freed) { Return(freed, block_size); });
}

void* CachingAllocator::Take(size_t block_size) {
  std::lock_guard<std::mutex> lock(mutex_);
  void* block = nullptr;
  auto found = free_.find(block_size);
  if (found != free_.end() && !found->second.empty()) {
    block = found->second.back();
    found->second.pop_back();
    cached_ -= block_size;
  } else {
    if (cached_ > kCacheSlackBytes + allocated_) TrimLocked();
    block = FromSystem(block_size);
    if (block == nullptr) {
      TrimLocked();
      block = FromSystem(block_size);
    }
    COHORT_CHECK(block != nullptr,
                 "out of memory: the system refused a block of %zu bytes with %zu bytes in use; use smaller "
                 "batches, shard the model further or recompute activations",
                 block_size, allocated_);
  }
  allocated_ += block_size;
  peak_ = std::max(peak_, allocated_);
  return block;
}

void CachingAllocator::Return(void* block, size_t block_size) {
  std::lock_guard<std::mutex> lock(mutex_);
  allocated_ -= block_size;
  cached_ += block_size;
  free_[block_size].push_back(block);
}

void CachingAllocator::Trim() {
  std::lock_guard<std::mutex> lock(mutex_);
  TrimLocked();
}

void CachingAllocator::TrimLocked() {
  for (auto& [block_size, blocks] : free_) {
    for (void* block : blocks) ToSystem(block, block_size);
  }
  free_.clear();
  cached_ = 0;
}

size_t CachingAllocator::allocated_bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return allocated_;
}

size_t CachingAllocator::peak_bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return peak_;
}

size_t CachingAllocator::cached_bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return cached_;
}

void CachingAllocator::ResetPeak() {
  std::lock_guard<std::mutex> lock(mutex_);
  peak_ = allocated_;
}

}  // namespace cohort::runtime
