// Where processes that want to join a live group and its members find each other.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::comm {

// A small board that newcomers and members see: newcomers post a text under a name of their own; members read what
// is posted and answer. Calls return at once. A board outlives any process, and tells nobody whether a newcomer still
// lives. Several members may give the same answer.
class JoinBoard {
 public:
  virtual ~JoinBoard() = default;

  virtual absl::Status Post(const std::string& name, const std::string& text) = 0;
  // Takes a post and its answer off the board.
  virtual absl::Status Withdraw(const std::string& name) = 0;
  // The answer to a post; nullopt where there is none yet.
  virtual absl::StatusOr<std::optional<std::string>> Answered(const std::string& name) = 0;

  // (name, text) of the posts without an answer, in the order in which they were posted as far as that is known.
  virtual absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Waiting() = 0;
  virtual absl::Status Answer(const std::string& name, const std::string& text) = 0;
};

// For who ends a group, or wants nobody in it: all who wait now end their Communicator::Join with FAILED_PRECONDITION
// (Exclusion::kRefused) and these words.
absl::Status RefuseNewcomers(JoinBoard& board, absl::string_view why);

// A folder that all see; made where it is not there.
std::shared_ptr<JoinBoard> FolderJoinBoard(const std::string& folder);

}  // namespace cohort::comm
