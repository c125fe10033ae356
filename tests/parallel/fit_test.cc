// What does not fit is refused before any rank does anything, with the key and the numbers.
#include "parallel/fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/tiny_model.h"

namespace cohort::parallel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// On one host.
absl::Status Check(const runtime::ModelConfig& config, const ParallelOptions& options, MeshShape shape,
                   int ranks) {
  const auto mesh = Mesh::Create(shape, std::vector<int>(static_cast<size_t>(ranks), 0));
  return mesh.ok() ? CheckFit(config, options, *mesh) : mesh.status();
}

std::string Refusal(const runtime::ModelConfig& config, const ParallelOptions& options, MeshShape shape,
                    int ranks) {
  const absl::Status status = Check(config, options, shape, ranks);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

runtime::ModelConfig Dense() { return runtime::TinyConfig("llama"); }  // 2 blocks, 4 heads, 2 key/value heads
runtime::ModelConfig Sparse() { return runtime::TinyConfig("qwen3_moe"); }  // 4 experts

TEST(Fit, WhatFitsIsAccepted) {
  EXPECT_TRUE(Check(Dense(), {}, {.pipeline = 2, .context = 2, .tensor = 2}, 8).ok());
  EXPECT_TRUE(Check(Sparse(), {}, {.tensor = 2, .expert = 4}, 8).ok());
}

TEST(Fit, AxesThatDoNotDivideTheRanks) {
  EXPECT_THAT(Refusal(Dense(), {}, {.pipeline = 3}, 8),
              AllOf(HasSubstr("parallel.pipeline is 3"), HasSubstr("8 ranks")));
  EXPECT_THAT(Refusal(Dense(), {}, {.context = 2, .tensor = 3}, 8),
              AllOf(HasSubstr("parallel.tensor is 3"), HasSubstr("4 ranks")));
  EXPECT_THAT(Refusal(Dense(), {}, {.shard = 0}, 8), HasSubstr("parallel.shard is 0"));
  EXPECT_THAT(Refusal(Sparse(), {}, {.pipeline = 2, .expert = 3}, 8),
              AllOf(HasSubstr("parallel.expert is 3"), HasSubstr("4 ranks of a pipeline stage")));
}

TEST(Fit, MoreStagesThanBlocks) {
  EXPECT_THAT(Refusal(Dense(), {}, {.pipeline = 4}, 4),
              AllOf(HasSubstr("parallel.pipeline is 4"), HasSubstr("4 stages"), HasSubstr("2 blocks")));
  EXPECT_THAT(Refusal(Dense(), {.schedule = "interleaved", .stages_per_rank = 2}, {.pipeline = 2}, 2),
              AllOf(HasSubstr("parallel.pipeline is 2"), HasSubstr("parallel.stages_per_rank 2"),
                    HasSubstr("4 stages"), HasSubstr("2 blocks")));
  EXPECT_THAT(Refusal(Dense(), {.stages_per_rank = 0}, {}, 1), HasSubstr("parallel.stages_per_rank is 0"));
}

TEST(Fit, TiedEmbeddingsOnTwoStages) {
  runtime::ModelConfig tied = Dense();
  tied.tie_word_embeddings = true;
  EXPECT_TRUE(Check(tied, {}, {.pipeline = 2}, 2).ok());
  EXPECT_TRUE(Check(tied, {}, {.tensor = 2}, 2).ok());
}

TEST(Fit, HeadsThatTensorDoesNotDivide) {
  EXPECT_THAT(Refusal(Dense(), {}, {.tensor = 3}, 3),
              AllOf(HasSubstr("parallel.tensor is 3"), HasSubstr("4 heads")));
  EXPECT_THAT(Refusal(Dense(), {}, {.tensor = 4}, 4),  // divides the heads, but not these
              AllOf(HasSubstr("parallel.tensor is 4"), HasSubstr("2 key/value heads")));
}

TEST(Fit, HeadsThatAContextGroupCannotExchange) {
  ParallelOptions options;
  options.context.ways.forward.head_parts = options.context.ways.backward.head_parts = 4;
  EXPECT_TRUE(Check(Dense(), options, {.context = 4}, 4).ok());
  EXPECT_THAT(Refusal(Dense(), options, {.context = 2}, 4),
              AllOf(HasSubstr("parallel.context_way"), HasSubstr("among 4 ranks"),
                    HasSubstr("parallel.context, which is 2")));
  EXPECT_THAT(Refusal(Dense(), options, {.context = 4, .tensor = 2}, 8),
              AllOf(HasSubstr("parallel.context_way"), HasSubstr("among 4 ranks"),
                    HasSubstr("parallel.tensor 2 leaves 2 heads")));
  options.context.ways.backward.head_parts = 2;
  EXPECT_THAT(Refusal(Dense(), options, {.context = 4}, 4),
              HasSubstr("4 ranks in the forward and 2 in the backward"));
}

TEST(Fit, ExpertsThatDoNotFit) {
  EXPECT_THAT(Refusal(Sparse(), {}, {.expert = 8}, 8),
              AllOf(HasSubstr("parallel.expert is 8"), HasSubstr("4 experts")));
  runtime::ModelConfig capacity = Sparse();
  capacity.router.capacity_factor = 1.25;
  EXPECT_TRUE(Check(capacity, {}, {.expert = 2}, 4).ok());
  EXPECT_THAT(Refusal(capacity, {}, {.context = 2}, 4),
              AllOf(HasSubstr("router.capacity_factor is 1.25"), HasSubstr("parallel.context 2")));
  EXPECT_THAT(Refusal(capacity, {}, {.tensor = 2}, 4), HasSubstr("parallel.tensor 2"));
  const ParallelOptions hybrid = {.hybrid = HybridOptions{.tokens = 64}};
  EXPECT_TRUE(Check(Sparse(), hybrid, {.expert = 2}, 4).ok());
  EXPECT_TRUE(Check(capacity, hybrid, {.pipeline = 2}, 2).ok());  // every sequence is on one rank
  EXPECT_THAT(Refusal(capacity, hybrid, {.expert = 2}, 4),
              AllOf(HasSubstr("router.capacity_factor is 1.25"), HasSubstr("parallel.hybrid_tokens 64"),
                    HasSubstr("4 ranks")));
}

TEST(Fit, ShardingLevelsThatDoNotDivide) {
  ParallelOptions options;
  options.sharding = *ParseSharding("frontier");
  EXPECT_THAT(Refusal(Dense(), options, {}, 3),
              AllOf(HasSubstr("parallel.sharding"), HasSubstr("2 ranks"), HasSubstr("3 ranks")));
  EXPECT_TRUE(Check(Dense(), options, {}, 4).ok());
}

TEST(Fit, NumbersOfTheBatch) {
  EXPECT_THAT(Refusal(Dense(), {.global_batch = 0}, {}, 1), HasSubstr("train.global_batch is 0"));
  EXPECT_THAT(Refusal(Dense(), {.micro_batch = -1}, {}, 1), HasSubstr("train.micro_batch is -1"));
}

}  // namespace
}  // namespace cohort::parallel
