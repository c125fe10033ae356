#include "runtime/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace cohort::runtime {
namespace {

double Constant(double, const Schedule&) { return 1.0; }

// SGDR's half cosine without restarts (Loshchilov & Hutter, 2017, section 3).
double Cosine(double progress, const Schedule& schedule) {
  return schedule.min_ratio + (1 - schedule.min_ratio) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

double Linear(double progress, const Schedule& schedule) { return 1 - (1 - schedule.min_ratio) * progress; }

// Warm-up, stable, decay (Hu et al., 2024, MiniCPM, section 4).
double Wsd(double progress, const Schedule& schedule) {
  const double after_warmup = 1.0 - static_cast<double>(schedule.warmup_steps) / schedule.total_steps;
  const double fall = after_warmup > 0 ? std::min(1.0, schedule.wsd_decay_ratio / after_warmup) : 1.0;
  if (progress <= 1 - fall || fall <= 0) return 1.0;
  return 1 - (1 - schedule.min_ratio) * std::min(1.0, (progress - (1 - fall)) / fall);
}

}  // namespace

const std::vector<DecayRow>& DecayTable() {
  static const std::vector<DecayRow> table = {
      {Decay::kCosine, "cosine", Cosine},
      {Decay::kLinear, "linear", Linear},
      {Decay::kWsd, "wsd", Wsd},
      {Decay::kConstant, "constant", Constant},
  };
  return table;
}

std::optional<Decay> ParseDecay(const std::string& name) {
  for (const DecayRow& row : DecayTable()) {
    if (name == row.name) return row.decay;
  }
  return std::nullopt;
}

double Schedule::At(int64_t step) const {
  if (step < warmup_steps) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  const int64_t span = std::max<int64_t>(1, total_steps - warmup_steps);
  const double progress = std::clamp(static_cast<double>(step - warmup_steps) / span, 0.0, 1.0);
  for (const DecayRow& row : DecayTable()) {
    if (row.decay == decay) return peak * row.factor(progress, *this);
  }
  return peak;
}

}  // namespace cohort::runtime
