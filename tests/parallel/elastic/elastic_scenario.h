// Trainings whose ranks die, come and go, played by real processes: what happens, and what it must not change.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cohort/v1/config.pb.h"
#include "tests/parallel/elastic/elastic_setup.h"
#include "tests/parallel/training_run.h"
#include "tests/runtime/device/far_device.h"

namespace cohort::parallel {

// What happens to a process before it computes a step; or, whatever the step, when newcomers come.
struct Event {
  enum What {
    kDies,
    kLeaves,
    kWaitsForNewcomers,  // and makes its steps slowly until they are in
    kFlipsABit,
    kDiesMaking,     // its part of the mesh with the newcomers
    kDiesMoving,     // when the state begins to move there
    kDiesComputing,  // the gradients of the step beside which it moves
    kDiesHandingOver,
    kDiesEntering,  // when it has made its first update on that mesh
    kDiesSaving,    // what the last step has left
    kStopsMaking,   // SIGSTOP, where kDiesMaking dies; killed much later
    kKillsKeeper,   // of its host, after that step
    kSavesSlowly,   // all ranks: for longer than an operation waits
  };
  int process;
  int64_t step;
  What what;

  bool dies() const {
    return what != kLeaves && what != kWaitsForNewcomers && what != kFlipsABit && what != kSavesSlowly &&
           what != kKillsKeeper;
  }
};

struct Scenario {
  std::string model = "llama";
  v1::ParallelSection parallel = {};
  int founders = 4;
  int newcomers = 0;
  std::vector<Event> events = {};
  bool deterministic = true;
  std::string dtype = "f32";            // f64: on the reference device
  std::vector<std::string> hosts = {};  // of the processes, as names; none: all on one
  int64_t check_every = 0;
  int lost_hosts = 0;  // that parity brings back
  absl::Duration timeout = absl::Seconds(20);
  bool far = false;  // on devices whose memory no host reaches; the run that nobody disturbs is on the CPU
  // What a process needs for as long as it trains.
  std::function<std::shared_ptr<void>()> prepare = nullptr;

  // Of the calling process.
  runtime::Device& device() const {
    if (far) return runtime::FarDevice();
    return dtype == "f64" ? runtime::ReferenceDevice() : runtime::CpuDevice();
  }
};

// What processes tell the test: the loss of each step, and how often it was made; what the first one saw of changes, and
// the longest time without a step, in seconds.
struct Told {
  SharedDoubles losses{kElasticSteps}, times{kElasticSteps}, ends{16}, changes{1}, entered{1}, loads{1},
      longest{1}, repairs{1}, saves{1}, pause{1};
};

void Play(const Scenario& scenario, Told& told);

// The run that nobody disturbs, on as many ranks as the scenario begins with.
std::vector<double> Undisturbed(Scenario scenario);

// `entered`: of the changes, those to meshes that were made beside the one before. most_changes: where several die at once,
// who goes may be found out one after another. What the processes have told.
void ExpectUndisturbed(const Scenario& scenario, int changes, int entered = 0, int most_changes = 0);
void ExpectUndisturbed(const Scenario& scenario, Told& told, int changes, int entered = 0,
                       int most_changes = 0);

}  // namespace cohort::parallel
