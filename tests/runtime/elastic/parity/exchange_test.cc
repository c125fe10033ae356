// Parity between real processes on several hosts, which are names here (COHORT_HOST_ID), each with a keeper of its own.
#include "runtime/elastic/parity/exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/rendezvous.h"
#include "runtime/elastic/parity/host_holdings.h"
#include "runtime/elastic/snapshot/snapshotter.h"
#include "tests/runtime/elastic/keeper/test_keeper.h"
#include "tests/runtime/elastic/snapshot/stepped_state.h"
#include "tests/support/ranks.h"

namespace cohort::runtime::elastic {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kEpoch = 4;

absl::Time Soon() { return absl::Now() + absl::Seconds(30); }

// Hosts 0, 2, 4, ... have two ranks, the others one; each rank has a state of its own size.
struct Layout {
  std::vector<int> host_of;
  explicit Layout(int hosts) {
    for (int h = 0; h < hosts; ++h) host_of.insert(host_of.end(), h % 2 == 0 ? 2 : 1, h);
  }
  int ranks() const { return static_cast<int>(host_of.size()); }
  static std::string Name(int host) { return absl::StrCat("host", host); }
  static SteppedState StateOf(int rank) {
    return SteppedState({static_cast<size_t>(30'000 + 7'001 * rank), 5}, static_cast<uint64_t>(rank));
  }
};

// One rank of a job that takes snapshots and encodes them.
struct Rank {
  int rank, host;
  std::unique_ptr<comm::Communicator> communicator;
  std::unique_ptr<Keeper> keeper;
  SteppedState state;
  std::unique_ptr<Snapshotter> snapshotter;
  StripePlan plan;
  std::unique_ptr<ParityStore> parity;

