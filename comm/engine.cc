// What is in flight and how it moves. Connecting: connect.cc.
#include "comm/engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/policy.h"
#include "comm/ticks.h"
#include "comm/transport/shm/shm_transport.h"

namespace cohort::comm {

Engine::Engine(Topology topology)
    : topology_(std::move(topology)),
      routes_(topology_.size(), nullptr),
      matcher_(topology_.size()),
      gone_(topology_.size()),
      next_member_(topology_.size()) {}

Engine::~Engine() {
  stop_.store(true);
  thread_bell_.Wake();
  doorbell_->Wake();
  if (thread_.joinable()) thread_.join();
  watch_.store(nullptr);
  watch_owner_.reset();
  for (const auto& transport : transports_) transport->Close();
  FileFlightRecord();
}

std::shared_ptr<Group> Engine::AddGroup(uint32_t context, std::vector<int> members, int rank,
                                        std::shared_ptr<const Group> parent) {
  auto group = std::make_shared<Group>();
  group->context = context;
  group->members = std::move(members);
  group->rank = rank;
  group->parent = std::move(parent);
  const std::lock_guard lock(mutex_);
  group->world = groups_.empty();
  next_context_ = std::max(next_context_, context + 1);
  groups_[context] = group;
  recorder_.OnGroup(context, group->epoch, group->members);
  // Nothing begun: the entry may be a past group's.
  for (const auto& transport : transports_) transport->PublishBegun(context, UINT32_MAX);
  group->inbox = std::exchange(early_[context], {});
  early_.erase(context);
  // A group above it was ended with its parts while this one was being split from it.
  for (const Group* above = group->parent.get(); above != nullptr; above = above->parent.get()) {
    group->revoked.Update(above->revoked);
  }
  return group;
}

void Engine::RemoveGroup(const std::shared_ptr<Group>& group) {
  for (;;) {
    std::shared_ptr<Run> run;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& other : runs_) {
        if (other->arguments().group == group) run = other;
      }
      if (run == nullptr) {
        groups_.erase(group->context);
        RetireLocked(group->context);
        return;
      }
    }
    // Over by its own deadline at the latest, with whatever status nobody asked for.
    (void)run->Wait(absl::InfiniteFuture());
  }
}

uint32_t Engine::NextContext() {
  const std::lock_guard lock(mutex_);
  return next_context_;
}

void Engine::ReserveContexts(uint32_t first_free) {
  const std::lock_guard lock(mutex_);
  next_context_ = std::max(next_context_, first_free);
}

BodyPath Engine::PathTo(int peer, size_t bytes) {
  const std::lock_guard lock(mutex_);
  const bool reachable =
      peer < static_cast<int>(routes_.size()) && routes_[peer] != nullptr && !gone_[peer].gone;
  return reachable ? routes_[peer]->PathOf(peer, bytes) : BodyPath::kCopied;
}

void Engine::Start(const std::shared_ptr<Run>& run) {
  const Run::Arguments& arguments = run->arguments();
  // Posting is cheap; copies and reductions of some size are left to whoever makes progress.
  const bool at_once =
      arguments.schedule->local_count * SizeOf(arguments.signature.dtype) <= policy::kInlineBytes;
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) {
    contenders_.fetch_add(1, std::memory_order_relaxed);
    lock.lock();
    contenders_.fetch_sub(1, std::memory_order_relaxed);
  }
  if (!run->point_to_point()) {
    Group& group = *arguments.group;
    run->set_key({group.context, group.next_sequence++, 0});
    for (const auto& transport : transports_) transport->PublishBegun(group.context, arguments.key.sequence);
  }
  runs_.push_back(run);
  RecordStartLocked(*run);
  num_runs_.fetch_add(1, std::memory_order_seq_cst);
  if (at_once) {
    BeginLocked(*run);
    // Who comes last finds all messages here, and is through.
    if (!run->done() && shm_ != nullptr) shm_->Progress(policy::kInlineBytes);
    SweepLocked();
  } else {
    starting_.push_back(run);
  }
  if (run->done()) return;
  if (!thread_.joinable()) thread_ = std::thread([this] { ThreadMain(); });
  lock.unlock();
  // A thread that is not idle looks again soon, and must not wake up while the caller waits at once.
  if (thread_idle_.load(std::memory_order_seq_cst)) thread_bell_.Wake();
}

void Engine::BeginLocked(Run& run) {
  const absl::Status obstacle = Obstacle(run);
  if (!obstacle.ok()) {
    run.Fail(obstacle, /*tell=*/true);
    return;
  }
  run.Begin();
}

