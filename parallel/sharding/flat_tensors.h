// Which parameters lie one after another in one flat tensor, and which runs of them a range of it holds: what the engine
// of the table splits, and what a layout of a training that does not run yet says of it.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/sharding/shard_tree.h"
#include "parallel/sharding/sharding.h"
#include "runtime/model/parameter.h"

namespace cohort::parallel {

// Buckets of one group and placement.
struct FlatTensor {
  std::vector<runtime::ParameterBucket*> parts;
  bool encoded = false;  // with the table's codecs on the wire

  int64_t elements() const;
};
// Norms and the like travel with the matrices, or, where these are encoded, apart from them. None is empty.
std::vector<FlatTensor> FlatTensorsOf(runtime::ParameterGroup& group, runtime::Placement placement,
                                      const Sharding& sharding);

// Elements [first, first + count) of a parameter, which are in the range; `offset` of them among what the range holds
// of their part.
struct FlatRun {
  runtime::Parameter* parameter;
  size_t part;
  int64_t offset;
  int64_t first, count;
};
std::vector<FlatRun> RunsIn(const std::vector<runtime::ParameterBucket*>& parts, const ElementRange& held);

}  // namespace cohort::parallel
