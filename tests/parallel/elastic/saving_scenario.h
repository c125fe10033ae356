// Trainings whose checkpoints are written from snapshots while they go on, played by real processes.
#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/parallel/elastic/elastic_scenario.h"
#include "tests/support/ranks.h"

namespace cohort::parallel {

// What processes tell the test. By step: losses, and how checkpoints ended.
struct SavesTold {
  static constexpr double kSaved = 1, kFailed = 2;
  SharedDoubles losses{kElasticSteps}, saved{kElasticSteps + 1}, inside{kElasticSteps + 1}, ends{8}, loads{1},
      changes{1}, from_disk{1}, pids{8};
  testing::SharedCounter together;

  std::vector<int64_t> Steps(double how) const {
    std::vector<int64_t> steps;
    const std::vector<double> all = saved.Take();
    for (size_t step = 0; step < all.size(); ++step) {
      if (all[step] == how) steps.push_back(static_cast<int64_t>(step));
    }
    return steps;
  }
};

struct SavingScenario {
  std::string checkpoints = {};
  std::string model = "llama";
  std::string dtype = "f32";
  int founders = 3;
  int64_t save_every = 3, snapshot_every = 1;
  std::vector<std::string> hosts = {};  // of the processes, as names; none: all on one
  int lost_hosts = 0;
  std::vector<int> victims = {};
  // In the middle of computing the gradients of the step after `step`; sets `leaves` where that is to leave.
  std::function<void(int process, int64_t step, bool& leaves)> at_step = [](int, int64_t, bool&) {};
  // Before this process writes anything of that checkpoint, in the thread that does.
  std::function<void(int process, int64_t step)> before_write = [](int, int64_t) {};
  rlim_t disk = RLIM_INFINITY;  // while step 6 is written
  bool far = false;             // on devices whose memory no host reaches; SaveInside is on the CPU

  runtime::Device& device() const { return far ? runtime::FarDevice() : runtime::CpuDevice(); }
};

void PlaySaving(const SavingScenario& scenario, SavesTold& told);

// The run whose ranks save while they wait, and which nobody disturbs.
std::vector<double> SaveInside(SavingScenario scenario, const std::string& checkpoints);

}  // namespace cohort::parallel
