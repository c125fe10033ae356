// Trainings that move from mesh to mesh in memory: what moves is what must, and the losses are those of a run that
// stayed where it was.
#include "parallel/reshard/move_training.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/reshard/gradient_layout.h"
#include "tests/parallel/arranged_training.h"

namespace cohort::parallel {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kTimeout = absl::Seconds(20);

comm::transfer::Options OptionsOfEngine() {
  comm::transfer::Options options;
  options.rails = {"lo"};
  return options;
}

Layout LayoutOf(const runtime::ModelConfig& config, const Spread& spread) {
  const auto mesh =
      Mesh::Create(spread.arrangement.shape, std::vector<int>(static_cast<size_t>(spread.ranks), 0));
  EXPECT_TRUE(mesh.ok()) << mesh.status();
  auto layout = TrainingLayout(config, spread.arrangement, *mesh);
  EXPECT_TRUE(layout.ok()) << layout.status();
  return *std::move(layout);
}

// The first `ranks` of `world`.
std::vector<int> First(int ranks, int world) {
  std::vector<int> numbers;
  for (int rank = 0; rank < world; ++rank) numbers.push_back(rank < ranks ? rank : -1);
  return numbers;
}

// Each has the state of one number of the old mesh, or (-1) of none.
std::vector<std::vector<int>> Each(const std::vector<int>& numbers) {
  std::vector<std::vector<int>> each;
  for (const int number : numbers) each.push_back(number < 0 ? std::vector<int>{} : std::vector<int>{number});
  return each;
}

class MoveTrainingTest : public ::testing::TestWithParam<const char*> {
 protected:
  const runtime::ModelConfig config_ = ArrangedConfig(GetParam());
  const std::vector<Spread> spreads_ = config_.num_experts > 0 ? SparseSpreads() : DenseSpreads();
};

TEST_P(MoveTrainingTest, TheLayoutIsWhatRanksHold) {
  for (const Spread& spread : spreads_) {
    const Layout layout = LayoutOf(config_, spread);
    testing::RunRanks(spread.ranks, [&](comm::Communicator& world) {
      ArrangedTraining training = ArrangedTraining::Make(config_, DataType::kF32, spread, world);
      const HeldState held = HeldBy(*training.model, training.optimizer);
      const std::vector<HeldPiece>& expected = layout.ranks[static_cast<size_t>(world.rank())];
      ASSERT_EQ(held.pieces.size(), expected.size()) << spread.name;
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(held.pieces[i].piece, expected[i].piece) << spread.name;
        EXPECT_EQ(held.pieces[i].dtype, expected[i].dtype) << spread.name;
      }
      const HeldState gradients = GradientsOf(*training.model);
      const Layout gradient_layout = GradientLayout(layout);
      const auto& expected_gradients = gradient_layout.ranks[static_cast<size_t>(world.rank())];
      ASSERT_EQ(gradients.pieces.size(), expected_gradients.size()) << spread.name;
      for (size_t i = 0; i < expected_gradients.size(); ++i) {
        EXPECT_EQ(gradients.pieces[i].piece, expected_gradients[i].piece) << spread.name;
        EXPECT_EQ(gradients.pieces[i].dtype, expected_gradients[i].dtype) << spread.name;
      }
    });
  }
}

// Bytes of a new layout that the rank that is to hold them has not: nothing less can move.
int64_t Needed(const Layout& before, const Layout& after) {
  int64_t needed = 0;
  for (size_t rank = 0; rank < after.ranks.size(); ++rank) {
    for (const HeldPiece& held : after.ranks[rank]) {
      std::vector<bool> there(static_cast<size_t>(held.piece.size()), false);
      for (const HeldPiece& old : before.ranks[rank]) {
        if (old.piece.name != held.piece.name) continue;
        ForEachOverlap(held.piece, old.piece, [&](int64_t at, int64_t, int64_t count) {
          std::fill_n(there.begin() + at, count, true);
        });
      }
      needed += std::count(there.begin(), there.end(), false) * static_cast<int64_t>(SizeOf(held.dtype));
    }
  }
  return needed;
}

TEST_P(MoveTrainingTest, BetweenAnyTwoMeshesOnlyWhatMustMoves) {
  for (const Spread& from : spreads_) {
    for (const Spread& to : spreads_) {
      const std::string what = from.name + " -> " + to.name;
      const int world = std::max(from.ranks, to.ranks);
      const auto move = PlanMove(LayoutOf(config_, from), LayoutOf(config_, to),
                                 {Each(First(from.ranks, world)), First(to.ranks, world)}, {});
      ASSERT_TRUE(move.ok()) << what << ": " << move.status();
      const absl::Status checked = CheckReshard(move->before, move->after, move->options, move->plan);
      EXPECT_TRUE(checked.ok()) << what << ": " << checked;
      EXPECT_EQ(move->totals().moved(), Needed(move->before, move->after)) << what;
      if (&from == &to) {
        EXPECT_EQ(move->totals().moved(), 0) << what;
      }
    }
  }
}

