// How the processes of an elastic job find each other: a coordinator, one world, and newcomers.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "comm/communicator.h"
#include "comm/membership/join_board.h"
#include "runtime/elastic/coordinator/client.h"
#include "tools/cohort/elastic/launch.h"

namespace cohort::tools {

struct ElasticJobFlags {
  std::string coordinator;  // HOST:PORT of one that runs; empty: the job starts its own
  bool joins = false;       // this process joins a job that runs, whose coordinator that is
};

// One process of the job. Thread-safe where the client is.
class ElasticJob {
 public:
  // `folder` is seen by all processes: the state of a coordinator that the job starts, and where it is reached.
  static absl::StatusOr<std::unique_ptr<ElasticJob>> Create(const ElasticJobFlags& flags,
                                                            const std::string& folder);

  // A member that has left, and is to come back as a newcomer then. Null: the job is over, or this process is asked to
  // stop.
  static absl::StatusOr<std::unique_ptr<ElasticJob>> ComeBack(std::unique_ptr<ElasticJob> left,
                                                              absl::Time when, const std::string& folder,
                                                              const std::atomic<bool>& stop);

  // All processes that were launched together. They do not call MPI_Init: a launcher would end them all with the first.
  absl::StatusOr<std::shared_ptr<comm::Communicator>> Meet(absl::Duration timeout);
  // As a newcomer, or again after having been taken out; waits until the members of a running training let it in.
  absl::StatusOr<std::shared_ptr<comm::Communicator>> Join(absl::Duration timeout);

  // For a member that trains: a coordinator that is away has no newcomers.
  std::shared_ptr<comm::JoinBoard> board() const { return board_; }
  cluster::Client& client() { return *client_; }
  // Names the job's processes and keepers apart from another job's.
  const std::string& id() const { return id_; }
  const std::string& coordinator() const { return address_; }

  // Of who joins: `folder` is the job's (Create). Where the job has started its coordinator there, this process looks after
  // it as those do that were launched with it, who may all be gone one day.
  void LookAfterCoordinator(const std::string& folder);
  // Where the job's own coordinator was started on this host, has not answered for a while and has died: starts it again.
  // Of the processes of its host one does it.
  void KeepCoordinator();
  // The job is over, or has not begun: its own coordinator ends, where it is on this host; elsewhere it does by itself when
  // nobody has needed it for a while.
  void End();

 private:
  ElasticJob() = default;

  std::string address_, id_;
  std::string own_folder_, address_file_;  // of the job's own coordinator
  bool own_ = false;                       // the coordinator is the job's
  Launch launch_;
  std::shared_ptr<cluster::Client> client_;
  std::shared_ptr<comm::JoinBoard> board_;
  absl::Time started_ = absl::InfinitePast();
};

}  // namespace cohort::tools
