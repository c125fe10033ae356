// Meshes are values: every arrangement is checked without a rank running.
#include "parallel/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace cohort::parallel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Mesh Make(MeshShape shape, const std::vector<int>& hosts) {
  auto mesh = Mesh::Create(shape, hosts);
  EXPECT_TRUE(mesh.ok()) << mesh.status();
  return *mesh;
}

TEST(Mesh, OneRankIsAGroupOfOneAlongEveryAxis) {
  const Mesh mesh = Make({.expert = 1}, {0});
  for (const Axis axis : {Axis::kReplicate, Axis::kExpertData, Axis::kExpert}) {
    EXPECT_EQ(mesh.Size(axis), 1);
    EXPECT_THAT(mesh.Group(axis, 0), ElementsAre(0));
  }
}

TEST(Mesh, ExpertGroupsAreNeighboursAndTheirReplicasStepOverThem) {
  const Mesh mesh = Make({.expert = 2}, {0, 0, 0, 0});
  EXPECT_THAT(mesh.Group(Axis::kReplicate, 2), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(mesh.Groups(Axis::kExpert), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3)));
  EXPECT_THAT(mesh.Groups(Axis::kExpertData), ElementsAre(ElementsAre(0, 2), ElementsAre(1, 3)));
  EXPECT_EQ(mesh.Coordinate(Axis::kExpert, 3), 1);
  EXPECT_EQ(mesh.Coordinate(Axis::kExpertData, 3), 1);
}

TEST(Mesh, ExpertGroupsStayOnOneHostWhereTheyFit) {
  EXPECT_THAT(Make({.expert = 2}, {0, 1, 0, 1}).Groups(Axis::kExpert),
              ElementsAre(ElementsAre(0, 2), ElementsAre(1, 3)));
  // Three ranks a host: one whole group each, and one of what is left over.
  EXPECT_THAT(Make({.expert = 2}, {0, 0, 0, 1, 1, 1}).Groups(Axis::kExpert),
              ElementsAre(ElementsAre(0, 1), ElementsAre(3, 4), ElementsAre(2, 5)));
  // Groups larger than a host.
  EXPECT_THAT(Make({.expert = 4}, {0, 1, 0, 1}).Groups(Axis::kExpert), ElementsAre(ElementsAre(0, 2, 1, 3)));
}

TEST(Mesh, EveryAxisDividesAllRanksIntoGroupsAndTheViewsCross) {
  for (int world = 1; world <= 12; ++world) {
    for (int expert = 1; expert <= world; ++expert) {
      if (world % expert != 0) continue;
      std::vector<int> hosts;
      for (int rank = 0; rank < world; ++rank) hosts.push_back(rank * 7 % 3);
      const Mesh mesh = Make({.expert = expert}, hosts);
      for (const Axis axis : {Axis::kReplicate, Axis::kExpertData, Axis::kExpert}) {
        std::multiset<int> seen;
        for (const std::vector<int>& group : mesh.Groups(axis)) {
          ASSERT_EQ(static_cast<int>(group.size()), mesh.Size(axis));
          for (int i = 0; i < mesh.Size(axis); ++i) {
            seen.insert(group[i]);
            ASSERT_EQ(mesh.Coordinate(axis, group[i]), i);
            ASSERT_EQ(mesh.Group(axis, group[i]), group);
          }
        }
        ASSERT_EQ(static_cast<int>(seen.size()), world);
        ASSERT_EQ(static_cast<int>(std::set<int>(seen.begin(), seen.end()).size()), world);
      }
      // An expert group and an expert-data group meet in exactly one rank.
      for (const auto& across : mesh.Groups(Axis::kExpert)) {
        for (const auto& along : mesh.Groups(Axis::kExpertData)) {
          int common = 0;
          for (const int rank : across) common += std::count(along.begin(), along.end(), rank);
          ASSERT_EQ(common, 1);
        }
      }
    }
  }
}

