// When a mesh that trains goes on while others come and go beside it.
#include "parallel/elastic/greeting.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cohort::parallel {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

v1::ElasticGreeting New() {
  v1::ElasticGreeting greeting;
  greeting.set_is_new(true);
  return greeting;
}

// Of a mesh of two ranks, which was made in epoch 3; rank -1 is spare.
v1::ElasticGreeting Of(int mesh_rank, int64_t step = 7) {
  v1::ElasticGreeting greeting;
  greeting.set_goes_on(true);
  greeting.set_epoch(3);
  greeting.set_mesh_rank(mesh_rank);
  greeting.set_step(step);
  if (mesh_rank != 0) return greeting;
  greeting.mutable_mesh()->set_epoch(3);
  greeting.mutable_mesh()->add_members(0);
  greeting.mutable_mesh()->add_members(4);
  return greeting;
}

TEST(StandingOf, NewcomersAndSparesWaitWhileTheMeshGoesOn) {
  const auto standing = StandingOf({Of(1), Of(-1, 0), Of(0), New(), New()});
  ASSERT_TRUE(standing.has_value());
  EXPECT_EQ(standing->mesh.epoch(), 3u);
  EXPECT_EQ(standing->step, 7);
  EXPECT_THAT(standing->world_ranks, ElementsAre(2, 0));
  EXPECT_THAT(standing->waiting, ElementsAre(1, 3, 4));
  EXPECT_THAT(standing->newcomers, ElementsAre(3, 4));
  EXPECT_THAT(standing->numbers,
              ElementsAre(ElementsAre(1), IsEmpty(), ElementsAre(0), IsEmpty(), IsEmpty()));
}

TEST(StandingOf, NewcomersMayBeGoneAgain) {
  const auto standing = StandingOf({Of(0), Of(1)});
  ASSERT_TRUE(standing.has_value());
  EXPECT_THAT(standing->newcomers, IsEmpty());
}

TEST(StandingOf, AllChangeWhereTheMeshCannotGoOn) {
  const auto with = [](v1::ElasticGreeting greeting, auto change) {
    change(greeting);
    return greeting;
  };
  EXPECT_FALSE(StandingOf({New(), New()}).has_value()) << "nothing trains yet";
  EXPECT_FALSE(StandingOf({Of(0), New()}).has_value()) << "a rank of the mesh is lost";
  EXPECT_FALSE(StandingOf({Of(1), New()}).has_value()) << "its first one is";
  EXPECT_FALSE(StandingOf({Of(0), Of(1, 6), New()}).has_value()) << "its ranks are at different steps";
  EXPECT_FALSE(
      StandingOf({Of(0), with(Of(1), [](auto& said) { said.set_goes_on(false); }), New()}).has_value())
      << "a step has failed";
  EXPECT_FALSE(StandingOf({Of(0), with(Of(1), [](auto& said) { said.set_leaves(true); }), New()}).has_value())
      << "somebody goes";
  EXPECT_FALSE(StandingOf({Of(0), with(Of(1), [](auto& said) { said.set_epoch(2); }), New()}).has_value())
      << "one did not come to this mesh";
}

}  // namespace
}  // namespace cohort::parallel
