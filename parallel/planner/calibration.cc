#include "parallel/planner/calibration.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "comm/check.h"
#include "parallel/planner/policy.h"
#include "parallel/planner/price.h"

namespace cohort::parallel::planner {
namespace {

// What hides what changes with the factors, so they are found again with the corrected prices.
constexpr int kFitRounds = 4;

// Seconds of a step that grow with computing and with communication: a bubble with both.
struct TwoParts {
  double computing = 0, communication = 0;
};

absl::StatusOr<std::vector<TwoParts>> Predict(const ModelCost& model, const Work& work,
                                              const Cluster& cluster,
                                              const std::vector<MeasuredStep>& steps) {
  MeshPricer pricer(model, work, cluster);
  std::vector<TwoParts> predicted;
  for (const MeasuredStep& step : steps) {
    const absl::Status legal = pricer.Check(step.plan);
    if (!legal.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a measured step has the mesh ", step.plan.DebugString(), ": ", legal.message()));
    }
    COHORT_ASSIGN_OR_RETURN(const MeshPrice price, pricer.Simulate(step.plan));
    const double computing = price.time.compute + price.time.recompute + price.time.optimizer;
    const double share = computing / (price.time.total() - price.time.bubble);
    predicted.push_back({price.time.total() * share, price.time.total() * (1 - share)});
  }
  return predicted;
}

// The factors that make the squares of (a computing + b communication) / seconds - 1 least.
void Fit(const std::vector<TwoParts>& predicted, const std::vector<MeasuredStep>& steps, double* computing,
         double* communication) {
  double xx = 0, xy = 0, yy = 0, x1 = 0, y1 = 0, zz = 0, z1 = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    const double x = predicted[i].computing / steps[i].seconds,
                 y = predicted[i].communication / steps[i].seconds;
    xx += x * x, xy += x * y, yy += y * y, x1 += x, y1 += y;
    zz += (x + y) * (x + y), z1 += x + y;
  }
  const double determinant = xx * yy - xy * xy;
  if (steps.size() >= 3 && determinant > 1e-6 * xx * yy) {
    *computing = (x1 * yy - y1 * xy) / determinant;
    *communication = (y1 * xx - x1 * xy) / determinant;
    if (*computing > 0 && *communication > 0) return;
  }
  *computing = *communication = z1 / zz;
}

absl::StatusOr<Calibration> FitAll(const ModelCost& model, const Work& work, const Cluster& cluster,
                                   const std::vector<MeasuredStep>& steps) {
  Calibration calibration;
  for (int round = 0; round < kFitRounds; ++round) {
    COHORT_ASSIGN_OR_RETURN(const auto predicted, Predict(model, work, calibration.Apply(cluster), steps));
    double computing = 1, communication = 1;
    Fit(predicted, steps, &computing, &communication);
    calibration.computing *= computing;
    calibration.communication *= communication;
  }
  return calibration;
}

}  // namespace

absl::StatusOr<std::vector<MeasuredStep>> ParseMeasuredSteps(absl::string_view text, absl::string_view source,
                                                             int64_t micro_batch) {
  std::vector<MeasuredStep> steps;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const size_t end = line.find_first_of(" \t");
    double seconds = 0;
    if (!absl::SimpleAtod(line.substr(0, end), &seconds) || !(seconds > 0) || !std::isfinite(seconds)) {
      return absl::InvalidArgumentError(absl::StrCat(source, ":", number, ": '", line.substr(0, end),
                                                     "' is no time; write seconds and then the mesh"));
    }
    const auto choices = ParseChoices(end == absl::string_view::npos ? "" : line.substr(end));
    if (!choices.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(source, ":", number, ": ", choices.status().message()));
    }
    steps.push_back({choices->Complete(micro_batch), seconds});
  }
  return steps;
}

Cluster Calibration::Apply(Cluster cluster) const {
  cluster.flops /= computing;
  cluster.layers = cluster.layers.Slower(computing);
  cluster.update_seconds *= computing;
  cluster.machine.local_seconds_per_byte *= computing;
  cluster.communication_scale *= communication;
  return cluster;
}

absl::StatusOr<Calibration> Calibrate(const ModelCost& model, const Work& work, const Cluster& cluster,
                                      const std::vector<MeasuredStep>& steps) {
  Calibration calibration;
  calibration.error = policy::kAssumedError;
  if (steps.empty()) return calibration;
  COHORT_ASSIGN_OR_RETURN(calibration, FitAll(model, work, cluster, steps));
  calibration.steps = static_cast<int>(steps.size());
  calibration.error = policy::kAssumedError;
  if (steps.size() < 2) return calibration;
  calibration.error = 0;
  for (size_t out = 0; out < steps.size(); ++out) {
    std::vector<MeasuredStep> others = steps;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(out));
    COHORT_ASSIGN_OR_RETURN(const Calibration without, FitAll(model, work, cluster, others));
    COHORT_ASSIGN_OR_RETURN(const auto predicted, Predict(model, work, without.Apply(cluster), {steps[out]}));
    const double seconds = predicted[0].computing + predicted[0].communication;
    calibration.error = std::max(calibration.error, std::abs(seconds / steps[out].seconds - 1));
  }
  return calibration;
}

}  // namespace cohort::parallel::planner
