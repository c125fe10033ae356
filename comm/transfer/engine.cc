#include "comm/transfer/engine.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/doorbell.h"
#include "comm/policy.h"
#include "comm/transfer/policy.h"
#include "comm/transport/peer_silence.h"

namespace cohort::comm::transfer {
namespace {

std::string HostName() {
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  return name;
}

absl::Status TooManyRegions(size_t number) {
  return absl::ResourceExhaustedError(absl::StrCat("there are ", number, " regions: no engine has more"));
}

}  // namespace

bool Transfer::Done() { return engine->Poll(*this); }
absl::Status Transfer::Wait(absl::Time until) { return engine->Wait(*this, until); }

Engine::Engine(Options options) : options_(std::move(options)), silence_(PeerSilenceNanos()) {}

absl::StatusOr<std::shared_ptr<Engine>> Engine::Create(Options options) {
  auto engine = std::shared_ptr<Engine>(new Engine(std::move(options)));
  const Options& given = engine->options_;
  Card& card = engine->card_;
  card.engine = RandomNumber();
  card.name = given.name.empty() ? absl::StrCat(HostName(), ":", getpid()) : given.name;
  card.host = HostName();
  for (const std::string& device : given.rails) engine->interfaces_.push_back({device, "", ""});
  if (given.rails.empty()) engine->interfaces_ = ucx::Interfaces();
  for (const ucx::Interface& interface : engine->interfaces_) {
    COHORT_ASSIGN_OR_RETURN(auto rail, Rail::Create(interface.name, engine.get()));
    card.rails.push_back({rail->address(), given.rails.empty() ? interface.ToText() : ""});
    engine->rails_.push_back(std::move(rail));
  }
  if (given.shared_memory) {
    COHORT_ASSIGN_OR_RETURN(engine->hub_, LocalHub::Create());
    card.local = engine->hub_->Card();
  }
  engine->wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (engine->wake_fd_ < 0) return absl::ErrnoToStatus(errno, "eventfd");
  // Two that talk need a core each to spin on.
  engine->spin_polls_ =
      std::thread::hardware_concurrency() >= 2 ? policy::kSpinPolls : policy::kSpinPollsShared;
  engine->thread_ = std::thread([raw = engine.get()] { raw->Loop(); });
  return engine;
}

void Engine::Close() {
  std::unique_lock lock(mutex_);
  closed_ = true;
  SayDone(Say::kAll);
  Frame bye;
  bye.type = FrameType::kBye;
  for (const auto& [id, peer] : peers_) {
    peer->on_lost = nullptr;
    for (size_t way = 0; way < peer->ways.size() && !peer->lost; ++way) SendControl(*peer, way, bye);
  }
  while (!transfers_.empty())
    GiveUp(*transfers_.front(), absl::CancelledError("the transfer engine has ended"));
  stop_ = true;
  TakeOver();
  WakeSleeper();
  lock.unlock();
  thread_.join();
  lock.lock();
  // The last word to each peer, which may wait for room behind writes that were given up.
  const auto unsent = [](const auto& entry) {
    const auto& ways = entry.second->ways;
    return !entry.second->lost && std::any_of(ways.begin(), ways.end(), [](const Way& way) {
      return !way.buried && way.link->broken().empty() && !way.control.empty();
    });
  };
  for (const int64_t give_up = NowNanos() + policy::kTransferLingerNanos; NowNanos() < give_up;) {
    for (const auto& [id, peer] : peers_) Pump(*peer);
    if (std::none_of(peers_.begin(), peers_.end(), unsent)) break;
    for (const auto& rail : rails_) rail->Progress(policy::kProgressBytes);
    sched_yield();
  }
  for (const auto& rail : rails_) rail->Flush(policy::kTransferLingerNanos);
  for (const auto& [id, peer] : peers_) {
    for (Way& way : peer->ways) way.link->End("the transfer engine has ended");
  }
  by_incarnation_.clear();
  near_.clear();
  peer_at_.clear();
  peers_.clear();
  for (Memory& memory : regions_) Release(memory);
  leaving_.clear();
  spare_.clear();  // which keep this engine
  for (const auto& rail : rails_) rail->Flush(policy::kTransferLingerNanos);
  rails_.clear();
}

Engine::~Engine() {
  if (wake_fd_ >= 0) close(wake_fd_);
}

// A free slot of the table, under a number that was not used before.
Engine::Memory* Engine::NewRegion() {
  uint32_t slot = 0;
  if (!free_regions_.empty()) {
    slot = free_regions_.back();
    free_regions_.pop_back();
  } else {
    slot = static_cast<uint32_t>(regions_.size());
    if (slot >> kRegionSlotBits != 0) return nullptr;
    regions_.emplace_back();
  }
  Memory& memory = regions_[slot];
  memory.number = memory.last_number == 0 ? slot : NextRegionNumber(memory.last_number);
  memory.last_number = memory.number;
  return &memory;
}

absl::StatusOr<Region> Engine::Register(void* data, uint64_t bytes) {
  if (data == nullptr && bytes > 0)
    return absl::InvalidArgumentError(absl::StrCat("a region of ", bytes, " bytes at no address"));
  if (bytes > UINT64_MAX - reinterpret_cast<uintptr_t>(data))
    return absl::InvalidArgumentError(absl::StrCat("a region of ", bytes, " bytes does not fit into memory"));
  const std::lock_guard lock(mutex_);
  Memory* memory = NewRegion();
  if (memory == nullptr) return TooManyRegions(regions_.size());
  memory->data = static_cast<std::byte*>(data);
  memory->bytes = bytes;
  return Region{memory->number, bytes};
}

absl::StatusOr<Allocation> Engine::Allocate(uint64_t bytes) {
  if (bytes == 0 || bytes > (uint64_t{1} << 46))
    return absl::InvalidArgumentError(absl::StrCat("a region of ", bytes, " bytes cannot be allocated"));
  absl::StatusOr<SharedMemory> shared = SharedMemory::Create(WholePages(bytes));
  const absl::StatusOr<std::byte*> data = shared.ok() ? shared->Map(0, WholePages(bytes)) : shared.status();
  if (!data.ok()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a region of ", bytes, " bytes cannot be allocated: ", data.status().message()));
  }
  const std::lock_guard lock(mutex_);
  Memory* memory = NewRegion();
  if (memory == nullptr) {
    SharedMemory::Unmap(*data, WholePages(bytes));
    return TooManyRegions(regions_.size());
  }
  memory->data = *data;
  memory->bytes = bytes;
  memory->shared.emplace(*std::move(shared));
  // Those of other slots are written to as all memory is.
  if (const uint32_t slot = RegionSlot(memory->number); hub_ != nullptr && slot < policy::kTransferExports)
    hub_->Offer(slot, memory->number, memory->shared->fd(), bytes);
  return Allocation{{memory->number, bytes}, memory->data};
}

absl::Status Engine::Unregister(Region region) {
  const std::lock_guard lock(mutex_);
  Memory* memory = FindRegion(region.number);
  if (memory == nullptr)
    return absl::NotFoundError(absl::StrCat("region ", region.number, " is not registered here"));
  if (memory->users > 0) {
    return absl::FailedPreconditionError(absl::StrCat("region ", region.number, " is the source of ",
                                                      memory->users,
                                                      " writes in flight: wait for their Work first"));
  }
  free_regions_.push_back(RegionSlot(region.number));
  Release(*memory);
  return absl::OkStatus();
}

// Peers that have mapped it may be in the middle of a write: that goes to pages that are nobody's any more.
void Engine::Release(Memory& memory) {
  if (memory.shared.has_value()) {
    if (const uint32_t slot = RegionSlot(memory.number); hub_ != nullptr && slot < policy::kTransferExports)
      hub_->Withdraw(slot);
    SharedMemory::Unmap(memory.data, WholePages(memory.bytes));
    memory.shared->Discard(0, WholePages(memory.bytes));
    memory.shared.reset();
  }
  memory.number = 0;
  memory.data = nullptr;
  memory.bytes = 0;
}

}  // namespace cohort::comm::transfer
