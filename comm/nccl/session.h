// What the members of one epoch have together: NCCL's communicators, operations in flight, and the watcher, a thread that
// sees to it that every operation ends. It is made anew when the group changes.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "comm/communicator.h"
#include "comm/nccl/device_communicator.h"
#include "comm/nccl/host_bridge.h"
#include "comm/nccl/nccl_api.h"
#include "comm/nccl/peer_watch.h"
#include "comm/nccl/plan.h"

namespace cohort::comm::nccl {

class Session;

// One operation in flight. All but `session` and what does not change is under the session's mutex_.
class DeviceRun final : public WorkState {
 public:
  DeviceRun(std::shared_ptr<Session> session, Signature signature, absl::Duration timeout);
  bool Done() override;
  // Polls, yields, sleeps. Ends soon after the operation's deadline at the latest, whatever CUDA does.
  absl::Status Wait(absl::Time deadline) override;

 private:
  friend class Session;
  const std::shared_ptr<Session> session_;
  const Signature signature_;
  const absl::Time deadline_;
  std::vector<int> peers_;  // of messages: the world ranks of their other ends
  uint64_t number_ = 0;     // of a collective
  Event event_ = nullptr;
  bool submitted_ = false;  // event_ is recorded
  bool done_ = false;
  absl::Status status_;
  std::optional<Crossing> crossing_;
  void* scratch_ = nullptr;  // of one that crosses, freed when it is over
};

// What an operation is started with.
struct Request {
  Signature signature;
  // A collective,
  Plan plan;
  Buffers buffers;
  // or messages, and the world ranks of their other ends.
  std::vector<Call> messages;
  std::vector<int> peers;

  bool collective() const { return signature.operation != Operation::kPointToPoint; }
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  // Collective over `base`. On an error nobody has a session.
  static absl::StatusOr<std::shared_ptr<Session>> Create(NcclApi& api, Communicator& base,
                                                         const DeviceOptions& options);
  ~Session();

  // Enqueues it in the stream; returns when NCCL has it, or the session has failed.
  Work Start(Request request, absl::Duration timeout);
  // The same in two parts: the operation, which can be handed out, and what it is.
  std::shared_ptr<DeviceRun> MakeRun(const Signature& signature, absl::Duration timeout);
  Work Start(std::shared_ptr<DeviceRun> run, Request request);

  // Ends everything, here and on all members, with this status.
  void Fail(const absl::Status& why);
  // Waits for what is in flight, then gives NCCL's communicators back. What is started afterwards is an error.
  void Close();

  uint32_t epoch() const { return epoch_; }
  const std::shared_ptr<const HostMap>& hosts() const { return hosts_; }
  size_t piece_bytes() const { return piece_bytes_; }

 private:
  friend class DeviceRun;
  using Lock = std::unique_lock<std::mutex>;

  Session(NcclApi& api, const Communicator& base, const DeviceOptions& options);
  // session_create.cc
  absl::Status Meet(Communicator& group);
  absl::Status MakeNccl(Communicator& group, const UniqueId& whole, const UniqueId& inside);

  // session_submit.cc
  absl::Status RefusalLocked() const;
  absl::Status Submit(DeviceRun& run, Request& request);
  absl::Status Enqueue(DeviceRun& run, Request& request);
  // The copies of these steps, then one group of their calls.
  absl::Status Steps(const std::vector<Step>& steps, Team team, const Buffers& buffers);
  absl::Status Group(const std::vector<Call>& calls, Team team);
  absl::Status WhilePending(Team team);
  Handle& handle(Team team) { return team == Team::kInside && inside_ != nullptr ? inside_ : whole_; }
  absl::StatusOr<Event> TakeEvent();

  // session_watch.cc
  void WatcherMain();
  void PollLocked();
  void CheckNcclLocked();
  void CheckDeadlinesLocked();
  void FailLocked(const absl::Status& why, bool tell);
  void FinishLocked(DeviceRun& run, const absl::Status& status);
  // After all that uses it, in the order of the stream.
  absl::Status FreeScratchLocked(DeviceRun& run);
  // Aborts NCCL and the host's part, so that nothing touches a buffer any more, and ends all operations.
  void End();
  bool AbortNccl();
  // Of a session without errors.
  void FinalizeNccl();
  // What is not NCCL's.
  void Free();
  bool WaitForEvents(absl::Time deadline);
  absl::Time PauseLocked() const;

  NcclApi& api_;
  const int device_;
  const Stream stream_;
  const uint32_t epoch_;
  const int rank_, size_;
  const std::vector<int> members_;
  const std::shared_ptr<const HostMap> hosts_;
  const size_t piece_bytes_;

  // Calls with NCCL's handles, which are null once they are gone. Taken after mutex_, or alone.
  std::timed_mutex nccl_mutex_;
  Handle whole_ = nullptr, inside_ = nullptr;  // inside_: where there are several hosts

  std::mutex submit_mutex_;  // one operation is enqueued at a time; taken before all others
  std::unique_ptr<PeerWatch> watch_;
  std::unique_ptr<HostBridge> bridge_;  // where there are several hosts
  uint32_t crossings_ = 0;              // under submit_mutex_

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<DeviceRun>> runs_;  // in the order of the stream
  std::vector<Event> events_;                    // to be used again
  Pulse pulse_;
  absl::Status failed_;
  bool tell_ = false;   // the others do not know it
  bool ended_ = false;  // after failed_: nothing is in flight any more
  bool stuck_ = false;  // something may still be: memory that it could use is not freed
  bool closing_ = false;
  absl::Time close_by_ = absl::InfiniteFuture();
  std::thread watcher_;
};

}  // namespace cohort::comm::nccl
