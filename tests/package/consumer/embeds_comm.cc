// A program outside the tree that embeds the communication core: a group of one sums its own numbers.
#include <cohort/comm/communicator.h>
#include <cstdio>

int main() {
  auto group = cohort::comm::Communicator::Single();
  const float in[3] = {1, 2, 3};
  float out[3] = {};
  const absl::Status status = group->AllReduce(in, out, 3, cohort::DataType::kF32).Wait();
  std::printf("%d rank: %g %g %g\n", group->size(), out[0], out[1], out[2]);
  return status.ok() && out[2] == 3 ? 0 : 1;
}
