// Safetensors files: a checked header, then the tensors' bytes. https://huggingface.co/docs/safetensors
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/file.h"
#include "runtime/model/piece.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

// The format's spelling of a type: "F32".
const char* SafetensorsName(DataType dtype);

// A tensor as a file's header describes it.
struct TensorInfo {
  std::string name;
  DataType dtype = DataType::kF32;
  Shape shape;

  uint64_t bytes() const;  // the shape must be a valid one
};

// A file open for reading, mapped. Copies share the mapping. Thread-safe.
class SafetensorsFile {
 public:
  // Checks the whole header: INVALID_ARGUMENT names the file, the tensor and what is wrong with it.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return path_; }
  // In the order of their bytes.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Null where there is none of this name.
  const TensorInfo* Find(absl::string_view name) const;

  // The values, on the CPU device, read-only: the mapping itself where the file keeps the tensor
  // aligned to its elements, else a copy. The mapping lives as long as its tensors. NOT_FOUND where
  // there is none of this name.
  absl::StatusOr<Tensor> Read(absl::string_view name) const;
  // The same of a piece of tensor piece.name, [piece.size()]: a copy also where the piece is of several runs. Nothing
  // else of the file is looked at. INVALID_ARGUMENT where the tensor's shape is not piece.full.
  absl::StatusOr<Tensor> ReadPiece(const Piece& piece) const;

 private:
  SafetensorsFile() = default;

  std::string path_;
  std::shared_ptr<void> mapping_;  // the tensors' bytes; null where there are none
  std::vector<TensorInfo> tensors_;
  std::vector<uint64_t> offsets_;  // of each tensor, from mapping_
  absl::flat_hash_map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
};

// Writes a file as a stream: the header first, so the tensors are announced, then their values in that order.
class SafetensorsWriter {
 public:
  static absl::StatusOr<SafetensorsWriter> Create(const std::string& path, std::vector<TensorInfo> tensors,
                                                  const std::map<std::string, std::string>& metadata = {
                                                      {"format", "pt"}});

  // The values of the next tensor, any shape of its size, converted to its type.
  absl::Status Write(const Tensor& values);
  // After the last tensor: the file is on the disk when this returns OK.
  absl::Status Finish();

 private:
  SafetensorsWriter(OutputFile file, std::vector<TensorInfo> tensors)
      : file_(std::move(file)), tensors_(std::move(tensors)) {}

  OutputFile file_;
  std::vector<TensorInfo> tensors_;
  size_t next_ = 0;
};

}  // namespace cohort::runtime
