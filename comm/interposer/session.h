// What lives between MPI_Init and MPI_Finalize: the engine that connects the ranks, and a group of ours for every
// communicator of MPI that is used.
#pragma once

#include <mpi.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "comm/engine.h"
#include "comm/group_communicator.h"
#include "comm/interposer/takeover.h"

namespace cohort::comm::interposer {

// A communicator of MPI, as seen by this rank. What it says is equal on all its ranks.
struct Group {
  bool ours = false;  // can be taken over at all: two ranks or more, no intercommunicator, all of this job
  bool on_one_host = false;
  std::vector<int> members;  // ranks of MPI_COMM_WORLD
  int rank = 0;
  int size() const { return static_cast<int>(members.size()); }
  // Made by the first call that is taken over, which all ranks decide alike.
  std::unique_ptr<Communicator> communicator;
};

class Session {
 public:
  // Collective over MPI_COMM_WORLD, after MPI_Init and before MPI_Finalize. Where the ranks cannot connect, or are
  // told not to, all of them go on without.
  static void Begin();
  static void End();
  // Null: every call goes to MPI.
  static Session* Get() { return current_.load(std::memory_order_acquire); }

  // Null where the communicator is none.
  Group* Find(MPI_Comm comm);
  // Whether a call of so many bytes is taken over: from values equal on all ranks of the group only.
  bool Takes(Call call, const Group& group, uint64_t bytes) const {
    return group.ours && takeover_.Takes(call, bytes, group.on_one_host);
  }
  // The group's communicator. Collective where it is not there yet.
  absl::StatusOr<Communicator*> Ready(MPI_Comm comm, Group* group);
  // Waits, and lets MPI make progress meanwhile.
  absl::Status Wait(const Work& work);
  // Raises a failure through the error handler of the communicator; the MPI error to return where that returns.
  int Raise(MPI_Comm comm, const absl::Status& status);

  void Count(Call call, bool taken) {
    (taken ? taken_ : passed_)[static_cast<int>(call)].fetch_add(1, std::memory_order_relaxed);
  }

 private:
  Session() = default;
  absl::Status Connect();
  absl::Status Meet(Rendezvous& rendezvous, absl::Time deadline);
  void Report();
  static int OnCommFreed(MPI_Comm comm, int keyval, void* value, void* extra);

  static std::atomic<Session*> current_;

  Takeover takeover_;
  MPI_Comm own_ = MPI_COMM_NULL;  // a duplicate of MPI_COMM_WORLD for messages of ours
  MPI_Group world_ = MPI_GROUP_NULL;
  int keyval_ = MPI_KEYVAL_INVALID;
  int error_code_ = MPI_ERR_OTHER;
  std::shared_ptr<Engine> engine_;
  std::unique_ptr<GroupCommunicator>
      everyone_;  // holds the engine's first context, and how algorithms are chosen

  std::mutex mutex_;  // guards groups_
  std::unordered_map<MPI_Comm, std::unique_ptr<Group>> groups_;
  // Freed communicators so far: what a thread has remembered before is forgotten.
  std::atomic<uint64_t> freed_{0};
  std::mutex contexts_;  // the engine's next context is looked at and reserved in one step

  std::atomic<uint64_t> taken_[kNumCalls] = {};
  std::atomic<uint64_t> passed_[kNumCalls] = {};
};

}  // namespace cohort::comm::interposer
