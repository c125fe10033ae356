// Recoveries, played through in memory: every combination of lost hosts, bytes compared.
#include "runtime/elastic/parity/recovery_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/parity/code.h"
#include "runtime/elastic/parity/stripe_plan.h"

namespace cohort::runtime::elastic {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

// A cluster that holds random images and their parity, without processes.
struct Cluster {
  StripePlan plan;
  std::vector<Bytes> images, kept;

  explicit Cluster(const StripeRequest& request, uint32_t seed) : plan(*PlanStripes(request)) {
    EXPECT_TRUE(CheckStripes(plan).ok());
    std::mt19937 random(seed);
    images.resize(static_cast<size_t>(plan.ranks()));
    for (const auto& host : request.hosts) {
      for (const auto& member : host.members) {
        images[member.rank].resize(member.bytes);
        for (std::byte& byte : images[member.rank]) byte = static_cast<std::byte>(random());
      }
    }
    for (int r = 0; r < plan.ranks(); ++r) kept.emplace_back(plan.KeptBytes(r));
    const ReedSolomon code(request.data, request.parity);
    for (size_t s = 0; s < plan.stripes.size(); ++s) {
      const Stripe& stripe = plan.stripes[s];
      std::vector<Bytes> blocks(static_cast<size_t>(request.data), Bytes(stripe.bytes));
      for (size_t i = 0; i < stripe.data.size(); ++i) {
        for (const RankRange& range :
             RanksOf(plan, stripe.data[i].host, stripe.data[i].offset, stripe.data[i].bytes)) {
          std::copy_n(images[range.rank].begin() + static_cast<ptrdiff_t>(range.offset), range.bytes,
                      blocks[i].begin() + static_cast<ptrdiff_t>(range.range_offset));
        }
      }
      std::vector<const std::byte*> data;
      for (const Bytes& block : blocks) data.push_back(block.data());
      std::vector<std::byte*> parity(stripe.parity.size());
      for (size_t j = 0; j < parity.size(); ++j) {
        for (const auto& one : plan.kept[stripe.parity[j]]) {
          if (one.stripe == static_cast<int>(s)) parity[j] = kept[stripe.parity[j]].data() + one.offset;
        }
      }
      code.Encode(data, parity, stripe.bytes);
    }
  }

  // Ranks of these hosts are gone; who is left takes what is lost in turn. `now` is the old rank.
  Survivors Without(const std::vector<int>& hosts) const {
    Survivors survivors;
    std::vector<int> left;
    for (int r = 0; r < plan.ranks(); ++r) {
      const bool gone = std::find(hosts.begin(), hosts.end(), plan.host_of[r]) != hosts.end();
      survivors.image_at.push_back(gone ? -1 : r);
      survivors.parity_at.push_back(gone ? -1 : r);
      if (!gone) left.push_back(r);
    }
    for (int r = 0; r < plan.ranks(); ++r)
      survivors.target.push_back(left.empty() ? -1 : left[r % left.size()]);
    return survivors;
  }

