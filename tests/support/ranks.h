// Real processes for distributed tests.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "comm/communicator.h"

namespace cohort::testing {

struct RankOptions {
  // Of every communication.
  absl::Duration timeout = absl::Seconds(20);
  // After this the processes are killed and the test fails.
  absl::Duration limit = absl::Seconds(60);
  // Ranks that are expected to die by a signal: how they end is not looked at, unless a sanitizer ends them.
  std::vector<int> victims = {};
};

// Forks `size` processes, connects them (they meet in a temporary folder) and runs `body` in each. Failed
// expectations of a child are printed by it and fail the calling test, and so does a child that ends
// otherwise than by returning from `body`. To be called from a thread that is alone in its process: nothing
// of what was started before (OpenMP pools, communicators, servers) lives on in the children.
void RunRanks(int size, const std::function<void(comm::Communicator&)>& body,
              const RankOptions& options = {});

// The same without a communicator: `body` gets the rank, the number of ranks and a folder to meet in.
void RunProcesses(int size, const std::function<void(int rank, int size, const std::string& folder)>& body,
                  const RankOptions& options = {});

// A number that a test and the processes it forks share, for what must not depend on timing.
class SharedCounter {
 public:
  SharedCounter();
  ~SharedCounter();
  SharedCounter(const SharedCounter&) = delete;
  SharedCounter& operator=(const SharedCounter&) = delete;

  void Add(int amount = 1) { value_->fetch_add(amount); }
  int Get() const { return value_->load(); }
  // Sleeps until it is at least `value`. False after `limit`.
  bool WaitFor(int value, absl::Duration limit = absl::Seconds(10)) const;

 private:
  std::atomic<int>* value_;
};

}  // namespace cohort::testing
