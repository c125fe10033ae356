#include "tools/cohort/world.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <thread>
#include <utility>

#include "comm/check.h"

namespace cohort::tools {
namespace {

std::atomic<bool> stop_requested = false;

void WaitForSignals(sigset_t signals) {
  for (;;) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) continue;
    if (stop_requested.exchange(true)) _exit(128 + signal);
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<comm::Communicator>> JoinWorld(absl::Duration timeout) {
  if (!comm::LaunchedByMpi()) return comm::Communicator::Single();
  COHORT_ASSIGN_OR_RETURN(auto rendezvous, comm::MpiRendezvous());
  return comm::Communicator::Create(std::move(rendezvous), {.timeout = timeout});
}

int HostCores() { return static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN))); }

int RanksOnHost(const comm::Communicator& world) { return world.topology().local_size(); }

const std::atomic<bool>* StopRequested() {
  static const bool installed = [] {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // inherited by every thread to come
    std::thread(WaitForSignals, signals).detach();
    return true;
  }();
  static_cast<void>(installed);
  return &stop_requested;
}

}  // namespace cohort::tools