absl::Status Engine::Obstacle(const Run& run) {
  const MessageKey& key = run.arguments().key;
  if (!aborts_.empty()) {
    const auto at = std::find_if(aborts_.begin(), aborts_.end(), [&](const Abort& abort) {
      return abort.key.context == key.context && abort.key.sequence == key.sequence &&
             (!run.point_to_point() || abort.key.step == key.step);
    });
    if (at != aborts_.end()) {
      const absl::Status why = at->why;
      aborts_.erase(at);
      return why;
    }
  }
  const Group& group = *run.arguments().group;
  if (!group.removed.ok()) return group.removed;
  if (!group.revoked.ok()) return group.revoked;
  if (run.point_to_point()) return absl::OkStatus();  // the transports know their peers
  if (any_lost_) {
    for (const int member : group.members) {
      if (gone_[member].gone && !gone_[member].left) return absl::UnavailableError(gone_[member].how);
    }
  }
  if (matcher_.empty()) return absl::OkStatus();
  absl::Status mismatch;
  matcher_.DropIf([&](const Arrival& arrival) {
    const MessageKey& other = arrival.header.key;
    if (other.context != key.context || other.sequence != key.sequence) return false;
    if (arrival.header.signature == run.arguments().signature) return false;
    mismatch = Mismatch(arrival.peer, arrival.header.signature, topology_.rank(), run.arguments().signature);
    return true;
  });
  return mismatch;
}

void Engine::PostSend(SendRequest& send) {
  const Gone& gone = gone_[send.peer];
  if (gone.detached) {
    send.owner->OnRequestDone(send.token, GoneStatus(send.peer));
    return;
  }
  routes_[send.peer]->Send(send);
}

void Engine::PostRecv(RecvRequest& recv) {
  const Gone& gone = gone_[recv.peer];
  if (gone.gone && !matcher_.Has(recv.peer, recv.key)) {
    recv.owner->OnRequestDone(recv.token, GoneStatus(recv.peer));
    return;
  }
  matcher_.Post(recv);
}

void Engine::CancelRecv(RecvRequest& recv) {
  if (recv.moving) {
    routes_[recv.peer]->CancelRecv(recv);
  } else {
    matcher_.Cancel(recv);
  }
}

void Engine::TellGroup(const Run& run, const absl::Status& status) {
  const absl::Status told(status.code(),
                          absl::StrCat(status.message(), " [said by rank ", topology_.rank(), "]"));
  const Run::Arguments& arguments = run.arguments();
  MessageKey key = arguments.key;
  for (int rank = 0; rank < static_cast<int>(arguments.group->members.size()); ++rank) {
    if (run.point_to_point() && rank != arguments.schedule->steps[0].peer) continue;
    const int peer = arguments.group->members[rank];
    if (peer != topology_.rank() && !gone_[peer].gone) routes_[peer]->SendAbort(peer, key, told);
  }
}

void Engine::OnRunDone(Run& run) {
  recorder_.End(run.record(), run.status().code(), NowTicks());
  if (!run.status().ok()) {
    Group& group = *run.arguments().group;
    group.failure.Update(run.status());
    if (!run.point_to_point()) group.failures.emplace_back(run.arguments().key.sequence, run.status());
    if (group.failures.size() > policy::kFailuresKept) group.failures.pop_front();
    RecordFailureLocked();
  }
  any_done_ = true;
  num_runs_.fetch_sub(1, std::memory_order_seq_cst);
  doorbell_->Ring();
  if (NetworkWatch* const watch = watch_.load(std::memory_order_relaxed)) watch->Wake();
}

std::shared_ptr<Run> Engine::FindRun(const MessageKey& key, int peer) const {
  const bool point_to_point = (key.context & kPointToPointContext) != 0;
  for (const auto& run : runs_) {
    const Run::Arguments& arguments = run->arguments();
    if (run->done() || arguments.key.context != key.context || arguments.key.sequence != key.sequence)
      continue;
    if (!point_to_point) return run;
    const Step& step = arguments.schedule->steps[0];
    if (arguments.key.step == key.step && arguments.group->members[step.peer] == peer) return run;
  }
  return nullptr;
}

void Engine::OnMessage(Transport& from, int peer, const MessageHeader& header, const std::byte* body) {
  Arrive(from, peer, header, /*announced=*/false, body);
}

void Engine::OnAnnouncement(Transport& from, int peer, const MessageHeader& header) {
  Arrive(from, peer, header, /*announced=*/true, nullptr);
}

