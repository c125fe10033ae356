#include "runtime/elastic/coordinator/board.h"

#include <utility>

#include "absl/time/clock.h"

namespace cohort::cluster {
namespace {

class Board : public comm::JoinBoard {
 public:
  Board(std::shared_ptr<Client> client, BoardOptions options)
      : client_(std::move(client)), options_(options) {}

  absl::Status Post(const std::string& name, const std::string& text) override {
    return client_->BoardPost(name, text, Deadline());
  }
  absl::Status Withdraw(const std::string& name) override { return client_->BoardWithdraw(name, Deadline()); }
  absl::StatusOr<std::optional<std::string>> Answered(const std::string& name) override {
    return client_->BoardAnswered(name, policy::kAnswerWait, Deadline());
  }
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Waiting() override {
    auto posts = client_->BoardWaiting(Deadline());
    if (options_.empty_when_away && absl::IsUnavailable(posts.status())) {
      return std::vector<std::pair<std::string, std::string>>();
    }
    return posts;
  }
  absl::Status Answer(const std::string& name, const std::string& text) override {
    return client_->BoardAnswer(name, text, Deadline());
  }

 private:
  absl::Time Deadline() const { return absl::Now() + options_.patience; }

  const std::shared_ptr<Client> client_;
  const BoardOptions options_;
};

}  // namespace

std::shared_ptr<comm::JoinBoard> GrpcJoinBoard(std::shared_ptr<Client> client, BoardOptions options) {
  return std::make_shared<Board>(std::move(client), options);
}

}  // namespace cohort::cluster
