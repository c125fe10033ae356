// How the ranks of MPI_COMM_WORLD find each other inside MPI_Init, whatever its level of threads.
#pragma once

#include <mpi.h>

#include <list>
#include <map>
#include <string>
#include <vector>

#include "comm/rendezvous.h"

namespace cohort::comm::interposer {

// A key goes to everybody as a message. One thread only; functions of PMPI only.
class Board : public Rendezvous {
 public:
  explicit Board(MPI_Comm comm);
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status Put(const std::string& key, const std::string& value) override;
  absl::StatusOr<std::string> Get(const std::string& key, absl::Time deadline) override;
  // Collective: takes in what is still under way, so that no message is left.
  void Close();

 private:
  void TakeIn();

  const MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::map<std::string, std::string> entries_;
  std::list<std::string> texts_;  // key \0 value, until Close
  std::vector<MPI_Request> sends_;
  int put_ = 0, taken_in_ = 0;
};

}  // namespace cohort::comm::interposer
