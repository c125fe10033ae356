// One change of the ranks of an elastic training, and what is kept from one to the next.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "comm/communicator.h"
#include "parallel/elastic/elastic_run.h"

namespace cohort::parallel {

// Members that an edit of the world has taken out and in.
struct Coming {
  std::vector<int> lost, joined;
};

enum class Changed {
  kAllStay,
  kSomeLeave,   // others: they go after the next edit, in which all take part
  kThisLeaves,  // likewise
  kAllLeave,    // the state is whole: to be saved
};

// Not thread-safe. What is given to it outlives it.
class Changer {
 public:
  Changer(comm::Communicator& world, const ElasticOptions& options, runtime::Device& device,
          ElasticHost& host)
      : world_(world), options_(options), device_(device), host_(host) {}

  // Collective over the world, whose members are those of now. When it returns OK on a rank, part() is what that rank
  // trains from now on, and the part before is kept until ForgetBefore: on another rank it may have failed, and then all
  // try again, from whatever is whole. After an error part() is what it was.
  absl::StatusOr<Changed> Run(const std::string& cause, const Coming& coming, absl::Time since);

  // Null: this process has had none yet.
  ElasticPart* part() { return part_.get(); }
  const ElasticCounts& counts() const { return counts_; }
  // The world's rank of a rank of the mesh, and those that wait.
  int world_rank(int mesh_rank) const { return world_ranks_[static_cast<size_t>(mesh_rank)]; }
  const std::vector<int>& spares() const { return spares_; }
  void SetPlaces(std::vector<int> world_ranks, std::vector<int> spares);
  // The same ranks after an edit that took others out (comm::MembershipChange).
  void Renumber(const std::vector<int>& previous_rank);
  // This is what the rank trains from now on, from these counts; the part before is kept, as after Run.
  void Adopt(std::unique_ptr<ElasticPart> next, const ElasticCounts& counts);

  // The names of those who did not want to leave, by rank of the world.
  const std::vector<std::string>& staying() const { return staying_; }

  void ForgetBefore() { before_.reset(); }
  void Count(const runtime::StepReport& report);

 private:
  v1::ElasticHello Hello();
  absl::StatusOr<Offer> OfferOf(const Source& source);

  comm::Communicator& world_;
  const ElasticOptions& options_;
  runtime::Device& device_;
  ElasticHost& host_;

  std::unique_ptr<ElasticPart> part_, before_;
  ElasticCounts counts_, counts_before_;
  std::vector<int> world_ranks_, spares_;
  std::vector<std::string> staying_;
  std::vector<KeptState> kept_;  // offered in this change
};

}  // namespace cohort::parallel
