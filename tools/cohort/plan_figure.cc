#include "tools/cohort/plan_figure.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cohort::tools {
namespace {

constexpr double kWidth = 960, kHeight = 560, kLeft = 80, kRight = 230, kTop = 50, kBottom = 90;
// Colours that are told apart also by people who are colour-blind (Okabe and Ito), and two more.
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
                                    "#56b4e9", "#000000", "#8b5a2b", "#7f7f7f"};
constexpr const char* kDashes[] = {"none", "7 4", "2 3"};

std::string BytesText(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) bytes /= 1024, ++unit;
  return absl::StrFormat("%.4g %s", bytes, units[unit]);
}

std::string TimeText(double seconds) {
  if (seconds < 0.9e-3) return absl::StrFormat("%.3g µs", seconds * 1e6);
  if (seconds < 0.9) return absl::StrFormat("%.3g ms", seconds * 1e3);
  return absl::StrFormat("%.4g s", seconds);
}

std::string Text(double x, double y, const std::string& anchor, const std::string& text, int size = 12) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\">%s</text>\n", x, y,
                         anchor, size, text);
}

std::string Line(double x1, double y1, double x2, double y2, const std::string& style) {
  return absl::StrFormat("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2,
                         style);
}

}  // namespace

std::string CrossoverFigure(const std::string& title, const std::vector<double>& bytes,
                            const std::vector<Curve>& curves, double marked) {
  double low = 1e300, high = 0;
  for (const Curve& curve : curves) {
    for (const double seconds : curve.seconds) low = std::min(low, seconds), high = std::max(high, seconds);
  }
  low = std::pow(10, std::floor(std::log10(std::max(low, 1e-9))));
  high = std::pow(10, std::ceil(std::log10(std::max(high, 10 * low))));
  const double right = kWidth - kRight, bottom = kHeight - kBottom;
  const auto x_of = [&](double value) {
    return kLeft + (right - kLeft) * std::log(value / bytes.front()) / std::log(bytes.back() / bytes.front());
  };
  const auto y_of = [&](double value) {
    return bottom - (bottom - kTop) * std::log(std::max(value, low) / low) / std::log(high / low);
  };
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
      "font-family=\"sans-serif\" fill=\"#222\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      kWidth, kHeight, kWidth, kHeight);
  svg += Text(kLeft, 28, "start", title, 15);
  const int decades = static_cast<int>(std::lround(std::log10(high / low)));
  for (int decade = 0; decade <= decades; ++decade) {
    const double tick = low * std::pow(10.0, decade);
    svg += Line(kLeft, y_of(tick), right, y_of(tick), "stroke=\"#ddd\"");
    svg += Text(kLeft - 8, y_of(tick) + 4, "end", TimeText(tick));
  }
  // A label every 80 points or so.
  const double octaves = std::log2(bytes.back() / bytes.front());
  const double step = std::exp2(std::max(1.0, std::ceil(octaves / 8)));
  const int labels = static_cast<int>(octaves / std::log2(step) + 1e-9);
  for (int label = 0; label <= labels; ++label) {
    const double tick = bytes.front() * std::pow(step, label);
    svg += Line(x_of(tick), kTop, x_of(tick), bottom, "stroke=\"#ddd\"");
    svg += Text(x_of(tick), bottom + 18, "middle", BytesText(tick));
  }
  svg += Line(kLeft, bottom, right, bottom, "stroke=\"#222\"") +
         Line(kLeft, kTop, kLeft, bottom, "stroke=\"#222\"");
  svg += Text((kLeft + right) / 2, bottom + 38, "middle", "bytes of the operation");
  if (marked >= bytes.front() && marked <= bytes.back()) {
    svg += Line(x_of(marked), kTop, x_of(marked), bottom, "stroke=\"#222\" stroke-dasharray=\"1 3\"");
    svg += Text(x_of(marked), kTop - 6, "middle", BytesText(marked));
  }
  const auto style = [&](size_t i) {
    return absl::StrFormat("stroke=\"%s\" stroke-width=\"2.2\" stroke-dasharray=\"%s\" fill=\"none\"",
                           kColours[i % std::size(kColours)],
                           kDashes[i / std::size(kColours) % std::size(kDashes)]);
  };
  for (size_t i = 0; i < curves.size(); ++i) {
    std::string points;
    for (size_t at = 0; at < bytes.size(); ++at) {
      absl::StrAppendFormat(&points, "%.1f,%.1f ", x_of(bytes[at]), y_of(curves[i].seconds[at]));
    }
    absl::StrAppend(&svg, "<polyline points=\"", points, "\" ", style(i), "/>\n");
  }
  // The legend in the order in which the curves end.
  std::vector<size_t> order(curves.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return curves[a].seconds.back() > curves[b].seconds.back(); });
  for (size_t row = 0; row < order.size(); ++row) {
    const double y = kTop + 12 + 20 * static_cast<double>(row);
    svg += Line(right + 16, y, right + 46, y, style(order[row]));
    svg += Text(right + 54, y + 4, "start", curves[order[row]].name);
  }
  // Which is fastest where: each size speaks for half of the way to its neighbours.
  size_t begin = 0;
  const auto fastest = [&](size_t at) {
    size_t best = 0;
    for (size_t i = 1; i < curves.size(); ++i) {
      if (curves[i].seconds[at] < curves[best].seconds[at]) best = i;
    }
    return best;
  };
  svg += Text(kLeft - 8, bottom + 64, "end", "fastest");
  for (size_t at = 1; at <= bytes.size(); ++at) {
    if (at < bytes.size() && fastest(at) == fastest(begin)) continue;
    const double from = begin == 0 ? kLeft : x_of(std::sqrt(bytes[begin - 1] * bytes[begin]));
    const double to = at == bytes.size() ? right : x_of(std::sqrt(bytes[at - 1] * bytes[at]));
    const std::string& name = curves[fastest(begin)].name;
    absl::StrAppendFormat(&svg, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"8\" fill=\"%s\"/>\n",
                          from, bottom + 55, to - from, kColours[fastest(begin) % std::size(kColours)]);
    if (to - from > 6.5 * static_cast<double>(name.size())) {
      svg += Text((from + to) / 2, bottom + 78, "middle", name, 11);
    }
    begin = at;
  }
  return svg + "</svg>\n";
}

}  // namespace cohort::tools
