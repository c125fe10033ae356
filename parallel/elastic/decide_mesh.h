// Which mesh goes on, as a decision that one rank makes for all; and every rank's part of it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cohort/v1/elastic.pb.h"
#include "comm/communicator.h"
#include "parallel/elastic/elastic_run.h"

namespace cohort::parallel {

// The host of each rank.
std::vector<int> HostsOf(const comm::Communicator& world);

// Of these ranks of `world`, in their order. `now`: the configuration of the mesh that trains; null: none does, and the
// options' one counts, for all ranks. `epoch` names the mesh. Waits for nobody.
absl::StatusOr<v1::ElasticDecision> DecideMesh(comm::Communicator& world, uint32_t epoch,
                                               const std::vector<int>& staying, const v1::TrainConfig* now,
                                               const ElasticOptions& options);

// Collective over `world`, whose ranks the decision names: this rank's part, without a state. Where it is in the mesh,
// `make_source` is called once.
absl::StatusOr<std::unique_ptr<ElasticPart>> MakePart(
    comm::Communicator& world, const v1::ElasticDecision& decision, const runtime::ModelConfig& model,
    runtime::Device& device, const std::function<std::unique_ptr<BatchSource>()>& make_source);

}  // namespace cohort::parallel
