#include "parallel/mesh.h"

#include <map>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"

namespace cohort::parallel {
namespace {

struct AxisRow {
  Axis axis;
  const char* name;
  const char* meaning;
};
constexpr AxisRow kAxes[] = {
#define COHORT_X(enumerator, name, meaning) {Axis::enumerator, name, meaning},
    COHORT_AXES(COHORT_X)
#undef COHORT_X
};

// Ranks so that as many runs of `run` as possible are on one host: the whole runs of each
// host, then what is left.
std::vector<int> OrderByHost(absl::Span<const int> host_of, int run) {
  std::map<int, std::vector<int>> ranks_on;
  std::vector<int> hosts;  // by their lowest rank
  for (int rank = 0; rank < static_cast<int>(host_of.size()); ++rank) {
    std::vector<int>& ranks = ranks_on[host_of[rank]];
    if (ranks.empty()) hosts.push_back(host_of[rank]);
    ranks.push_back(rank);
  }
  std::vector<int> order, left;
  for (const int host : hosts) {
    const std::vector<int>& ranks = ranks_on[host];
    const size_t whole = ranks.size() / run * run;
    order.insert(order.end(), ranks.begin(), ranks.begin() + whole);
    left.insert(left.end(), ranks.begin() + whole, ranks.end());
  }
  order.insert(order.end(), left.begin(), left.end());
  return order;
}

}  // namespace

const char* Name(Axis axis) { return kAxes[static_cast<int>(axis)].name; }

absl::StatusOr<Mesh> Mesh::Create(MeshShape shape, absl::Span<const int> host_of) {
  const int world = static_cast<int>(host_of.size());
  COHORT_CHECK(world > 0, "a mesh of no ranks");
  if (shape.expert < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("parallel.expert is ", shape.expert, "; it must be 1 or more"));
  }
  if (world % shape.expert != 0) {
    return absl::InvalidArgumentError(absl::StrCat("parallel.expert is ", shape.expert,
                                                   ", which does not divide the ", world,
                                                   world == 1 ? " rank" : " ranks", " of this run"));
  }
  Mesh mesh;
  mesh.axes_ = {{Axis::kData, world, 1},
                {Axis::kExpertData, world / shape.expert, shape.expert},
                {Axis::kExpert, shape.expert, 1}};
  mesh.host_of_.assign(host_of.begin(), host_of.end());
  mesh.rank_at_ = OrderByHost(host_of, shape.expert);
  mesh.position_.resize(world);
  for (int position = 0; position < world; ++position) mesh.position_[mesh.rank_at_[position]] = position;
  return mesh;
}

const Mesh::GridAxis& Mesh::Find(Axis axis) const {
  for (const GridAxis& row : axes_) {
    if (row.axis == axis) return row;
  }
  COHORT_CHECK(false, "the mesh has no axis %s", Name(axis));
}

int Mesh::Size(Axis axis) const { return Find(axis).size; }

int Mesh::Coordinate(Axis axis, int rank) const {
  const GridAxis& row = Find(axis);
  return position_[rank] / row.stride % row.size;
}

std::vector<int> Mesh::Group(Axis axis, int rank) const {
  const GridAxis& row = Find(axis);
  const int first = position_[rank] - Coordinate(axis, rank) * row.stride;
  std::vector<int> ranks;
  for (int i = 0; i < row.size; ++i) ranks.push_back(rank_at_[first + i * row.stride]);
  return ranks;
}

std::vector<std::vector<int>> Mesh::Groups(Axis axis) const {
  std::vector<std::vector<int>> groups;
  for (const int rank : rank_at_) {
    if (Coordinate(axis, rank) == 0) groups.push_back(Group(axis, rank));
  }
  return groups;
}

std::string Mesh::DebugString() const {
  const std::set<int> hosts(host_of_.begin(), host_of_.end());
  std::string text = absl::StrCat(world(), world() == 1 ? " rank" : " ranks", " on ", hosts.size(),
                                  hosts.size() == 1 ? " host" : " hosts", "\n");
  for (const AxisRow& row : kAxes) {
    int across = 0;
    const std::string groups = absl::StrJoin(Groups(row.axis), " ", [&](std::string* out, const auto& ranks) {
      std::set<int> group_hosts;
      for (const int rank : ranks) group_hosts.insert(host_of_[rank]);
      across += group_hosts.size() > 1;
      absl::StrAppend(out, "[", absl::StrJoin(ranks, " "), "]");
    });
    absl::StrAppend(&text, row.name, " ", Size(row.axis), ": ", groups, across > 0 ? " across hosts" : "",
                    " (", row.meaning, ")\n");
  }
  return text;
}

}  // namespace cohort::parallel
