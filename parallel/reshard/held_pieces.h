// What a rank holds, as a list of pieces: kept as bundles, because of a parameter's master and moments a rank holds the
// same part. Pure values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "comm/data_type.h"
#include "runtime/model/piece.h"
#include "runtime/tensor.h"

namespace cohort::parallel {

// One tensor of state: values, or "<name>/master" and the like, which are tensors of their own.
struct HeldPiece {
  runtime::Piece piece;
  DataType dtype = DataType::kF32;
  int64_t bytes() const { return piece.size() * static_cast<int64_t>(SizeOf(dtype)); }
};

// Tensors of one shape and type that lie alike, "<name>/<kind>", or one alone. Of a training they are made once for
// thousands of ranks: what each of these has of them are numbers.
struct TensorBundle {
  std::vector<std::string> names;
  runtime::Shape full;
  DataType dtype = DataType::kF32;
};

// The same part of each tensor of a bundle; the numbers are those of a Piece.
struct HeldBundle {
  const TensorBundle* tensors = nullptr;  // the list keeps them
  int first_piece = 0;  // in the list, which has one piece of each tensor, one after another
  int dim = 0;
  int64_t begin = 0, end = 0;
  int64_t first = 0, last = 0;

  int count() const { return static_cast<int>(tensors->names.size()); }
  int64_t size() const { return last - first; }
  bool empty() const { return last == first; }
  // Of its tensor of that number.
  runtime::Piece PieceOf(int tensor) const;
  // The same of all of them: without a name.
  runtime::Piece Nameless() const;
};

// A list of pieces, as a value. Copies share it until one of them is changed: of thousands of ranks many hold the same,
// and what is made of a list is made once for all that share it.
class HeldPieces {
 public:
  HeldPieces() = default;
  HeldPieces(const std::vector<HeldPiece>& pieces);
  HeldPieces(std::initializer_list<HeldPiece> pieces) : HeldPieces(std::vector<HeldPiece>(pieces)) {}
  // Their tensors live as long as `tensors`. Numbers the pieces.
  HeldPieces(std::shared_ptr<const void> tensors, std::vector<HeldBundle> bundles);

  const std::vector<HeldBundle>& bundles() const;
  size_t size() const;
  bool empty() const { return size() == 0; }
  // Pieces are made when they are asked for.
  HeldPiece operator[](size_t i) const;
  DataType dtype(size_t i) const { return BundleWith(i).tensors->dtype; }
  operator std::vector<HeldPiece>() const;

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = HeldPiece;
    using difference_type = std::ptrdiff_t;
    using pointer = const HeldPiece*;
    using reference = HeldPiece;
    Iterator(const HeldPieces* list, size_t i) : list_(list), i_(i) {}
    HeldPiece operator*() const { return (*list_)[i_]; }
    Iterator& operator++() {
      ++i_;
      return *this;
    }
    bool operator==(const Iterator&) const = default;

   private:
    const HeldPieces* list_;
    size_t i_;
  };
  Iterator begin() const { return {this, 0}; }
  Iterator end() const { return {this, size()}; }

  // Behind the others. A piece that lies as the last bundle does joins it, where their names differ in the kind alone.
  void push_back(const HeldPiece& piece);
  void Append(const HeldPieces& other);

  // Equal for copies that share their list; null: a list that was never made, which is empty.
  const void* identity() const { return list_.get(); }

 private:
  struct List {
    absl::InlinedVector<std::shared_ptr<const void>, 1> tensors;
    std::vector<HeldBundle> bundles;
  };
  const HeldBundle& BundleWith(size_t piece) const;
  List& Own();  // this copy's, from now on

  std::shared_ptr<List> list_;
};

}  // namespace cohort::parallel
