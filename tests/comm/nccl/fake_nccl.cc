#include "tests/comm/nccl/fake_nccl.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/rendezvous.h"

namespace cohort::comm::nccl {
namespace {

constexpr absl::Duration kPause = absl::Microseconds(50);

// NCCL's groups are of the thread.
struct OpenGroup {
  bool open = false;
  std::vector<Call> calls;
  Handle handle = nullptr;
  Stream stream = nullptr;
};
thread_local OpenGroup open_group;

}  // namespace

// A stream: a thread that runs what is enqueued, in order.
struct FakeNccl::Queue {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> tasks;
  std::atomic<bool> stop{false};
  std::thread thread{[this] {
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stop || !tasks.empty(); });
        if (tasks.empty()) return;
        task = std::move(tasks.front());
        tasks.pop_front();
      }
      task();
    }
  }};

  void Add(std::function<void()> task) {
    const std::lock_guard lock(mutex);
    tasks.push_back(std::move(task));
    changed.notify_all();
  }
};

// An event.
struct FakeNccl::Mark {
  std::atomic<uint64_t> recorded{0}, reached{0};
};

// A communicator of NCCL's.
struct FakeNccl::Group {
  std::unique_ptr<Communicator> host;
  std::mutex mutex;
  absl::Status error;
  absl::Time pending_until = absl::InfinitePast();
  std::atomic<bool> made{false}, aborted{false}, finalized{false};
  std::atomic<int> running{0};

  void Fail(absl::Status status) {
    const std::lock_guard lock(mutex);
    error.Update(std::move(status));
  }
  bool Pending() {
    const std::lock_guard lock(mutex);
    return error.ok() && (!made || absl::Now() < pending_until);
  }
};

absl::Status FakeNccl::UseDevice(int device) {
  return device == 0 ? absl::OkStatus() : absl::NotFoundError(absl::StrCat("no device ", device));
}

absl::StatusOr<void*> FakeNccl::Allocate(size_t bytes, Stream) {
  ++left_;
  return std::malloc(bytes);
}

absl::Status FakeNccl::Free(void* memory, Stream stream) {
  static_cast<Queue*>(stream)->Add([this, memory] {
    std::free(memory);
    --left_;
  });
  return absl::OkStatus();
}

absl::StatusOr<void*> FakeNccl::AllocatePinned(size_t bytes) { return Allocate(bytes, nullptr); }

void FakeNccl::FreePinned(void* memory) {
  std::free(memory);
  --left_;
}

absl::StatusOr<Stream> FakeNccl::CreateStream() {
  ++left_;
  return new Queue;
}

void FakeNccl::DestroyStream(Stream stream) {
  auto* const queue = static_cast<Queue*>(stream);
  {
    const std::lock_guard lock(queue->mutex);
    queue->stop = true;
    queue->changed.notify_all();
  }
  queue->thread.join();
  delete queue;
  --left_;
}

absl::StatusOr<Event> FakeNccl::CreateEvent() {
  ++left_;
  return new Mark;
}

void FakeNccl::DestroyEvent(Event event) {
  delete static_cast<Mark*>(event);
  --left_;
}

absl::Status FakeNccl::Record(Event event, Stream stream) {
  auto* const mark = static_cast<Mark*>(event);
  const uint64_t number = ++mark->recorded;
  static_cast<Queue*>(stream)->Add([mark, number] { mark->reached = number; });
  return absl::OkStatus();
}

absl::StatusOr<bool> FakeNccl::Query(Event event) {
  auto* const mark = static_cast<Mark*>(event);
  return mark->reached >= mark->recorded;
}

absl::Status FakeNccl::StreamWaitsForEvent(Stream stream, Event event) {
  auto* const mark = static_cast<Mark*>(event);
  static_cast<Queue*>(stream)->Add([mark, number = mark->recorded.load()] {
    while (mark->reached < number) absl::SleepFor(kPause);
  });
  return absl::OkStatus();
}

