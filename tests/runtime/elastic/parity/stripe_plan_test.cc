// Stripe plans, judged by their checker and by what was promised of them.
#include "runtime/elastic/parity/stripe_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace cohort::runtime::elastic {
namespace {

using ::testing::HasSubstr;

StripeRequest Request(int data, int parity, const std::vector<std::vector<uint64_t>>& hosts,
                      uint64_t block = 0) {
  StripeRequest request{data, parity, block, {}};
  int rank = 0;
  for (const auto& members : hosts) {
    auto& host = request.hosts.emplace_back();
    host.name = absl::StrCat("host ", request.hosts.size() - 1);
    for (const uint64_t bytes : members) host.members.push_back({rank++, bytes});
  }
  return request;
}

std::vector<int> ParityBlocks(const StripePlan& plan) {
  std::vector<int> blocks(plan.request.hosts.size());
  for (const Stripe& stripe : plan.stripes) {
    for (const int rank : stripe.parity) ++blocks[static_cast<size_t>(plan.host_of[rank])];
  }
  return blocks;
}

int Spread(const std::vector<int>& counts) {
  return *std::max_element(counts.begin(), counts.end()) - *std::min_element(counts.begin(), counts.end());
}

TEST(StripePlan, EqualHostsKeepEquallyMuch) {
  for (int k = 1; k <= 6; ++k) {
    for (int m = 1; m <= 3; ++m) {
      for (int hosts = k + m; hosts <= k + m + 7; ++hosts) {
        for (const int blocks : {1, 2, 5, 24}) {
          const auto plan = PlanStripes(Request(
              k, m, std::vector<std::vector<uint64_t>>(hosts, {static_cast<uint64_t>(blocks) * 100}), 100));
          ASSERT_TRUE(plan.ok()) << plan.status();
          ASSERT_TRUE(CheckStripes(*plan).ok()) << CheckStripes(*plan);
          EXPECT_LE(Spread(ParityBlocks(*plan)), 1) << k << "+" << m << " on " << hosts << " of " << blocks;
          // No fewer stripes could hold them.
          EXPECT_EQ(plan->stripes.size(), static_cast<size_t>((hosts * blocks + k - 1) / k));
        }
      }
    }
  }
}

TEST(StripePlan, RandomHostsAreCovered) {
  std::mt19937 random(5);
  const auto draw = [&](int least, int most) {
    return std::uniform_int_distribution<int>(least, most)(random);
  };
  for (int round = 0; round < 500; ++round) {
    const int k = draw(1, 5), m = draw(1, 3);
    std::vector<std::vector<uint64_t>> hosts(static_cast<size_t>(draw(k + m, k + m + 6)));
    uint64_t blocks = 0, most = 0;
    for (auto& members : hosts) {
      uint64_t bytes = 0;
      for (int i = draw(1, 4); i > 0; --i) {
        members.push_back(draw(0, 4) == 0 ? 0 : static_cast<uint64_t>(draw(1, 5000)));
        bytes += members.back();
      }
      blocks += (bytes + 999) / 1000;
      most = std::max(most, (bytes + 999) / 1000);
    }
    const auto plan = PlanStripes(Request(k, m, hosts, 1000));
    ASSERT_TRUE(plan.ok()) << plan.status();
    ASSERT_TRUE(CheckStripes(*plan).ok()) << CheckStripes(*plan);
    EXPECT_EQ(plan->stripes.size(), std::max<uint64_t>(most, (blocks + k - 1) / k));
    // The ranks of a host keep about the same.
    for (size_t h = 0; h < hosts.size(); ++h) {
      std::vector<uint64_t> kept;
      for (const auto& member : plan->request.hosts[h].members) kept.push_back(plan->KeptBytes(member.rank));
      EXPECT_LE(*std::max_element(kept.begin(), kept.end()) - *std::min_element(kept.begin(), kept.end()),
                1000u);
    }
  }
}

TEST(StripePlan, HostsThatHoldEverythingLeaveParityToTheOthers) {
  const auto plan = PlanStripes(Request(2, 1, {{1000}, {1000}, {0}, {0}}, 100));
  ASSERT_TRUE(plan.ok() && CheckStripes(*plan).ok());
  EXPECT_EQ(ParityBlocks(*plan), (std::vector<int>{0, 0, 5, 5}));
}

TEST(StripePlan, AThousandHosts) {
  const StripeRequest request =
      Request(8, 2, std::vector<std::vector<uint64_t>>(1000, std::vector<uint64_t>(8, uint64_t{10} << 30)));
  const absl::Time began = absl::Now();
  const auto plan = PlanStripes(request);
  RecordProperty("seconds", absl::StrCat(absl::ToDoubleSeconds(absl::Now() - began)));
  ASSERT_TRUE(plan.ok() && CheckStripes(*plan).ok());
  EXPECT_LE(Spread(ParityBlocks(*plan)), 1);
  std::vector<uint64_t> kept;
  for (int rank = 0; rank < plan->ranks(); ++rank) kept.push_back(plan->KeptBytes(rank));
  EXPECT_LE(*std::max_element(kept.begin(), kept.end()) - *std::min_element(kept.begin(), kept.end()),
            plan->block_bytes);
}

TEST(StripePlan, TooFewHostsAndWrongRequestsAreErrors) {
  const auto few = PlanStripes(Request(4, 2, {{1}, {1}, {1}, {1}, {1}}));
  EXPECT_TRUE(absl::IsInvalidArgument(few.status()));
  EXPECT_THAT(std::string(few.status().message()), HasSubstr("6 hosts, and there are 5"));
  EXPECT_FALSE(PlanStripes(Request(0, 1, {{1}, {1}})).ok());
  EXPECT_FALSE(PlanStripes(Request(1, 0, {{1}, {1}})).ok());
  EXPECT_FALSE(PlanStripes(Request(200, 100, {{1}})).ok());
  StripeRequest twice = Request(1, 1, {{1}, {1}});
  twice.hosts[1].members[0].rank = 0;
  EXPECT_FALSE(PlanStripes(twice).ok());
  EXPECT_FALSE(PlanStripes(Request(1, 1, {{1}, {}})).ok());
}

TEST(StripePlan, TheCheckerFindsWhatIsWrong) {
  const auto good = PlanStripes(Request(2, 2, {{1000, 500}, {1000}, {700}, {900}, {100}}, 100));
  ASSERT_TRUE(good.ok() && CheckStripes(*good).ok());
  const std::vector<std::function<void(StripePlan&)>> wrongs = {
      [](StripePlan& plan) { plan.stripes.pop_back(); },
      [](StripePlan& plan) { plan.stripes.push_back(plan.stripes[0]); },
      [](StripePlan& plan) { plan.stripes[3].data[0].offset += 1; },
      [](StripePlan& plan) { plan.stripes[3].data[0].bytes -= 1; },
      [](StripePlan& plan) { plan.stripes[3].data[1].host = plan.stripes[3].data[0].host; },
      [](StripePlan& plan) { plan.stripes[3].data[1].host = 5; },
      [](StripePlan& plan) { plan.stripes[2].bytes += 1; },
      [](StripePlan& plan) { plan.stripes[2].parity.pop_back(); },
      [](StripePlan& plan) { plan.stripes[2].parity[1] = plan.stripes[2].parity[0]; },
      [](StripePlan& plan) {
        const int host = plan.stripes[2].data[0].host;
        plan.stripes[2].parity[0] = plan.request.hosts[static_cast<size_t>(host)].members[0].rank;
      },
      [](StripePlan& plan) { std::swap(plan.stripes[2].parity[0], plan.stripes[2].parity[1]); },
      [](StripePlan& plan) { plan.kept[static_cast<size_t>(plan.stripes[0].parity[0])][0].offset += 1; },
      [](StripePlan& plan) { plan.kept[static_cast<size_t>(plan.stripes[0].parity[0])].pop_back(); },
  };
  for (size_t i = 0; i < wrongs.size(); ++i) {
    StripePlan plan = *good;
    wrongs[i](plan);
    EXPECT_FALSE(CheckStripes(plan).ok()) << i;
  }
}

TEST(StripePlan, RequestsAreText) {
  StripeRequest request = Request(3, 2, {{1, 2}, {0}, {uint64_t{1} << 50}});
  request.hosts[1].name = "a name\nwith 3 lines\n";
  request.hosts[2].name = "";
  const std::string text = ToText(request);
  const auto back = ParseStripeRequest(text);
  ASSERT_TRUE(back.ok()) << back.status() << text;
  EXPECT_EQ(ToText(*back), text);
  EXPECT_EQ(back->hosts[1].name, request.hosts[1].name);
  EXPECT_EQ(back->hosts[2].members[0].bytes, uint64_t{1} << 50);
  for (size_t size = 0; size < text.size(); ++size)
    EXPECT_FALSE(ParseStripeRequest(text.substr(0, size)).ok()) << size;
  EXPECT_FALSE(ParseStripeRequest(text + "x").ok());
  EXPECT_FALSE(ParseStripeRequest("stripes 1 1 0 99999999999999999999\n").ok());
  EXPECT_FALSE(ParseStripeRequest("stripes 1 1 0 2\n18446744073709551615 0 1 1 a\n").ok());
}

TEST(StripePlan, RangesOfAHostAreOfItsRanks) {
  const auto plan = PlanStripes(Request(1, 1, {{100, 0, 50}, {1}}, 60));
  const auto ranges = RanksOf(*plan, 0, 60, 60);
  ASSERT_EQ(ranges.size(), 2u);
  EXPECT_EQ(ranges[0].rank, 0);
  EXPECT_EQ(ranges[0].offset, 60u);
  EXPECT_EQ(ranges[0].bytes, 40u);
  EXPECT_EQ(ranges[0].range_offset, 0u);
  EXPECT_EQ(ranges[1].rank, 2);
  EXPECT_EQ(ranges[1].offset, 0u);
  EXPECT_EQ(ranges[1].bytes, 20u);
  EXPECT_EQ(ranges[1].range_offset, 40u);
}

}  // namespace
}  // namespace cohort::runtime::elastic
