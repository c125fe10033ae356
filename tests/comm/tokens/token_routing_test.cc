// Token routing between processes: what comes where, and what comes back.
#include "comm/tokens/token_routing.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RunRanks;

constexpr int kExperts = 12, kTopK = 3;

// The j-th expert of a token, and its weight: pure, so that every rank knows what others chose.
int32_t ExpertOf(int rank, int token, int j) {
  const int chosen = (rank * 31 + token * 17 + j * 5) % (kExperts + 2);
  return chosen < kExperts ? chosen : -1;
}
float WeightOf(int rank, int token, int j) { return static_cast<float>((rank + token + j) % 4 + 1); }
int TokensOf(int rank) { return rank == 1 ? 0 : 20 + 3 * rank; }
float ValueOf(int rank, int token, size_t i) {
  return static_cast<float>((rank * 100 + token * 10 + static_cast<int>(i)) % 64);
}

// Not all ranks have as many experts: rank 0 has none.
std::vector<int32_t> Placement(int size) {
  std::vector<int32_t> ranks;
  for (int e = 0; e < kExperts; ++e) ranks.push_back(size == 1 ? 0 : 1 + e * e % (size - 1));
  return ranks;
}

// On several hosts, which hold different numbers of ranks: the first `first` ranks are one.
template <typename Body>
void RunOnHosts(int size, int first, const Body& body) {
  cohort::testing::RunProcesses(size, [&](int rank, int, const std::string& folder) {
    setenv("COHORT_HOST_ID", rank < first ? "first" : "second", 1);
    auto comm = Communicator::Create(FileRendezvous(folder + "/meet", rank, size),
                                     {.timeout = absl::Seconds(20), .topology = "default"});
    ASSERT_TRUE(comm.ok()) << comm.status();
    body(**comm);
    EXPECT_EQ((*comm)->Barrier().Wait(), absl::OkStatus());
  });
}

void DispatchAndCombine(Communicator& comm) {
  constexpr size_t kWidth = 37;
  const int rank = comm.rank(), size = comm.size(), tokens = TokensOf(rank);
  const std::vector<int32_t> placement = Placement(size);
  std::vector<int32_t> experts;
  std::vector<float> weights, rows(tokens * kWidth);
  for (int t = 0; t < tokens; ++t) {
    for (int j = 0; j < kTopK; ++j) {
      experts.push_back(ExpertOf(rank, t, j));
      weights.push_back(WeightOf(rank, t, j));
    }
    for (size_t i = 0; i < kWidth; ++i) rows[t * kWidth + i] = ValueOf(rank, t, i);
  }
  auto routing = TokenRouting::Create(comm, {experts, kTopK, weights, placement});
  ASSERT_TRUE(routing.ok()) << routing.status();
  ASSERT_EQ((*routing)->num_tokens(), static_cast<size_t>(tokens));

  // What must come: by source and token, with the experts that are here.
  std::vector<float> received((*routing)->num_received() * kWidth);
  ASSERT_EQ((*routing)->Dispatch(rows.data(), received.data(), kWidth, DataType::kF32).Wait(),
            absl::OkStatus());
  size_t row = 0;
  for (int source = 0; source < size; ++source) {
    const size_t first = row;
    for (int t = 0; t < TokensOf(source); ++t) {
      std::vector<std::pair<int32_t, float>> here, told;
      for (int j = 0; j < kTopK; ++j) {
        const int32_t expert = ExpertOf(source, t, j);
        if (expert >= 0 && placement[expert] == rank) here.emplace_back(expert, WeightOf(source, t, j));
      }
      if (here.empty()) continue;
      ASSERT_LT(row, (*routing)->num_received());
      for (const RoutedExpert& expert : (*routing)->experts(row))
        told.emplace_back(expert.expert, expert.weight);
      EXPECT_EQ((*routing)->token(row), t);
      EXPECT_EQ((*routing)->source(row), source);
      EXPECT_EQ(told, here);
      for (size_t i = 0; i < kWidth; ++i) ASSERT_EQ(received[row * kWidth + i], ValueOf(source, t, i));
      ++row;
    }
    EXPECT_EQ((*routing)->received_from()[source], row - first);
  }
  EXPECT_EQ(row, (*routing)->num_received());

  // Expert e multiplies by e + 1; the sums of small whole numbers are exact.
  for (size_t r = 0; r < row; ++r) {
    float factor = 0;
    for (const RoutedExpert& expert : (*routing)->experts(r))
      factor += expert.weight * static_cast<float>(expert.expert + 1);
    for (size_t i = 0; i < kWidth; ++i) received[r * kWidth + i] *= factor;
  }
  std::vector<float> back(tokens * kWidth, -1.0f);
  ASSERT_EQ((*routing)->Combine(received.data(), back.data(), kWidth, DataType::kF32).Wait(),
            absl::OkStatus());
  for (int t = 0; t < tokens; ++t) {
    float factor = 0;
    for (int j = 0; j < kTopK; ++j) {
      const int32_t expert = ExpertOf(rank, t, j);
      if (expert >= 0) factor += WeightOf(rank, t, j) * static_cast<float>(expert + 1);
    }
    for (size_t i = 0; i < kWidth; ++i) ASSERT_EQ(back[t * kWidth + i], factor * ValueOf(rank, t, i)) << t;
  }
}

