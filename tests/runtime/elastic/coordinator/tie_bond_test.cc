// Members of two halves, over real sockets.
#include "runtime/elastic/coordinator/tie_bond.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "comm/membership/edit.h"
#include "tests/runtime/elastic/coordinator/coordinator_fixture.h"

namespace cohort::cluster {
namespace {

using ::testing::HasSubstr;

struct TieBondTest : CoordinatorTest {
  void SetUp() override {
    CoordinatorTest::SetUp();
    Start();
    for (const char* name : {"a", "b", "c", "d"}) {
      clients.push_back(Joined(name));
      bonds.push_back(std::make_unique<TieBond>(*clients.back()));
      bonds.back()->SetGroup(0, {"a", "b", "c", "d"});
    }
    ASSERT_TRUE(clients[0]->AdvanceEpoch({0, 1, {"a", "b", "c", "d"}, "", 0, ""}, Soon()).ok());
    ASSERT_TRUE(Eventually([&] {
      return std::all_of(clients.begin(), clients.end(),
                         [](const auto& each) { return each->standing().in_epoch; });
    }));
  }
  // Members have the numbers 3, 5, 7, 9.
  bool Claims(int who, const std::vector<int>& half) { return bonds[who]->Claim(0, {3, 5, 7, 9})(half); }
  void Kill(int who) {
    bonds[who].reset();
    clients[who].reset();
  }

  std::vector<std::shared_ptr<Client>> clients;
  std::vector<std::unique_ptr<TieBond>> bonds;
};

TEST_F(TieBondTest, TheOtherHalfWaitsUntilTheFirstIsGone) {
  EXPECT_TRUE(Claims(0, {3, 5}));
  EXPECT_TRUE(Claims(0, {3, 5}));
  EXPECT_FALSE(bonds[2]->Await(0)) << "nobody has asked for that half";
  EXPECT_FALSE(Claims(2, {7, 9}));
  Kill(0);
  Kill(1);
  std::atomic<bool> other = false;
  std::thread waits([&] { other = bonds[3]->Await(0); });
  const absl::Time begin = absl::Now();
  EXPECT_TRUE(bonds[2]->Await(0));
  EXPECT_GT(absl::Now() - begin, lease);
  waits.join();
  EXPECT_TRUE(other);
  EXPECT_TRUE(Claims(2, {7, 9}));
  bonds[2]->Bind();
  EXPECT_TRUE(bonds[2]->Hold().ok());
  EXPECT_EQ(Describe().epoch().members_size(), 2);
}

TEST_F(TieBondTest, TheOtherHalfGivesUpWhereTheFirstLives) {
  EXPECT_TRUE(Claims(2, {7, 9}));
  EXPECT_FALSE(Claims(0, {3, 5}));
  const absl::Time begin = absl::Now();
  EXPECT_FALSE(bonds[0]->Await(0));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  EXPECT_FALSE(bonds[1]->Await(0));
  EXPECT_TRUE(Eventually([&] { return !clients[2]->standing().leased; }));
}

TEST_F(TieBondTest, WhoIsBoundWaitsForItsLease) {
  EXPECT_TRUE(Claims(0, {3, 5}));
  bonds[0]->Bind();
  EXPECT_TRUE(bonds[0]->Hold().ok());
  coordinator.reset();
  // Another one, who is not, goes on.
  absl::SleepFor(2 * lease);
  EXPECT_TRUE(bonds[2]->Hold().ok());
  std::atomic<bool> held = false;
  std::thread trains([&] {
    EXPECT_TRUE(bonds[0]->Hold().ok());
    held = true;
  });
  absl::SleepFor(2 * lease);
  EXPECT_FALSE(held);
  Start();
  EXPECT_TRUE(Eventually([&] { return held.load(); }));
  trains.join();
}

// A member of the first half is not heard while the other takes over. It must not train on, whatever it hears first.
TEST_F(TieBondTest, WhoWasAwayIsStopped) {
  EXPECT_TRUE(Claims(0, {3, 5}));
  bonds[0]->Bind();
  EXPECT_TRUE(bonds[0]->Hold().ok());
  // The state goes on where neither of the first half is heard: another coordinator, elsewhere, which they find later.
  const int place = port;
  coordinator.reset();
  port = 0;
  Start();
  std::vector<std::shared_ptr<Client>> others;
  for (const char* name : {"c", "d"}) {
    ClientOptions options;
    options.coordinator = absl::StrCat("127.0.0.1:", port.load());
    options.job = "job";
    options.name = name;
    others.push_back(*Client::Create(options));
    // The names are free when the leases of their first sessions have run out.
    ASSERT_TRUE(Eventually([&] { return others.back()->Join(Soon()).ok(); }));
  }
  TieBond other(*others[0]);
  other.SetGroup(0, {"a", "b", "c", "d"});
  EXPECT_FALSE(other.Claim(0, {3, 5, 7, 9})({7, 9}));
  EXPECT_TRUE(other.Await(0));
  clients[2].reset();
  clients[3].reset();
  std::atomic<bool> over = false;
  absl::Status status;
  std::thread trains([&] {
    status = bonds[0]->Hold();
    over = true;
  });
  absl::SleepFor(lease);
  EXPECT_FALSE(over);
  coordinator.reset();
  port = place;
  Start();
  EXPECT_TRUE(Eventually([&] { return over.load(); }));
  trains.join();
  EXPECT_EQ(comm::ExclusionOf(status), comm::Exclusion::kRemoved) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the other half has taken over"));
}

TEST_F(TieBondTest, NobodyIsClaimedForWhoIsNotKnown) {
  EXPECT_FALSE(Claims(0, {3, 11}));
  EXPECT_FALSE(bonds[0]->Claim(1, {3, 5, 7, 9})({3, 5})) << "of another epoch";
  EXPECT_FALSE(bonds[0]->Claim(0, {3, 5})({3}));
  EXPECT_TRUE(Claims(2, {7, 9}));
}

}  // namespace
}  // namespace cohort::cluster
