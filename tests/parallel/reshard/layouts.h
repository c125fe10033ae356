// Layouts of a few small tensors, for tests: flat shards, boxes, copies, over the first `holders` of `world` ranks.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "parallel/reshard/reshard_plan.h"
#include "runtime/model/spread.h"

namespace cohort::parallel {

inline std::vector<HeldPiece> Tensors() {
  using runtime::Piece;
  return {{Piece::Whole("w", {12, 20}), DataType::kBF16},
          {Piece::Whole("w/m", {12, 20}), DataType::kF32},
          {Piece::Whole("v", {3, 8, 5}), DataType::kBF16},
          {Piece::Whole("norm", {7}), DataType::kF32},
          {Piece::Whole("one", {1}), DataType::kF32}};
}

inline Layout Empty(int world) { return {std::vector<HeldPieces>(static_cast<size_t>(world))}; }

// One after another, cut into equal flat ranges.
inline Layout FlatShards(int holders, int world) {
  Layout layout = Empty(world);
  int64_t total = 0;
  for (const HeldPiece& held : Tensors()) total += held.piece.size();
  for (int rank = 0; rank < holders; ++rank) {
    const runtime::RowRange range = runtime::RowsOf(total, rank, holders);
    int64_t at = 0;
    for (HeldPiece held : Tensors()) {
      const int64_t size = held.piece.size();
      const int64_t from = std::clamp<int64_t>(range.begin - at, 0, size);
      held.piece = held.piece.Range(from, std::clamp<int64_t>(range.end - at, from, size));
      layout.ranks[static_cast<size_t>(rank)].push_back(held);
      at += size;
    }
  }
  return layout;
}

// Matrices in boxes along dimension `dim`, what has no such dimension on every holder.
inline Layout Boxes(int holders, int world, int dim) {
  Layout layout = Empty(world);
  for (int rank = 0; rank < holders; ++rank) {
    for (HeldPiece held : Tensors()) {
      const runtime::Piece& piece = held.piece;
      if (piece.full.size() > 1) {
        const runtime::RowRange range = runtime::RowsOf(piece.full[static_cast<size_t>(dim)], rank, holders);
        held.piece = runtime::Piece::Box(piece.name, piece.full, dim, range.begin, range.end);
      }
      layout.ranks[static_cast<size_t>(rank)].push_back(held);
    }
  }
  return layout;
}

// Values in boxes of columns, each in two pieces; moments in flat shards of these boxes over pairs of ranks; the rest
// on the last holder alone.
inline Layout Mixed(int holders, int world) {
  Layout layout = Empty(world);
  for (int rank = 0; rank < holders; ++rank) {
    HeldPieces& mine = layout.ranks[static_cast<size_t>(rank)];
    for (const HeldPiece& held : Tensors()) {
      if (held.piece.full.size() == 1) {
        if (rank == holders - 1) mine.push_back(held);
        continue;
      }
      const bool moments = held.piece.name == "w/m";
      const int parts = moments ? (holders + 1) / 2 : holders, part = moments ? rank / 2 : rank;
      const runtime::RowRange range = runtime::RowsOf(held.piece.full[1], part, parts);
      const runtime::Piece box =
          runtime::Piece::Box(held.piece.name, held.piece.full, 1, range.begin, range.end);
      const int64_t cut = box.size() / 2 + 1;
      const bool pair = !moments || rank == holders - 1 || rank % 2 == 1;
      if (pair) mine.push_back({box.Range(std::min(cut, box.size()), box.size()), held.dtype});
      if (!moments || rank % 2 == 0) mine.push_back({box.Range(0, std::min(cut, box.size())), held.dtype});
    }
  }
  return layout;
}

// What pieces hold, in memory of each piece's own: bytes that depend on the tensor and the element alone.
class Contents {
 public:
  explicit Contents(const std::vector<HeldPiece>& pieces) {
    for (const HeldPiece& held : pieces) memory_.emplace_back(static_cast<size_t>(held.bytes()), char{-1});
  }
  void Fill(const std::vector<HeldPiece>& pieces) {
    Each(pieces, [&](char* at, const char* bytes, size_t size) { std::memcpy(at, bytes, size); });
  }
  // Bytes that are not Fill's.
  int64_t Wrong(const std::vector<HeldPiece>& pieces) {
    int64_t wrong = 0;
    Each(pieces,
         [&](char* at, const char* bytes, size_t size) { wrong += std::memcmp(at, bytes, size) != 0; });
    return wrong;
  }
  char* data(size_t piece) { return memory_[piece].data(); }
  std::vector<const void*> Sources() const {
    std::vector<const void*> sources;
    for (const auto& memory : memory_) sources.push_back(memory.data());
    return sources;
  }
  std::vector<void*> Targets() {
    std::vector<void*> targets;
    for (auto& memory : memory_) targets.push_back(memory.data());
    return targets;
  }

 private:
  template <typename Visit>
  void Each(const std::vector<HeldPiece>& pieces, Visit&& visit) {
    for (size_t i = 0; i < pieces.size(); ++i) {
      const size_t element = SizeOf(pieces[i].dtype);
      uint32_t seed = 2166136261u;
      for (const char c : pieces[i].piece.name) seed = (seed ^ static_cast<unsigned char>(c)) * 16777619u;
      ForEachRun(pieces[i].piece, [&](const runtime::PieceRun& run) {
        for (int64_t j = 0; j < run.count; ++j) {
          uint32_t bits = (seed ^ static_cast<uint32_t>(run.full + j)) * 2246822519u;
          bits ^= bits >> 15;
          char bytes[sizeof(bits)];
          std::memcpy(bytes, &bits, sizeof(bits));
          visit(memory_[i].data() + static_cast<size_t>(run.offset + j) * element, bytes, element);
        }
      });
    }
  }
  std::vector<std::vector<char>> memory_;
};

}  // namespace cohort::parallel