TEST(TokenRouting, BetweenUnevenHosts) { RunOnHosts(5, 2, DispatchAndCombine); }

TEST(TokenRouting, OnOneHost) { RunRanks(3, DispatchAndCombine); }

TEST(TokenRouting, OfARankAlone) { DispatchAndCombine(*Communicator::Single()); }

TEST(TokenRouting, OneDispatchAfterTheOtherInAnyWidthAndType) {
  RunOnHosts(4, 2, [](Communicator& comm) {
    const std::vector<int32_t> placement = {0, 1, 2, 3};
    const std::vector<int32_t> experts = {3, 0, 2, -1, 1, 2};
    auto routing = TokenRouting::Create(comm, {experts, 2, {}, placement});
    ASSERT_TRUE(routing.ok()) << routing.status();
    for (const size_t width : {size_t{0}, size_t{1}, size_t{40'000}, size_t{1}}) {
      std::vector<uint8_t> rows(3 * width, static_cast<uint8_t>(comm.rank() + 1));
      std::vector<uint8_t> received((*routing)->num_received() * width);
      ASSERT_EQ((*routing)->Dispatch(rows.data(), received.data(), width, DataType::kU8).Wait(),
                absl::OkStatus());
      size_t at = 0;
      for (int source = 0; source < 4; ++source) {
        for (size_t i = (*routing)->received_from()[source] * width; i > 0; --i)
          ASSERT_EQ(received[at++], source + 1);
      }
      std::vector<uint8_t> back(3 * width);
      ASSERT_EQ((*routing)->Combine(received.data(), back.data(), width, DataType::kU8).Wait(),
                absl::OkStatus());
      for (size_t i = 0; i < back.size(); ++i) {
        ASSERT_EQ(back[i], (i / width == 1 ? 1 : 2) * (comm.rank() + 1)) << i;
      }
    }
  });
}

TEST(TokenRouting, WrongArgumentsOfOneRankAreAnErrorOnAll) {
  RunRanks(3, [](Communicator& comm) {
    const std::vector<int32_t> placement = {0, 1, 2};
    std::vector<int32_t> experts = {0, 1, 2};
    const auto create = [&](const TokenChoices& choices) {
      return TokenRouting::Create(comm, choices).status();
    };
    experts[1] = comm.rank() == 1 ? 3 : 1;
    const absl::Status unknown = create({experts, 1, {}, placement});
    EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(unknown.message().find(comm.rank() == 1 ? "token 1 has expert 3 of 3" : "rank 1"),
              std::string::npos)
        << unknown;
    experts[1] = 1;
    const std::vector<int32_t> other = {2, 1, 0};
    EXPECT_EQ(create({experts, 1, {}, comm.rank() == 2 ? other : placement}).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(create({experts, comm.rank() == 0 ? 2 : 1, {}, placement}).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(create({experts, 0, {}, placement}).code(), absl::StatusCode::kInvalidArgument);
    const std::vector<float> weights = {1.0f};
    EXPECT_EQ(create({experts, 1, weights, placement}).code(), absl::StatusCode::kInvalidArgument);
    const std::vector<int32_t> nowhere = {0, 1, 3};
    EXPECT_EQ(create({experts, 1, {}, nowhere}).code(), absl::StatusCode::kInvalidArgument);
    // And the group goes on.
    auto routing = TokenRouting::Create(comm, {experts, 1, {}, placement});
    ASSERT_TRUE(routing.ok()) << routing.status();
    float row[3] = {1, 2, 3};
    EXPECT_EQ((*routing)->Dispatch(row, row, 1, DataType::kF32).Wait().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ((*routing)->Dispatch(nullptr, row, 1, DataType::kF32).Wait().code(),
              absl::StatusCode::kInvalidArgument);
    float received[3];
    EXPECT_EQ((*routing)->Dispatch(row, received, 1, DataType::kF32).Wait(), absl::OkStatus());
  });
}

}  // namespace
}  // namespace cohort::comm