absl::Status FakeNccl::StreamWaitsForFlag(Stream stream, uint32_t* flag, uint32_t value) {
  static_cast<Queue*>(stream)->Add([flag, value] {
    while (static_cast<int32_t>(std::atomic_ref<uint32_t>(*flag).load() - value) < 0) absl::SleepFor(kPause);
  });
  return absl::OkStatus();
}

absl::Status FakeNccl::Copy(void* to, const void* from, size_t bytes, Stream stream) {
  COHORT_CHECK(bytes == 0 || (to != nullptr && from != nullptr), "a copy from or to nowhere");
  static_cast<Queue*>(stream)->Add(
      [to = Near(to), from = Near(from), bytes] { std::memmove(to, from, bytes); });
  return absl::OkStatus();
}

std::shared_ptr<FakeNccl::Group> FakeNccl::Find(Handle handle) const {
  const std::lock_guard lock(mutex_);
  const auto at = handles_.find(handle);
  COHORT_CHECK(at != handles_.end(), "a handle that is gone");
  return at->second;
}

absl::StatusOr<UniqueId> FakeNccl::GetUniqueId() {
  const std::lock_guard lock(mutex_);
  UniqueId id{};
  const std::string text = absl::StrCat(folder_, "/nccl-", getpid(), "-", ids_++);
  COHORT_CHECK(text.size() < id.size(), "a folder with a long name");
  std::memcpy(id.data(), text.data(), text.size());
  return id;
}

Outcome FakeNccl::Init(Handle* handle, int size, const UniqueId& id, int rank) {
  const Faults faults = this->faults();
  if (faults.refuses_init) return absl::UnavailableError("NCCL: no such luck");
  auto group = std::make_shared<Group>();
  *handle = group.get();
  ++left_;
  {
    const std::lock_guard lock(mutex_);
    handles_[group.get()] = group;
  }
  if (faults.init_hangs) return Progress::kPending;
  std::thread([group, folder = std::string(id.data()), rank, size] {
    auto host = Communicator::Create(FileRendezvous(folder, rank, size), {.timeout = absl::Seconds(60)});
    if (!host.ok())
      return group->Fail(absl::UnavailableError(absl::StrCat("NCCL: ", host.status().message())));
    group->host = *std::move(host);
    group->made = true;
  }).detach();
  return Progress::kPending;
}

Outcome FakeNccl::AsyncError(Handle handle) {
  const auto group = Find(handle);
  if (group->Pending()) return Progress::kPending;
  const std::lock_guard lock(group->mutex);
  if (!group->error.ok()) return group->error;
  return Progress::kDone;
}

absl::Status FakeNccl::GroupStart() {
  COHORT_CHECK(!open_group.open, "a group in a group");
  open_group.open = true;
  return absl::OkStatus();
}

absl::Status FakeNccl::Enqueue(const Call& call, Handle handle, Stream stream) {
  COHORT_CHECK(open_group.open, "a call outside of a group");
  const auto group = Find(handle);
  COHORT_CHECK(!group->Pending(), "a call while NCCL is busy with another one");
  COHORT_CHECK(open_group.handle == nullptr || open_group.handle == handle, "two communicators in a group");
  if (faults().refuses_calls) return absl::UnavailableError("NCCL: unhandled cuda error");
  open_group.handle = handle;
  open_group.stream = stream;
  open_group.calls.push_back(call);
  open_group.calls.back().from = Near(call.from);
  open_group.calls.back().to = Near(call.to);
  ++calls_;
  return absl::OkStatus();
}

