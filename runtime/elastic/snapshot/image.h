// One generation of one rank as bytes: a header, a table of its pieces, the pieces. What lies in a slot, travels, and is
// encoded. It says itself whether it is whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/elastic/snapshot/slots.h"

namespace cohort::runtime::elastic {

struct ImagePiece {
  std::string name;
  uint64_t bytes = 0;
};

// Where everything lies: a pure function of the pieces' names and sizes and the layout text.
struct ImagePlan {
  std::string layout;  // says what the pieces are to whoever wrote them
  std::vector<ImagePiece> pieces;
  std::vector<uint64_t> offsets;  // by piece, from the beginning of the image
  uint64_t bytes = 0;             // of the whole image
};
ImagePlan PlanImage(std::vector<ImagePiece> pieces, std::string layout);

// Writes the header and table of an image whose pieces are in place, with their sums. sums[i]: SumOfChunks of piece i.
void WriteImageHead(const ImagePlan& plan, GenerationName name, absl::Span<const uint64_t> sums,
                    absl::Span<std::byte> image);

// What an image holds; views of it.
struct Image {
  struct Piece {
    std::string name;
    absl::Span<const std::byte> data;
    uint64_t sum = 0;
  };
  GenerationName name;
  std::string layout;
  std::vector<Piece> pieces;
  absl::Span<const std::byte> bytes;  // header, table and pieces: what is encoded and sent

  const Piece* Find(absl::string_view piece) const;
};
// DATA_LOSS where the bytes do not begin with the header and table of an image that fits into them. Pieces are not
// looked at.
absl::StatusOr<Image> ReadImage(absl::Span<const std::byte> bytes);
// DATA_LOSS names the first piece whose bytes are not those that were written.
absl::Status VerifyImage(const Image& image);

}  // namespace cohort::runtime::elastic
