// What the coordinator knows, as a state machine: no clock, no network, no disk.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cohort/v1/cluster.pb.h"
#include "cohort/v1/cluster_journal.pb.h"
#include "runtime/elastic/detect/straggler.h"
#include "runtime/elastic/detect/verdict.h"

namespace cohort::cluster {

// As messages have it.
inline double UnixSeconds(absl::Time time) { return absl::ToDoubleSeconds(time - absl::UnixEpoch()); }

// The payload of a status that names the present epoch: a v1::Epoch.
inline constexpr char kEpochPayload[] = "type.googleapis.com/cohort.v1.Epoch";

// What a command has done.
struct Outcome {
  absl::Status status;
  std::variant<std::monostate, v1::JoinResponse, v1::RequestLeaveResponse, v1::RenewResponse,
               v1::AdvanceEpochResponse, v1::TieResponse>
      reply;
  // New ones, with their revisions.
  std::vector<v1::Event> events;
  // What is to be made durable, and gives the same state where it is applied again at its own time. Nothing: nothing
  // durable has changed. Also refusals can have one, as they are told to people.
  std::optional<v1::ClusterCommand> record;
};

// Durable: members, epoch, board, rendezvous, events. In memory only: when leases run out, and the members' reports;
// after Begin every live member has a whole lease to be heard again. Not thread-safe.
class ClusterState {
 public:
  explicit ClusterState(absl::Duration lease) : lease_(lease) {}
  // INVALID_ARGUMENT: this is no snapshot of a state.
  static absl::StatusOr<ClusterState> Restore(const v1::ClusterSnapshot& snapshot, absl::Duration lease);

  // The time in the command is not looked at. Broken requests are INVALID_ARGUMENT and change nothing.
  Outcome Apply(const v1::ClusterCommand& command, absl::Time now);
  // The durable part.
  v1::ClusterSnapshot Snapshot() const;

  // ---- looks
  const v1::Epoch& epoch() const { return epoch_; }
  uint64_t incarnation() const { return incarnation_; }
  const v1::ClusterTotals& totals() const { return totals_; }
  absl::Duration lease() const { return lease_; }
  uint64_t last_revision() const { return next_revision_ - 1; }
  int newcomers_waiting() const;
  // A member has told of an unusual step: the next tick should not wait for its time.
  bool judge_soon() const { return judge_soon_; }
  // Null: no answer yet.
  const std::string* Answered(const std::string& name) const;
  v1::BoardWaitingResponse Waiting() const;
  // Null: not there yet.
  const std::string* Value(const std::string& launch_id, const std::string& key) const;
  // Those kept from this revision on.
  std::vector<v1::Event> EventsFrom(uint64_t revision) const;
  v1::DescribeResponse Describe(int events, absl::Time now) const;
  struct Summary {
    int live = 0, expired = 0, left = 0;  // members
    int64_t step = 0;                     // the greatest that a live member of the epoch has told
    double tokens_per_second = 0;         // of them all
    int stragglers = 0, dead = 0, stopped = 0, cut_off = 0;  // members that were found to be so, and are
  };
  Summary Summarize() const;
  // Takes over what `former` has in memory only, of members that both have: for a state that was read again.
  void AdoptMemory(const ClusterState& former);

 private:
  struct MemberEntry {
    v1::Member told;  // the durable part
    absl::Time lease_end;
    std::optional<v1::StepReport> report;
    absl::Time report_time;
    absl::Time step_time;  // when the report first had its step
    absl::Time live_since;
    absl::Time heard = absl::InfinitePast();                   // by this incarnation
    v1::ProcessState process = v1::PROCESS_STATE_UNSPECIFIED;  // as its host has seen it last
  };
  struct Post {
    std::string name, text;
    int64_t member_id;
    absl::Time time;
    std::optional<std::string> answer;
  };
  struct Launch {
    std::string id;
    std::map<std::string, std::string> values;
  };

  // Of one command: its time, and what comes of it.
  struct Turn {
    absl::Time now;
    Outcome outcome;
    bool changed = false;
  };

  // cluster_state.cc: commands, events, leases
  void Begin(Turn& turn);
  void Tick(Turn& turn, v1::ClusterCommand& record);
  void Expire(const v1::ClusterCommand::Expire& request, Turn& turn);
  // An event has happened: nothing durable changes without one, but for the board and the rendezvous.
  void Emit(v1::EventKind kind, const v1::Member* member, const std::string& words, Turn& turn);
  void Emit(v1::Event event, Turn& turn);

