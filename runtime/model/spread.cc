#include "runtime/model/spread.h"

namespace cohort::runtime {
namespace {

class Whole final : public TensorGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  RowsInFlight StartGatherRows(const Tensor& x, int64_t total) override { return RowsInFlight(x); }
  RowsInFlight StartReduceScatterRows(const Tensor& y) override { return RowsInFlight(y); }
  absl::Status Sum(const Tensor& x) override { return absl::OkStatus(); }
  absl::Status Max(const Tensor& x) override { return absl::OkStatus(); }
};

}  // namespace

TensorGroup& WholeTensors() {
  static Whole whole;
  return whole;
}

}  // namespace cohort::runtime
