#include <string>

#include "comm/membership/edit.h"

namespace cohort::comm {
namespace {

constexpr char kPayload[] = "cohort/comm/exclusion";

}  // namespace

absl::Status ExcludedStatus(Exclusion exclusion, absl::string_view message) {
  absl::Status status = absl::FailedPreconditionError(message);
  status.SetPayload(kPayload, absl::Cord(std::string(1, static_cast<char>(exclusion))));
  return status;
}

std::optional<Exclusion> ExclusionOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayload);
  if (!payload.has_value() || payload->size() != 1) return std::nullopt;
  const auto exclusion = static_cast<Exclusion>((*payload)[0]);
  switch (exclusion) {
    case Exclusion::kLeft:
    case Exclusion::kRemoved:
    case Exclusion::kNoQuorum:
    case Exclusion::kRefused:
      return exclusion;
  }
  return std::nullopt;
}

}  // namespace cohort::comm
