// Memory in which messages are packed, kept for the next ones: fresh memory costs more than packing does.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace cohort::comm {

// Thread-safe. What it has lent may outlive it.
class StagingPool {
 public:
  // At least so many bytes, with no particular content; goes back when the last copy of the pointer does.
  std::shared_ptr<std::byte[]> Lend(size_t bytes);

 private:
  struct Piece {
    std::unique_ptr<std::byte[]> memory;
    size_t bytes = 0;
  };
  struct Shelf {
    std::mutex mutex;
    std::vector<Piece> pieces;
  };

  const std::shared_ptr<Shelf> shelf_ = std::make_shared<Shelf>();
};

}  // namespace cohort::comm
