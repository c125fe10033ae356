#include "runtime/checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "runtime/checkpoint/policy.h"
#include "runtime/checkpoint/safetensors_header.h"

namespace cohort::runtime {
namespace {

struct MappedFile {
  std::shared_ptr<void> data;
  uint64_t bytes = 0;
};

absl::StatusOr<MappedFile> MapFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO must not block
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  struct stat info;
  if (fstat(fd, &info) != 0) {
    const absl::Status status = ErrnoStatus(errno, "stat", path);
    close(fd);
    return status;
  }
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  MappedFile file;
  file.bytes = static_cast<uint64_t>(info.st_size);
  if (file.bytes > 0) {
    void* data = mmap(nullptr, file.bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    if (data == MAP_FAILED) {
      close(fd);
      return ErrnoStatus(error, "map", path);
    }
    file.data = std::shared_ptr<void>(data, [bytes = file.bytes](void* p) { munmap(p, bytes); });
  }
  close(fd);
  return file;
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  COHORT_ASSIGN_OR_RETURN(MappedFile mapped, MapFile(path));
  uint64_t length = 0;
  if (mapped.bytes < sizeof(length)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", mapped.bytes,
                     " bytes are no safetensors file, which begins with the 8-byte "
                     "length of its header (is it truncated?)"));
  }
  std::memcpy(&length, mapped.data.get(), sizeof(length));
  if (length > checkpoint_policy::kMaxHeaderBytes || length > mapped.bytes - sizeof(length)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the header claims ", length, " bytes, but the file has ", mapped.bytes,
                     " and the format allows ", checkpoint_policy::kMaxHeaderBytes,
                     " (is it truncated, or no safetensors file?)"));
  }
  char* begin = static_cast<char*>(mapped.data.get());
  const uint64_t data_begin = sizeof(length) + length;
  COHORT_ASSIGN_OR_RETURN(SafetensorsHeader header,
                          ParseSafetensorsHeader(absl::string_view(begin + sizeof(length), length),
                                                 mapped.bytes - data_begin, path));
  SafetensorsFile file;
  file.path_ = path;
  file.mapping_ = std::shared_ptr<void>(mapped.data, begin + data_begin);
  file.tensors_ = std::move(header.tensors);
  file.offsets_ = std::move(header.offsets);
  file.metadata_ = std::move(header.metadata);
  for (size_t i = 0; i < file.tensors_.size(); ++i) file.index_[file.tensors_[i].name] = i;
  return file;
}

const TensorInfo* SafetensorsFile::Find(absl::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

absl::StatusOr<Tensor> SafetensorsFile::Read(absl::string_view name) const {
  const auto it = index_.find(name);
  if (it == index_.end()) return absl::NotFoundError(absl::StrCat(path_, " has no tensor '", name, "'"));
  const TensorInfo& info = tensors_[it->second];
  char* data = static_cast<char*>(mapping_.get()) + offsets_[it->second];
  if (reinterpret_cast<uintptr_t>(data) % SizeOf(info.dtype) == 0) {
    return Tensor::Wrap(CpuDevice(), mapping_, data, info.shape, info.dtype);
  }
  Tensor copy = Tensor::Empty(CpuDevice(), info.shape, info.dtype);
  std::memcpy(copy.raw(), data, copy.bytes());
  return copy;
}

absl::StatusOr<Tensor> SafetensorsFile::ReadPiece(const Piece& piece) const {
  const auto it = index_.find(piece.name);
  if (it == index_.end())
    return absl::NotFoundError(absl::StrCat(path_, " has no tensor '", piece.name, "'"));
  const TensorInfo& info = tensors_[it->second];
  if (info.shape != piece.full) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": tensor '", piece.name, "' is [",
                                                   absl::StrJoin(info.shape, ","), "] instead of [",
                                                   absl::StrJoin(piece.full, ","), "]"));
  }
  const size_t element = SizeOf(info.dtype);
  char* data = static_cast<char*>(mapping_.get()) + offsets_[it->second];
  Tensor values;
  ForEachRun(piece, [&](const PieceRun& run) {
    char* from = data + static_cast<size_t>(run.full) * element;
    if (run.count == piece.size() && reinterpret_cast<uintptr_t>(from) % element == 0) {
      values = Tensor::Wrap(CpuDevice(), mapping_, from, {run.count}, info.dtype);
      return;
    }
    if (!values.defined()) values = Tensor::Empty(CpuDevice(), {piece.size()}, info.dtype);
    std::memcpy(static_cast<char*>(values.raw()) + static_cast<size_t>(run.offset) * element, from,
                static_cast<size_t>(run.count) * element);
  });
  return values.defined() ? values : Tensor::Empty(CpuDevice(), {0}, info.dtype);
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(
    const std::string& path, std::vector<TensorInfo> tensors,
    const std::map<std::string, std::string>& metadata) {
  COHORT_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path));
  COHORT_RETURN_IF_ERROR(file.Write(MakeSafetensorsHeader(tensors, metadata)));
  return SafetensorsWriter(std::move(file), std::move(tensors));
}

absl::Status SafetensorsWriter::Write(const Tensor& values) {
  COHORT_CHECK(next_ < tensors_.size(), "a tensor more than announced for %s", file_.path().c_str());
  const TensorInfo& info = tensors_[next_++];
  COHORT_CHECK(static_cast<uint64_t>(values.size()) * SizeOf(info.dtype) == info.bytes(),
               "%s written as %s of %s", values.DebugString().c_str(), info.name.c_str(),
               file_.path().c_str());
  values.device().Synchronize();
  if (values.dtype() == info.dtype && values.device().in_host_memory()) {
    return file_.Write(values.raw(), values.bytes());
  }
  const Tensor flat = values.View({values.size()});
  for (int64_t begin = 0; begin < values.size(); begin += checkpoint_policy::kConvertElements) {
    const int64_t end = std::min(values.size(), begin + checkpoint_policy::kConvertElements);
    const Tensor part = flat.Slice(begin, end).To(CpuDevice(), info.dtype);
    CpuDevice().Synchronize();
    COHORT_RETURN_IF_ERROR(file_.Write(part.raw(), part.bytes()));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Finish() {
  COHORT_CHECK(next_ == tensors_.size(), "%zu of %zu tensors written to %s", next_, tensors_.size(),
               file_.path().c_str());
  COHORT_RETURN_IF_ERROR(file_.Sync());
  return file_.Close();
}

}  // namespace cohort::runtime
