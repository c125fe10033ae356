// What the layers of a model take on one rank, as measured: seconds by tokens. A value.
#pragma once

#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "absl/types/span.h"
#include "parallel/planner/model_cost.h"

namespace cohort::parallel::planner {

// Of one layer, in seconds, by a rank that has a core for itself. Of the head, whose forward and backward are one, all is
// in the forward.
struct LayerSeconds {
  double forward = 0, backward = 0;
};

class LayerTimes {
 public:
  // Of a layer whose matrices are divided over `tensor` ranks and its experts over `expert`, which has `tokens` tokens of
  // the tensor group.
  void Add(Layer layer, int tensor, int expert, double tokens, LayerSeconds seconds);
  bool empty() const { return curves_.empty(); }

  // Straight lines between what was measured; beyond the most tokens in proportion, below the fewest along the first
  // line. Over other numbers of ranks as over the next smaller one that was measured, in proportion. Nothing where this
  // layer was not measured.
  std::optional<LayerSeconds> Of(Layer layer, int tensor, int expert, double tokens) const;

  // The most FLOP/s of all that was measured; 0 where nothing was.
  double BestRate(const ModelCost& model) const;
  // The same, taking so many times as long.
  LayerTimes Slower(double factor) const;

  // As numbers, by which ranks tell each other.
  std::vector<double> Encode() const;
  static LayerTimes Decode(absl::Span<const double> numbers);

 private:
  using Curve = std::map<double, LayerSeconds>;  // by tokens
  std::map<std::tuple<Layer, int, int>, Curve> curves_;
};

}  // namespace cohort::parallel::planner
