#include "parallel/sharding/flat_tensors.h"

#include <algorithm>
#include <utility>

namespace cohort::parallel {

using runtime::ParameterBucket;

int64_t FlatTensor::elements() const {
  int64_t sum = 0;
  for (const ParameterBucket* part : parts) sum += part->size();
  return sum;
}

std::vector<FlatTensor> FlatTensorsOf(runtime::ParameterGroup& group, runtime::Placement placement,
                                      const Sharding& sharding) {
  const bool encodes = sharding.gather_codec || sharding.reduce_codec;
  FlatTensor matrices, others;
  matrices.encoded = encodes;
  for (ParameterBucket& bucket : group.buckets()) {
    if (bucket.placement != placement) continue;
    (encodes && !bucket.decay ? others : matrices).parts.push_back(&bucket);
  }
  std::vector<FlatTensor> flats;
  for (FlatTensor* flat : {&matrices, &others}) {
    if (!flat->parts.empty()) flats.push_back(std::move(*flat));
  }
  return flats;
}

std::vector<FlatRun> RunsIn(const std::vector<ParameterBucket*>& parts, const ElementRange& held) {
  std::vector<FlatRun> runs;
  int64_t begin = 0;  // of the parameter
  for (size_t part = 0; part < parts.size(); ++part) {
    const int64_t from = std::max(begin, held.begin);  // what of the part is held
    for (runtime::Parameter* parameter : parts[part]->parameters) {
      const int64_t end = begin + parameter->elements();
      const int64_t first = std::max(begin, held.begin), last = std::min(end, held.end);
      if (first < last) runs.push_back({parameter, part, first - from, first - begin, last - first});
      begin = end;
    }
  }
  return runs;
}

}  // namespace cohort::parallel
