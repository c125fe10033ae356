#include "tools/cohort/plan/change_figure.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/cohort/plan/svg.h"

namespace cohort::tools {
namespace {

constexpr size_t kMostRows = 48;
constexpr double kWidth = 900, kTop = 108, kBottom = 56;
constexpr double kNames = 190, kBox = 150, kHigh = 22, kGap = 6;  // the names' column, boxes
constexpr double kLeftBox = kNames, kRightBox = kWidth - kBox - 90;
constexpr const char* kLost = "#d55e00";
constexpr const char* kJoined = "#009e73";
constexpr const char* kMoves = "#0072b2";

std::string Bytes(double bytes) {
  if (bytes >= 1e9) return absl::StrFormat("%.3g GB", bytes / 1e9);
  if (bytes >= 1e6) return absl::StrFormat("%.3g MB", bytes / 1e6);
  if (bytes >= 1e3) return absl::StrFormat("%.3g kB", bytes / 1e3);
  return absl::StrFormat("%.0f B", bytes);
}

// What is drawn in one row: a member, or those of some hosts.
struct Row {
  std::string name, before, after;
  int host = 0, members = 0, lost = 0, joined = 0, trained = 0, trains = 0;
  int64_t stays = 0;
};
struct Drawing {
  std::vector<Row> rows;
  std::map<std::pair<int, int>, int64_t> arrows;
};

Drawing Gather(const ChangeFigure& figure) {
  std::set<int> hosts;
  for (const ChangeRow& row : figure.rows) hosts.insert(row.host);
  const std::vector<int> order(hosts.begin(), hosts.end());
  const bool each = figure.rows.size() <= kMostRows;
  const size_t hosts_a_row = each ? 1 : (order.size() + kMostRows - 1) / kMostRows;
  Drawing drawing;
  std::vector<int> row_of;
  std::map<size_t, int> row_of_hosts;
  for (const ChangeRow& member : figure.rows) {
    const auto place =
        static_cast<size_t>(std::lower_bound(order.begin(), order.end(), member.host) - order.begin());
    const size_t group = place / hosts_a_row;
    int row = static_cast<int>(drawing.rows.size());
    if (each || row_of_hosts.emplace(group, row).second) {
      Row& fresh = drawing.rows.emplace_back();
      fresh.host = member.host;
      if (each) {
        fresh.name = member.name;
        fresh.before = member.before < 0 ? "" : absl::StrCat("rank ", member.before);
        fresh.after = member.after < 0 ? (member.lost ? "" : "spare") : absl::StrCat("rank ", member.after);
      } else {
        const size_t last = std::min(group * hosts_a_row + hosts_a_row, order.size()) - 1;
        fresh.name = hosts_a_row == 1 ? absl::StrCat("host ", member.host)
                                      : absl::StrCat("hosts ", member.host, " to ", order[last]);
      }
    } else {
      row = row_of_hosts.at(group);
    }
    Row& into = drawing.rows[static_cast<size_t>(row)];
    ++into.members;
    into.lost += member.lost;
    into.joined += member.joined;
    into.trained += member.before >= 0;
    into.trains += member.after >= 0;
    into.stays += member.stays;
    row_of.push_back(row);
  }
  for (const ChangeArrow& arrow : figure.arrows) {
    drawing.arrows[{row_of[static_cast<size_t>(arrow.from)], row_of[static_cast<size_t>(arrow.to)]}] +=
        arrow.bytes;
  }
  if (each) return drawing;
  for (Row& row : drawing.rows) {
    row.before = absl::StrCat(row.trained, row.trained == 1 ? " rank" : " ranks",
                              row.lost > 0 ? absl::StrCat(", ", row.lost, " lost") : "");
    row.after = absl::StrCat(row.trains, row.trains == 1 ? " rank" : " ranks",
                             row.joined > 0 ? absl::StrCat(", ", row.joined, " new") : "");
  }
  return drawing;
}

std::string Box(double x, double y, const std::string& text, const char* colour,
                const std::string& style = "") {
  return svg::Rectangle(x, y, kBox, kHigh,
                        absl::StrFormat("rx=\"3\" fill=\"%s\" fill-opacity=\"0.15\" stroke=\"%s\" %s", colour,
                                        colour, style)) +
         svg::Text(x + kBox / 2, y + kHigh / 2 + 4, "middle", text);
}

std::string Key(double y) {
  double x = kLeftBox;
  std::string text;
  const auto entry = [&](const std::string& mark, const std::string& words, double wide) {
    text += mark + svg::Text(x + 26, y + 4, "start", words);
    x += wide;
  };
  const auto line = [&](const char* colour, const char* style) {
    return svg::Line(x, y, x + 20, y, absl::StrFormat("stroke=\"%s\" %s", colour, style));
  };
  entry(line("#999", "stroke-width=\"3\" stroke-dasharray=\"2 3\""), "stays", 90);
  entry(line(kMoves, "stroke-width=\"3\" stroke-opacity=\"0.55\""), "moves, as thick as much", 200);
  entry(svg::Rectangle(x, y - 6, 20, 12,
                       absl::StrFormat("fill=\"%s\" fill-opacity=\"0.15\" stroke=\"%s\"", kLost, kLost)),
        "lost", 80);
  entry(svg::Rectangle(x, y - 6, 20, 12,
                       absl::StrFormat("fill=\"%s\" fill-opacity=\"0.15\" stroke=\"%s\"", kJoined, kJoined)),
        "new", 80);
  return text;
}

}  // namespace

std::string DrawChange(const ChangeFigure& figure) {
  const Drawing drawing = Gather(figure);
  // A little more between hosts.
  std::vector<double> tops;
  double y = kTop;
  for (size_t i = 0; i < drawing.rows.size(); ++i) {
    if (i > 0 && drawing.rows[i].host != drawing.rows[i - 1].host && figure.rows.size() <= kMostRows) y += 10;
    tops.push_back(y);
    y += kHigh + kGap;
  }
  std::string picture = svg::Begin(kWidth, y + kBottom);
  picture += svg::Text(20, 30, "start", figure.title, 15);
  picture += svg::Text(20, 54, "start", absl::StrCat("before: ", figure.before));
  picture += svg::Text(20, 72, "start", absl::StrCat("after: ", figure.after));
  picture += svg::Text(kLeftBox + kBox / 2, kTop - 12, "middle", "before", 12, "font-weight=\"bold\"");
  picture += svg::Text(kRightBox + kBox / 2, kTop - 12, "middle", "after", 12, "font-weight=\"bold\"");
  const auto middle = [&](int row) { return tops[static_cast<size_t>(row)] + kHigh / 2; };
  int64_t most = 1;
  for (const auto& [ends, bytes] : drawing.arrows) most = std::max(most, bytes);
  for (size_t i = 0; i < drawing.rows.size(); ++i) {
    if (drawing.rows[i].stays == 0) continue;
    picture += svg::Line(kLeftBox + kBox, tops[i] + kHigh / 2, kRightBox, tops[i] + kHigh / 2,
                         "stroke=\"#999\" stroke-width=\"3\" stroke-dasharray=\"2 3\"");
  }
  for (const auto& [ends, bytes] : drawing.arrows) {
    const double from = middle(ends.first), to = middle(ends.second), x1 = kLeftBox + kBox,
                 x2 = kRightBox - 7;
    const double bend = (x2 - x1) * 0.45;
    const double thick = std::max(0.8, 9 * static_cast<double>(bytes) / static_cast<double>(most));
    absl::StrAppendFormat(&picture,
                          "<path d=\"M%.1f,%.1f C%.1f,%.1f %.1f,%.1f %.1f,%.1f\" fill=\"none\" stroke=\"%s\" "
                          "stroke-width=\"%.1f\" stroke-opacity=\"0.55\"><title>%s</title></path>\n",
                          x1, from, x1 + bend, from, x2 - bend, to, x2, to, kMoves, thick,
                          Bytes(static_cast<double>(bytes)));
    absl::StrAppendFormat(
        &picture, "<path d=\"M%.1f,%.1f l8,-5 l0,10 z\" fill=\"%s\" transform=\"rotate(180 %.1f %.1f)\"/>\n",
        x2, to, kMoves, x2 + 3.5, to);
  }
  for (size_t i = 0; i < drawing.rows.size(); ++i) {
    const Row& row = drawing.rows[i];
    const bool all_lost = row.lost == row.members;
    const bool first_of_host = i == 0 || drawing.rows[i - 1].host != row.host;
    if (figure.rows.size() <= kMostRows && first_of_host) {
      picture += svg::Text(20, tops[i] + kHigh / 2 + 4, "start", absl::StrCat("host ", row.host), 12,
                           "fill=\"#777\"");
    }
    picture += svg::Text(kNames - 10, tops[i] + kHigh / 2 + 4, "end", row.name);
    if (!row.before.empty()) {
      picture += Box(kLeftBox, tops[i], all_lost ? row.before + ", lost" : row.before,
                     row.lost > 0 ? kLost : "#222");
    }
    if (!row.after.empty()) {
      picture += Box(kRightBox, tops[i], row.after, row.joined > 0 ? kJoined : "#222",
                     row.trains == 0 ? "stroke-dasharray=\"3 3\"" : "");
    }
    int64_t received = 0;
    for (const auto& [ends, bytes] : drawing.arrows) {
      if (ends.second == static_cast<int>(i)) received += bytes;
    }
    if (received > 0) {
      picture += svg::Text(kRightBox + kBox + 8, tops[i] + kHigh / 2 + 4, "start",
                           absl::StrCat("+ ", Bytes(static_cast<double>(received))), 11, "fill=\"#777\"");
    }
  }
  return picture + Key(y + 24) + svg::kEnd;
}

}  // namespace cohort::tools
