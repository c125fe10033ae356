// What is the UCX transport's own: who is lost is named, whatever has become of it. That all operations work over it
// is shown by the other tests of the room, which run again over UCX (tests/comm/CMakeLists.txt).
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numeric>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "comm/communicator.h"
#include "comm/transport/ucx/ucx_transport.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RankOptions;
using cohort::testing::RunProcesses;
using cohort::testing::RunRanks;
using cohort::testing::SharedCounter;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

class UcxTransport : public ::testing::Test {
 protected:
  void SetUp() override { setenv("COHORT_TRANSPORT", "ucx", 1); }
  void TearDown() override { unsetenv("COHORT_TRANSPORT"); }
};

TEST_F(UcxTransport, KilledPeerIsNamedWithinASecond) {
  for (const size_t count : {size_t{16}, size_t{1} << 20}) {
    RankOptions options;
    options.victims = {1};
    SharedCounter met;
    RunRanks(
        3,
        [&](Communicator& comm) {
          std::vector<float> data(count, 1.0f);
          ASSERT_EQ(comm.Barrier().Wait(), absl::OkStatus());
          if (comm.rank() == 1) {
            // What a killed process has sent last may die with it, so not before the others have it.
            met.WaitFor(2);
            kill(getpid(), SIGKILL);
          }
          met.Add();
          const absl::Time start = absl::Now();
          const absl::Status status = comm.AllReduce(data.data(), data.data(), count, DataType::kF32).Wait();
          EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
          EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 was lost"));
          EXPECT_LT(absl::Now() - start, absl::Seconds(1));
        },
        options);
  }
}

