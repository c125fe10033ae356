#include "runtime/elastic/coordinator/rendezvous.h"

#include <utility>

#include "absl/time/clock.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {
namespace {

class Meeting : public comm::Rendezvous {
 public:
  Meeting(std::shared_ptr<Client> client, std::string launch_id, int rank, int size)
      : client_(std::move(client)), launch_id_(std::move(launch_id)), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status Put(const std::string& key, const std::string& value) override {
    return client_->Put(launch_id_, key, value, absl::Now() + policy::kPatience);
  }
  absl::StatusOr<std::string> Get(const std::string& key, absl::Time deadline) override {
    return client_->Get(launch_id_, key, deadline);
  }

 private:
  const std::shared_ptr<Client> client_;
  const std::string launch_id_;
  const int rank_;
  const int size_;
};

}  // namespace

std::shared_ptr<comm::Rendezvous> GrpcRendezvous(std::shared_ptr<Client> client, const std::string& launch_id,
                                                 int rank, int size) {
  return std::make_shared<Meeting>(std::move(client), launch_id, rank, size);
}

}  // namespace cohort::cluster
