#include "runtime/staged_folder.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/file.h"

namespace cohort::runtime {

namespace fs = std::filesystem;

namespace {

fs::path Trimmed(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

}  // namespace

StagedFolder::StagedFolder(const std::string& target)
    : target_(Trimmed(fs::path(target).lexically_normal())),
      staged_(absl::StrCat(target_.string(), ".tmp-", ::getpid())) {}

StagedFolder::~StagedFolder() {
  std::error_code ignored;
  if (!published_) fs::remove_all(staged_, ignored);
}

absl::Status StagedFolder::Make(bool overwrite) {
  std::error_code error;
  if (fs::exists(target_, error) && !overwrite) {
    return absl::AlreadyExistsError(absl::StrCat(target_.string(), " exists already"));
  }
  fs::remove_all(staged_, error);
  fs::create_directories(staged_, error);
  if (error) return ErrnoStatus(error.value(), "make the folder", staged_.string());
  return absl::OkStatus();
}

absl::StatusOr<std::string> StagedFolder::MakeInside(const char* name) {
  std::error_code error;
  fs::create_directory(staged_ / name, error);
  if (error) return ErrnoStatus(error.value(), "make the folder", (staged_ / name).string());
  return (staged_ / name).string();
}

absl::Status StagedFolder::Publish() {
  std::error_code error, ignored;
  const fs::path old = absl::StrCat(staged_.string(), "-old");
  const bool replaces = fs::exists(target_, ignored);
  if (replaces) fs::rename(target_, old, error);
  if (!error) fs::rename(staged_, target_, error);
  if (error) {
    if (replaces && !fs::exists(target_, ignored)) fs::rename(old, target_, ignored);
    return ErrnoStatus(error.value(), "rename to", target_.string());
  }
  published_ = true;
  fs::remove_all(old, ignored);
  // So that the rename survives a power cut; a parent that cannot be opened does not undo it.
  SyncFolder(target_.has_parent_path() ? target_.parent_path().string() : ".").IgnoreError();
  return absl::OkStatus();
}

}  // namespace cohort::runtime
