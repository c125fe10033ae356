#include "runtime/checkpoint/weight_shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "tests/support/temp_folder.h"

namespace cohort::runtime {
namespace {

using ::testing::ElementsAre;

PlannedTensor Planned(const std::string& name, int64_t elements, int writer,
                      DataType dtype = DataType::kF32) {
  return {{name, dtype, {elements}}, writer};
}

TEST(PlanWeightShardsTest, OneFileHasNoNumber) {
  const std::vector<PlannedTensor> tensors = {Planned("a", 10, 0), Planned("b", 10, 0)};
  const auto shards = PlanWeightShards(tensors, 80);
  ASSERT_EQ(shards.size(), 1u);
  EXPECT_EQ(shards[0].file, "model.safetensors");
  EXPECT_THAT(shards[0].tensors, ElementsAre(0, 1));
}

TEST(PlanWeightShardsTest, CutsBeforeTheSizeIsPassed) {
  const std::vector<PlannedTensor> tensors = {Planned("a", 10, 0), Planned("b", 10, 0), Planned("c", 1, 0),
                                              Planned("huge", 100, 0), Planned("e", 1, 0)};
  const auto shards = PlanWeightShards(tensors, 80);
  ASSERT_EQ(shards.size(), 4u);
  EXPECT_THAT(shards[0].tensors, ElementsAre(0, 1));
  EXPECT_THAT(shards[1].tensors, ElementsAre(2));
  EXPECT_THAT(shards[2].tensors, ElementsAre(3));
  EXPECT_THAT(shards[3].tensors, ElementsAre(4));
  EXPECT_EQ(shards[3].file, "model-00004-of-00004.safetensors");
}

TEST(PlanWeightShardsTest, EveryWriterHasFilesOfItsOwn) {
  const std::vector<PlannedTensor> tensors = {Planned("a", 1, 2), Planned("b", 1, 0), Planned("c", 1, 2)};
  const auto shards = PlanWeightShards(tensors, 1000);
  ASSERT_EQ(shards.size(), 2u);
  EXPECT_EQ(shards[0].writer, 0);
  EXPECT_EQ(shards[1].writer, 2);
  EXPECT_THAT(shards[1].tensors, ElementsAre(0, 2));
}

TEST(PlanWeightShardsTest, NoTensorsNoFiles) { EXPECT_TRUE(PlanWeightShards({}, 10).empty()); }

// Every tensor once, by its writer, no file past the size but for single tensors, wide types first.
TEST(PlanWeightShardsTest, HoldsForRandomLists) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<PlannedTensor> tensors;
    const int count = random() % 30;
    for (int i = 0; i < count; ++i) {
      tensors.push_back(Planned(std::to_string(i), random() % 20, random() % 4,
                                random() % 2 ? DataType::kBF16 : DataType::kF32));
    }
    const int64_t limit = 1 + random() % 100;
    std::set<size_t> seen;
    std::set<std::string> files;
    for (const WeightShard& shard : PlanWeightShards(tensors, limit)) {
      EXPECT_TRUE(files.insert(shard.file).second);
      ASSERT_FALSE(shard.tensors.empty());
      int64_t bytes = 0, filled = 0;
      size_t width = 8;
      for (size_t i : shard.tensors) {
        EXPECT_TRUE(seen.insert(i).second);
        EXPECT_EQ(tensors[i].writer, shard.writer);
        EXPECT_LE(SizeOf(tensors[i].info.dtype), width);
        width = SizeOf(tensors[i].info.dtype);
        bytes += tensors[i].info.bytes();
        filled += tensors[i].info.bytes() > 0;
      }
      EXPECT_TRUE(bytes <= limit || filled == 1) << bytes << " of " << limit;
    }
    EXPECT_EQ(seen.size(), tensors.size());
  }
}

TEST(WriteWeightsTest, IndexListsEveryTensor) {
  TempFolder temp;
  std::vector<NamedTensor> tensors;
  for (const char* name : {"a", "b", "c"}) {
    tensors.push_back(
        {name, Tensor::FromHost(CpuDevice(), {4}, DataType::kF32, {1, 2, 3, 4}), DataType::kBF16});
  }
  ASSERT_TRUE(WriteWeights(temp.path(), tensors, 16).ok());
  const auto index =
      nlohmann::json::parse(*ReadFile(temp.path() + "/model.safetensors.index.json"), nullptr, false);
  EXPECT_EQ(index["metadata"]["total_size"], 24);
  EXPECT_EQ(index["weight_map"]["a"], "model-00001-of-00002.safetensors");
  EXPECT_EQ(index["weight_map"]["b"], "model-00001-of-00002.safetensors");
  EXPECT_EQ(index["weight_map"]["c"], "model-00002-of-00002.safetensors");
}

TEST(WriteWeightsTest, NoFolderIsAnError) {
  const Tensor tensor = Tensor::FromHost(CpuDevice(), {1}, DataType::kF32, {1});
  const absl::Status status = WriteWeights("/nonexistent", {{{"a", tensor, DataType::kF32}}}, 16);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
}

}  // namespace
}  // namespace cohort::runtime
