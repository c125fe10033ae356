// What a configuration says of the ranks: read, or refused with the numbers.
#include "parallel/arrangement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/config/config.h"
#include "tests/parallel/training_run.h"

namespace cohort::parallel {
namespace {

using ::testing::HasSubstr;

v1::ParallelSection Section(const std::vector<std::string>& set, int ranks) {
  v1::TrainConfig config;
  for (const std::string& text : set) {
    const size_t at = text.find('=');
    const auto* field = v1::ParallelSection::descriptor()->FindFieldByName(text.substr(0, at));
    const auto* reflection = config.parallel().GetReflection();
    if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
      reflection->SetString(config.mutable_parallel(), field, text.substr(at + 1));
    } else {
      reflection->SetInt32(config.mutable_parallel(), field, std::stoi(text.substr(at + 1)));
    }
  }
  runtime::ApplyDefaults(config, {.ranks = ranks, .ranks_on_host = ranks, .cores = 1, .fast_bf16 = false});
  return config.parallel();
}

TEST(ArrangementOfAConfiguration, AllOfItInOneValue) {
  runtime::ModelConfig model = runtime::TinyConfig("llama");
  model.num_hidden_layers = 4;
  const auto read =
      ArrangementOf(Section({"pipeline=2", "context=2", "tensor=2", "sharding=zero-1", "schedule=interleaved",
                             "context_split=striped", "context_way=token-ring"},
                            16),
                    model, 16);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->shape, (MeshShape{.pipeline = 2, .shard = 2, .context = 2, .tensor = 2}));
  EXPECT_EQ(read->stages_per_rank, 2);
  EXPECT_EQ(read->context.split, SplitKind::kStriped);
  EXPECT_EQ(read->context.ways.backward.moves, Moves::kQueries);
}

TEST(ArrangementOfAConfiguration, WhatCannotBeIsRefusedWithTheNumbers) {
  struct Case {
    std::vector<std::string> set;
    const char* message;
  };
  const Case cases[] = {
      {{"hybrid_tokens=64", "context=2"}, "and parallel.context gives it 2: set one of them"},
      {{"pipeline=3", "shard=1"}, "parallel.pipeline is 3, which does not divide the 8 ranks of this run"},
      {{"tensor=8", "shard=2"}, "parallel.tensor is 8, which does not divide the 4 ranks"},
      {{"expert=3"}, "parallel.expert is 3, which does not divide the 8 ranks of this run"},
      {{"expert=8", "pipeline=2"},
       "parallel.expert is 8, which does not divide the 4 ranks of a pipeline stage"},
      {{"pipeline=8"}, "parallel.pipeline is 8, with 1 stage a rank: 8 stages, and the model has 4 blocks"},
      {{"pipeline=4", "stages_per_rank=2", "schedule=interleaved"}, "8 stages, and the model has 4 blocks"},
      {{"pipeline=2", "stages_per_rank=2"}, "parallel.schedule is '1f1b': 1f1b cannot have 2 stages a rank"},
      {{"pipeline=2", "schedule=2f2b"}, "parallel.schedule is '2f2b': no pipeline schedule is called '2f2b'"},
      {{"schedule=2f2b"}, "parallel.schedule is '2f2b': no pipeline schedule is called '2f2b'"},
      {{"pipeline=2", "schedule=my.schedule", "stages_per_rank=2"},
       "parallel.stages_per_rank is 2, and the stages"},
      {{"hybrid_tokens=64", "context_way=ulysses"},
       "parallel.context_way is 'ulysses': with parallel.hybrid_tokens 64"},
      {{"sharding=NGG", "shard=3"}, "parallel.shard is 3, which does not divide the 8 ranks"},
      {{"sharding=zero-4"}, "parallel.sharding is 'zero-4': "},
      {{"sharding=GNN"}, "parallel.sharding is 'GNN': "},
      {{"context=2", "context_split=zagzig"}, "parallel.context_split is 'zagzig': "},
      {{"context=4", "context_way=3 x ulysses in ring"}, "3 ranks that exchange heads do not divide the 4"},
      {{"context=4", "context_way=square"},
       "parallel.context_way is 'square': attention over a context group"},
  };
  runtime::ModelConfig model = runtime::TinyConfig("qwen3_moe");
  model.num_hidden_layers = 4;
  for (const Case& c : cases) {
    const auto read = ArrangementOf(Section(c.set, 8), model, 8);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(c.message));
  }
}

}  // namespace
}  // namespace cohort::parallel
