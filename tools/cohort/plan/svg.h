// Pieces of the figures that `cohort plan` draws.
#pragma once

#include <string>

namespace cohort::tools::svg {

// Colours that are told apart also by people who are colour-blind (Okabe and Ito), and two more.
inline constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
                                           "#56b4e9", "#000000", "#8b5a2b", "#7f7f7f"};

// The beginning of a figure of that size, with a white ground; it ends with kEnd.
std::string Begin(double width, double height);
inline constexpr const char kEnd[] = "</svg>\n";

// `style` is SVG attributes, `anchor` start, middle or end; texts are not escaped.
std::string Text(double x, double y, const std::string& anchor, const std::string& text, int size = 12,
                 const std::string& style = "");
std::string Line(double x1, double y1, double x2, double y2, const std::string& style);
std::string Polyline(const std::string& points, const std::string& style);
std::string Rectangle(double x, double y, double width, double height, const std::string& style);

// "12.5 ms", in the unit that fits.
std::string TimeText(double seconds);

}  // namespace cohort::tools::svg
