// A device like those that are not the host's memory, for machines that have none: who touches its addresses on the host
// dies of it, and its operations run late. What trains on it bit for bit as on the CPU does not know where it runs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "runtime/device/device.h"

namespace cohort::runtime {

// One of this process, made by the first call; to be called in the process that uses it, not before a fork.
// - Its addresses lie in a mapping without access. The same pages are mapped a second time, with access, for its own
//   operations and copies.
// - Operations wait in a queue, which a thread of its own runs in order when somebody waits for it (Synchronize,
//   CopyToHost) or it has grown long. Who reads results without waiting gets the bytes of before.
// - A freed block is handed out again at once, as its next user's operations come later in the queue.
// - It records: what is enqueued meanwhile is kept, and a replay enqueues it as one. Waits and copies from the host
//   meanwhile abort.
// Each operation is the CPU's, on the second mapping.
Device& FarDevice();

// What was asked of it since the process began. A copy to the host is a wait of its own kind and counted only as such.
struct FarCalls {
  int64_t allocations = 0, copies_from_host = 0, copies_to_host = 0, waits = 0, enqueued = 0, recordings = 0,
          replays = 0;
};
FarCalls FarDeviceCalls();

// Where the host finds what is at an address of the far device; other addresses are what they are. For what a test moves
// itself, between two Synchronize.
void* NearAddress(const void* address);

// How it connects to those of other processes from now on (connected_device.h). Until then, nothing leads there.
// `hardware`: what it is of the machine; empty: one of this process's own.
using ConnectFar =
    std::function<absl::StatusOr<std::unique_ptr<comm::Communicator>>(std::shared_ptr<comm::Communicator>)>;
void SetConnectFar(ConnectFar connect, std::string hardware = "");

}  // namespace cohort::runtime
