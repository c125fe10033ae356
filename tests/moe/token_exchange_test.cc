// Rows through real processes to their experts and back.
#include "moe/dispatch/token_exchange.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <functional>

#include "runtime/device/device.h"
#include "tests/support/ranks.h"

namespace cohort::moe {
namespace {

using runtime::CpuDevice;
using runtime::Tensor;

constexpr int kLocalExperts = 3;
constexpr int64_t kWidth = 5;

// Rows that rank r sends to each expert; the same function everywhere, so that receivers know what is due.
using Counts = std::function<int32_t(int rank, int expert)>;

// A row says where it comes from and where it goes.
void FillRow(float* row, int rank, int expert, int i) {
  row[0] = static_cast<float>(rank);
  row[1] = static_cast<float>(expert);
  row[2] = static_cast<float>(i);
  row[3] = row[4] = static_cast<float>(rank * 1000 + expert * 100 + i);
}

// apart: rows stay as they come, a run for each source rank.
void CheckExchange(comm::Communicator& world, const Counts& counts, bool apart = false) {
  const int ranks = world.size(), experts = ranks * kLocalExperts;
  const ExpertGroup group(std::shared_ptr<comm::Communicator>(&world, [](comm::Communicator*) {}), apart);
  std::vector<int32_t> offsets = {0};
  for (int e = 0; e < experts; ++e) offsets.push_back(offsets[e] + counts(world.rank(), e));
  const Tensor rows = Tensor::Empty(CpuDevice(), {offsets.back(), kWidth}, DataType::kF32);
  for (int e = 0; e < experts; ++e) {
    for (int i = 0; i < counts(world.rank(), e); ++i) {
      FillRow(rows.data<float>() + (offsets[e] + i) * kWidth, world.rank(), e, i);
    }
  }
  const auto exchange = TokenExchange::Create(
      group, Tensor::FromHost(CpuDevice(), {experts + 1}, absl::MakeConstSpan(offsets)));
  ASSERT_TRUE(exchange.ok()) << exchange.status();
  const auto by_expert = exchange->FinishToExperts(exchange->StartToExperts(rows));
  ASSERT_TRUE(by_expert.ok()) << by_expert.status();

  const int runs = apart ? ranks : 1;
  ASSERT_EQ(exchange->runs().size(), static_cast<size_t>(runs));
  int64_t place = 0;
  for (int run = 0; run < runs; ++run) {
    const ExpertRows& rows_of_run = exchange->runs()[run];
    ASSERT_EQ(rows_of_run.begin, place);
    for (int e = 0; e < kLocalExperts; ++e) {
      ASSERT_EQ(rows_of_run.offsets.data<int32_t>()[e], place - rows_of_run.begin);
      const int global = world.rank() * kLocalExperts + e;
      for (int from = apart ? run : 0; from < (apart ? run + 1 : ranks); ++from) {
        for (int i = 0; i < counts(from, global); ++i, ++place) {
          float due[kWidth];
          FillRow(due, from, global, i);
          for (int c = 0; c < kWidth; ++c) ASSERT_EQ(by_expert->data<float>()[place * kWidth + c], due[c]);
        }
      }
    }
    ASSERT_EQ(rows_of_run.end, place);
  }
  ASSERT_EQ(exchange->expert_rows(), place);
  const auto home = exchange->FinishFromExperts(exchange->StartFromExperts(*by_expert));
  ASSERT_TRUE(home.ok()) << home.status();
  ASSERT_EQ(home->shape(), rows.shape());
  for (int64_t i = 0; i < rows.size(); ++i) ASSERT_EQ(home->data<float>()[i], rows.data<float>()[i]);
}

TEST(TokenExchange, EveryRowReachesItsExpertAndComesBack) {
  for (const int ranks : {1, 2, 4}) {
    testing::RunRanks(ranks, [](comm::Communicator& world) {
      CheckExchange(world, [](int rank, int expert) { return (rank * 7 + expert * 5) % 4; });
      CheckExchange(world, [](int, int) { return 0; });
      for (const bool apart : {false, true}) {
        CheckExchange(
            world, [](int rank, int expert) { return (rank * 5 + expert * 3) % 4; }, apart);
      }
      CheckExchange(world, [](int rank, int) { return rank == 0 ? 0 : 2; });
      CheckExchange(world, [](int, int expert) { return expert == 1 ? 9 : 0; });
      CheckExchange(world,
                    [&](int rank, int expert) { return rank == world.size() - 1 && expert == 0 ? 300 : 0; });
    });
  }
}

TEST(TokenExchange, ALostRankIsAnErrorOnTheOthers) {
  testing::RunRanks(
      3,
      [](comm::Communicator& world) {
        const ExpertGroup group(std::shared_ptr<comm::Communicator>(&world, [](comm::Communicator*) {}));
        const std::vector<int32_t> offsets = {0, 2, 4, 6};
        const Tensor rows = Tensor::Zeros(CpuDevice(), {6, kWidth}, DataType::kF32);
        absl::Status status;
        for (int round = 0; round < 1000 && status.ok(); ++round) {
          if (world.rank() == 1 && round == 5) kill(getpid(), SIGKILL);
          const auto exchange =
              TokenExchange::Create(group, Tensor::FromHost(CpuDevice(), {4}, absl::MakeConstSpan(offsets)));
          status = exchange.status();
          if (status.ok()) status = exchange->FinishToExperts(exchange->StartToExperts(rows)).status();
        }
        EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
        EXPECT_NE(status.message().find("rank 1 was lost"), absl::string_view::npos) << status;
      },
      {.victims = {1}});
}

}  // namespace
}  // namespace cohort::moe
