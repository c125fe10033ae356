// Layouts: which pieces of which tensors lie on which ranks, however they came there. Pure values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "comm/data_type.h"
#include "runtime/model/piece.h"

namespace cohort::parallel {

// One tensor of state: values, or "<name>/master" and the like, which are tensors of their own.
struct HeldPiece {
  runtime::Piece piece;
  DataType dtype = DataType::kF32;
  int64_t bytes() const { return piece.size() * static_cast<int64_t>(SizeOf(dtype)); }
};

// A list of pieces, as a value. Copies share it until one of them is changed: of thousands of ranks many hold the same,
// and what is made of a list is made once for all that share it.
class HeldPieces {
 public:
  HeldPieces() = default;
  HeldPieces(std::vector<HeldPiece> pieces)
      : list_(std::make_shared<std::vector<HeldPiece>>(std::move(pieces))) {}
  HeldPieces(std::initializer_list<HeldPiece> pieces) : HeldPieces(std::vector<HeldPiece>(pieces)) {}

  const std::vector<HeldPiece>& get() const {
    static const std::vector<HeldPiece> none;
    return list_ == nullptr ? none : *list_;
  }
  operator const std::vector<HeldPiece>&() const { return get(); }
  size_t size() const { return get().size(); }
  bool empty() const { return get().empty(); }
  const HeldPiece& operator[](size_t i) const { return get()[i]; }
  auto begin() const { return get().begin(); }
  auto end() const { return get().end(); }

  // This copy's own from now on.
  std::vector<HeldPiece>& Edit() {
    if (list_.use_count() != 1) list_ = std::make_shared<std::vector<HeldPiece>>(get());
    return *list_;
  }
  // Equal for copies that share their list; null: a list that was never made, which is empty.
  const void* identity() const { return list_.get(); }

 private:
  std::shared_ptr<std::vector<HeldPiece>> list_;
};

// ranks[r]: what rank r holds. Two layouts that a plan leads between number the same ranks: all that have something
// before or after. Pieces may be held by several ranks; a rank may hold nothing.
struct Layout {
  std::vector<HeldPieces> ranks;
  int world() const { return static_cast<int>(ranks.size()); }
};

// INVALID_ARGUMENT where a piece contradicts itself, or a tensor has two shapes or types in these layouts.
absl::Status CheckLayouts(const Layout& before, const Layout& after);

}  // namespace cohort::parallel
