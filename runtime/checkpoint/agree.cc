#include "runtime/checkpoint/agree.h"

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"

namespace cohort::runtime {

absl::Status AgreeStatus(Trainable& trainable, const absl::Status& mine) {
  return AgreeStatus([&](const std::string& text) { return trainable.GatherStrings(text); }, mine);
}

absl::Status AgreeStatus(
    const std::function<absl::StatusOr<std::vector<std::string>>(const std::string&)>& gather,
    const absl::Status& mine) {
  // On the wire: nothing where all is well, else "<code> <message>".
  const std::string text = mine.ok() ? "" : absl::StrCat(static_cast<int>(mine.code()), " ", mine.message());
  COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> all, gather(text));

  absl::StatusCode code = absl::StatusCode::kOk;
  std::string message;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].empty()) continue;
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(all[rank], absl::MaxSplits(' ', 1));
    int number = 0;
    if (!absl::SimpleAtoi(parts.first, &number)) number = static_cast<int>(absl::StatusCode::kInternal);
    if (code == absl::StatusCode::kOk) code = static_cast<absl::StatusCode>(number);
    if (!message.empty()) message += "; ";
    if (all.size() > 1) absl::StrAppend(&message, "rank ", rank, ": ");
    absl::StrAppend(&message, parts.second);
  }
  return absl::Status(code, message);
}

}  // namespace cohort::runtime
