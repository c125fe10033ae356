#include "runtime/collectives/over_device.h"

#include <spdlog/spdlog.h>

#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/collectives/same_hardware.h"
#include "runtime/collectives/staged_communicator.h"
#include "runtime/device/connected_device.h"

namespace cohort::runtime {
namespace {

// Once a process and reason: groups are many.
void SayOnce(const std::string& words) {
  static std::mutex mutex;
  static auto* const said = new std::set<std::string>;
  const std::lock_guard<std::mutex> lock(mutex);
  if (said->insert(words).second) spdlog::info("{}", words);
}

// On how many ranks it is so. Collective.
absl::StatusOr<int64_t> CountRanks(comm::Communicator& ranks, bool here) {
  int64_t count = here ? 1 : 0;
  COHORT_RETURN_IF_ERROR(ranks.AllReduce(&count, &count, 1, DataType::kI64, comm::ReduceOp::kSum).Wait());
  return count;
}

// The device's own for this group; null where the ranks have none, and a line says why.
absl::StatusOr<std::unique_ptr<comm::Communicator>> DirectOver(
    Device& device, ConnectedDevice& connected, const std::shared_ptr<comm::Communicator>& host) {
  COHORT_ASSIGN_OR_RETURN(const int same, RanksOfSameHardware(device, *host));
  COHORT_ASSIGN_OR_RETURN(const int64_t sharing, CountRanks(*host, same > 1));
  std::string why = same > 1 ? "ranks of this host share the device" : "ranks of another host share a device";
  bool says = host->rank() == 0;
  if (sharing == 0) {
    auto direct = connected.ConnectDirectly(host);
    COHORT_ASSIGN_OR_RETURN(const int64_t failed, CountRanks(*host, !direct.ok()));
    if (failed == 0) return direct;
    why = direct.ok() ? "another rank has none" : std::string(direct.status().message());
    says = says || (!direct.ok() && failed < host->size());  // what rank 0 cannot know
  }
  if (says) {
    SayOnce(absl::StrCat("what ranks on ", device.name(),
                         " exchange goes by way of the host; no communicator of devices: ", why));
  }
  return nullptr;
}

// Of this thread, while one of its Scope lives.
LaterLinks*& Later() {
  thread_local LaterLinks* later = nullptr;
  return later;
}

}  // namespace

LaterLinks::Scope::Scope(LaterLinks& links) {
  COHORT_CHECK(Later() == nullptr, "links are put off already");
  Later() = &links;
}

LaterLinks::Scope::~Scope() { Later() = nullptr; }

absl::Status LaterLinks::Connect() {
  for (const Link& link : links_) {
    auto* const connected = dynamic_cast<ConnectedDevice*>(link.device);
    COHORT_ASSIGN_OR_RETURN(auto direct, DirectOver(*link.device, *connected, link.host));
    const std::shared_ptr<StagedCommunicator> over = link.over.lock();
    if (over != nullptr && direct != nullptr) over->SetDirect(std::move(direct));
  }
  links_.clear();
  return absl::OkStatus();
}

std::shared_ptr<comm::Communicator> ThroughHost(Device& device, std::shared_ptr<comm::Communicator> host) {
  if (device.in_host_memory()) return host;
  return std::make_shared<StagedCommunicator>(device, std::move(host));
}

absl::StatusOr<std::shared_ptr<comm::Communicator>> OverDevice(Device& device,
                                                               std::shared_ptr<comm::Communicator> host) {
  if (device.in_host_memory() || host->size() == 1) return ThroughHost(device, std::move(host));
  auto* const connected = dynamic_cast<ConnectedDevice*>(&device);
  if (connected == nullptr) return ThroughHost(device, std::move(host));
  if (LaterLinks* const later = Later(); later != nullptr) {
    auto over = std::make_shared<StagedCommunicator>(device, host);
    later->links_.push_back({&device, std::move(host), over});
    return over;
  }
  COHORT_ASSIGN_OR_RETURN(auto direct, DirectOver(device, *connected, host));
  return std::make_shared<StagedCommunicator>(device, std::move(host), std::move(direct));
}

}  // namespace cohort::runtime