// Trains two steps in each of the arrangements, one after another, in the same processes.
TEST_P(MoveTrainingTest, ATrainingGoesOnFromMeshToMesh) {
  constexpr int kSteps = 2;
  for (const DataType compute : {DataType::kF32, DataType::kBF16}) {
    std::vector<Spread> chain;
    for (const Spread& spread : spreads_) {
      // A tensor group rounds in other places (resume_test.cc).
      if (compute == DataType::kF32 || spread.arrangement.shape.tensor == 1) chain.push_back(spread);
    }
    const size_t steps = kSteps * chain.size();
    SharedDoubles stayed(steps), moved(steps);
    testing::RunRanks(1, [&](comm::Communicator& world) {
      ArrangedTraining training = ArrangedTraining::Make(config_, compute, chain[0], world);
      training.model->Initialize(5);
      training.Steps(static_cast<int>(steps), stayed, 0);
    });
    testing::RunRanks(4, [&](comm::Communicator& world) {
      auto resharder = Resharder::Create(world, OptionsOfEngine());
      ASSERT_TRUE(resharder.ok()) << resharder.status();
      std::unique_ptr<comm::Communicator> old_group;
      std::optional<ArrangedTraining> old;
      for (size_t i = 0; i < chain.size(); ++i) {
        const bool takes_part = world.rank() < chain[i].ranks;
        auto group = world.Split(takes_part ? 0 : -1, world.rank());
        ASSERT_TRUE(group.ok()) << group.status();
        std::optional<ArrangedTraining> next;
        if (takes_part) next = ArrangedTraining::Make(config_, compute, chain[i], **group);
        if (i == 0) {
          if (takes_part) next->model->Initialize(5);
        } else {
          const auto move = PlanMove(
              LayoutOf(config_, chain[i - 1]), LayoutOf(config_, chain[i]),
              {Each(First(chain[i - 1].ranks, world.size())), First(chain[i].ranks, world.size())}, {});
          ASSERT_TRUE(move.ok()) << move.status();
          const auto part = [](std::optional<ArrangedTraining>& training) {
            return training ? TrainingPart{training->model.get(), &training->optimizer} : TrainingPart();
          };
          const absl::Status status =
              MoveTraining(**resharder, *move, OfferOf(part(old)), part(next), kTimeout);
          ASSERT_TRUE(status.ok()) << chain[i].name << ": " << status;
        }
        old = std::move(next);
        old_group = *std::move(group);
        if (takes_part) old->Steps(kSteps, moved, i * kSteps);
      }
      old.reset();
    });
    ExpectSameLosses(moved.Take(), stayed.Take(), ToleranceOf(compute), Name(compute), kSteps + 1);
  }
}

