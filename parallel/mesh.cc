#include "parallel/mesh.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <utility>

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

// The chosen axes, by which a user knows them.
struct ShapeRow {
  Axis axis;
  int MeshShape::*ranks;
};
constexpr ShapeRow kShape[] = {
    {Axis::kPipeline, &MeshShape::pipeline}, {Axis::kShard, &MeshShape::shard},
    {Axis::kContext, &MeshShape::context},   {Axis::kTensor, &MeshShape::tensor},
    {Axis::kExpert, &MeshShape::expert},
};

// Sizes of neighbouring ranks that had better be on one host, widest first, each a multiple of the next: of
// the dense view, and the expert groups where they fit among them.
std::vector<int> Neighbourhoods(const MeshShape& shape) {
  const int context = shape.tensor * shape.context;
  std::vector<int> sizes = {context * shape.shard, context, shape.tensor, 1};
  for (auto at = sizes.begin(); at != sizes.end(); ++at) {
    if (shape.expert < *at) continue;
    const bool nests = shape.expert % *at == 0 && (at == sizes.begin() || *(at - 1) % shape.expert == 0);
    if (nests) sizes.insert(at, shape.expert);
    break;
  }
  return sizes;
}

// Ranks so that as many runs of sizes[0] as possible are on one host: the whole runs of each host, then what
// is left in runs of sizes[1], and so on.
std::vector<int> OrderByHost(absl::Span<const int> host_of, const std::vector<int>& sizes) {
  std::map<int, std::vector<int>> ranks_on;
  std::vector<int> hosts;  // by their lowest rank
  for (int rank = 0; rank < static_cast<int>(host_of.size()); ++rank) {
    std::vector<int>& ranks = ranks_on[host_of[rank]];
    if (ranks.empty()) hosts.push_back(host_of[rank]);
    ranks.push_back(rank);
  }
  std::vector<int> order;
  for (const int size : sizes) {
    for (const int host : hosts) {
      std::vector<int>& ranks = ranks_on[host];
      const auto whole = static_cast<std::ptrdiff_t>(ranks.size()) / size * size;
      order.insert(order.end(), ranks.begin(), ranks.begin() + whole);
      ranks.erase(ranks.begin(), ranks.begin() + whole);
    }
  }
  return order;
}

absl::Status DoesNotDivide(const char* axis, int size, int ranks, const char* of) {
  return absl::InvalidArgumentError(absl::StrCat("parallel.", axis, " is ", size,
                                                 ", which does not divide the ", ranks,
                                                 ranks == 1 ? " rank" : " ranks", " of ", of));
}

}  // namespace

const char* Name(Axis axis) { return kAxes[static_cast<int>(axis)].name; }

std::string MeshShape::DebugString() const {
  std::vector<std::string> parts;
  for (const ShapeRow& row : kShape) {
    if (this->*row.ranks > 1) parts.push_back(absl::StrCat(Name(row.axis), " ", this->*row.ranks));
  }
  return parts.empty() ? "data alone" : absl::StrJoin(parts, " x ");
}

absl::StatusOr<Mesh> Mesh::Create(MeshShape shape, absl::Span<const int> host_of) {
  const int world = static_cast<int>(host_of.size());
  COHORT_CHECK(world > 0, "a mesh of no ranks");
  int left = world;  // of the dense view
  for (const ShapeRow& row : kShape) {
    const int size = shape.*row.ranks;
    if (size < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("parallel.", Name(row.axis), " is ", size, "; it must be 1 or more"));
    }
    if (row.axis == Axis::kExpert) continue;
    if (left % size != 0) {
      return DoesNotDivide(Name(row.axis), size, left,
                           left == world ? "this run" : "this run that the axes before it leave");
    }
    left /= size;
  }
  const int stage = world / shape.pipeline;
  if (stage % shape.expert != 0) {
    return DoesNotDivide("expert", shape.expert, stage,
                         shape.pipeline == 1 ? "this run" : "a pipeline stage");
  }
  Mesh mesh;
  mesh.shape_ = shape;
  const int context_stride = shape.tensor, shard_stride = context_stride * shape.context;
  mesh.axes_ = {
      {Axis::kPipeline, shape.pipeline, stage},  {Axis::kReplicate, left, shard_stride * shape.shard},
      {Axis::kShard, shape.shard, shard_stride}, {Axis::kContext, shape.context, context_stride},
      {Axis::kTensor, shape.tensor, 1},          {Axis::kExpertData, stage / shape.expert, shape.expert},
      {Axis::kExpert, shape.expert, 1}};
  mesh.host_of_.assign(host_of.begin(), host_of.end());
  mesh.rank_at_ = OrderByHost(host_of, Neighbourhoods(shape));
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

int Mesh::Size(Axis axis) const { return Size(absl::MakeConstSpan(&axis, 1)); }

int Mesh::Size(absl::Span<const Axis> axes) const {
  int size = 1;
  for (const Axis axis : axes) size *= Find(axis).size;
  return size;
}

int Mesh::Coordinate(Axis axis, int rank) const { return Coordinate(absl::MakeConstSpan(&axis, 1), rank); }

int Mesh::Coordinate(absl::Span<const Axis> axes, int rank) const {
  int coordinate = 0;
  for (const Axis axis : axes) {
    const GridAxis& row = Find(axis);
    coordinate = coordinate * row.size + position_[rank] / row.stride % row.size;
  }
  return coordinate;
}

std::vector<int> Mesh::Group(Axis axis, int rank) const { return Group(absl::MakeConstSpan(&axis, 1), rank); }

std::vector<int> Mesh::Group(absl::Span<const Axis> axes, int rank) const {
  std::vector<int> positions = {position_[rank]};
  for (const Axis axis : axes) {
    const GridAxis& row = Find(axis);
    std::vector<int> next;
    for (const int position : positions) {
      const int first = position - position / row.stride % row.size * row.stride;
      for (int i = 0; i < row.size; ++i) next.push_back(first + i * row.stride);
    }
    positions = std::move(next);
  }
  for (int& position : positions) position = rank_at_[position];
  return positions;
}

int Mesh::NeighboursOnAHost(absl::Span<const Axis> axes) const {
  int neighbours = Size(axes);
  for (int rank = 0; rank < world(); ++rank) {
    const std::vector<int> group = Group(axes, rank);
    for (size_t i = 1; i < group.size(); ++i) {
      if (host_of_[group[i]] != host_of_[group[i - 1]])
        neighbours = std::gcd(neighbours, static_cast<int>(i));
    }
  }
  return neighbours;
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
