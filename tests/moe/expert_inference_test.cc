// Inference with experts spread over ranks: the same logits as with all of them on one, also while some ranks
// have nothing to compute.
#include <gtest/gtest.h>

#include <array>

#include "tests/moe/layer_under_test.h"
#include "tests/support/ranks.h"

namespace cohort::moe {
namespace {

using runtime::CpuDevice;
using runtime::PagedBatch;
using runtime::Tensor;

// `count` tokens after `done` earlier ones of one sequence, which lives in page 0; no sequence where count is
// 0.
PagedBatch MakeBatch(int done, int count) {
  const auto indices = [](runtime::Shape shape, const std::vector<int32_t>& values) {
    return Tensor::FromHost(CpuDevice(), std::move(shape), absl::MakeConstSpan(values));
  };
  std::vector<int32_t> tokens, places, rows;
  for (int i = 0; i < count; ++i) {
    tokens.push_back((done + i) * 5 % 19);
    places.push_back(done + i);
    rows.push_back(i);
  }
  const int sequences = count > 0 ? 1 : 0;
  return {.tokens = indices({count}, tokens),
          .positions = indices({count}, places),
          .slots = indices({count}, places),
          .query_offsets = count > 0 ? indices({2}, {0, count}) : indices({1}, {0}),
          .context_lengths = indices({sequences}, std::vector<int32_t>(sequences, done + count)),
          .page_table = indices({sequences, 1}, std::vector<int32_t>(sequences, 0)),
          .logit_rows = indices({count}, rows)};
}

TEST(ExpertInference, LogitsAreTheSameWithExpertsOnOtherRanks) {
  for (const char* gate : {"softmax", "sigmoid"}) {
    testing::RunRanks(2, [&](comm::Communicator& world) {
      runtime::SetCpuThreads(1);
      runtime::ModelConfig config = runtime::TinyConfig("qwen3_moe");
      config.router.gate = gate;
      const auto make = [&](std::shared_ptr<ExpertGroup> ranks) {
        return runtime::MakeDecoder(config, CpuDevice(),
                                    {.compute = DataType::kF32,
                                     .trainable = false,
                                     .recompute = false,
                                     .experts = MakeMoeFactory(std::move(ranks))});
      };
      const auto whole = make(std::make_shared<ExpertGroup>());
      const auto spread = make(std::make_shared<ExpertGroup>(
          std::shared_ptr<comm::Communicator>(&world, [](comm::Communicator*) {})));
      runtime::KvCache whole_cache = whole->MakeCache(1, 32), spread_cache = spread->MakeCache(1, 32);
      int done = 0;
      // A prompt, then single tokens; the second rank joins later and pauses in between.
      for (const auto& counts : {std::array{6, 0}, {1, 4}, {1, 0}, {0, 1}}) {
        const int count = counts[world.rank()];
        const PagedBatch batch = MakeBatch(done, count);
        done += count;
        const auto got = spread->ForwardPaged(batch, spread_cache);
        ASSERT_TRUE(got.ok()) << got.status();
        const auto want = whole->ForwardPaged(batch, whole_cache);
        ASSERT_TRUE(want.ok()) << want.status();
        EXPECT_LT(runtime::RelativeError(ToHost(*got), ToHost(*want)), 1e-5);
      }
    });
  }
}

}  // namespace
}  // namespace cohort::moe
