// The engine: one a process and world. It owns the transports and makes the operations in flight progress.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "comm/doorbell.h"
#include "comm/executor.h"
#include "comm/flight_recorder.h"
#include "comm/membership/edit.h"
#include "comm/membership/wire.h"
#include "comm/network_watch.h"
#include "comm/policy.h"
#include "comm/rendezvous.h"
#include "comm/topology.h"
#include "comm/transport/matcher.h"
#include "comm/transport/transport.h"

namespace cohort::comm::shm {
class ShmTransport;
}
namespace cohort::comm::ucx {
class UcxTransport;
}

namespace cohort::comm {

// One lock guards everything that moves. Whoever waits for an operation works under it, in turn; when nobody
// waits, a thread of the engine's own does, and it sleeps when nothing is in flight. Messages and errors name
// world ranks: those of the communicator that was created, not split.
class Engine : public TransportEvents, public std::enable_shared_from_this<Engine> {
 public:
  // Connects to all ranks at the rendezvous.
  static absl::StatusOr<std::shared_ptr<Engine>> Create(Rendezvous& rendezvous, const HostMap* declared,
                                                        absl::Time deadline);
  // For a world of one.
  static std::shared_ptr<Engine> Single();
  ~Engine() override;

  const Topology& topology() const { return topology_; }
  // The transport that reaches a peer.
  absl::string_view TransportTo(int peer) const { return routes_[peer]->name(); }

  // Makes a group known. `context` is a number that all its members agree on and none has used.
  std::shared_ptr<Group> AddGroup(uint32_t context, std::vector<int> members, int rank,
                                  std::shared_ptr<const Group> parent = nullptr);
  // Waits for what is in flight in the group, and forgets it.
  void RemoveGroup(const std::shared_ptr<Group>& group);
  // A context number that this rank has not used yet, and its reservation.
  uint32_t NextContext();
  void ReserveContexts(uint32_t first_free);

  // Membership: comm/membership/, which is part of the engine.
  // A process that waits at the board until the members of a group take it in. Connected to all of them. `tuning`: as
  // their invitation says.
  static absl::StatusOr<std::pair<std::shared_ptr<Engine>, std::shared_ptr<Group>>> Join(JoinBoard& board,
                                                                                         absl::Time deadline,
                                                                                         std::string* tuning);
  // Agrees with the other members on the group's next form. `newcomers` are those that may be taken in: names at
  // a board, and cards. The group stays as it is until Adopt.
  absl::StatusOr<EditDecision> Agree(const std::shared_ptr<Group>& group, const EditOptions& options,
                                     std::vector<std::pair<std::string, MemberCard>> newcomers,
                                     absl::Time deadline);
  // Gives the group its next form. An error where this process is not part of it any more.
  absl::Status Adopt(const std::shared_ptr<Group>& group, const EditDecision& decision);
  // Ends what is in flight in the group, on all members, with this status; so does everything that is started before
  // the next edit.
  void Revoke(const std::shared_ptr<Group>& group, const absl::Status& why, bool parts = false);
  // Whether a member of the group is known to be gone.
  bool AnyGone(const std::shared_ptr<Group>& group);
  // How newcomers can reach this process.
  const MemberCard& card() const { return card_; }
  // Makes this process reachable over UCX, where it is not yet and COHORT_TRANSPORT allows: for newcomers of other
  // hosts. Where UCX does not work the card stays without it. Not while another edit is under way.
  void OpenNetwork();

  // How messages of so many bytes go to a peer.
  BodyPath PathTo(int peer, size_t bytes);
  // Starts an operation. Collectives get their keys here: starting numbers them.
  void Start(const std::shared_ptr<Run>& run);
  // Progress, a little; whether the run is over.
  bool Poll(Run& run);
  // OK when the run is over, else DEADLINE_EXCEEDED.
  absl::Status Wait(Run& run, absl::Time deadline);

  // For runs, under the lock.
  void PostSend(SendRequest& send);
  void PostRecv(RecvRequest& recv);
  void CancelSend(SendRequest& send) { routes_[send.peer]->CancelSend(send); }
  void CancelRecv(RecvRequest& recv);
  void TellGroup(const Run& run, const absl::Status& status);
  // Before what it awaits is taken back.
  void OnRunFails(const Run& run, const absl::Status& status);
  void OnRunDone(Run& run);

  // The flight recorder: blame.cc. What this process knows now, as JSON.
  std::string FlightRecordText();
  // Writes the record of the first failure where COHORT_FLIGHT_RECORDER says, unless that is done. Not under the lock.
  void FileFlightRecord();

  // TransportEvents, under the lock.
  void OnMessage(Transport& from, int peer, const MessageHeader& header, const std::byte* body) override;
  void OnAnnouncement(Transport& from, int peer, const MessageHeader& header) override;
  void OnAbort(int peer, const MessageKey& key, const absl::Status& why) override;
  void OnPeerGone(int peer, bool left, absl::string_view how) override;
  void OnDismissed(int peer) override;

 private:
  struct Gone {
    bool gone = false;
    bool left = false;
    bool detached = false;  // no transport knows it any more
    std::string how;
  };
  // A message about a group, on its way out or in.
  struct MembershipMail : RequestOwner {
    Engine* engine = nullptr;
    uint32_t context = 0;
    std::string body;
    SendRequest send;
    RecvRequest recv;
    bool incoming = false;
    bool over = false;
    void OnRequestDone(uint32_t token, const absl::Status& status) override;
  };
  struct Abort {
    int peer;
    MessageKey key;
    absl::Status why;
  };

