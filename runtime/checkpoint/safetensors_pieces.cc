#include "runtime/checkpoint/safetensors_pieces.h"

#include <algorithm>
#include <map>
#include <utility>

#include "comm/check.h"
#include "runtime/checkpoint/policy.h"
#include "runtime/checkpoint/safetensors_header.h"

namespace cohort::runtime {
namespace {

const std::map<std::string, std::string>& PieceMetadata() {
  static const auto* metadata = new std::map<std::string, std::string>{{"format", "pt"}};
  return *metadata;
}

}  // namespace

absl::Status CreateForPieces(const std::string& path, const std::vector<TensorInfo>& tensors) {
  const std::string header = MakeSafetensorsHeader(tensors, PieceMetadata());
  uint64_t bytes = header.size();
  for (const TensorInfo& tensor : tensors) bytes += tensor.bytes();
  COHORT_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path));
  COHORT_RETURN_IF_ERROR(file.Write(header));
  COHORT_RETURN_IF_ERROR(file.Reserve(bytes));
  COHORT_RETURN_IF_ERROR(file.Sync());
  return file.Close();
}

SafetensorsPieceWriter::SafetensorsPieceWriter(OutputFile file, std::vector<TensorInfo> tensors)
    : file_(std::move(file)), tensors_(std::move(tensors)) {
  uint64_t offset = MakeSafetensorsHeader(tensors_, PieceMetadata()).size();
  for (const TensorInfo& tensor : tensors_) {
    offsets_.push_back(offset);
    offset += tensor.bytes();
  }
}

absl::StatusOr<SafetensorsPieceWriter> SafetensorsPieceWriter::Open(const std::string& path,
                                                                    std::vector<TensorInfo> tensors) {
  COHORT_ASSIGN_OR_RETURN(OutputFile file, OutputFile::OpenExisting(path));
  return SafetensorsPieceWriter(std::move(file), std::move(tensors));
}

absl::Status SafetensorsPieceWriter::Write(size_t i, const Piece& piece, const Tensor& values) {
  const TensorInfo& info = tensors_.at(i);
  COHORT_CHECK(info.shape == piece.full && values.size() == piece.size(), "%s written as %s of %s",
               values.DebugString().c_str(), piece.DebugString().c_str(), file_.path().c_str());
  const size_t element = SizeOf(info.dtype);
  absl::Status status;
  const auto write = [&](const Piece& part, const void* data) {
    ForEachRun(part, [&](const PieceRun& run) {
      if (!status.ok()) return;
      status = file_.WriteAt(offsets_[i] + static_cast<uint64_t>(run.full) * element,
                             static_cast<const char*>(data) + static_cast<size_t>(run.offset) * element,
                             static_cast<size_t>(run.count) * element);
    });
  };
  values.device().Synchronize();
  if (values.dtype() == info.dtype && values.device().in_host_memory()) {
    write(piece, values.raw());
    return status;
  }
  const Tensor flat = values.View({values.size()});
  for (int64_t begin = 0; begin < piece.size() && status.ok(); begin += checkpoint_policy::kConvertElements) {
    const int64_t end = std::min(piece.size(), begin + checkpoint_policy::kConvertElements);
    const Tensor converted = flat.Slice(begin, end).To(CpuDevice(), info.dtype);
    CpuDevice().Synchronize();
    write(piece.Range(begin, end), converted.raw());
  }
  return status;
}

absl::Status SafetensorsPieceWriter::Finish() {
  COHORT_RETURN_IF_ERROR(file_.Sync());
  return file_.Close();
}

}  // namespace cohort::runtime