void Engine::Arrive(Transport& from, int peer, const MessageHeader& header, bool announced,
                    const std::byte* body) {
  if (matcher_.Offer(from, peer, header, announced, body)) return;
  const MessageKey& key = header.key;
  if ((key.context & kMembershipContext) != 0) {
    OnMembershipArrival(from, peer, header, announced, body);
    return;
  }
  if (!retired_.empty() && retired_.contains(key.context & ~kPointToPointContext)) {
    if (header.slot != 0) from.Reply(peer, header, Answer::kRefused);
    return;
  }
  if ((key.context & kPointToPointContext) == 0) {
    const std::shared_ptr<Run> run = FindRun(key, peer);
    if (run != nullptr && run->arguments().signature != header.signature) {
      // It hears why before it hears that it is refused.
      run->Fail(Mismatch(peer, header.signature, topology_.rank(), run->arguments().signature),
                /*tell=*/true);
      if (header.slot != 0) from.Reply(peer, header, Answer::kRefused);
      return;
    }
    const auto group = groups_.find(key.context);
    if (run == nullptr && group != groups_.end() && key.sequence < group->second->next_sequence) {
      // Over here, which it would not be if the ranks agreed on what it was, or if it had not failed.
      absl::Status why = absl::InvalidArgumentError(
          absl::StrFormat("rank %d has already ended operation %d of the group, which rank %d calls as %s",
                          topology_.rank(), key.sequence, peer, Describe(header.signature)));
      for (const auto& [sequence, failure] : group->second->failures) {
        if (sequence == key.sequence) why = failure;
      }
      from.SendAbort(peer, key, why);
      if (header.slot != 0) from.Reply(peer, header, Answer::kRefused);
      return;
    }
  }
  matcher_.Keep(from, peer, header, announced, body);
}

void Engine::OnAbort(int peer, const MessageKey& key, const absl::Status& why) {
  if (const std::shared_ptr<Run> run = FindRun(key, peer); run != nullptr) {
    run->Fail(why, /*tell=*/false);
    return;
  }
  if ((key.context & kPointToPointContext) == 0) {
    const auto group = groups_.find(key.context);
    if (group != groups_.end() && key.sequence < group->second->next_sequence) {
      group->second->failed_elsewhere = {key.sequence, why};
      return;
    }
  }
  if (retired_.contains(key.context & ~kPointToPointContext)) return;
  aborts_.push_back({peer, key, why});
}

void Engine::OnPeerGone(int peer, bool left, absl::string_view how) {
  any_lost_ |= !left;
  gone_[peer].gone = true;
  gone_[peer].left = left;
  gone_[peer].how = std::string(how);
  if (left) {
    someone_left_ = true;
  } else {
    const std::vector<std::shared_ptr<Run>> runs = runs_;
    for (const auto& run : runs) {
      const std::vector<int>& members = run->arguments().group->members;
      const bool member = std::find(members.begin(), members.end(), peer) != members.end();
      // One that left may have done its part; one that died leaves its group without a member.
      const bool hit = run->WaitsFor(peer) || (member && !run->point_to_point());
      if (hit) run->Fail(absl::UnavailableError(gone_[peer].how), /*tell=*/true);
    }
  }
  for (const auto& [context, group] : groups_) {
    if (group->agreement == nullptr) continue;
    group->agreement->OnLost(peer);
    FlushAgreement(*group);
  }
}

absl::Status Engine::GoneStatus(int peer) const {
  if (gone_[peer].left) {
    // A rank leaves when it fails: whom it has lost is the cause, and who left the consequence.
    for (const Gone& other : gone_) {
      if (!other.gone || other.left || other.detached) continue;
      return absl::UnavailableError(absl::StrCat(other.how, ", after which ", gone_[peer].how));
    }
  }
  return absl::UnavailableError(gone_[peer].how);
}

void Engine::FailThoseWhoWaitForLeavers() {
  const std::vector<std::shared_ptr<Run>> runs = runs_;
  for (const auto& run : runs) {
    for (const int peer : run->AwaitedPeers()) {
      if (!gone_[peer].gone || !gone_[peer].left) continue;
      run->Fail(GoneStatus(peer), /*tell=*/true);
      break;
    }
  }
}

bool Engine::ProgressLocked() {
  bool moved = false;
  while (!starting_.empty()) {
    const std::vector<std::shared_ptr<Run>> starting = std::exchange(starting_, {});
    for (const auto& run : starting) {
      if (!run->done()) BeginLocked(*run);
    }
    moved = true;
  }
  for (const auto& transport : transports_) moved |= transport->Progress(policy::kProgressBytes);
  SweepLocked();
  if (someone_left_) CheckLocked(NowNanos());
  if (++polls_ >= policy::kPollsPerClock) {
    polls_ = 0;
    const int64_t now = NowNanos();
    if (now - last_check_ >= policy::kCheckNanos) CheckLocked(now);
  }
  return moved;
}

void Engine::CheckLocked(int64_t now) {
  last_check_ = now;
  for (const auto& transport : transports_) transport->CheckPeers();
  // After the look at who is dead, which explains why others left.
  if (std::exchange(someone_left_, false)) FailThoseWhoWaitForLeavers();
  const std::vector<std::shared_ptr<Run>> runs = runs_;
  for (const auto& run : runs) {
    if (!run->done() && run->Late(now)) run->Fail(LateLocked(*run), /*tell=*/true);
  }
  SweepLocked();
}

void Engine::SweepLocked() {
  if (!any_done_) return;
  any_done_ = false;
  std::erase_if(runs_, [](const auto& run) { return run->done(); });
}

}  // namespace cohort::comm
