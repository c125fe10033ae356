#include "serving/batch_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "serving/batch_plan_check.h"

namespace cohort::serving {
namespace {

using Ids = std::vector<int64_t>;

const PlanLimits kLimits{4, 16, 4};

struct World {
  PlanInput input;
  std::map<int64_t, std::vector<int32_t>> pages;

  explicit World(std::vector<int32_t> available, PlanLimits limits = kLimits) {
    input.limits = limits;
    input.available_pages = std::move(available);
  }
  // The pages given are what it holds.
  void Run(int64_t id, int32_t tokens, int32_t cached, std::vector<int32_t> held, int32_t rank = 0) {
    pages[id] = std::move(held);
    input.running.push_back({id, rank, tokens, cached, pages[id]});
  }
  void Wait(int64_t id, int32_t tokens, bool blocked = false, std::vector<CachedPrefix> prefix = {}) {
    input.waiting.push_back({id, tokens, blocked, std::move(prefix)});
  }
  BatchPlan Plan() {
    BatchPlan plan = MakeBatchPlan(input);
    EXPECT_EQ(CheckBatchPlan(input, plan), absl::OkStatus());
    return plan;
  }
};

Ids Admitted(const BatchPlan& plan) {
  Ids ids;
  for (const auto& admission : plan.admitted) ids.push_back(admission.id);
  return ids;
}
int32_t Tokens(const BatchPlan& plan, int64_t id) {
  for (const auto& slice : plan.slices) {
    if (slice.id == id) return slice.tokens;
  }
  return 0;
}

TEST(BatchPlanTest, DecodesBeforePrefills) {
  World world({10});
  world.Run(1, 40, 8, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  world.Run(2, 5, 4, {10});
  world.Run(3, 4, 3, {11});
  const BatchPlan plan = world.Plan();
  EXPECT_EQ(Tokens(plan, 2), 1);
  EXPECT_EQ(Tokens(plan, 3), 1);
  EXPECT_EQ(Tokens(plan, 1), 14);  // what is left of 16
  EXPECT_EQ(plan.slices[0].new_pages, 1);
  EXPECT_EQ(plan.slices[1].new_pages, 0);
}

TEST(BatchPlanTest, PreemptsTheYoungest) {
  World world({0});
  world.Run(1, 5, 4, {0});
  world.Run(2, 7, 6, {1, 2});
  world.Run(3, 3, 2, {3});
  const BatchPlan plan = world.Plan();
  EXPECT_EQ(plan.preempted, Ids{3});
  EXPECT_EQ(Tokens(plan, 1), 1);
  EXPECT_EQ(Tokens(plan, 2), 1);
}

TEST(BatchPlanTest, TheYoungestPreemptsItself) {
  World world({0});
  world.Run(1, 4, 3, {0});
  world.Run(2, 5, 4, {1});
  EXPECT_EQ(world.Plan().preempted, Ids{2});
}

TEST(BatchPlanTest, SharedPagesAreNotFreedByOneOfTheirHolders) {
  World world({0});
  world.Run(1, 9, 8, {0, 1});
  world.Run(2, 9, 8, {0, 2});
  world.Run(3, 6, 5, {0, 1});  // holds nothing of its own
  const BatchPlan plan = world.Plan();
  EXPECT_EQ(plan.preempted, (Ids{3, 2}));
}

TEST(BatchPlanTest, NoAdmissionBesideAPreemption) {
  World world({0});
  world.Run(1, 5, 4, {0});
  world.Run(2, 20, 19, {1, 2, 3, 4, 5});
  world.Wait(3, 1);
  EXPECT_TRUE(world.Plan().admitted.empty());
}

TEST(BatchPlanTest, AdmitsInOrderAndStopsAtTheFirstThatDoesNotFit) {
  World world({6});
  world.Wait(1, 8);
  world.Wait(2, 20);  // five pages of four left
  world.Wait(3, 2);
  EXPECT_EQ(Admitted(world.Plan()), Ids{1});
}

TEST(BatchPlanTest, BlockedOnesAreOvertaken) {
  World world({10});
  world.Wait(1, 4, true);
  world.Wait(2, 4);
  EXPECT_EQ(Admitted(world.Plan()), Ids{2});
}

TEST(BatchPlanTest, LongPromptsAreCut) {
  World world({20});
  world.Wait(1, 50);
  world.Wait(2, 3);
  const BatchPlan plan = world.Plan();
  EXPECT_EQ(Tokens(plan, 1), 16);
  EXPECT_EQ(plan.slices[0].new_pages, 13);
  EXPECT_EQ(Admitted(plan), Ids{1});  // no tokens are left for the other
}

TEST(BatchPlanTest, CachedPrefixesDecideTheRank) {
  World world({10, 10});
  world.Wait(1, 12, false, {{0, 0}, {8, 2}});
  world.Wait(2, 12);
  const BatchPlan plan = world.Plan();
  ASSERT_EQ(Admitted(plan), (Ids{1, 2}));
  EXPECT_EQ(plan.admitted[0].rank, 1);
  EXPECT_EQ(plan.admitted[0].cached, 8);
  EXPECT_EQ(Tokens(plan, 1), 4);
  EXPECT_EQ(plan.admitted[1].rank, 0);  // the less busy one
}

// A simulation: requests of random sizes come, run and go. Every plan is proved, every sequence ends, and
// nobody is overtaken at his first admission.
TEST(BatchPlanTest, RandomWorkloads) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    std::mt19937 random(seed);
    const int32_t ranks = 1 + static_cast<int32_t>(random() % 3);
    const int32_t total = 8 + static_cast<int32_t>(random() % 20);
    const PlanLimits limits{1 + static_cast<int32_t>(random() % 5), 6 + static_cast<int32_t>(random() % 20),
                            1 + static_cast<int32_t>(random() % 5)};
    struct State {
      int32_t tokens, last, rank = 0, cached = 0, steps = 0;
      std::vector<int32_t> pages;
    };
    std::map<int64_t, State> waiting, running;
    std::vector<std::vector<int32_t>> free(ranks);
    for (auto& pages : free) {
      for (int32_t page = 0; page < total; ++page) pages.push_back(page);
    }
    const int32_t capacity = total * limits.page_size;
    int64_t next = 0, finished = 0, last_first_admission = -1;
    int steps = 0;
    for (; finished < 60; ++steps) {
      ASSERT_LT(steps, 60 * capacity) << "no progress, seed " << seed;
      while (next < 60 && random() % 3 == 0) {
        const auto prompt = 1 + static_cast<int32_t>(random() % (capacity - 1));
        waiting[next++] = {prompt, prompt + 1 + static_cast<int32_t>(random() % (capacity - prompt)), 0, 0, 0,
                           {}};
      }
      PlanInput input;
      input.limits = limits;
      for (const auto& pages : free) input.available_pages.push_back(static_cast<int32_t>(pages.size()));
      for (auto& [id, state] : running) {
        input.running.push_back({id, state.rank, state.tokens, state.cached, state.pages});
      }
      for (auto& [id, state] : waiting) input.waiting.push_back({id, state.tokens, false, {}});
      const BatchPlan plan = MakeBatchPlan(input);
      ASSERT_EQ(CheckBatchPlan(input, plan), absl::OkStatus()) << "seed " << seed << ", step " << steps;
      const auto release = [&](State& state) {
        free[state.rank].insert(free[state.rank].end(), state.pages.begin(), state.pages.end());
        state.pages.clear();
        state.cached = 0;
      };
      for (int64_t id : plan.preempted) {
        release(running[id]);
        waiting.insert(running.extract(id));
      }
      for (const auto& admission : plan.admitted) {
        if (waiting[admission.id].steps == 0) {
          ASSERT_GT(admission.id, last_first_admission);
          last_first_admission = admission.id;
        }
        waiting[admission.id].rank = admission.rank;
        running.insert(waiting.extract(admission.id));
      }
      for (const auto& slice : plan.slices) {
        State& state = running[slice.id];
        for (int32_t i = 0; i < slice.new_pages; ++i) {
          ASSERT_FALSE(free[state.rank].empty());
          state.pages.push_back(free[state.rank].back());
          free[state.rank].pop_back();
        }
        ++state.steps;
        state.cached += slice.tokens;
        if (state.cached < state.tokens) continue;
        if (++state.tokens < state.last) continue;
        release(state);
        running.erase(slice.id);
        ++finished;
      }
    }
  }
}

TEST(BatchPlanTest, TheCheckerFindsWhatIsWrong) {
  World world({2});
  world.Run(1, 4, 3, {0});
  world.Run(2, 4, 3, {1});
  world.Wait(3, 4);
  world.Wait(4, 4);
  const BatchPlan good = world.Plan();
  const auto broken = [&](auto change) {
    BatchPlan plan = good;
    change(plan);
    return std::string(CheckBatchPlan(world.input, plan).message());
  };
  EXPECT_NE(
      broken([](auto& plan) { plan.slices.erase(plan.slices.begin()); }).find("leaves out the decode 1"),
      std::string::npos);
  EXPECT_NE(broken([](auto& plan) { plan.slices[0].tokens = 2; }).find("has 1 left"), std::string::npos);
  EXPECT_NE(broken([](auto& plan) { plan.slices.push_back(plan.slices[0]); }).find("twice"),
            std::string::npos);
  EXPECT_NE(broken([](auto& plan) { plan.preempted = {1}; }).find("which it preempts"), std::string::npos);
  EXPECT_NE(broken([](auto& plan) {
              plan.preempted = {1};
              plan.slices.erase(plan.slices.begin());
            }).find("which is younger"),
            std::string::npos);
  EXPECT_NE(broken([](auto& plan) { plan.slices[0].new_pages = 3; }).find("takes"), std::string::npos);
  EXPECT_NE(broken([](auto& plan) {
              plan.admitted = {{4, 0, 0}};
              plan.slices = {plan.slices[0], plan.slices[1], {4, 0, 4, 1}};
            }).find("before one that came earlier"),
            std::string::npos);
  EXPECT_NE(broken([](auto& plan) { plan.slices[0].rank = 1; }).find("instead of 0"), std::string::npos);
}

}  // namespace
}  // namespace cohort::serving
