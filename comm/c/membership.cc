// Edits of live groups, from C.
#include <algorithm>
#include <vector>

#include "absl/strings/str_format.h"
#include "comm/c/handles.h"
#include "comm/check.h"
#include "comm/membership/edit.h"
#include "comm/membership/join_board.h"

namespace cohort::comm::c {
namespace {

absl::StatusOr<EditOptions> ParseEditOptions(const cohort_edit_options* options) {
  EditOptions parsed;
  if (options == nullptr) return parsed;
  COHORT_RETURN_IF_ERROR(CheckStructSize("cohort_edit_options", options->struct_size, sizeof(*options)));
  if (options->patience_nanos < 0 || options->at_least < 0 || options->at_most < 0) {
    return absl::InvalidArgumentError("cohort_edit_options has a negative number");
  }
  parsed.patience = absl::Nanoseconds(options->patience_nanos);
  parsed.quorum = options->quorum != 0;
  parsed.leave = options->leave != 0;
  parsed.replace = options->replace != 0;
  parsed.at_least = options->at_least;
  if (options->at_most > 0) parsed.at_most = options->at_most;
  return parsed;
}

}  // namespace
}  // namespace cohort::comm::c

using namespace cohort::comm;     // NOLINT: below are functions of C
using namespace cohort::comm::c;  // NOLINT

cohort_status cohort_comm_shrink(cohort_comm* comm, const cohort_edit_options* options) {
  return Guard([&]() -> absl::Status {
    if (comm == nullptr) return NullArgument("the communicator");
    COHORT_ASSIGN_OR_RETURN(const EditOptions parsed, ParseEditOptions(options));
    return comm->communicator->Shrink(parsed).status();
  });
}

cohort_status cohort_comm_grow_folder(cohort_comm* comm, const char* folder,
                                      const cohort_edit_options* options) {
  return Guard([&]() -> absl::Status {
    if (comm == nullptr) return NullArgument("the communicator");
    if (folder == nullptr) return NullArgument("the folder");
    COHORT_ASSIGN_OR_RETURN(const EditOptions parsed, ParseEditOptions(options));
    return comm->communicator->Grow(FolderJoinBoard(folder), parsed).status();
  });
}

cohort_status cohort_comm_join_folder(const char* folder, const cohort_comm_options* options,
                                      cohort_comm** comm) {
  return Creating(comm, [&]() -> absl::Status {
    if (folder == nullptr) return NullArgument("the folder");
    COHORT_ASSIGN_OR_RETURN(const CommunicatorOptions parsed, ParseOptions(options));
    COHORT_ASSIGN_OR_RETURN(auto communicator, Communicator::Join(FolderJoinBoard(folder), parsed));
    *comm = new cohort_comm{std::move(communicator)};
    return absl::OkStatus();
  });
}

cohort_status cohort_comm_abort(cohort_comm* comm, const char* reason) {
  return Guard([&]() -> absl::Status {
    if (comm == nullptr) return NullArgument("the communicator");
    comm->communicator->Abort(absl::UnavailableError(reason == nullptr ? "aborted" : reason));
    return absl::OkStatus();
  });
}

uint32_t cohort_comm_epoch(const cohort_comm* comm) {
  return comm == nullptr ? 0 : comm->communicator->epoch();
}

cohort_status cohort_comm_members(const cohort_comm* comm, int* members, int room) {
  return Guard([&]() -> absl::Status {
    if (comm == nullptr) return NullArgument("the communicator");
    if (members == nullptr) return NullArgument("where the members go");
    const std::vector<int>& all = comm->communicator->members();
    if (room < static_cast<int>(all.size())) {
      return absl::InvalidArgumentError(
          absl::StrFormat("there is room for %d members, and the group has %d", room, all.size()));
    }
    std::copy(all.begin(), all.end(), members);
    return absl::OkStatus();
  });
}
