#include "tools/cohort/overwrite.h"

#include "absl/strings/str_cat.h"

namespace cohort::tools {

void AddOverwriteFlag(CLI::App& app, bool& overwrite, const std::string& what) {
  app.add_flag("--overwrite", overwrite, absl::StrCat("Replace ", what, " where it exists"));
}

absl::Status WithOverwriteHint(const absl::Status& status) {
  if (!absl::IsAlreadyExists(status)) return status;
  return absl::Status(status.code(), absl::StrCat(status.message(),
                                                  "; name another --output, or replace it with --overwrite"));
}

}  // namespace cohort::tools
