// A process's side of the coordinator: calls with deadlines, and a thread that keeps its lease.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/v1/cluster.pb.h"

namespace cohort::cluster {

// A random text, for sessions and launch ids.
std::string RandomId();

struct ClientOptions {
  std::string coordinator = {};  // HOST:PORT
  // Of a member; who only looks on needs none of these.
  std::string job = {};
  // Unique among the live members; empty: the host's name, the process id and a random part.
  std::string name = {};
  std::string address = {};  // how it is reached, for people
  v1::MemberRole role = v1::MEMBER_ROLE_LAUNCHED;
  std::string launch_id = {};
  int launch_rank = 0, launch_size = 0;
  std::string version = {};  // of the program; empty: not compared with that of the other members
};

// What the coordinator has last said of this member.
struct Standing {
  bool joined = false;
  bool reachable = false;  // it has answered the last time
  int64_t member_id = 0;
  uint64_t incarnation = 0;
  uint64_t epoch = 0;  // the present one's number; 0: none was told yet
  bool in_epoch = false;
  // Stop and write nothing more: the group goes on without this member, until it is in the epoch again. `why` says who
  // said so.
  bool evicted = false;
  bool leave_requested = false;
  std::string leave_reason;
  int newcomers_waiting = 0;
  std::vector<std::string> gone;  // members of the present epoch whose leases have run out, or that have left
  absl::Time heard = absl::InfinitePast();
  std::string why;
  // The step at which this member was found to compute slower than the others, for as long as it does; 0: it does not.
  int64_t straggler_since = 0;
  std::string straggler_words;
  // This member's half goes on by the coordinator's word (Client::Tie): train on only until lease_until.
  bool leased = false;
  // When the newest renewal that was answered went off, and until when the lease holds by it whatever the coordinator sees.
  std::chrono::steady_clock::time_point renewed = {}, lease_until = {};
};

struct EpochAdvance {
  uint64_t from = 0, to = 0;
  std::vector<std::string> members;  // names in the order of their ranks
  std::string arrangement;           // opaque to the coordinator
  int64_t step = 0;                  // the first one in this epoch
  std::string why;
};

// The present epoch that a FAILED_PRECONDITION of AdvanceEpoch names.
std::optional<v1::Epoch> PresentEpoch(const absl::Status& status);

// Thread-safe. Calls go on trying while the coordinator is away, until their deadline: UNAVAILABLE then. Those without
// a deadline only leave something for the thread, and never wait. The log gets one line when the coordinator goes and
// one when it is back.
class Client {
 public:
  // Connects lazily. INVALID_ARGUMENT: an option makes no sense.
  static absl::StatusOr<std::unique_ptr<Client>> Create(const ClientOptions& options);
  // Ends the thread and, without leaving, lets the lease run out.
  ~Client();

  const std::string& name() const;

  // ---- a member
  // From OK on a thread keeps the lease, and joins again by itself where a coordinator has lost its state.
  absl::Status Join(absl::Time deadline);
  // Ends the thread.
  absl::Status Leave(const std::string& reason, absl::Time deadline);
  Standing standing() const;
  // How the member is doing; goes with the next renewal, which an unusual step hastens.
  void SetReport(const v1::StepReport& report);
  // Asked at each renewal, by its thread: what the member does at that moment, its report's phase. Before Join.
  void SetPhase(std::function<std::string()> phase);
  // An event for people; goes soon, in order, again until it was taken. The oldest are dropped beyond some thousands.
  void Tell(v1::EventKind kind, int64_t step, const std::string& words, double seconds = 0,
            const std::string& subject = "");
  // Whether all that was told or left for the thread is taken by then.
  bool Flush(absl::Time deadline);

  // ---- epochs
  // The coordinator's consent: FAILED_PRECONDITION (PresentEpoch) where the present epoch is not `from`: this side is
  // behind and must stop, or another half was first.
  absl::StatusOr<v1::Epoch> AdvanceEpoch(const EpochAdvance& advance, absl::Time deadline);
  // Which of two halves of the members of epoch `after` goes on. `half`: names, with this one's; empty: asks how it stands
  // with the half that this member is in. Both number epochs as the members count.
  absl::StatusOr<v1::TieResponse> Tie(uint64_t after, const std::vector<std::string>& half,
                                      absl::Time deadline);
  // Of what the members have agreed by a majority: the thread tells it, now or when the coordinator is back, also where
  // that has missed epochs in between. Standing::evicted where a later epoch is without this member.
  void RecordEpoch(const EpochAdvance& advance);

  // ---- the board and the rendezvous (board.h and rendezvous.h wrap them)
  absl::Status BoardPost(const std::string& name, const std::string& text, absl::Time deadline);
  absl::Status BoardWithdraw(const std::string& name, absl::Time deadline);
  // Waits for an answer up to `wait`.
  absl::StatusOr<std::optional<std::string>> BoardAnswered(const std::string& name, absl::Duration wait,
                                                           absl::Time deadline);
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> BoardWaiting(absl::Time deadline);
  absl::Status BoardAnswer(const std::string& name, const std::string& text, absl::Time deadline);
  absl::Status Put(const std::string& launch_id, const std::string& key, const std::string& value,
                   absl::Time deadline);
  // Waits for the key; DEADLINE_EXCEEDED names it.
  absl::StatusOr<std::string> Get(const std::string& launch_id, const std::string& key, absl::Time deadline);

  // ---- who looks on
  absl::StatusOr<v1::DescribeResponse> Describe(int events, absl::Time deadline);
  // Asks the live member of this name to go.
  absl::Status RequestLeave(const std::string& name, const std::string& reason, absl::Time deadline);
  // Calls `on_event` for each event from a revision on (0: all that are kept) until it returns false (OK) or the
  // deadline (DEADLINE_EXCEEDED); goes on where it was when a coordinator is back.
  absl::Status WatchEvents(uint64_t from_revision, absl::Time deadline,
                           const std::function<bool(const v1::Event&)>& on_event);

 private:
  struct State;
  explicit Client(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cohort::cluster