TEST_F(UcxTransport, LargeMessagesMayComeBeforeTheirReceives) {
  RunRanks(2, [](Communicator& comm) {
    // More than is sent ahead of receives, and less; whole pieces and parts of them.
    const size_t counts[] = {15 << 10, 16 << 10, 100'000, 30 << 10, 1'000'003};
    std::vector<std::vector<float>> data;
    std::vector<Work> works;
    for (int tag = 0; tag < 5; ++tag) {
      data.emplace_back(counts[tag], 0.0f);
      if (comm.rank() == 1) continue;
      std::iota(data[tag].begin(), data[tag].end(), static_cast<float>(tag));
      works.push_back(comm.Send(data[tag].data(), counts[tag], DataType::kF32, 1, tag));
    }
    if (comm.rank() == 1) {
      absl::SleepFor(absl::Milliseconds(100));
      for (int tag = 4; tag >= 0; --tag) {
        works.push_back(comm.Recv(data[tag].data(), counts[tag], DataType::kF32, 0, tag));
      }
    }
    for (const Work& work : works) ASSERT_EQ(work.Wait(), absl::OkStatus());
    for (int tag = 0; tag < 5; ++tag) {
      for (size_t i = 0; i < counts[tag]; ++i)
        ASSERT_EQ(data[tag][i], static_cast<float>(i) + static_cast<float>(tag));
    }
  });
}

TEST_F(UcxTransport, LargeMessagesOutliveTheirSender) {
  // All of these are sent ahead of their receives, so that the sender is done, and leaves, before there is any.
  RunRanks(2, [](Communicator& comm) {
    if (comm.rank() == 1) absl::SleepFor(absl::Milliseconds(300));
    for (const size_t count : {20'000, 100, 70'000}) {
      std::vector<float> data(count, comm.rank() == 0 ? static_cast<float>(count) : 0.0f);
      ASSERT_EQ(comm.Broadcast(data.data(), count, DataType::kF32, 0).Wait(), absl::OkStatus());
      EXPECT_EQ(data, std::vector<float>(count, static_cast<float>(count)));
    }
    if (comm.rank() == 0) return;
    float unsent = 0;
    EXPECT_EQ(comm.Broadcast(&unsent, 1, DataType::kF32, 0).Wait().code(), absl::StatusCode::kUnavailable);
  });
}

TEST_F(UcxTransport, RefusedLargeMessagesGiveTheirCreditBack) {
  RunRanks(2, [](Communicator& comm) {
    std::vector<float> data(200'000, 1.0f);
    for (int round = 0; round < 8; ++round) {  // of all together more than is sent ahead
      const absl::Status status = comm.rank() == 0
                                      ? comm.Send(data.data(), data.size(), DataType::kF32, 1).Wait()
                                      : comm.Recv(data.data(), data.size() - 1, DataType::kF32, 0).Wait();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    }
    const absl::Status status = comm.rank() == 0
                                    ? comm.Send(data.data(), data.size(), DataType::kF32, 1).Wait()
                                    : comm.Recv(data.data(), data.size(), DataType::kF32, 0).Wait();
    EXPECT_EQ(status, absl::OkStatus());
  });
}

TEST_F(UcxTransport, StoppedPeerIsNamedByItsSilence) {
  // The kernel of a stopped process still answers for its connections.
  SharedCounter named;
  RankOptions options;
  options.victims = {0};
  RunRanks(
      3,
      [&](Communicator& comm) {
        std::vector<float> data(1 << 20, 1.0f);
        if (comm.rank() == 0) {
          if (fork() == 0) {
            named.WaitFor(2);
            kill(getppid(), SIGKILL);
            _exit(0);
          }
          raise(SIGSTOP);
        }
        const absl::Time start = absl::Now();
        const absl::Status status =
            comm.AllReduce(data.data(), data.data(), data.size(), DataType::kF32).Wait();
        EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
        EXPECT_THAT(std::string(status.message()), HasSubstr("rank 0 was lost: no sign of life"));
        EXPECT_LT(absl::Now() - start, absl::Seconds(5));
        named.Add();
      },
      options);
}

TEST_F(UcxTransport, RankThatComputesIsNotTakenForLost) {
  setenv("COHORT_PEER_SILENCE_MS", "400", 1);
  RunRanks(2, [](Communicator& comm) {
    // Longer than silence may last, without a call of the communicator.
    if (comm.rank() == 1) absl::SleepFor(absl::Milliseconds(1200));
    float one = 1;
    EXPECT_EQ(comm.AllReduce(&one, &one, 1, DataType::kF32).Wait(), absl::OkStatus());
    EXPECT_EQ(one, 2);
  });
  unsetenv("COHORT_PEER_SILENCE_MS");
}

TEST_F(UcxTransport, PeerThatLeavesIsNotLost) {
  SharedCounter gone;
  RunProcesses(2, [&](int rank, int size, const std::string& folder) {
    auto comm = Communicator::Create(FileRendezvous(folder + "/meet", rank, size));
    ASSERT_TRUE(comm.ok()) << comm.status();
    std::vector<float> data(1 << 20, static_cast<float>(rank));
    if (rank == 1) {
      // What it has sent is still delivered.
      ASSERT_EQ((*comm)->Send(data.data(), data.size(), DataType::kF32, 0).Wait(), absl::OkStatus());
      comm->reset();
      gone.Add();
      return;
    }
    ASSERT_EQ((*comm)->Recv(data.data(), data.size(), DataType::kF32, 1).Wait(), absl::OkStatus());
    EXPECT_EQ(std::accumulate(data.begin(), data.end(), 0.0), static_cast<double>(data.size()));
    EXPECT_TRUE(gone.WaitFor(1));
    const absl::Status status = (*comm)->Recv(data.data(), 1, DataType::kF32, 1).Wait();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 has left"));
  });
}

TEST_F(UcxTransport, SignalHandlersStayTheProgramsOwn) {
  RunRanks(2, [](Communicator& comm) {
    struct sigaction action = {};
    ASSERT_EQ(sigaction(SIGFPE, nullptr, &action), 0);
    if (action.sa_handler == SIG_DFL) return;
    // A sanitizer's runtime has taken it before the program began.
    Dl_info owner = {};
    ASSERT_NE(dladdr(reinterpret_cast<void*>(action.sa_sigaction), &owner), 0);
    EXPECT_THAT(owner.dli_fname, ContainsRegex("lib(asan|tsan|ubsan)"));
  });
}

TEST_F(UcxTransport, BrokenAddressesAreRefused) {
  RunProcesses(1, [](int, int, const std::string&) {
    struct Nobody : TransportEvents {
      void OnMessage(Transport&, int, const MessageHeader&, const std::byte*) override {}
      void OnAnnouncement(Transport&, int, const MessageHeader&) override {}
      void OnAbort(int, const MessageKey&, const absl::Status&) override {}
      void OnPeerGone(int, bool, absl::string_view) override {}
      void OnDismissed(int) override {}
    } nobody;
    auto transport = ucx::UcxTransport::Create(0, 2, &nobody);
    ASSERT_TRUE(transport.ok()) << transport.status();
    for (const char* address : {"", "1", "x AAAA", "1 ", "1 !!!!", "1 AAAA BBBB"}) {
      const absl::Status status = (*transport)->Attach(1, address);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address << ": " << status;
    }
    // Nobody was attached: nothing is there to forget, and nobody to wait for.
    (*transport)->Detach(1);
    EXPECT_EQ((*transport)->Meet(absl::Now() + absl::Seconds(1)), absl::OkStatus());
    (*transport)->Close();
  });
}

TEST_F(UcxTransport, PeersComeAndGo) {
  SharedCounter attached, done, quiet;
  RunProcesses(2, [&](int rank, int size, const std::string& folder) {
    struct Listener : TransportEvents {
      void OnMessage(Transport&, int, const MessageHeader& header, const std::byte* body) override {
        words.emplace_back(reinterpret_cast<const char*>(body), header.bytes);
      }
      void OnAnnouncement(Transport&, int, const MessageHeader&) override {}
      void OnAbort(int, const MessageKey&, const absl::Status&) override {}
      void OnPeerGone(int, bool, absl::string_view) override { ++gone; }
      void OnDismissed(int) override {}
      std::vector<std::string> words;
      int gone = 0;
    } listener;
    struct Owner : RequestOwner {
      void OnRequestDone(uint32_t, const absl::Status& status) override { last = status; }
      absl::Status last;
    } owner;
    auto meeting = FileRendezvous(folder + "/meet", rank, size);
    auto transport = ucx::UcxTransport::Create(rank, 1, &listener);
    ASSERT_TRUE(transport.ok()) << transport.status();
    const int peer = 1 - rank;
    ASSERT_EQ(meeting->Put("address/" + std::to_string(rank), (*transport)->Address()), absl::OkStatus());
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    const auto address = meeting->Get("address/" + std::to_string(peer), deadline);
    ASSERT_TRUE(address.ok()) << address.status();
    for (int round = 1; round <= 3; ++round) {
      ASSERT_EQ((*transport)->Attach(peer, *address), absl::OkStatus());
      attached.Add();
      ASSERT_TRUE(attached.WaitFor(2 * round));
      ASSERT_EQ((*transport)->Meet(deadline), absl::OkStatus());
      const std::string word = "word " + std::to_string(round);
      SendRequest send;
      send.peer = peer;
      send.data = reinterpret_cast<const std::byte*>(word.data());
      send.bytes = word.size();
      send.owner = &owner;
      (*transport)->Send(send);
      EXPECT_EQ(owner.last, absl::OkStatus());
      while (listener.words.size() < static_cast<size_t>(round) && absl::Now() < deadline) {
        (*transport)->Progress(1 << 20);
      }
      ASSERT_EQ(listener.words.size(), static_cast<size_t>(round));
      EXPECT_EQ(listener.words.back(), word);
      done.Add();
      while (done.Get() < 2 * round && absl::Now() < deadline) (*transport)->Progress(1 << 20);
      // Who looked now would see the other one end its connection.
      quiet.Add();
      ASSERT_TRUE(quiet.WaitFor(2 * round));
      (*transport)->Detach(peer);
      (*transport)->Send(send);
      EXPECT_EQ(owner.last.code(), absl::StatusCode::kUnavailable);
      attached.Add(0);
    }
    EXPECT_EQ(listener.gone, 0);
    (*transport)->Close();
  });
}

}  // namespace
}  // namespace cohort::comm