  // Runs the plan with what the survivors have. Every lost image must come back once, to the byte.
  void Play(const Survivors& survivors) const {
    const auto recovery = PlanRecovery(plan, survivors);
    ASSERT_TRUE(recovery.ok()) << recovery.status();
    const ReedSolomon code(plan.request.data, plan.request.parity);
    std::vector<Bytes> back;
    std::vector<uint64_t> came(images.size());
    for (const Bytes& image : images) back.emplace_back(image.size());
    for (const RecoveryStep& step : recovery->steps) {
      ASSERT_LT(survivors.image_at[step.lost_rank], 0);
      ASSERT_EQ(step.target, survivors.target[step.lost_rank]);
      std::vector<int> symbols;
      std::vector<const std::byte*> blocks;
      for (const auto& source : step.sources) {
        symbols.push_back(source.symbol);
        ASSERT_NE(source.symbol, step.lost_symbol);
        if (source.rank < 0) {
          blocks.push_back(nullptr);
          continue;
        }
        const bool parity = source.symbol >= plan.request.data;
        ASSERT_GE(source.at, 0);
        ASSERT_EQ(source.at, parity ? survivors.parity_at[source.rank] : survivors.image_at[source.rank]);
        const Bytes& from = parity ? kept[source.rank] : images[source.rank];
        ASSERT_EQ(source.bytes, step.bytes);
        ASSERT_LE(source.offset + source.bytes, from.size());
        blocks.push_back(from.data() + source.offset);
      }
      ASSERT_LE(step.image_offset + step.bytes, back[step.lost_rank].size());
      ASSERT_TRUE(code.Solve(symbols, blocks, step.lost_symbol,
                             back[step.lost_rank].data() + step.image_offset, step.bytes)
                      .ok());
      came[step.lost_rank] += step.bytes;
    }
    for (size_t r = 0; r < images.size(); ++r) {
      const bool lost = survivors.image_at[r] < 0 && survivors.target[r] >= 0;
      ASSERT_EQ(came[r], lost ? images[r].size() : 0) << "rank " << r;
      ASSERT_TRUE(!lost || back[r] == images[r]) << "rank " << r;
    }
  }
};

StripeRequest RandomRequest(int k, int m, int hosts, std::mt19937& random, uint64_t most, uint64_t block) {
  StripeRequest request{k, m, block, {}};
  int rank = 0;
  for (int h = 0; h < hosts; ++h) {
    auto& host = request.hosts.emplace_back();
    host.name = absl::StrCat("host", h);
    for (int i = std::uniform_int_distribution<int>(1, 3)(random); i > 0; --i) {
      host.members.push_back({rank++, std::uniform_int_distribution<uint64_t>(0, most)(random)});
    }
  }
  return request;
}

void ForEachSubset(int of, int size, const std::function<void(const std::vector<int>&)>& call) {
  for (uint32_t bits = 0; bits < 1u << of; ++bits) {
    std::vector<int> subset;
    for (int i = 0; i < of; ++i) {
      if (bits >> i & 1) subset.push_back(i);
    }
    if (static_cast<int>(subset.size()) == size) call(subset);
  }
}

TEST(RecoveryPlan, WhateverHostsAreLostNothingIs) {
  std::mt19937 random(8);
  for (int k = 1; k <= 4; ++k) {
    for (int m = 1; m <= 3; ++m) {
      for (int hosts = k + m; hosts <= k + m + 2; ++hosts) {
        const Cluster cluster(RandomRequest(k, m, hosts, random, 3000, 500), static_cast<uint32_t>(hosts));
        for (int lost = 0; lost <= m; ++lost) {
          ForEachSubset(hosts, lost, [&](const std::vector<int>& which) {
            if (!::testing::Test::HasFatalFailure()) cluster.Play(cluster.Without(which));
          });
        }
      }
    }
  }
}

TEST(RecoveryPlan, RanksAreLostWithoutTheirHosts) {
  // Images and parity go one by one: parity that is there counts though the image beside it is gone.
  std::mt19937 random(9);
  int recovered = 0;
  for (int round = 0; round < 300; ++round) {
    const Cluster cluster(RandomRequest(3, 2, 6, random, 2000, 300), static_cast<uint32_t>(round));
    Survivors survivors = cluster.Without({});
    std::set<int> hosts;
    for (int i = std::uniform_int_distribution<int>(1, 3)(random); i > 0; --i) {
      const int rank = std::uniform_int_distribution<int>(0, cluster.plan.ranks() - 1)(random);
      (random() % 2 ? survivors.image_at : survivors.parity_at)[rank] = -1;
      hosts.insert(cluster.plan.host_of[rank]);
    }
    if (hosts.size() <= 2) {
      cluster.Play(survivors);
      ++recovered;
    } else if (PlanRecovery(cluster.plan, survivors).ok()) {
      cluster.Play(survivors);
    }
  }
  EXPECT_GT(recovered, 50);
}

TEST(RecoveryPlan, MoreThanParityIsAnErrorThatNamesWhatIsLost) {
  std::mt19937 random(10);
  StripeRequest request{2, 1, 100, {}};
  for (int h = 0; h < 3; ++h) request.hosts.push_back({absl::StrCat("node", h), {{h, 1000}}});
  const Cluster cluster(request, 1);
  const auto recovery = PlanRecovery(cluster.plan, cluster.Without({0, 2}));
  ASSERT_TRUE(absl::IsDataLoss(recovery.status())) << recovery.status();
  const std::string message(recovery.status().message());
  EXPECT_THAT(message, HasSubstr("missing of 2 hosts"));
  EXPECT_THAT(message, HasSubstr("node0 ("));
  EXPECT_THAT(message, HasSubstr("node2 ("));
  EXPECT_THAT(message, ::testing::Not(HasSubstr("node1")));
  // What nobody wants is not missed.
  Survivors unwanted = cluster.Without({0, 2});
  unwanted.target.assign(3, -1);
  EXPECT_TRUE(PlanRecovery(cluster.plan, unwanted).ok());
  unwanted.target.pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(PlanRecovery(cluster.plan, unwanted).status()));
}

TEST(RecoveryPlan, AThousandHostsLoseAnyTwo) {
  StripeRequest request{8, 2, 0, {}};
  for (int h = 0; h < 1000; ++h) {
    request.hosts.push_back(
        {absl::StrCat("h", h), {{2 * h, uint64_t{1} << 24}, {2 * h + 1, uint64_t{1} << 23}}});
  }
  const auto plan = PlanStripes(request);
  ASSERT_TRUE(plan.ok() && CheckStripes(*plan).ok());
  std::mt19937 random(11);
  for (int round = 0; round < 20; ++round) {
    Survivors survivors;
    const int a = static_cast<int>(random() % 1000), b = static_cast<int>(random() % 1000);
    for (int r = 0; r < 2000; ++r) {
      const int at = r / 2 == a || r / 2 == b ? -1 : r;
      survivors.image_at.push_back(at);
      survivors.parity_at.push_back(at);
      survivors.target.push_back((r + 7) % 2000);
    }
    for (int& target : survivors.target) {
      while (target / 2 == a || target / 2 == b) target = (target + 1) % 2000;
    }
    const auto recovery = PlanRecovery(*plan, survivors);
    ASSERT_TRUE(recovery.ok()) << recovery.status();
    std::map<int, uint64_t> came;
    for (const RecoveryStep& step : recovery->steps) came[step.lost_rank] += step.bytes;
    EXPECT_EQ(came.size(), a == b ? 2u : 4u);
    for (const auto& [rank, bytes] : came) EXPECT_EQ(bytes, rank % 2 == 0 ? 1u << 24 : 1u << 23);
  }
}

}  // namespace
}  // namespace cohort::runtime::elastic
