#include "runtime/checkpoint/checkpoint_folders.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "comm/check.h"
#include "runtime/checkpoint/policy.h"
#include "runtime/file.h"

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "step-";
// The next `latest`, before it is renamed; also a partial name, so that a leftover is removed.
constexpr char kNextLatest[] = "latest.partial";

std::string Join(const std::string& root, absl::string_view name) { return absl::StrCat(root, "/", name); }

absl::Status RemoveAll(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return ErrnoStatus(error.value(), "remove", path);
  return absl::OkStatus();
}

}  // namespace

std::string StepFolderName(int64_t step) {
  return absl::StrFormat("%s%0*d", kPrefix, checkpoint_policy::kStepDigits, step);
}

std::optional<int64_t> ParseStepFolderName(absl::string_view name) {
  int64_t step;
  if (!absl::ConsumePrefix(&name, kPrefix) || !absl::SimpleAtoi(name, &step)) return std::nullopt;
  if (step < 0 || StepFolderName(step) != absl::StrCat(kPrefix, name)) return std::nullopt;
  return step;
}

std::vector<int64_t> ListSteps(const std::string& root) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    if (const auto step = ParseStepFolderName(it->path().filename().string())) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::string StepFolder::path() const { return Join(root, StepFolderName(step)); }

std::string StepFolder::partial() const {
  return absl::StrCat(path(), attempt.empty() ? "" : ".", attempt, kPartialSuffix);
}

absl::Status BeginStepFolder(const StepFolder& folder) {
  const std::string& root = folder.root;
  std::error_code error;
  fs::create_directories(root, error);
  if (error) return ErrnoStatus(error.value(), "make the folder", root);
  std::vector<std::string> stale;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    if (absl::EndsWith(it->path().filename().string(), kPartialSuffix)) stale.push_back(it->path().string());
  }
  if (error) return ErrnoStatus(error.value(), "list the folder", root);
  for (const std::string& path : stale) COHORT_RETURN_IF_ERROR(RemoveAll(path));
  const std::string partial = folder.partial();
  fs::create_directory(partial, error);
  if (error) return ErrnoStatus(error.value(), "make the folder", partial);
  return absl::OkStatus();
}

absl::Status PublishStepFolder(const StepFolder& folder) {
  const std::string &root = folder.root, partial = folder.partial(), final = folder.path();
  COHORT_RETURN_IF_ERROR(SyncFolder(partial));
  if (rename(partial.c_str(), final.c_str()) != 0) {
    if (errno != EEXIST && errno != ENOTEMPTY) return ErrnoStatus(errno, "rename the checkpoint to", final);
    // This step was saved before: the folders change places, so that there is a whole one at every moment.
    if (renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, final.c_str(), RENAME_EXCHANGE) != 0) {
      return ErrnoStatus(
          errno, "replace the earlier checkpoint (remove it by hand where its file system cannot)", final);
    }
    // What is now under the partial name is the old one; it goes with the next save where this fails.
    RemoveAll(partial).IgnoreError();
  }
  COHORT_RETURN_IF_ERROR(SyncFolder(root));

  const std::string next = Join(root, kNextLatest), latest = Join(root, kLatest);
  unlink(next.c_str());
  if (symlink(StepFolderName(folder.step).c_str(), next.c_str()) != 0)
    return ErrnoStatus(errno, "link", next);
  if (rename(next.c_str(), latest.c_str()) != 0) return ErrnoStatus(errno, "replace the link", latest);
  return SyncFolder(root);
}

void AbandonStepFolder(const StepFolder& folder) { RemoveAll(folder.partial()).IgnoreError(); }

std::vector<int64_t> StepsToRemove(std::vector<int64_t> steps, int64_t saved, int keep) {
  // Best first: the one just saved, the ones before it from new to old, the ones after it from old to new.
  std::sort(steps.begin(), steps.end(), [saved](int64_t a, int64_t b) {
    if ((a <= saved) != (b <= saved)) return a <= saved;
    return a <= saved ? a > b : a < b;
  });
  std::vector<int64_t> removed;
  for (size_t i = static_cast<size_t>(std::max(keep, 1)); i < steps.size(); ++i) {
    if (steps[i] != saved) removed.push_back(steps[i]);
  }
  return removed;
}

absl::Status RemoveStepFolder(const std::string& root, int64_t step) {
  const StepFolder folder{root, step};
  const std::string path = folder.path(), partial = folder.partial();
  if (rename(path.c_str(), partial.c_str()) != 0) return ErrnoStatus(errno, "rename for removal", path);
  return RemoveAll(partial);
}

}  // namespace cohort::runtime