  Rank(TestJob& job, const Layout& layout, int the_rank, const std::string& folder)
      : rank(the_rank), host(layout.host_of[the_rank]), state(Layout::StateOf(the_rank)) {
    setenv("COHORT_HOST_ID", Layout::Name(host).c_str(), 1);
    auto made = comm::Communicator::Create(comm::FileRendezvous(folder + "/meet", rank, layout.ranks()),
                                           {.timeout = absl::Seconds(20)});
    EXPECT_TRUE(made.ok()) << made.status();
    communicator = *std::move(made);
    keeper = job.Connect(Layout::Name(host));
  }
  void Protect(int k, int m) {
    const SegmentOwner owner{absl::StrCat("member ", rank), kEpoch, rank};
    auto made = Snapshotter::Create(*keeper, owner, state.Pieces());
    ASSERT_TRUE(made.ok()) << made.status();
    snapshotter = *std::move(made);
    auto request = GatherStripeRequest(*communicator, snapshotter->image_bytes(), k, m);
    ASSERT_TRUE(request.ok()) << request.status();
    auto planned = PlanStripes(*request);
    ASSERT_TRUE(planned.ok()) << planned.status();
    plan = *planned;
    ASSERT_TRUE(CheckStripes(plan).ok()) << CheckStripes(plan);
    auto store = ParityStore::Create(*keeper, owner, plan, rank);
    ASSERT_TRUE(store.ok()) << store.status();
    parity = *std::move(store);
  }
  absl::Status Step(int64_t step) {
    state.Set(step);
    if (absl::Status status = snapshotter->Begin(step); !status.ok()) return status;
    if (absl::Status status = snapshotter->Finish(Soon()); !status.ok()) return status;
    state.Set(-1);
    const auto image = snapshotter->ImageOf(step);
    if (!image.ok()) return image.status();
    return parity->Encode(*communicator, {kEpoch, step}, image->bytes, Soon());
  }
  void Complete(int64_t step) {
    snapshotter->Complete(step);
    parity->Complete({kEpoch, step});
  }
};

// Hosts `lost` go with their keepers, and one rank of a host that stays.
void LoseHosts(int k, int m, const std::vector<int>& lost, bool recovers) {
  TestJob job;
  const Layout layout(k + m);
  for (int h = 0; h < k + m; ++h) job.Options(Layout::Name(h));
  std::vector<int> victims;
  int extra = -1;
  for (int r = 0; r < layout.ranks(); ++r) {
    const bool gone = std::find(lost.begin(), lost.end(), layout.host_of[r]) != lost.end();
    const bool second = r > 0 && layout.host_of[r] == layout.host_of[r - 1];
    if (gone) victims.push_back(r);
    if (!gone && second && extra < 0) victims.push_back(extra = r);
  }
  testing::SharedCounter done, brought_back;
  testing::RunProcesses(
      layout.ranks(),
      [&](int number, int size, const std::string& folder) {
        Rank me(job, layout, number, folder);
        me.Protect(k, m);
        for (int64_t step = 1; step <= 3; ++step) {
          const absl::Status status = me.Step(step);
          ASSERT_TRUE(status.ok()) << status;
          ASSERT_TRUE(me.communicator->Barrier().Wait().ok());
          me.Complete(step);
        }
        done.Add();
        ASSERT_TRUE(done.WaitFor(size));
        if (std::find(victims.begin(), victims.end(), number) != victims.end()) {
          if (number != extra && (number == 0 || layout.host_of[number - 1] != me.host)) {
            EXPECT_TRUE(me.keeper->End().ok());
          }
          kill(getpid(), SIGKILL);
        }
        const auto change = me.communicator->Shrink({.patience = absl::Seconds(3)});
        ASSERT_TRUE(change.ok()) << change.status();
        ASSERT_EQ(change->size, size - static_cast<int>(victims.size()));
        const auto holdings = FindHoldings(*me.keeper, {kEpoch, 3});
        ASSERT_TRUE(holdings.ok()) << holdings.status();
        // The plan, as somebody finds it who was not there when it was made.
        ASSERT_FALSE(holdings->parity.empty());
        const auto request = ParseStripeRequest(holdings->parity.begin()->second.layout);
        ASSERT_TRUE(request.ok()) << request.status();
        const StripePlan plan = *PlanStripes(*request);
        const auto survivors = AgreeSurvivors(*me.communicator, plan, *holdings);
        ASSERT_TRUE(survivors.ok()) << survivors.status();
        const auto recovery = PlanRecovery(plan, *survivors);
        if (!recovers) {
          EXPECT_TRUE(absl::IsDataLoss(recovery.status())) << recovery.status();
          for (const int host : lost)
            EXPECT_THAT(std::string(recovery.status().message()), HasSubstr(Layout::Name(host)));
          return;
        }
        ASSERT_TRUE(recovery.ok()) << recovery.status();
        const auto images = RecoverImages(*me.communicator, plan, *recovery, holdings->Sources(), Soon());
        ASSERT_TRUE(images.ok()) << images.status();
        for (const auto& [rank, bytes] : *images) {
          const auto image = ReadImage(bytes);
          ASSERT_TRUE(image.ok()) << image.status();
          EXPECT_EQ(image->name, (GenerationName{kEpoch, 3}));
          EXPECT_TRUE(VerifyImage(*image).ok());
          EXPECT_TRUE(Layout::StateOf(rank).IsIn(*image)) << "rank " << rank;
          brought_back.Add();
        }
        // And whoever died on a host that stays is with its keeper.
        if (extra >= 0 && layout.host_of[extra] == me.host) {
          ASSERT_EQ(holdings->snapshots.count(extra), 1u);
          EXPECT_TRUE(Layout::StateOf(extra).IsIn(holdings->snapshots.at(extra)));
        }
      },
      {.victims = victims});
  const int images = static_cast<int>(victims.size()) - (extra >= 0 ? 1 : 0);
  EXPECT_EQ(brought_back.Get(), recovers ? images : 0);
}

class Parity : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(Parity, GivesBackWhatLostHostsHeld) {
  const auto [k, m] = GetParam();
  LoseHosts(k, m, m == 1 ? std::vector<int>{k - 1} : std::vector<int>{0, k}, true);
}

INSTANTIATE_TEST_SUITE_P(Codes, Parity,
                         ::testing::Values(std::pair{2, 1}, std::pair{3, 1}, std::pair{4, 1}, std::pair{2, 2},
                                           std::pair{3, 2}, std::pair{4, 2}),
                         [](const auto& info) {
                           return absl::StrCat(info.param.first, "plus", info.param.second);
                         });

TEST(ParityExchange, MoreLostHostsThanParityIsSaid) { LoseHosts(2, 1, {0, 1}, false); }

TEST(ParityExchange, APeerLostWhileEncodingIsAnErrorAndTheGenerationBeforeIsThere) {
  TestJob job;
  const Layout layout(4);
  for (int h = 0; h < 4; ++h) job.Options(Layout::Name(h));
  testing::SharedCounter complete;
  testing::RunProcesses(
      layout.ranks(),
      [&](int number, int, const std::string& folder) {
        Rank me(job, layout, number, folder);
        me.Protect(3, 1);
        ASSERT_TRUE(me.Step(1).ok());
        ASSERT_TRUE(me.communicator->Barrier().Wait().ok());
        me.Complete(1);
        complete.Add();
        if (number == 1) {
          complete.WaitFor(layout.ranks());  // what this rank has sent is there
          kill(getpid(), SIGKILL);
        }
        const absl::Time began = absl::Now();
        // Who needs nothing of the lost rank may have its own part done; that all have, nobody hears.
        const bool mine = me.Step(2).ok();
        EXPECT_FALSE(mine && me.communicator->Barrier().Wait().ok());
        EXPECT_LT(absl::Now() - began, absl::Seconds(15));
        const auto holdings = FindHoldings(*me.keeper, {kEpoch, 1});
        ASSERT_TRUE(holdings.ok()) << holdings.status();
        EXPECT_EQ(holdings->snapshots.count(number), 1u);
        EXPECT_EQ(holdings->parity.count(number), 1u);
        EXPECT_EQ(FindHoldings(*me.keeper, {kEpoch, 2})->parity.count(number), mine ? 1u : 0u);
      },
      {.victims = {1}});
}

// Blocks that are sent in many pieces, and images that end within one.
TEST(ParityExchange, LargeBlocksTravelInPieces) {
  testing::SharedCounter recovered;
  testing::RunProcesses(5, [&](int rank, int size, const std::string& folder) {
    setenv("COHORT_HOST_ID", Layout::Name(rank).c_str(), 1);
    const auto world = *comm::Communicator::Create(comm::FileRendezvous(folder + "/meet", rank, size),
                                                   {.timeout = absl::Seconds(20)});
    const auto image_of = [](int of) {
      std::vector<std::byte> image(5'000'001 + 1'300'007 * static_cast<size_t>(of));
      for (size_t i = 0; i < image.size(); ++i)
        image[i] = static_cast<std::byte>((i * 2654435761u + of) >> 11);
      return image;
    };
    const std::vector<std::byte> mine = image_of(rank);
    StripeRequest request = *GatherStripeRequest(*world, mine.size(), 3, 2);
    request.block_bytes = 3'500'000;
    const StripePlan plan = *PlanStripes(request);
    ASSERT_TRUE(CheckStripes(plan).ok());
    std::vector<std::byte> kept(plan.KeptBytes(rank));
    const absl::Status status = EncodeParity(*world, plan, mine, absl::MakeSpan(kept), Soon());
    ASSERT_TRUE(status.ok()) << status;
    // As if hosts 1 and 4 had lost theirs, and get them back themselves, or one for the other.
    Survivors survivors;
    for (int r = 0; r < size; ++r) {
      survivors.image_at.push_back(r == 1 || r == 4 ? -1 : r);
      survivors.parity_at.push_back(r == 4 ? -1 : r);
      survivors.target.push_back(r == 1 ? 4 : 1);
    }
    const auto recovery = PlanRecovery(plan, survivors);
    ASSERT_TRUE(recovery.ok()) << recovery.status();
    RecoverySources sources;
    if (survivors.image_at[rank] == rank) sources.images[rank] = mine;
    if (survivors.parity_at[rank] == rank) sources.parity[rank] = kept;
    const auto images = RecoverImages(*world, plan, *recovery, sources, Soon());
    ASSERT_TRUE(images.ok()) << images.status();
    ASSERT_EQ(images->size(), rank == 1 || rank == 4 ? 1u : 0u);
    for (const auto& [of, image] : *images) EXPECT_TRUE(image == image_of(of)) << of;
    // Who has not what the plan says that it has, says so, and nobody hangs.
    // (Not by a barrier, which the end of everything in flight would meet.)
    recovered.Add();
    ASSERT_TRUE(recovered.WaitFor(size));
    if (rank == 0) sources.images.clear();
    const bool failed = !RecoverImages(*world, plan, *recovery, sources, Soon()).ok();
    EXPECT_TRUE(failed || (rank != 0 && rank != 1 && rank != 4));
  });
}

TEST(ParityExchange, ADeadlineIsKept) {
  TestJob job;
  const Layout layout(3);
  for (int h = 0; h < 3; ++h) job.Options(Layout::Name(h));
  testing::RunProcesses(layout.ranks(), [&](int number, int size, const std::string& folder) {
    Rank me(job, layout, number, folder);
    me.Protect(2, 1);
    std::vector<std::byte> mine(me.snapshotter->image_bytes()), kept(me.plan.KeptBytes(number));
    if (number == size - 1) {
      absl::SleepFor(absl::Seconds(1));
    } else {
      const absl::Time began = absl::Now();
      const absl::Status status = EncodeParity(*me.communicator, me.plan, mine, absl::MakeSpan(kept),
                                               absl::Now() + absl::Milliseconds(300));
      EXPECT_FALSE(status.ok());
      EXPECT_LT(absl::Now() - began, absl::Seconds(5));
    }
  });
}

TEST(ParityExchange, WhatDoesNotFitThePlanIsAnError) {
  TestJob job;
  testing::SharedCounter planned;
  const Layout layout(3);
  for (int h = 0; h < 3; ++h) job.Options(Layout::Name(h));
  testing::RunProcesses(layout.ranks(), [&](int number, int, const std::string& folder) {
    Rank me(job, layout, number, folder);
    me.Protect(2, 1);
    planned.Add();
    ASSERT_TRUE(planned.WaitFor(layout.ranks()));
    std::vector<std::byte> mine(me.snapshotter->image_bytes() + (number == 0 ? 1 : 0)),
        kept(me.plan.KeptBytes(number));
    const absl::Status status = EncodeParity(*me.communicator, me.plan, mine, absl::MakeSpan(kept), Soon());
    EXPECT_FALSE(status.ok());
    EXPECT_TRUE(number > 0 || absl::IsInvalidArgument(status)) << status;
  });
}

}  // namespace
}  // namespace cohort::runtime::elastic
