// Run by mpirun: meets the other ranks through MPI and checks every operation, small and large. Exits
// non-zero and says why where something is wrong. Which transport is used is the environment's to say
// (COHORT_TRANSPORT).
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/rendezvous.h"

namespace cohort::comm {
namespace {

int rank = -1;

void Require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "rank %d: %s\n", rank, what.c_str());
  std::exit(1);
}

void RequireOk(const absl::Status& status, const char* what) {
  Require(status.ok(), std::string(what) + ": " + status.ToString());
}

void CheckCollectives(Communicator& comm, size_t count) {
  const int size = comm.size();
  const std::vector<size_t> counts(size, count);
  std::vector<float> own(count, static_cast<float>(rank + 1)), all(count * size), spread(count * size),
      sum(count);
  const int twice = size * (size + 1);
  const float expected = 0.5f * static_cast<float>(twice);

  RequireOk(comm.AllReduce(own.data(), sum.data(), count, DataType::kF32).Wait(), "all-reduce");
  Require(sum == std::vector<float>(count, expected), "all-reduce gave a wrong sum");

  RequireOk(comm.AllGather(own.data(), all.data(), counts, DataType::kF32).Wait(), "all-gather");
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t from = i / count;
    Require(all[i] == static_cast<float>(from + 1), "all-gather gave something wrong");
  }
  RequireOk(comm.ReduceScatter(all.data(), sum.data(), counts, DataType::kF32).Wait(), "reduce-scatter");
  Require(sum == std::vector<float>(count, static_cast<float>(size * (rank + 1))), "reduce-scatter is wrong");

  RequireOk(comm.AllToAll(all.data(), spread.data(), count, DataType::kF32).Wait(), "all-to-all");
  Require(spread == std::vector<float>(spread.size(), static_cast<float>(rank + 1)), "all-to-all is wrong");

  std::vector<float> news(count, rank == size - 1 ? 5.0f : 0.0f);
  RequireOk(comm.Broadcast(news.data(), count, DataType::kF32, size - 1).Wait(), "broadcast");
  Require(news == std::vector<float>(count, 5.0f), "broadcast is wrong");

  // Round the ring, in both directions at once.
  std::vector<float> from_left(count), from_right(count);
  const int left = (rank + size - 1) % size, right = (rank + 1) % size;
  const Work works[] = {comm.Send(own.data(), count, DataType::kF32, right, 1),
                        comm.Send(own.data(), count, DataType::kF32, left, 2),
                        comm.Recv(from_right.data(), count, DataType::kF32, right, 2),
                        comm.Recv(from_left.data(), count, DataType::kF32, left, 1)};
  for (const Work& work : works) RequireOk(work.Wait(), "send/recv");
  Require(from_left == std::vector<float>(count, static_cast<float>(left + 1)),
          "recv from the left is wrong");
  Require(from_right == std::vector<float>(count, static_cast<float>(right + 1)),
          "recv from the right is wrong");
}

// Every second of the sender's elements to every third of the receiver's.
void CheckDatatypes(Communicator& comm, size_t count) {
  const Datatype real = Datatype::Element(DataType::kF32);
  const auto out = Datatype::Vector(count, 1, 2, real), in = Datatype::Vector(count, 1, 3, real);
  RequireOk(out.status(), "a vector");
  RequireOk(in.status(), "a vector");
  const int size = comm.size(), left = (rank + size - 1) % size, right = (rank + 1) % size;
  std::vector<float> own(2 * count), got(3 * count);
  for (size_t i = 0; i < count; ++i) own[2 * i] = static_cast<float>(i) + static_cast<float>(rank);
  const Work send = comm.Send(own.data(), 1, *out, right, 3), recv = comm.Recv(got.data(), 1, *in, left, 3);
  RequireOk(send.Wait(), "send of a vector");
  RequireOk(recv.Wait(), "recv of a vector");
  for (size_t i = 0; i < got.size(); ++i) {
    const float expected = i % 3 == 0 ? static_cast<float>(i / 3) + static_cast<float>(left) : 0.0f;
    Require(got[i] == expected, "recv of a vector is wrong");
  }
}

void CheckDisagreement(Communicator& comm) {
  std::vector<float> data(100'000, 1.0f);
  for (const size_t count : {size_t{10}, size_t{90'000}}) {
    const size_t own = rank == 0 ? count + 1 : count;
    const absl::Status status = comm.AllReduce(data.data(), data.data(), own, DataType::kF32).Wait();
    Require(status.code() == absl::StatusCode::kInvalidArgument, "different sizes: " + status.ToString());
  }
  RequireOk(comm.Barrier().Wait(), "barrier after a disagreement");
}

int Main() {
  if (!LaunchedByMpi()) {
    std::fprintf(stderr, "run me with mpirun\n");
    return 1;
  }
  auto rendezvous = MpiRendezvous();
  if (!rendezvous.ok()) {
    std::fprintf(stderr, "%s\n", rendezvous.status().ToString().c_str());
    return 1;
  }
  auto comm = Communicator::Create(*rendezvous, {.timeout = absl::Seconds(20)});
  if (!comm.ok()) {
    std::fprintf(stderr, "%s\n", comm.status().ToString().c_str());
    return 1;
  }
  rank = (*comm)->rank();
  for (const size_t count : {size_t{1}, size_t{1000}, size_t{5000}, size_t{700'001}}) {
    CheckCollectives(**comm, count);
    CheckDatatypes(**comm, count);
  }
  auto half = (*comm)->Split(rank == 0 ? 0 : 1, rank);
  RequireOk(half.status(), "split");
  RequireOk((*half)->Barrier().Wait(), "barrier of a part");
  CheckDisagreement(**comm);
  return 0;
}

}  // namespace
}  // namespace cohort::comm

int main() { return cohort::comm::Main(); }