// The same, in the middle of steps: one mesh computes the gradients, while the state from before the step moves; then they
// move too, and the next mesh makes the update.
TEST_P(MoveTrainingTest, AStepIsHandedOver) {
  for (const DataType compute : {DataType::kF32, DataType::kBF16}) {
    std::vector<Spread> chain;
    for (const Spread& spread : spreads_) {
      if (compute == DataType::kF32 || spread.arrangement.shape.tensor == 1) chain.push_back(spread);
    }
    const size_t steps = chain.size();
    SharedDoubles stayed(steps), moved(steps);
    testing::RunRanks(1, [&](comm::Communicator& world) {
      ArrangedTraining training = ArrangedTraining::Make(config_, compute, chain[0], world);
      training.model->Initialize(5);
      training.Steps(static_cast<int>(steps), stayed, 0);
    });
    testing::RunRanks(4, [&](comm::Communicator& world) {
      auto resharder = Resharder::Create(world, OptionsOfEngine());
      ASSERT_TRUE(resharder.ok()) << resharder.status();
      const auto make_group = [&](const Spread& spread) {
        auto group = world.Split(world.rank() < spread.ranks ? 0 : -1, world.rank());
        EXPECT_TRUE(group.ok()) << group.status();
        return *std::move(group);
      };
      const auto state_of = [](std::optional<ArrangedTraining>& training) {
        return training ? HeldBy(*training->model, training->optimizer) : HeldState();
      };
      const auto gradients_of = [](std::optional<ArrangedTraining>& training) {
        return training ? GradientsOf(*training->model) : HeldState();
      };
      std::unique_ptr<comm::Communicator> old_group = make_group(chain[0]);
      std::optional<ArrangedTraining> old;
      if (old_group != nullptr) {
        old = ArrangedTraining::Make(config_, compute, chain[0], *old_group);
        old->model->Initialize(5);
      }
      for (size_t i = 0; i < steps; ++i) {
        const Spread &from = chain[i], &to = chain[(i + 1) % steps];
        const Layout before = LayoutOf(config_, from), after = LayoutOf(config_, to);
        const Members members = {Each(First(from.ranks, world.size())), First(to.ranks, world.size())};
        const auto state = PlanMove(before, after, members, {});
        const auto gradients = PlanMove(GradientLayout(before), GradientLayout(after), members, {});
        ASSERT_TRUE(state.ok() && gradients.ok()) << state.status() << gradients.status();
        auto group = make_group(to);
        std::optional<ArrangedTraining> next;
        if (group != nullptr) next = ArrangedTraining::Make(config_, compute, to, *group);

        std::future<absl::Status> moving =
            std::async(std::launch::async, [&, held = state_of(old), wanted = state_of(next)] {
              return MoveState(**resharder, *state, held, wanted, kTimeout);
            });
        std::vector<double> sums(3);
        runtime::StepResult result;
        if (old) {
          result = *old->model->ComputeGradients(static_cast<int64_t>(i));
          sums = {result.sums.loss, static_cast<double>(result.sums.tokens), *old->model->GradientNorm()};
        }
        absl::Status status = moving.get();
        ASSERT_TRUE(status.ok()) << to.name << ": " << status;
        ASSERT_TRUE(world.Broadcast(sums.data(), sums.size(), DataType::kF64, 0).Wait().ok());
        status = MoveState(**resharder, *gradients, gradients_of(old), gradients_of(next), kTimeout);
        ASSERT_TRUE(status.ok()) << to.name << ": " << status;
        if (world.rank() == 0) moved[i] = sums[0] / sums[1];
        // (No gate of these models is balanced by a bias, so that loads do not count.)
        if (!old) {
          result.sums.expert_load.assign(static_cast<size_t>(config_.num_hidden_layers),
                                         std::vector<int64_t>(static_cast<size_t>(config_.num_experts)));
        }
        if (next) {
          next->optimizer.step = static_cast<int64_t>(i);
          runtime::AdamWStep(next->model->slices(), {}, /*lr=*/0.004, runtime::ClipFactor(sums[2], 1),
                             next->optimizer);
          status = next->model->AfterStep(result);
          ASSERT_TRUE(status.ok()) << status;
        }
        old = std::move(next);
        old_group = std::move(group);
      }
      old.reset();
    });
    ExpectSameLosses(moved.Take(), stayed.Take(), ToleranceOf(compute), Name(compute));
  }
}

// A rank is killed; the others have everything that it had, and go on without it.
TEST_P(MoveTrainingTest, SurvivorsGoOn) {
  constexpr int kSteps = 3;
  const bool sparse = config_.num_experts > 0;
  const Spread before = Over("four, hsdp", 4, {.shard = 2, .expert = sparse ? 2 : 1}, "hsdp");
  const Spread after = Over("three, zero-3", 3, {.shard = 3}, "zero-3");
  SharedDoubles stayed(2 * kSteps), moved(2 * kSteps);
  testing::RunRanks(1, [&](comm::Communicator& world) {
    ArrangedTraining training =
        ArrangedTraining::Make(config_, DataType::kF32, Over("", 1, {}, "ddp"), world);
    training.model->Initialize(5);
    training.Steps(2 * kSteps, stayed, 0);
  });
  testing::SharedCounter trained;
  testing::RunRanks(4,
                    [&](comm::Communicator& world) {
                      ArrangedTraining old = ArrangedTraining::Make(config_, DataType::kF32, before, world);
                      old.model->Initialize(5);
                      old.Steps(kSteps, moved, 0);
                      trained.Add();
                      ASSERT_TRUE(trained.WaitFor(4));
                      if (world.rank() == 1) raise(SIGKILL);
                      const auto change = world.Shrink({.patience = absl::Seconds(5)});
                      ASSERT_TRUE(change.ok()) << change.status();
                      EXPECT_EQ(change->previous_rank, (std::vector<int>{0, 2, 3}));
                      const auto move = PlanMove(LayoutOf(config_, before), LayoutOf(config_, after),
                                                 {Each(change->previous_rank), First(3, 3)}, {});
                      ASSERT_TRUE(move.ok()) << move.status();
                      auto resharder = Resharder::Create(world, OptionsOfEngine());
                      ASSERT_TRUE(resharder.ok()) << resharder.status();
                      ArrangedTraining next = ArrangedTraining::Make(config_, DataType::kF32, after, world);
                      const absl::Status status =
                          MoveTraining(**resharder, *move, OfferOf({old.model.get(), &old.optimizer}),
                                       {next.model.get(), &next.optimizer}, kTimeout);
                      ASSERT_TRUE(status.ok()) << status;
                      next.Steps(kSteps, moved, kSteps);
                    },
                    {.victims = {1}});
  ExpectSameLosses(moved.Take(), stayed.Take(), ToleranceOf(DataType::kF32), "after a loss");
}

