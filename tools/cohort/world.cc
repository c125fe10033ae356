#include "tools/cohort/world.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "comm/check.h"

namespace cohort::tools {
namespace {

std::atomic<bool> stop_requested = false;

void OnSignal(int signal) {
  if (stop_requested.exchange(true)) _exit(128 + signal);
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
    struct sigaction action {};
    action.sa_handler = OnSignal;
    // On a stack of its own: oneDNN's generated f32 kernels use the stack pointer for other things while they run, and
    // a signal frame written there destroys the heap.
    static char stack[64 << 10];
    stack_t alternate{};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof(stack);
    sigaltstack(&alternate, nullptr);
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    return true;
  }();
  static_cast<void>(installed);
  return &stop_requested;
}

}  // namespace cohort::tools
