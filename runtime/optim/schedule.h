// Learning-rate schedules: linear warm-up, then one of a table of decays.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cohort::runtime {

enum class Decay : uint8_t { kConstant, kCosine, kLinear, kWsd };

struct Schedule {
  double peak = 3e-4;
  int64_t total_steps = 1;
  int64_t warmup_steps = 0;
  double min_ratio = 0.1;  // of the peak, reached at total_steps (not by kConstant)
  Decay decay = Decay::kCosine;
  double wsd_decay_ratio = 0.2;  // the share of total_steps in which kWsd falls, linearly

  // The rate of step `step`, counted from 0. The first step of a warm-up of n has peak / n, the n-th the
  // peak; past total_steps the last value stays.
  double At(int64_t step) const;
};

// A row a decay: its name in a config and its factor at `progress` (0: warm-up over, 1: the end).
struct DecayRow {
  Decay decay;
  const char* name;
  double (*factor)(double progress, const Schedule& schedule);
};
const std::vector<DecayRow>& DecayTable();
std::optional<Decay> ParseDecay(const std::string& name);

}  // namespace cohort::runtime
