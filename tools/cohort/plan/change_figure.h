// A change of the ranks of an elastic training as a drawing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cohort::tools {

// A member, before and after.
struct ChangeRow {
  std::string name;  // "member 3"
  int host = 0;
  int before = -1;  // its rank in the mesh; -1: it was in none
  int after = -1;   // -1: it is in none
  bool lost = false, joined = false;
  int64_t stays = 0;  // bytes of its new state that it has
};
struct ChangeArrow {
  int from = 0, to = 0;  // rows
  int64_t bytes = 0;
};
struct ChangeFigure {
  std::string title, before, after;  // the meshes in words
  std::vector<ChangeRow> rows;       // in the order of hosts
  std::vector<ChangeArrow> arrows;
};

// SVG. Where there are many members a row is a host, or some hosts.
std::string DrawChange(const ChangeFigure& figure);

}  // namespace cohort::tools