  explicit Engine(Topology topology);
  absl::Status Connect(Rendezvous& rendezvous, const HostMap* declared, absl::Time deadline);

  void Arrive(Transport& from, int peer, const MessageHeader& header, bool announced, const std::byte* body);
  std::shared_ptr<Run> FindRun(const MessageKey& key, int peer) const;
  // Why a run cannot begin: a member was lost, or a peer has given it up or called something else.
  absl::Status Obstacle(const Run& run);
  void BeginLocked(Run& run);

  void OnMembershipArrival(Transport& from, int peer, const MessageHeader& header, bool announced,
                           const std::byte* body);
  void OnMembershipMessage(int peer, uint32_t context, absl::string_view body);
  void HandleMembership(Group& group, int peer, const MembershipMessage& message);
  void SendMembership(int peer, uint32_t context, const MembershipMessage& message);
  void FlushAgreement(Group& group);
  void RevokeLocked(Group& group, const absl::Status& why, bool parts = false);
  void FailGroup(const Group& group, const absl::Status& why);
  // Of the groups that were split from it.
  void FailParts(const Group& group, const absl::Status& why);
  // Takes a group out of its present epoch: what still comes of it is dropped.
  void RetireLocked(uint32_t context);
  void DetachLocked(int peer, const std::string& how);
  void ReachLocked(int peer, const MemberCard& card);
  // The transports by which groups are joined, as far as COHORT_TRANSPORT and the machine allow; none reaches anybody.
  absl::Status OpenAsNewcomer();
  void AddSharedMemory(std::unique_ptr<shm::ShmTransport> shm);
  void AddUcx(std::unique_ptr<ucx::UcxTransport> ucx);

  bool ProgressLocked();
  // Drops runs that are over. Only where no call into a run is under way.
  void SweepLocked();
  // Deadlines and the life of peers.
  void CheckLocked(int64_t now);
  absl::Status LateLocked(const Run& run) const;
  void RecordStartLocked(Run& run);
  void RecordFailureLocked();
  FlightRecord RecordLocked() const;
  // Why nothing comes of a peer that is gone.
  absl::Status GoneStatus(int peer) const;
  // Later than OnPeerGone, when everybody's life has been looked at.
  void FailThoseWhoWaitForLeavers();
  // Sleeps until the doorbell rings or `limit` nanoseconds are over; returns at once where something moved.
  // Where a caller is blocked in an operation, it shows peers whom it waits for.
  bool SleepOnce(const std::atomic<bool>* done, int64_t limit, const Run* blocked_in = nullptr);
  // Where to sleep: by whom awaited messages come.
  enum class Bed : uint8_t { kDoorbell, kNetwork, kDoorbellAndNetwork };
  Bed ChooseBedLocked() const;
  // From now on, sleepers and idle ranks listen to this transport's descriptor.
  void Watch(Transport* network);
  void ThreadMain();

  Topology topology_;  // fixed once connected
  // Of a thread that waits. Both change where a network is opened while others wait.
  std::atomic<int> spin_polls_ = policy::kSpinPollsShared;
  std::atomic<int64_t> yield_nanos_ = policy::kYieldNanosShared;
  std::mutex mutex_;
  Doorbell private_bell_{};
  Doorbell* doorbell_ = &private_bell_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<Transport*> routes_;  // by world rank
  Transport* network_ = nullptr;    // of transports_, the one that has a descriptor to sleep on
  std::unique_ptr<NetworkWatch> watch_owner_;
  std::atomic<NetworkWatch*> watch_{nullptr};  // once there, it stays
  std::string wish_;                           // COHORT_TRANSPORT
  Matcher matcher_;
  std::vector<Gone> gone_;
  bool any_lost_ = false;  // of gone_, one that has not left
  MemberCard card_;
  shm::ShmTransport* shm_ = nullptr;  // of transports_
  ucx::UcxTransport* ucx_ = nullptr;  // of transports_
  int agreeing_ = 0;                  // edits that wait for messages of any member
  int next_member_ = 0;
  std::unordered_set<uint32_t> retired_;  // contexts of past epochs
  // By context of a past epoch: what came of it, and whether half of the members decided that.
  std::map<uint32_t, std::pair<std::string, bool>> decided_;
  std::list<std::unique_ptr<MembershipMail>> mail_;  // messages about groups on their way
  // Of groups that this rank does not know yet.
  std::map<uint32_t, std::vector<std::pair<int, MembershipMessage>>> early_;
  uint32_t next_mail_ = 0;
  std::vector<Abort> aborts_;  // of operations that this rank has not begun
  std::unordered_map<uint32_t, std::shared_ptr<Group>> groups_;
  uint32_t next_context_ = 0;
  std::vector<std::shared_ptr<Run>> runs_;
  std::vector<std::shared_ptr<Run>> starting_;  // of runs_, those not yet begun
  int64_t last_check_ = 0;
  int64_t last_shown_ = 0;  // that a caller is blocked
  int polls_ = 0;
  bool any_done_ = false;
  bool someone_left_ = false;

  FlightRecorder recorder_;
  bool failed_once_ = false;
  std::optional<FlightRecord> unfiled_;  // of the first failure
  std::atomic<bool> any_unfiled_{false};
  std::mutex file_mutex_;  // taken before mutex_

  std::atomic<int> num_runs_{0};
  std::atomic<int> waiters_{0};
  std::atomic<int> contenders_{0};

  Doorbell thread_bell_{};
  std::atomic<bool> thread_idle_{false};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace cohort::comm
