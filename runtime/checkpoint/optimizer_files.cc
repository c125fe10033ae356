#include "runtime/checkpoint/optimizer_files.h"

#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "runtime/checkpoint/safetensors.h"

namespace cohort::runtime {
namespace {

std::string FilePath(const std::string& folder, int rank, int world) {
  return absl::StrFormat("%s/optimizer-%05d-of-%05d.safetensors", folder, rank, world);
}

// The kinds of state an entry has, and where each lies in memory: a view with the parameter's shape.
struct StateView {
  std::string name;
  Tensor tensor;
};
std::vector<StateView> ViewsOf(const StateEntry& entry, const OptimizerSlice& slice,
                               const OptimizerState& optimizer) {
  const Shape& shape = entry.parameter->shape;
  int64_t size = 1;
  for (int64_t dim : shape) size *= dim;
  const auto view = [&](const Tensor& flat) {
    return flat.Slice(entry.offset, entry.offset + size).View(shape);
  };
  return {{entry.name + "/master", view(slice.master)},
          {entry.name + "/m", view(optimizer.m[entry.slice])},
          {entry.name + "/v", view(optimizer.v[entry.slice])}};
}

}  // namespace

absl::Status WriteOptimizerFile(const std::string& folder, Trainable& trainable,
                                const OptimizerState& optimizer) {
  std::vector<TensorInfo> infos;
  std::vector<Tensor> values;
  for (const StateEntry& entry : trainable.state()) {
    if (!entry.writes || entry.slice < 0) continue;
    for (StateView& view : ViewsOf(entry, trainable.slices()[entry.slice], optimizer)) {
      infos.push_back({std::move(view.name), view.tensor.dtype(), view.tensor.shape()});
      values.push_back(std::move(view.tensor));
    }
  }
  COHORT_ASSIGN_OR_RETURN(
      SafetensorsWriter writer,
      SafetensorsWriter::Create(FilePath(folder, trainable.rank(), trainable.world()), std::move(infos)));
  for (const Tensor& tensor : values) COHORT_RETURN_IF_ERROR(writer.Write(tensor));
  return writer.Finish();
}

absl::Status ReadOptimizerFiles(const std::string& folder, int world, Trainable& trainable,
                                OptimizerState& optimizer) {
  std::vector<SafetensorsFile> files;
  absl::flat_hash_map<std::string, size_t> file_of;
  for (int rank = 0; rank < world; ++rank) {
    COHORT_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(FilePath(folder, rank, world)));
    for (const TensorInfo& tensor : file.tensors()) file_of[tensor.name] = files.size();
    files.push_back(std::move(file));
  }
  for (const StateEntry& entry : trainable.state()) {
    if (entry.slice < 0) continue;
    for (const StateView& view : ViewsOf(entry, trainable.slices()[entry.slice], optimizer)) {
      const auto it = file_of.find(view.name);
      if (it == file_of.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("the optimizer files in ", folder, " have no tensor '", view.name, "'"));
      }
      const TensorInfo& info = *files[it->second].Find(view.name);
      if (info.shape != view.tensor.shape() ||
          (info.dtype != DataType::kF32 && info.dtype != DataType::kF64)) {
        return absl::InvalidArgumentError(
            absl::StrCat(files[it->second].path(), ": tensor '", view.name, "' is ",
                         SafetensorsName(info.dtype), " [", absl::StrJoin(info.shape, ","),
                         "] instead of F32 or F64 [", absl::StrJoin(view.tensor.shape(), ","), "]"));
      }
      COHORT_ASSIGN_OR_RETURN(const Tensor values, files[it->second].Read(view.name));
      view.tensor.device().ops().Copy(values, view.tensor);
      view.tensor.device().Synchronize();  // before the mapping goes
    }
  }
  return absl::OkStatus();
}

}  // namespace cohort::runtime