TEST(Mesh, TheAxisThatTalksMostIsTheNearest) {
  const Mesh mesh = Make({.pipeline = 2, .tensor = 2}, {0, 0, 0, 0, 1, 1, 1, 1});
  EXPECT_THAT(mesh.Groups(Axis::kTensor),
              ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3), ElementsAre(4, 5), ElementsAre(6, 7)));
  EXPECT_THAT(mesh.Groups(Axis::kReplicate),
              ElementsAre(ElementsAre(0, 2), ElementsAre(1, 3), ElementsAre(4, 6), ElementsAre(5, 7)));
  EXPECT_THAT(mesh.Group(Axis::kPipeline, 5), ElementsAre(1, 5));
  EXPECT_THAT(mesh.Group(kStageAxes, 6), ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(mesh.Group(kTensorReplicaAxes, 6), ElementsAre(4, 6));
}

TEST(Mesh, AllAxesAtOnceCrossInOneRankEach) {
  const Mesh mesh =
      Make({.pipeline = 2, .shard = 2, .context = 2, .tensor = 2, .expert = 4}, std::vector<int>(32, 0));
  EXPECT_EQ(mesh.Size(Axis::kReplicate), 2);
  EXPECT_EQ(mesh.Size(Axis::kExpertData), 4);
  EXPECT_EQ(mesh.stage_size(), 16);
  std::set<std::vector<int>> places;
  for (int rank = 0; rank < mesh.world(); ++rank) {
    std::vector<int> place;
    for (const Axis axis : {Axis::kPipeline, Axis::kReplicate, Axis::kShard, Axis::kContext, Axis::kTensor}) {
      place.push_back(mesh.Coordinate(axis, rank));
    }
    places.insert(place);
    // Several axes together: the first varies slowest, and the group lists its ranks by that coordinate.
    const std::vector<int> stage = mesh.Group(kStageAxes, rank);
    ASSERT_EQ(stage[mesh.Coordinate(kStageAxes, rank)], rank);
    const std::vector<int> batch = mesh.Group(kBatchAxes, rank);
    ASSERT_EQ(batch[mesh.Coordinate(kBatchAxes, rank)], rank);
  }
  EXPECT_EQ(places.size(), 32u);
}

TEST(Mesh, NarrowGroupsStayOnAHostAlsoWhereWideOnesDoNot) {
  // Hosts of four and two ranks: shard x tensor = 6 fits nowhere, tensor pairs do.
  const Mesh mesh = Make({.shard = 3, .tensor = 2}, {0, 1, 0, 1, 0, 0});
  for (const std::vector<int>& pair : mesh.Groups(Axis::kTensor)) {
    const auto host = [](int rank) { return rank == 1 || rank == 3 ? 1 : 0; };
    EXPECT_EQ(host(pair[0]), host(pair[1]));
  }
}

TEST(Mesh, ShapesThatDoNotDivideAreErrorsThatNameTheNumbers) {
  const int hosts[] = {0, 0, 0, 0};
  const auto three = Mesh::Create({.expert = 3}, hosts);
  EXPECT_EQ(three.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(three.status().message(), HasSubstr("parallel.expert is 3, which does not divide the 4 ranks"));
  EXPECT_THAT(Mesh::Create({.pipeline = 4, .tensor = 2}, hosts).status().message(),
              HasSubstr("parallel.tensor is 2, which does not divide the 1 rank of this run that the axes"));
  EXPECT_THAT(Mesh::Create({.pipeline = 2, .expert = 4}, hosts).status().message(),
              HasSubstr("parallel.expert is 4, which does not divide the 2 ranks of a pipeline stage"));
  EXPECT_THAT(Mesh::Create({.expert = 0}, hosts).status().message(), HasSubstr("parallel.expert is 0"));
}

TEST(Mesh, SaysItsWholeArrangement) {
  const std::string text = Make({.expert = 2}, {0, 1, 0, 1}).DebugString();
  EXPECT_THAT(text, HasSubstr("4 ranks on 2 hosts"));
  EXPECT_THAT(text, HasSubstr("replicate 4: [0 2 1 3] across hosts"));
  EXPECT_THAT(text, HasSubstr("expert-data 2: [0 1] [2 3] across hosts"));
  EXPECT_THAT(text, HasSubstr("expert 2: [0 2] [1 3] ("));
}

}  // namespace
}  // namespace cohort::parallel
