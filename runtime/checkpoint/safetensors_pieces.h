// A safetensors file that several ranks write together: one makes it, with its header and room for everything, then
// each writes the pieces of tensors that it holds, at their places.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/file.h"
#include "runtime/model/piece.h"

namespace cohort::runtime {

// The header, on the disk or not, and room for all values, whatever they are. RESOURCE_EXHAUSTED where there is none.
absl::Status CreateForPieces(const std::string& path, const std::vector<TensorInfo>& tensors);

// Writes into a file that was so made of the same list. Not thread-safe; several may write into one file at once.
class SafetensorsPieceWriter {
 public:
  static absl::StatusOr<SafetensorsPieceWriter> Open(const std::string& path,
                                                     std::vector<TensorInfo> tensors);

  // The values [piece.size()], any float type, of a piece of tensor i of the list, whose shape is piece.full.
  absl::Status Write(size_t i, const Piece& piece, const Tensor& values);
  // What was written is on the disk when this returns OK.
  absl::Status Finish();

 private:
  SafetensorsPieceWriter(OutputFile file, std::vector<TensorInfo> tensors);

  OutputFile file_;
  std::vector<TensorInfo> tensors_;
  std::vector<uint64_t> offsets_;  // of each tensor in the file
};

}  // namespace cohort::runtime