Outcome FakeNccl::GroupEnd() {
  COHORT_CHECK(open_group.open, "the end of no group");
  const OpenGroup ended = std::exchange(open_group, {});
  if (ended.calls.empty()) return Progress::kDone;
  ++groups_;
  const Faults faults = this->faults();
  const auto group = Find(ended.handle);
  ++group->running;
  static_cast<Queue*>(ended.stream)->Add([group, calls = ended.calls, faults] {
    Kernel(group, calls, faults);
    --group->running;
  });
  if (faults.pending_for <= absl::ZeroDuration()) return Progress::kDone;
  const std::lock_guard lock(group->mutex);
  group->pending_until = absl::Now() + faults.pending_for;
  return Progress::kPending;
}

void FakeNccl::Kernel(const std::shared_ptr<Group>& group, const std::vector<Call>& calls,
                      const Faults& faults) {
  const absl::Time begin = absl::Now() + faults.late_by;
  while (absl::Now() < begin && !group->aborted) absl::SleepFor(kPause);
  if (faults.fails)
    group->Fail(absl::UnavailableError("NCCL: remote process exited or there was a network error"));
  std::vector<Work> works;
  if (!faults.hangs && !faults.fails && !group->aborted) {
    for (const Call& call : calls) works.push_back(Begin(*group->host, call));
  }
  // A kernel knows nothing of errors: it ends well, or when it is aborted.
  for (size_t next = 0; !group->aborted && (works.empty() || next < works.size());) {
    if (!works.empty() && works[next].Done() && works[next].Wait().ok()) {
      ++next;
    } else {
      absl::SleepFor(kPause);
    }
  }
  if (!group->aborted) return;
  if (group->host != nullptr) group->host->Abort(absl::AbortedError("a kernel of NCCL's was aborted"));
  for (const Work& work : works) (void)work.Wait();
}

Work FakeNccl::Begin(Communicator& host, const Call& call) {
  const std::vector<size_t> counts(host.size(), call.count);
  switch (call.kind) {
    case CallKind::kAllReduce:
      return host.AllReduce(call.from, call.to, call.count, call.dtype, call.op);
    case CallKind::kReduceScatter:
      return host.ReduceScatter(call.from, call.to, counts, call.dtype, call.op);
    case CallKind::kAllGather:
      return host.AllGather(call.from, call.to, counts, call.dtype);
    case CallKind::kBroadcast:
      if (host.rank() == call.peer && call.from != call.to) {
        std::memcpy(call.to, call.from, call.count * SizeOf(call.dtype));
      }
      return host.Broadcast(call.to, call.count, call.dtype, call.peer);
    case CallKind::kReduce:
      return host.Reduce(call.from, call.to, call.count, call.dtype, call.peer, call.op);
    case CallKind::kSend:
      return host.Send(call.from, call.count, call.dtype, call.peer);
    case CallKind::kRecv:
      return host.Recv(call.to, call.count, call.dtype, call.peer);
  }
  COHORT_CHECK(false, "an unknown call");
}

Outcome FakeNccl::Finalize(Handle handle) {
  const auto group = Find(handle);
  COHORT_CHECK(!group->Pending() && group->running == 0, "something was in flight");
  group->finalized = true;
  const std::lock_guard lock(group->mutex);
  group->pending_until =
      faults().finalize_hangs ? absl::InfiniteFuture() : absl::Now() + absl::Milliseconds(2);
  return Progress::kPending;
}

absl::Status FakeNccl::Destroy(Handle handle) {
  const auto group = Find(handle);
  COHORT_CHECK(group->finalized && !group->Pending(), "destroyed before it was finalized");
  const std::lock_guard lock(mutex_);
  handles_.erase(handle);
  --left_;
  return absl::OkStatus();
}

absl::Status FakeNccl::Abort(Handle handle) {
  const auto group = Find(handle);
  if (faults().abort_hangs) {
    absl::SleepFor(absl::Seconds(30));
    return absl::OkStatus();
  }
  group->aborted = true;
  while (group->running > 0) absl::SleepFor(kPause);
  const std::lock_guard lock(mutex_);
  handles_.erase(handle);
  --left_;
  ++aborted_;
  return absl::OkStatus();
}

}  // namespace cohort::comm::nccl
