#include "tools/cohort/plan/collectives_figure.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/cohort/plan/svg.h"

namespace cohort::tools {
namespace {

constexpr double kWidth = 960, kHeight = 580, kLeft = 80, kRight = 210, kTop = 56, kBottom = 112;
// Of the names beside the curves' ends, from one to the next.
constexpr double kNameHeight = 16;
constexpr const char* kDashes[] = {"none", "7 4", "2 3"};

std::string BytesText(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) bytes /= 1024, ++unit;
  return bytes < 1000 ? absl::StrFormat("%.3g %s", bytes, units[unit])
                      : absl::StrFormat("%.0f %s", bytes, units[unit]);
}

// Where one is fastest: from a size on, up to the next one's.
struct Reign {
  double from;
  size_t curve;
};

// Between two sizes, where the fastest changes: where the two curves cross, as lines in the figure.
std::vector<Reign> Reigns(const std::vector<double>& bytes, const std::vector<Curve>& curves) {
  std::vector<Reign> reigns;
  for (size_t at = 0; at < bytes.size(); ++at) {
    size_t best = reigns.empty() ? 0 : reigns.back().curve;  // of equals, the one before
    for (size_t i = 0; i < curves.size(); ++i) {
      if (curves[i].seconds[at] < curves[best].seconds[at]) best = i;
    }
    if (reigns.empty()) {
      reigns.push_back({bytes[at], best});
    } else if (best != reigns.back().curve) {
      const auto& old = curves[reigns.back().curve].seconds;
      const auto& now = curves[best].seconds;
      const double before = std::log(now[at - 1] / old[at - 1]), after = std::log(old[at] / now[at]);
      const double share = before + after > 0 ? before / (before + after) : 0.5;
      reigns.push_back({bytes[at - 1] * std::pow(bytes[at] / bytes[at - 1], share), best});
    }
  }
  return reigns;
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
  std::string figure = svg::Begin(kWidth, kHeight);
  figure += svg::Text(kLeft, 28, "start", title, 15);
  const int decades = static_cast<int>(std::lround(std::log10(high / low)));
  for (int decade = 0; decade <= decades; ++decade) {
    const double tick = low * std::pow(10.0, decade);
    figure += svg::Line(kLeft, y_of(tick), right, y_of(tick), "stroke=\"#ddd\"");
    figure += svg::Text(kLeft - 8, y_of(tick) + 4, "end", svg::TimeText(tick));
  }
  // A label every 80 points or so.
  const double octaves = std::log2(bytes.back() / bytes.front());
  const double step = std::exp2(std::max(1.0, std::ceil(octaves / 8)));
  const int labels = static_cast<int>(octaves / std::log2(step) + 1e-9);
  for (int label = 0; label <= labels; ++label) {
    const double tick = bytes.front() * std::pow(step, label);
    figure += svg::Line(x_of(tick), kTop, x_of(tick), bottom, "stroke=\"#ddd\"");
    figure += svg::Text(x_of(tick), bottom + 18, "middle", BytesText(tick));
  }
  figure += svg::Line(kLeft, bottom, right, bottom, "stroke=\"#222\"") +
            svg::Line(kLeft, kTop, kLeft, bottom, "stroke=\"#222\"");
  figure += svg::Text((kLeft + right) / 2, bottom + 38, "middle", "bytes of the operation");
  if (marked >= bytes.front() && marked <= bytes.back()) {
    figure += svg::Line(x_of(marked), kTop, x_of(marked), bottom, "stroke=\"#222\" stroke-dasharray=\"1 3\"");
    figure += svg::Text(x_of(marked), kTop - 6, "middle", BytesText(marked));
  }
  const auto style = [&](size_t i, double width) {
    return absl::StrFormat(
        "stroke=\"%s\" stroke-width=\"%.1f\" stroke-dasharray=\"%s\" stroke-linejoin=\"round\"",
        svg::kColours[i % std::size(svg::kColours)], width,
        kDashes[i / std::size(svg::kColours) % std::size(kDashes)]);
  };
  const std::vector<Reign> reigns = Reigns(bytes, curves);
  const auto end_of = [&](size_t reign) {
    return reign + 1 < reigns.size() ? reigns[reign + 1].from : bytes.back();
  };
  for (size_t i = 0; i < curves.size(); ++i) {
    std::string points;
    for (size_t at = 0; at < bytes.size(); ++at) {
      absl::StrAppendFormat(&points, "%.1f,%.1f ", x_of(bytes[at]), y_of(curves[i].seconds[at]));
    }
    figure += svg::Polyline(points, style(i, 1.6));
  }
  // What counts is the lowest: it is drawn thick.
  const auto seconds_at = [&](size_t curve, double size) {
    size_t at = 1;
    while (at + 1 < bytes.size() && bytes[at] < size) ++at;
    const auto& seconds = curves[curve].seconds;
    const double share = std::log(size / bytes[at - 1]) / std::log(bytes[at] / bytes[at - 1]);
    return seconds[at - 1] * std::pow(seconds[at] / seconds[at - 1], share);
  };
  for (size_t r = 0; r < reigns.size(); ++r) {
    std::string points;
    const auto add = [&](double size) {
      absl::StrAppendFormat(&points, "%.1f,%.1f ", x_of(size), y_of(seconds_at(reigns[r].curve, size)));
    };
    add(reigns[r].from);
    for (const double size : bytes) {
      if (size > reigns[r].from && size < end_of(r)) add(size);
    }
    add(end_of(r));
    figure += svg::Polyline(points, style(reigns[r].curve, 4.5));
  }
  // A name at the end of every curve, moved down where another one is there.
  std::vector<size_t> order(curves.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return curves[a].seconds.back() > curves[b].seconds.back(); });
  double name_y = kTop - kNameHeight;
  const double room = bottom - kNameHeight * static_cast<double>(order.size() - 1);
  for (size_t row = 0; row < order.size(); ++row) {
    const double end = y_of(curves[order[row]].seconds.back());
    name_y = std::max(name_y + kNameHeight, std::min(end, room + kNameHeight * static_cast<double>(row)));
    figure += svg::Polyline(absl::StrFormat("%.1f,%.1f %.1f,%.1f %.1f,%.1f", right + 2, end, right + 18,
                                            name_y, right + 34, name_y),
                            style(order[row], 1.6));
    figure += svg::Text(right + 40, name_y + 4, "start", curves[order[row]].name);
  }
  // Which is fastest where, and from which size on.
  figure += svg::Text(kLeft - 8, bottom + 70, "end", "fastest");
  double free_from = 0;  // where no size is written yet
  for (size_t r = 0; r < reigns.size(); ++r) {
    const double from = x_of(reigns[r].from), to = x_of(end_of(r));
    const std::string& name = curves[reigns[r].curve].name;
    figure += svg::Rectangle(
        from, bottom + 61, to - from, 8,
        absl::StrFormat("fill=\"%s\"", svg::kColours[reigns[r].curve % std::size(svg::kColours)]));
    if (to - from > 6.5 * static_cast<double>(name.size())) {
      figure += svg::Text((from + to) / 2, bottom + 84, "middle", name, 11);
    }
    if (r == 0) continue;
    figure += svg::Line(from, bottom, from, bottom + 69, "stroke=\"#999\" stroke-dasharray=\"2 2\"");
    const double half = 30;
    if (from - half < free_from) continue;
    figure += svg::Text(from, bottom + 100, "middle", BytesText(reigns[r].from), 11);
    free_from = from + half;
  }
  return figure + svg::kEnd;
}

}  // namespace cohort::tools
