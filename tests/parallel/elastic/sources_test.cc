// Whether ranks can go on as they are, from what they say of themselves.
#include "parallel/elastic/sources.h"

#include <gtest/gtest.h>

#include <vector>

namespace cohort::parallel {
namespace {

// Members 3, 5 and 8 train on the mesh of epoch 2 in the order 5, 3; 8 is spare.
class InPlaceTest : public ::testing::Test {
 protected:
  InPlaceTest() : hellos_(3) {
    v1::ElasticMesh mesh;
    mesh.set_epoch(2);
    mesh.add_members(5);
    mesh.add_members(3);
    for (v1::ElasticHello& hello : hellos_) *hello.add_meshes() = mesh;
    Offer(0, 2, 1, 40);
    Offer(1, 2, 0, 40);
  }
  void Offer(size_t rank, uint32_t epoch, int number, int64_t step) {
    v1::ElasticOffer& offer = *hellos_[rank].add_offers();
    offer.set_epoch(epoch);
    offer.set_mesh_rank(number);
    offer.set_step(step);
  }
  bool InPlaceNow() const { return InPlace(hellos_, members_); }

  std::vector<v1::ElasticHello> hellos_;
  std::vector<int> members_ = {3, 5, 8};
};

TEST_F(InPlaceTest, AllAreThere) {
  EXPECT_TRUE(InPlaceNow());
  Offer(0, 2, 1, 39);  // an older snapshot of its own
  EXPECT_TRUE(InPlaceNow());
}

TEST_F(InPlaceTest, OneIsLost) {
  hellos_.erase(hellos_.begin());
  members_.erase(members_.begin());
  EXPECT_FALSE(InPlaceNow());
}

TEST_F(InPlaceTest, OneHasMadeAStepLess) {
  hellos_[0].clear_offers();
  Offer(0, 2, 1, 39);
  EXPECT_FALSE(InPlaceNow());
}

TEST_F(InPlaceTest, OneTrainsOnTheMeshBefore) {
  hellos_[1].clear_offers();
  Offer(1, 1, 0, 40);
  EXPECT_FALSE(InPlaceNow());
}

TEST_F(InPlaceTest, OneHasItsPlaceFromAPeersSnapshotOnly) {
  hellos_[1].clear_offers();
  Offer(1, 2, 1, 40);
  EXPECT_FALSE(InPlaceNow());
}

TEST_F(InPlaceTest, OneHasJustCome) {
  hellos_[2].clear_meshes();
  EXPECT_FALSE(InPlaceNow());
}

TEST_F(InPlaceTest, NobodyHasAnything) {
  for (v1::ElasticHello& hello : hellos_) hello.Clear();
  EXPECT_FALSE(InPlaceNow());
}

}  // namespace
}  // namespace cohort::parallel
