#include "tools/cohort/plan/svg.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cohort::tools::svg {

std::string Begin(double width, double height) {
  return absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
      "font-family=\"sans-serif\" fill=\"#222\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      width, height, width, height);
}

std::string Text(double x, double y, const std::string& anchor, const std::string& text, int size,
                 const std::string& style) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\"%s>%s</text>\n", x,
                         y, anchor, size, style.empty() ? "" : absl::StrCat(" ", style), text);
}

std::string Line(double x1, double y1, double x2, double y2, const std::string& style) {
  return absl::StrFormat("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2,
                         style);
}

std::string Polyline(const std::string& points, const std::string& style) {
  return absl::StrCat("<polyline points=\"", points, "\" fill=\"none\" ", style, "/>\n");
}

std::string Rectangle(double x, double y, double width, double height, const std::string& style) {
  return absl::StrFormat("<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" %s/>\n", x, y, width,
                         height, style);
}

std::string TimeText(double seconds) {
  if (seconds < 0.9e-3) return absl::StrFormat("%.3g µs", seconds * 1e6);
  if (seconds < 0.9) return absl::StrFormat("%.3g ms", seconds * 1e3);
  if (seconds < 99.5) return absl::StrFormat("%.3g s", seconds);
  return seconds < 9e5 ? absl::StrFormat("%.0f s", seconds) : absl::StrFormat("%.3g s", seconds);
}

}  // namespace cohort::tools::svg
