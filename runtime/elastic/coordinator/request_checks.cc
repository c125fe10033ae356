#include "runtime/elastic/coordinator/request_checks.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {
namespace {

absl::Status CheckSize(absl::string_view field, absl::string_view value, size_t most) {
  if (value.size() <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " has ", value.size(), " bytes; ", most, " are allowed"));
}

absl::Status CheckName(absl::string_view field, absl::string_view value,
                       size_t most = policy::kMaxNameBytes) {
  if (value.empty()) return absl::InvalidArgumentError(absl::StrCat(field, " is empty"));
  return CheckSize(field, value, most);
}

// Finite and not negative.
absl::Status CheckAmount(absl::string_view field, double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; it must be 0 or more"));
}

absl::Status CheckNames(absl::string_view field,
                        const google::protobuf::RepeatedPtrField<std::string>& members) {
  if (static_cast<size_t>(members.size()) > policy::kMaxMembers) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has ", members.size(), " names; 1 to ", policy::kMaxMembers, " are allowed"));
  }
  absl::flat_hash_set<absl::string_view> names;
  names.reserve(static_cast<size_t>(members.size()));
  for (const std::string& name : members) {
    COHORT_RETURN_IF_ERROR(CheckName(absl::StrCat("a name in ", field), name));
    if (!names.insert(name).second) {
      return absl::InvalidArgumentError(absl::StrCat(field, " has ", name, " twice"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRequest(const v1::JoinRequest& request) {
  COHORT_RETURN_IF_ERROR(CheckName("job", request.job()));
  COHORT_RETURN_IF_ERROR(CheckName("name", request.name()));
  COHORT_RETURN_IF_ERROR(CheckName("session", request.session()));
  COHORT_RETURN_IF_ERROR(CheckSize("host", request.host(), policy::kMaxKeyBytes));
  COHORT_RETURN_IF_ERROR(CheckSize("host_id", request.host_id(), policy::kMaxKeyBytes));
  COHORT_RETURN_IF_ERROR(CheckSize("address", request.address(), policy::kMaxKeyBytes));
  COHORT_RETURN_IF_ERROR(CheckSize("launch_id", request.launch_id(), policy::kMaxKeyBytes));
  COHORT_RETURN_IF_ERROR(CheckSize("version", request.version(), policy::kMaxNameBytes));
  if (request.role() != v1::MEMBER_ROLE_LAUNCHED && request.role() != v1::MEMBER_ROLE_NEWCOMER) {
    return absl::InvalidArgumentError("role is neither launched nor newcomer");
  }
  const bool launched = request.launch_size() > 0;
  if (request.launch_rank() < 0 || request.launch_size() < 0 ||
      (launched ? request.launch_rank() >= request.launch_size() : request.launch_rank() != 0)) {
    return absl::InvalidArgumentError(absl::StrCat("launch_rank is ", request.launch_rank(),
                                                   " and launch_size ", request.launch_size(),
                                                   "; a rank is less than the size"));
  }
  return absl::OkStatus();
}

absl::Status CheckRequest(const v1::LeaveRequest& request) {
  return CheckSize("reason", request.reason(), policy::kMaxWordsBytes);
}

absl::Status CheckRequest(const v1::RequestLeaveRequest& request) {
  if (request.name().empty() == (request.member_id() == 0)) {
    return absl::InvalidArgumentError("give either member_id or name");
  }
  return CheckSize("reason", request.reason(), policy::kMaxWordsBytes);
}

absl::Status CheckRequest(const v1::RenewRequest& request) {
  const v1::StepReport& report = request.report();
  COHORT_RETURN_IF_ERROR(CheckSize("report.phase", report.phase(), policy::kMaxNameBytes));
  COHORT_RETURN_IF_ERROR(CheckAmount("report.compute_seconds", report.compute_seconds()));
  COHORT_RETURN_IF_ERROR(CheckAmount("report.wait_seconds", report.wait_seconds()));
  if (static_cast<size_t>(report.recent_compute_seconds_size()) > policy::kMaxRecentSteps) {
    return absl::InvalidArgumentError(absl::StrCat("report.recent_compute_seconds has ",
                                                   report.recent_compute_seconds_size(), " steps; ",
                                                   policy::kMaxRecentSteps, " are allowed"));
  }
  if (static_cast<size_t>(request.seen_size()) > policy::kMaxMembers) {
    return absl::InvalidArgumentError(
        absl::StrCat("seen has ", request.seen_size(), " processes; ", policy::kMaxMembers, " are allowed"));
  }
  for (const float seconds : report.recent_compute_seconds()) {
    COHORT_RETURN_IF_ERROR(CheckAmount("report.recent_compute_seconds", seconds));
  }
  COHORT_RETURN_IF_ERROR(CheckAmount("report.weight", report.weight()));
  COHORT_RETURN_IF_ERROR(CheckAmount("report.tokens", static_cast<double>(report.tokens())));
  return CheckAmount("report.step", static_cast<double>(report.step()));
}

absl::Status CheckRequest(const v1::AdvanceEpochRequest& request) {
  if (request.to() <= request.from()) {
    return absl::InvalidArgumentError(
        absl::StrCat("to is ", request.to(), "; it must be greater than from, which is ", request.from()));
  }
  if (request.members().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("members has 0 names; 1 to ", policy::kMaxMembers, " are allowed"));
  }
  COHORT_RETURN_IF_ERROR(CheckNames("members", request.members()));
  COHORT_RETURN_IF_ERROR(CheckAmount("step", static_cast<double>(request.step())));
  COHORT_RETURN_IF_ERROR(CheckSize("why", request.why(), policy::kMaxWordsBytes));
  return CheckSize("arrangement", request.arrangement(), policy::kMaxValueBytes);
}

absl::Status CheckRequest(const v1::TieRequest& request) {
  if (request.after() == 0) return absl::InvalidArgumentError("after is 0; epochs count from 1 on");
  return CheckNames("half", request.half());
}

absl::Status CheckRequest(const v1::BoardPostRequest& request) {
  COHORT_RETURN_IF_ERROR(CheckName("name", request.name()));
  return CheckSize("text", request.text(), policy::kMaxValueBytes);
}

absl::Status CheckRequest(const v1::BoardWithdrawRequest& request) {
  return CheckName("name", request.name());
}

absl::Status CheckRequest(const v1::BoardAnswerRequest& request) {
  COHORT_RETURN_IF_ERROR(CheckName("name", request.name()));
  return CheckSize("text", request.text(), policy::kMaxAnswerBytes);
}

absl::Status CheckRequest(const v1::RendezvousPutRequest& request) {
  COHORT_RETURN_IF_ERROR(CheckName("launch_id", request.launch_id(), policy::kMaxKeyBytes));
  COHORT_RETURN_IF_ERROR(CheckName("key", request.key(), policy::kMaxKeyBytes));
  return CheckSize("value", request.value(), policy::kMaxValueBytes);
}

absl::Status CheckRequest(const v1::ReportRequest& request) {
  constexpr v1::EventKind kToldByMembers[] = {v1::EVENT_KIND_FAULT_FOUND,
                                              v1::EVENT_KIND_RECONFIGURATION_BEGUN,
                                              v1::EVENT_KIND_RECONFIGURATION_ENDED,
                                              v1::EVENT_KIND_SNAPSHOT,
                                              v1::EVENT_KIND_REPAIR,
                                              v1::EVENT_KIND_CHECKPOINT,
                                              v1::EVENT_KIND_NOTE,
                                              v1::EVENT_KIND_EVICTION};
  if (std::find(std::begin(kToldByMembers), std::end(kToldByMembers), request.kind()) ==
      std::end(kToldByMembers)) {
    return absl::InvalidArgumentError(
        absl::StrCat("kind is ", request.kind(), ", which is none that members tell"));
  }
  if (request.sequence() == 0) return absl::InvalidArgumentError("sequence is 0; it counts from 1 on");
  COHORT_RETURN_IF_ERROR(CheckAmount("seconds", request.seconds()));
  COHORT_RETURN_IF_ERROR(CheckAmount("step", static_cast<double>(request.step())));
  COHORT_RETURN_IF_ERROR(CheckSize("subject", request.subject(), policy::kMaxNameBytes));
  return CheckSize("words", request.words(), policy::kMaxWordsBytes);
}

}  // namespace cohort::cluster