INSTANTIATE_TEST_SUITE_P(Models, MoveTrainingTest, ::testing::Values("llama", "llama_tied", "qwen3_moe"),
                         [](const auto& info) { return std::string(info.param); });

TEST(PlanMoveTest, WhatOnlyTheLostHadIsNamed) {
  const runtime::ModelConfig config = ArrangedConfig("llama");
  const Spread four = Over("", 4, {.shard = 4}, "zero-3"), three = Over("", 3, {.shard = 3}, "zero-3");
  const auto move =
      PlanMove(LayoutOf(config, four), LayoutOf(config, three), {{{0}, {1}, {3}}, {0, 1, 2}}, {});
  EXPECT_EQ(move.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(move.status().message()),
              HasSubstr("(of those lost, 2 had some of it); it has to be read"));
}

// A survivor has the state of a lost one beside its own, as from a snapshot, and gives it to who needs it.
TEST(PlanMoveTest, WhatASurvivorHasOfTheLostIsASource) {
  const runtime::ModelConfig config = ArrangedConfig("llama");
  const Spread four = Over("", 4, {.shard = 4}, "zero-3"), three = Over("", 3, {.shard = 3}, "zero-3");
  const auto move =
      PlanMove(LayoutOf(config, four), LayoutOf(config, three), {{{0}, {1, 2}, {3}}, {0, 1, 2}}, {});
  ASSERT_TRUE(move.ok()) << move.status();
  EXPECT_TRUE(move->options.lost.empty());
  const absl::Status checked = CheckReshard(move->before, move->after, move->options, move->plan);
  EXPECT_TRUE(checked.ok()) << checked;
}

TEST(PlanMoveTest, MembersThatContradictTheMeshesAreRefused) {
  const Layout two = LayoutOf(ArrangedConfig("llama"), Over("", 2, {.shard = 2}, "zero-3"));
  const auto message = [&](Members members) {
    const auto move = PlanMove(two, two, members, {});
    EXPECT_EQ(move.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(move.status().message());
  };
  EXPECT_THAT(message({{{0}, {1}}, {0}}), HasSubstr("2 members before and 1"));
  EXPECT_THAT(message({{{0}, {2}}, {0, 1}}),
              HasSubstr("rank 1 is number 2 of the old mesh, which has 2 ranks"));
  EXPECT_THAT(message({{{0}, {1}}, {1, 1}}), HasSubstr("ranks 0 and 1 are both number 1 of the new mesh"));
  EXPECT_THAT(message({{{0}, {1}}, {0, -1}}), HasSubstr("no rank is number 1 of the new mesh"));
}

TEST(MovedPartsTest, AnotherTrainingThanTheLayoutSaysIsAnErrorOnEveryRank) {
  const runtime::ModelConfig config = ArrangedConfig("llama");
  const Spread two = Over("", 2, {.shard = 2}, "zero-3"), copies = Over("", 2, {}, "ddp");
  testing::RunRanks(2, [&](comm::Communicator& world) {
    auto resharder = Resharder::Create(world, OptionsOfEngine());
    ASSERT_TRUE(resharder.ok()) << resharder.status();
    ArrangedTraining old = ArrangedTraining::Make(config, DataType::kF32, two, world);
    ArrangedTraining next = ArrangedTraining::Make(config, DataType::kF32, copies, world);
    const auto move = PlanMove(LayoutOf(config, two), LayoutOf(config, two), {{{0}, {1}}, {0, 1}}, {});
    ASSERT_TRUE(move.ok()) << move.status();
    const absl::Status status = MoveTraining(**resharder, *move, OfferOf({old.model.get(), &old.optimizer}),
                                             {next.model.get(), &next.optimizer}, kTimeout);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("the new training of this rank holds"));
  });
}

}  // namespace
}  // namespace cohort::parallel
