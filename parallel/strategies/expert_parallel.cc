// Expert parallelism (Lepikhin et al., 2020): the experts of each block are divided over the expert axis, and
// tokens travel to them (moe/). A rank's experts see the tokens of its whole expert group, so their gradients
// are summed only over the ranks that hold the same experts. With an expert axis of one this is data
// parallelism for experts.
#include "moe/moe_layer.h"
#include "parallel/gradient_reduction.h"
#include "parallel/strategies/strategies.h"

namespace cohort::parallel {
namespace {

class ExpertParallel final : public Strategy {
 public:
  ExpertParallel(std::shared_ptr<comm::Communicator> expert, std::shared_ptr<comm::Communicator> expert_data)
      : experts_(std::make_shared<moe::ExpertGroup>(std::move(expert))), reduction_(std::move(expert_data)) {}

  const char* name() const override { return "expert"; }
  runtime::Placement placement() const override { return runtime::Placement::kExpert; }
  void Configure(runtime::DecoderOptions& options) const override {
    options.experts = moe::MakeMoeFactory(experts_);
  }
  void GradientsReady(const runtime::ParameterBucket& bucket) override { reduction_.Start(bucket.grad); }
  absl::Status FinishGradients() override { return reduction_.Finish(); }
  int replicas() const override { return reduction_.group().size(); }
  int replica() const override { return reduction_.group().rank(); }

 private:
  std::shared_ptr<const moe::ExpertGroup> experts_;
  GradientReduction reduction_;
};

}  // namespace

std::unique_ptr<Strategy> MakeExpertParallel(const MeshCommunicators& groups) {
  return std::make_unique<ExpertParallel>(groups.expert, groups.expert_data);
}

}  // namespace cohort::parallel
