#include "runtime/checkpoint/weight_shards.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"

namespace cohort::runtime {

std::vector<WeightShard> PlanWeightShards(absl::Span<const PlannedTensor> tensors, int64_t shard_bytes) {
  std::map<int, std::vector<size_t>> of_writer;
  for (size_t i = 0; i < tensors.size(); ++i) of_writer[tensors[i].writer].push_back(i);

  std::vector<WeightShard> shards;
  for (const auto& [writer, indices] : of_writer) {
    int64_t bytes = 0;
    for (size_t i : indices) {
      const int64_t more = static_cast<int64_t>(tensors[i].info.bytes());
      if (bytes == 0 || bytes + more > shard_bytes) {
        // An empty tensor does not begin another file.
        if (bytes > 0 || shards.empty() || shards.back().writer != writer) shards.push_back({"", writer, {}});
        bytes = 0;
      }
      shards.back().tensors.push_back(i);
      bytes += more;
    }
  }
  for (size_t s = 0; s < shards.size(); ++s) {
    shards[s].file = shards.size() == 1
                         ? std::string(kSingleWeightsFile)
                         : absl::StrFormat("model-%05d-of-%05d.safetensors", s + 1, shards.size());
    std::stable_sort(shards[s].tensors.begin(), shards[s].tensors.end(), [&](size_t a, size_t b) {
      return SizeOf(tensors[a].info.dtype) > SizeOf(tensors[b].info.dtype);
    });
  }
  return shards;
}

std::string WeightsIndexJson(absl::Span<const PlannedTensor> tensors, absl::Span<const WeightShard> shards) {
  uint64_t total = 0;
  nlohmann::json files = nlohmann::json::object();
  for (const WeightShard& shard : shards) {
    for (size_t i : shard.tensors) {
      files[tensors[i].info.name] = shard.file;
      total += tensors[i].info.bytes();
    }
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(files)}};
  return index.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

absl::Status WriteWeightShard(const std::string& folder, absl::Span<const PlannedTensor> tensors,
                              const WeightShard& shard, absl::Span<const Tensor> values) {
  COHORT_CHECK(values.size() == shard.tensors.size(), "%zu tensors for the %zu of %s", values.size(),
               shard.tensors.size(), shard.file.c_str());
  std::vector<TensorInfo> infos;
  for (size_t i : shard.tensors) infos.push_back(tensors[i].info);
  COHORT_ASSIGN_OR_RETURN(SafetensorsWriter writer,
                          SafetensorsWriter::Create(absl::StrCat(folder, "/", shard.file), std::move(infos)));
  for (const Tensor& tensor : values) COHORT_RETURN_IF_ERROR(writer.Write(tensor));
  return writer.Finish();
}

absl::Status WriteWeights(const std::string& folder, absl::Span<const NamedTensor> tensors,
                          int64_t shard_bytes) {
  std::vector<PlannedTensor> planned;
  for (const NamedTensor& tensor : tensors) {
    planned.push_back({{tensor.name, tensor.dtype, tensor.values.shape()}, 0});
  }
  const std::vector<WeightShard> shards = PlanWeightShards(planned, shard_bytes);
  for (const WeightShard& shard : shards) {
    std::vector<Tensor> values;
    for (size_t i : shard.tensors) values.push_back(tensors[i].values);
    COHORT_RETURN_IF_ERROR(WriteWeightShard(folder, planned, shard, values));
  }
  if (shards.size() > 1) {
    COHORT_RETURN_IF_ERROR(
        WriteFileDurably(absl::StrCat(folder, "/", kWeightsIndexFile), WeightsIndexJson(planned, shards)));
  }
  return SyncFolder(folder);
}

}  // namespace cohort::runtime
