#include "runtime/model/spread.h"

namespace cohort::runtime {
namespace {

class Whole final : public TensorGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  absl::StatusOr<Tensor> GatherRows(const Tensor& x, int64_t total) override { return x; }
  absl::StatusOr<Tensor> ReduceScatterRows(const Tensor& y) override { return y; }
  absl::Status Sum(const Tensor& x) override { return absl::OkStatus(); }
  absl::Status Max(const Tensor& x) override { return absl::OkStatus(); }
};

}  // namespace

TensorGroup& WholeTensors() {
  static Whole whole;
  return whole;
}

}  // namespace cohort::runtime
