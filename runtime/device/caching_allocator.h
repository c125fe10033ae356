// Host memory from a pool: freed blocks wait for the next request of their size class.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace cohort::runtime {

// Thread-safe. Must outlive its blocks.
class CachingAllocator {
 public:
  CachingAllocator() = default;
  ~CachingAllocator();
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  // Uninitialised, aligned to 64 bytes. Aborts when the system has no memory left even after Trim.
  std::shared_ptr<void> Allocate(size_t bytes);
  // Gives all free blocks back to the system.
  void Trim();

  // Bytes of blocks handed out, the most there were since ResetPeak, and bytes of blocks kept for later.
  size_t allocated_bytes() const;
  size_t peak_bytes() const;
  size_t cached_bytes() const;
  void ResetPeak();

  // The size of the block that a request for `bytes` gets.
  static size_t BlockSize(size_t bytes);

 private:
  void* Take(size_t block_size);
  void Return(void* block, size_t block_size);
  void TrimLocked();

  mutable std::mutex mutex_;
  std::unordered_map<size_t, std::vector<void*>> free_;  // by block size, most recently freed last
  size_t allocated_ = 0;
  size_t peak_ = 0;
  size_t cached_ = 0;
};

}  // namespace cohort::runtime
