// Data parallelism: every rank holds a whole copy of what is not an expert's and computes its part of the
// batch; the gradients are summed over all ranks.
#include "parallel/gradient_reduction.h"
#include "parallel/strategies/strategies.h"

namespace cohort::parallel {
namespace {

class DataParallel final : public Strategy {
 public:
  explicit DataParallel(std::shared_ptr<comm::Communicator> data) : reduction_(std::move(data)) {}

  const char* name() const override { return "data"; }
  runtime::Placement placement() const override { return runtime::Placement::kReplicated; }
  void GradientsReady(const runtime::ParameterBucket& bucket) override { reduction_.Start(bucket.grad); }
  absl::Status FinishGradients() override { return reduction_.Finish(); }
  int replicas() const override { return reduction_.group().size(); }
  int replica() const override { return reduction_.group().rank(); }

 private:
  GradientReduction reduction_;
};

}  // namespace

std::unique_ptr<Strategy> MakeDataParallel(const MeshCommunicators& groups) {
  return std::make_unique<DataParallel>(groups.stage);
}

}  // namespace cohort::parallel
