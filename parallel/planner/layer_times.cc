#include "parallel/planner/layer_times.h"

#include <algorithm>
#include <iterator>

namespace cohort::parallel::planner {
namespace {

constexpr size_t kNumbers = 6;  // of a point, encoded

double Line(double x0, double y0, double x1, double y1, double x) {
  return y0 + (y1 - y0) * (x - x0) / (x1 - x0);
}

LayerSeconds Times(LayerSeconds seconds, double factor) {
  return {seconds.forward * factor, seconds.backward * factor};
}

}  // namespace

void LayerTimes::Add(Layer layer, int tensor, int expert, double tokens, LayerSeconds seconds) {
  curves_[{layer, tensor, expert}][tokens] = seconds;
}

std::optional<LayerSeconds> LayerTimes::Of(Layer layer, int tensor, int expert, double tokens) const {
  const Curve* curve = nullptr;
  double scale = 1;
  for (const auto& [key, points] : curves_) {  // ascending
    const auto& [of_layer, over_tensor, over_expert] = key;
    if (of_layer != layer || over_tensor > tensor || over_expert > expert) continue;
    curve = &points;
    scale = static_cast<double>(over_tensor) / tensor;
  }
  if (curve == nullptr) return std::nullopt;
  auto above = curve->lower_bound(tokens);
  if (above == curve->end() || curve->size() == 1) {
    const auto& [most, seconds] = *std::prev(curve->end());
    return Times(seconds, scale * tokens / most);
  }
  if (above == curve->begin()) ++above;
  const auto& [x0, low] = *std::prev(above);
  const auto& [x1, high] = *above;
  const LayerSeconds line = {Line(x0, low.forward, x1, high.forward, tokens),
                             Line(x0, low.backward, x1, high.backward, tokens)};
  // Fewer tokens than were measured do not take less than their part.
  const double part = std::min(1.0, tokens / x0);
  return Times({std::max(line.forward, part * low.forward), std::max(line.backward, part * low.backward)},
               scale);
}

double LayerTimes::BestRate(const ModelCost& model) const {
  double best = 0;
  for (const auto& [key, points] : curves_) {
    const auto& [layer, tensor, expert] = key;
    for (const auto& [tokens, seconds] : points) {
      const double flops = 3 * model.layer(layer).matrix_flops * tokens / tensor;
      best = std::max(best, flops / std::max(1e-12, seconds.forward + seconds.backward));
    }
  }
  return best;
}

LayerTimes LayerTimes::Slower(double factor) const {
  LayerTimes slower = *this;
  for (auto& [key, points] : slower.curves_) {
    for (auto& [tokens, seconds] : points) seconds = Times(seconds, factor);
  }
  return slower;
}

std::vector<double> LayerTimes::Encode() const {
  std::vector<double> numbers;
  for (const auto& [key, points] : curves_) {
    const auto& [layer, tensor, expert] = key;
    for (const auto& [tokens, seconds] : points) {
      for (const double number : {static_cast<double>(layer), static_cast<double>(tensor),
                                  static_cast<double>(expert), tokens, seconds.forward, seconds.backward}) {
        numbers.push_back(number);
      }
    }
  }
  return numbers;
}

LayerTimes LayerTimes::Decode(absl::Span<const double> numbers) {
  LayerTimes times;
  for (size_t i = 0; i + kNumbers <= numbers.size(); i += kNumbers) {
    times.Add(static_cast<Layer>(static_cast<int>(numbers[i])), static_cast<int>(numbers[i + 1]),
              static_cast<int>(numbers[i + 2]), numbers[i + 3], {numbers[i + 4], numbers[i + 5]});
  }
  return times;
}

}  // namespace cohort::parallel::planner
