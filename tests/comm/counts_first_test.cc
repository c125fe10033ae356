// All-to-all-v without the matrix on several hosts: ranks tell each other their counts first, and then it is
// hierarchical.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using ::testing::HasSubstr;

// The first two ranks are one host, the others another.
void RunOnHosts(int size, const std::function<void(Communicator&)>& body) {
  cohort::testing::RunProcesses(size, [&](int rank, int, const std::string& folder) {
    setenv("COHORT_HOST_ID", rank < 2 ? "first" : "second", 1);
    auto comm = Communicator::Create(
        FileRendezvous(folder + "/meet", rank, size),
        {.timeout = absl::Seconds(20), .collectives = "all-to-all-v=hierarchical", .topology = "default"});
    ASSERT_TRUE(comm.ok()) << comm.status();
    body(**comm);
    EXPECT_EQ((*comm)->Barrier().Wait(), absl::OkStatus());
  });
}

size_t Count(int from, int to, int round) {
  return (from + 2 * to + round) % 4 == 0 ? 0 : static_cast<size_t>((from * 7 + to * 5 + round * 3) % 50);
}

struct Exchange {
  std::vector<size_t> send_counts, recv_counts;
  std::vector<int32_t> send, recv;

  Exchange(const Communicator& comm, int round) {
    for (int peer = 0; peer < comm.size(); ++peer) {
      send_counts.push_back(Count(comm.rank(), peer, round));
      recv_counts.push_back(Count(peer, comm.rank(), round));
      for (size_t i = 0; i < send_counts.back(); ++i)
        send.push_back(comm.rank() * 1000 + peer * 100 + static_cast<int32_t>(i));
      recv.insert(recv.end(), recv_counts.back(), -1);
    }
  }
  Work Start(Communicator& comm) {
    return comm.AllToAllV(send.data(), send_counts, recv.data(), recv_counts, DataType::kI32);
  }
  void Check(const Communicator& comm) const {
    size_t at = 0;
    for (int peer = 0; peer < comm.size(); ++peer) {
      for (size_t i = 0; i < recv_counts[peer]; ++i)
        ASSERT_EQ(recv[at++], peer * 1000 + comm.rank() * 100 + static_cast<int32_t>(i));
    }
  }
};

TEST(CountsFirst, BringEverythingWhereItBelongs) {
  RunOnHosts(5, [](Communicator& comm) {
    for (int round = 0; round < 20; ++round) {
      Exchange exchange(comm, round);
      ASSERT_EQ(exchange.Start(comm).Wait(), absl::OkStatus());
      exchange.Check(comm);
    }
  });
}

TEST(CountsFirst, InFlightWithOthersAndWaitedForBackwards) {
  RunOnHosts(4, [](Communicator& comm) {
    std::vector<Exchange> exchanges;
    for (int round = 0; round < 6; ++round) exchanges.emplace_back(comm, round);
    std::vector<float> sum(10'000, 1.0f);
    std::vector<Work> works;
    for (Exchange& exchange : exchanges) works.push_back(exchange.Start(comm));
    works.push_back(comm.AllReduce(sum.data(), sum.data(), sum.size(), DataType::kF32));
    for (size_t i = works.size(); i > 0; --i) ASSERT_EQ(works[i - 1].Wait(), absl::OkStatus());
    for (const Exchange& exchange : exchanges) exchange.Check(comm);
    EXPECT_EQ(sum, std::vector<float>(sum.size(), 4.0f));
  });
}

TEST(CountsFirst, CountsThatDoNotMatchAreAnErrorOnAllRanks) {
  RunOnHosts(4, [](Communicator& comm) {
    Exchange exchange(comm, 1);
    if (comm.rank() == 3) {  // expects more than rank 0 sends
      ++exchange.recv_counts[0];
      exchange.recv.push_back(-1);
    }
    const absl::Status status = exchange.Start(comm).Wait();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(status.message(), HasSubstr("rank 0 sends"));
    Exchange again(comm, 2);
    ASSERT_EQ(again.Start(comm).Wait(), absl::OkStatus());
    again.Check(comm);
  });
}

TEST(CountsFirst, AreNotTakenForACallWithTheMatrix) {
  RunOnHosts(4, [](Communicator& comm) {
    Exchange exchange(comm, 0);
    std::vector<size_t> matrix;
    for (int from = 0; from < 4; ++from)
      for (int to = 0; to < 4; ++to) matrix.push_back(Count(from, to, 0));
    const Work work = comm.rank() == 1 ? comm.AllToAllMatrix(exchange.send.data(), exchange.recv.data(),
                                                             matrix, DataType::kI32)
                                       : exchange.Start(comm);
    EXPECT_EQ(work.Wait().code(), absl::StatusCode::kInvalidArgument);
  });
}

}  // namespace
}  // namespace cohort::comm