  // cluster_state_members.cc: who comes, is heard, goes and is forgotten
  void Join(const v1::JoinRequest& request, Turn& turn);
  // None of its members lives: another one begins.
  // A live member of another version than this; null: there is none.
  const v1::Member* OfAnotherVersion(const std::string& version) const;
  void EndJob(Turn& turn);
  void Leave(const v1::LeaveRequest& request, Turn& turn);
  void RequestLeave(const v1::RequestLeaveRequest& request, Turn& turn);
  void Renew(const v1::RenewRequest& request, Turn& turn);
  void TakeReport(const v1::StepReport& report, MemberEntry& member, absl::Time now);
  void Revive(MemberEntry& member, Turn& turn);
  void GoAway(MemberEntry& member, absl::string_view why, Turn& turn);
  // Those that are not live and that neither the present epoch has nor the former one.
  void ForgetOld(uint64_t former_epoch);
  // The oldest of them, where there are too many.
  void ForgetBeyondLimit();
  void Forget(int64_t id);
  MemberEntry* Find(int64_t id);
  MemberEntry* Holder(const std::string& name);  // of a name: live or expired
  bool InEpoch(const v1::Member& member) const;
  bool Evicted(const v1::Member& member) const;

  // cluster_state_epochs.cc: epochs, board, rendezvous, reports
  void AdvanceEpoch(const v1::AdvanceEpochRequest& request, Turn& turn);
  void BoardPost(const v1::BoardPostRequest& request, Turn& turn);
  void BoardWithdraw(const v1::BoardWithdrawRequest& request, Turn& turn);
  void BoardAnswer(const v1::BoardAnswerRequest& request, Turn& turn);
  void RendezvousPut(const v1::RendezvousPutRequest& request, Turn& turn);
  void Report(const v1::ReportRequest& request, Turn& turn);
  // Begins this epoch.
  void Enter(v1::Epoch next, Turn& turn);
  void IndexEpoch();
  bool Shown(const Post& post) const;
  void RemovePosts(int64_t member_id, bool answered_only);

  // cluster_state_ties.cc: which of two halves goes on
  void Tie(const v1::TieRequest& request, Turn& turn, v1::ClusterCommand& record);
  v1::TieResponse Weigh(const v1::TieRequest& request, const v1::Member& caller, absl::Time now,
                        v1::ClusterCommand::Settle& settle);
  void Settle(const v1::ClusterCommand::Settle& settle, Turn& turn);
  void TakeOver(v1::ClusterSnapshot::Tie& tie, const google::protobuf::RepeatedPtrField<std::string>& half,
                Turn& turn);
  void CloseTie(uint64_t after, Turn& turn);
  void CloseTies(v1::ClusterCommand::Expire& expire) const;
  // Those that may train because of it: known, and not on the board.
  std::vector<const MemberEntry*> Holding(const v1::ClusterSnapshot::Tie& tie) const;
  bool Leased(const v1::Member& member) const;

  // cluster_state_findings.cc: dead, stopped, cut off, slow
  // The members have gone on without it, and it has not said that it goes.
  bool Lost(const v1::Member& member) const;
  std::vector<runtime::elastic::Sighting> Sightings(absl::Time now) const;  // by member
  std::vector<runtime::elastic::Verdict> Judgement(absl::Time now) const;   // by member
  std::vector<std::string> Verdicts(absl::Time now) const;                  // by member, in words
  void FindStragglers(v1::ClusterCommand::Expire& expire);
  void FindUnwell(v1::ClusterCommand::Expire& expire, absl::Time now);
  void TakeFinding(const v1::ClusterCommand::Finding& finding, Turn& turn);
  void AskHosts();
  void TakeSeen(const v1::RenewRequest& request, const v1::Member& member);
  void AskToLook(const v1::Member& member, v1::RenewResponse& response) const;

  absl::Duration lease_;
  std::string job_;
  uint64_t incarnation_ = 0;
  int64_t next_member_id_ = 1;
  v1::Epoch epoch_;
  std::map<int64_t, MemberEntry> members_;
  std::map<uint64_t, Post> posts_;  // in the order in which they came
  std::deque<Launch> launches_;     // the newest last
  std::deque<v1::Event> events_;    // the newest last
  uint64_t next_revision_ = 1;
  v1::ClusterTotals totals_;
  std::deque<v1::ClusterSnapshot::Tie> ties_;  // the newest last

  // In memory only.
  runtime::elastic::StragglerDetector detector_;
  struct Look {
    std::vector<int64_t> members;  // of whom nobody knows what has become
    bool answers = false;          // a member there can tell
  };
  std::map<uint64_t, absl::Time> tie_asked_;      // when the half that has not won has first asked, by epoch
  absl::flat_hash_map<std::string, Look> looks_;  // by host_id, since the last Tick
  absl::Time started_ = absl::InfinitePast();
  absl::Time last_tick_ = absl::InfinitePast();
  bool judge_soon_ = false;
  // Derived.
  absl::flat_hash_map<std::string, int64_t> holder_;  // by name
  absl::flat_hash_map<std::string, int> rank_;        // in the present epoch
  std::set<std::string> gone_;                        // of its members: expired or left
  absl::flat_hash_map<std::string, uint64_t> post_;   // by name
  uint64_t next_post_ = 0;
  size_t not_live_ = 0;
  mutable int waiting_ = -1;  // -1: to be counted anew
};

}  // namespace cohort::cluster
