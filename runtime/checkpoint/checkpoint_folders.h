// The folders of a run's checkpoints: their names, how one becomes `latest`, and which ones go.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

inline constexpr char kLatest[] = "latest";
inline constexpr char kPartialSuffix[] = ".partial";

std::string StepFolderName(int64_t step);                            // step-00000100
std::optional<int64_t> ParseStepFolderName(absl::string_view name);  // the same backwards
// Steps of the complete checkpoints in `root`, ascending.
std::vector<int64_t> ListSteps(const std::string& root);

// A checkpoint that is being saved.
struct StepFolder {
  std::string root;
  int64_t step = 0;
  std::string attempt = {};  // a part of the name of the partial folder; none has a dot

  std::string path() const;     // <root>/step-00000100
  std::string partial() const;  // <root>/step-00000100.partial, or <root>/step-00000100.<attempt>.partial
};

// Removes what died half written or half removed, and makes the partial folder, empty.
absl::Status BeginStepFolder(const StepFolder& folder);
// The complete partial folder gets its name (atomically replacing one of that name) and then becomes `latest`.
// Durable when it returns OK.
absl::Status PublishStepFolder(const StepFolder& folder);
// Removes the partial folder after a failed save.
void AbandonStepFolder(const StepFolder& folder);
// Which of `steps` to remove so that `keep` remain: `saved` always stays; then the newest before it; steps
// after it are of a history that was abandoned and go first.
std::vector<int64_t> StepsToRemove(std::vector<int64_t> steps, int64_t saved, int keep);
// Removes one, so that a kill leaves no half of it under its name.
absl::Status RemoveStepFolder(const std::string& root, int64_t step);

}  // namespace cohort::runtime
