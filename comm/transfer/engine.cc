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
#include "comm/transport/peer_silence.h"

namespace cohort::comm::transfer {
namespace {

std::string HostName() {
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  return name;
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
  std::vector<std::string> devices = given.rails;
  if (devices.empty()) devices.emplace_back();
  for (const std::string& device : devices) {
    COHORT_ASSIGN_OR_RETURN(auto rail, Rail::Create(device, engine.get()));
    card.rails.push_back(rail->address());
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
  SayDone();
  Frame bye;
  bye.type = FrameType::kBye;
  for (const auto& [id, peer] : peers_) {
    peer->on_lost = nullptr;
    for (size_t way = 0; way < peer->ways.size() && !peer->lost; ++way) SendControl(*peer, way, bye);
  }
  while (!transfers_.empty())
    GiveUp(*transfers_.front(), absl::CancelledError("the transfer engine has ended"));
  stop_ = true;
  takeover_.notify_all();
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
  peers_.clear();
  leaving_.clear();
  for (const auto& rail : rails_) rail->Flush(policy::kTransferLingerNanos);
  rails_.clear();
}

Engine::~Engine() {
  if (wake_fd_ >= 0) close(wake_fd_);
}

absl::StatusOr<Region> Engine::Register(void* data, uint64_t bytes) {
  if (data == nullptr && bytes > 0)
    return absl::InvalidArgumentError(absl::StrCat("a region of ", bytes, " bytes at no address"));
  if (bytes > UINT64_MAX - reinterpret_cast<uintptr_t>(data))
    return absl::InvalidArgumentError(absl::StrCat("a region of ", bytes, " bytes does not fit into memory"));
  const std::lock_guard lock(mutex_);
  const Region region = {next_region_++, bytes};
  regions_[region.number] = {static_cast<std::byte*>(data), bytes, 0};
  return region;
}

absl::Status Engine::Unregister(Region region) {
  const std::lock_guard lock(mutex_);
  const auto at = regions_.find(region.number);
  if (at == regions_.end())
    return absl::NotFoundError(absl::StrCat("region ", region.number, " is not registered here"));
  if (at->second.users > 0) {
    return absl::FailedPreconditionError(absl::StrCat("region ", region.number, " is the source of ",
                                                      at->second.users,
                                                      " writes in flight: wait for their Work first"));
  }
  regions_.erase(at);
  return absl::OkStatus();
}

}  // namespace cohort::comm::transfer
