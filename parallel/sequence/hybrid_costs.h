// What hybrid batches of a model cost, counted and not measured, so that every run of the same mesh has the same plan.
#pragma once

#include "comm/data_type.h"
#include "parallel/sequence/hybrid_batches.h"
#include "runtime/model/model_config.h"

namespace cohort::parallel {

struct HybridLinks {
  double flops_per_byte;       // what a rank computes while a byte goes to another host
  double near_flops_per_byte;  // and to a rank of the same host
  int host_ranks = 1;          // neighbours on one host
};

// In FLOPs of a rank that computes the whole model (HybridCosts says seconds; any unit will do): the matrices of a
// token, scores and values of a pair, and what ring attention moves of a token: keys and values in both passes, their
// gradients, which are of the state type, once.
HybridCosts CostsOf(const runtime::ModelConfig& config, DataType compute, const HybridLinks& links);

}  // namespace cohort::parallel
