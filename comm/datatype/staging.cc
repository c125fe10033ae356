#include "comm/datatype/staging.h"

#include <algorithm>
#include <utility>

#include "comm/datatype/policy.h"

namespace cohort::comm {

std::shared_ptr<std::byte[]> StagingPool::Lend(size_t bytes) {
  Piece piece;
  {
    const std::lock_guard lock(shelf_->mutex);
    std::vector<Piece>& pieces = shelf_->pieces;
    const auto fits =
        std::find_if(pieces.begin(), pieces.end(), [&](const Piece& kept) { return kept.bytes >= bytes; });
    if (fits != pieces.end()) {
      piece = std::move(*fits);
      pieces.erase(fits);
    }
  }
  if (piece.memory == nullptr) piece = {std::make_unique_for_overwrite<std::byte[]>(bytes), bytes};
  std::byte* memory = piece.memory.get();
  return {memory, [shelf = shelf_, kept = std::make_shared<Piece>(std::move(piece))](std::byte*) {
            if (kept->bytes > policy::kStagingBytes) return;
            const std::lock_guard lock(shelf->mutex);
            if (shelf->pieces.size() < policy::kStagingPieces) shelf->pieces.push_back(std::move(*kept));
          }};
}

}  // namespace cohort::comm
