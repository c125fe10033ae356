// A folder that appears whole or not at all.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace cohort::runtime {

// Made under a temporary name beside its own, which it gets when it is published; removed unless it is.
class StagedFolder {
 public:
  explicit StagedFolder(const std::string& target);
  StagedFolder(const StagedFolder&) = delete;
  ~StagedFolder();

  // ALREADY_EXISTS where the target does and may not be replaced.
  absl::Status Make(bool overwrite);
  absl::StatusOr<std::string> MakeInside(const char* name);
  // What is in it is on the disk already (WriteFileDurably).
  absl::Status Publish();

  const std::filesystem::path& path() const { return staged_; }

 private:
  std::filesystem::path target_, staged_;
  bool published_ = false;
};

}  // namespace cohort::runtime
