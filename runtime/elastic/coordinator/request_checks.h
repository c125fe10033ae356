// Whether requests make sense: INVALID_ARGUMENT names the field, the limit and what was there.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cohort/v1/cluster.pb.h"

namespace cohort::cluster {

absl::Status CheckRequest(const v1::JoinRequest& request);
absl::Status CheckRequest(const v1::LeaveRequest& request);
absl::Status CheckRequest(const v1::RequestLeaveRequest& request);
absl::Status CheckRequest(const v1::RenewRequest& request);
absl::Status CheckRequest(const v1::AdvanceEpochRequest& request);
absl::Status CheckRequest(const v1::TieRequest& request);
absl::Status CheckRequest(const v1::BoardPostRequest& request);
absl::Status CheckRequest(const v1::BoardWithdrawRequest& request);
absl::Status CheckRequest(const v1::BoardAnswerRequest& request);
absl::Status CheckRequest(const v1::RendezvousPutRequest& request);
absl::Status CheckRequest(const v1::ReportRequest& request);

}  // namespace cohort::cluster
