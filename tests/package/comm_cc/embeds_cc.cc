// A C++ program outside the tree that embeds the communication core, through both of its interfaces. As
// `embeds_cc FOLDER RANK SIZE` it meets the other ranks in the folder, as `embeds_cc` under mpirun through MPI.
#include <cohort/comm/c/cohort_comm.h>
#include <cohort/comm/communicator.h>

#include <iostream>
#include <string>
#include <vector>

using cohort::comm::Communicator;
using cohort::comm::Rendezvous;

int main(int argc, char** argv) {
  absl::StatusOr<std::shared_ptr<Rendezvous>> rendezvous =
      argc == 4 ? cohort::comm::FileRendezvous(argv[1], std::stoi(argv[2]), std::stoi(argv[3]))
                : cohort::comm::MpiRendezvous();
  if (!rendezvous.ok()) {
    std::cerr << rendezvous.status() << "\n";
    return 1;
  }
  const auto group = Communicator::Create(*rendezvous, {.timeout = absl::Seconds(20)});
  if (!group.ok()) {
    std::cerr << group.status() << "\n";
    return 1;
  }
  const int rank = (*group)->rank(), size = (*group)->size();
  std::vector<double> mine(100'000, rank + 1.0), sum(mine.size());
  const absl::Status status =
      (*group)->AllReduce(mine.data(), sum.data(), mine.size(), cohort::DataType::kF64).Wait();
  if (!status.ok() || sum.back() != size * (size + 1) / 2) {
    std::cerr << "all-reduce: " << status << ", " << sum.back() << "\n";
    return 1;
  }
  // The C interface is in the same library.
  if (cohort_comm_create_folder(nullptr, 0, 1, nullptr, nullptr) != COHORT_INVALID_ARGUMENT) return 1;
  if (rank == 0) std::cout << "C++: " << size << " ranks\n";
  return size >= 2 ? 0 : 1;
}
