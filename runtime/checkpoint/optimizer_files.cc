#include "runtime/checkpoint/optimizer_files.h"

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/checkpoint/state_plan.h"

namespace cohort::runtime {

namespace {

bool IsStateType(DataType dtype) { return dtype == DataType::kF32 || dtype == DataType::kF64; }

}  // namespace

absl::StatusOr<OptimizerFiles> OptimizerFiles::Open(const std::string& folder, int world) {
  OptimizerFiles all;
  for (int rank = 0; rank < world; ++rank) {
    COHORT_ASSIGN_OR_RETURN(SafetensorsFile file,
                            SafetensorsFile::Open(absl::StrCat(folder, "/", OptimizerFileName(rank, world))));
    for (const TensorInfo& tensor : file.tensors()) all.file_of_[tensor.name] = all.files_.size();
    all.files_.push_back(std::move(file));
  }
  return all;
}

const SafetensorsFile* OptimizerFiles::Find(const std::string& name) const {
  const auto it = file_of_.find(name);
  return it == file_of_.end() ? nullptr : &files_[it->second];
}

absl::Status ReadOptimizerFiles(const HfFolder& weights, int world, Trainable& trainable,
                                OptimizerState& optimizer) {
  const std::string& folder = weights.folder();
  COHORT_ASSIGN_OR_RETURN(const OptimizerFiles files, OptimizerFiles::Open(folder, world));
  for (const StateEntry& entry : trainable.state()) {
    if (entry.slice < 0 || entry.piece.empty()) continue;
    const StateTensors tensors = TensorsOf(entry, trainable, optimizer);
    Piece piece = entry.piece;
    for (size_t i = 0; i < tensors.state.size(); ++i) {
      piece.name = absl::StrCat(entry.piece.name, "/", kStateKinds[i]);
      const SafetensorsFile* const file = files.Find(piece.name);
      if (file == nullptr && absl::string_view(kStateKinds[i]) == kMaster) {
        const TensorInfo* info = weights.Find(entry.piece.name);
        if (info != nullptr && IsStateType(info->dtype)) {
          COHORT_ASSIGN_OR_RETURN(const Tensor values, weights.ReadPiece(entry.piece));
          CopyValues(values, tensors.state[i]);
          continue;
        }
      }
      if (file == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrCat("the optimizer files in ", folder, " have no tensor '", piece.name, "'"));
      }
      const TensorInfo& info = *file->Find(piece.name);
      if (info.shape != piece.full || !IsStateType(info.dtype)) {
        return absl::InvalidArgumentError(
            absl::StrCat(file->path(), ": tensor '", piece.name, "' is ", SafetensorsName(info.dtype), " [",
                         absl::StrJoin(info.shape, ","), "] instead of F32 or F64 [",
                         absl::StrJoin(piece.full, ","), "]"));
      }
      COHORT_ASSIGN_OR_RETURN(const Tensor values, file->ReadPiece(piece));
      CopyValues(values, tensors.state[i]);
    }
  }
  return absl::OkStatus();
}

}  // namespace cohort::runtime
