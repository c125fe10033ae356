// The crossover of algorithms, drawn: time over bytes, both logarithmic.
#pragma once

#include <string>
#include <vector>

namespace cohort::tools {

struct Curve {
  std::string name;
  std::vector<double> seconds;  // for each size
};

// An SVG of its own: axes, grid, a curve for each algorithm with its name at its end, the lowest one thick, and a strip
// that says which one is fastest where, and from which size on. `marked`: a size to be marked, 0 for none.
std::string CrossoverFigure(const std::string& title, const std::vector<double>& bytes,
                            const std::vector<Curve>& curves, double marked);

}  // namespace cohort::tools
