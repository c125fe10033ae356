// What a communicator does when ranks die, are late, or disagree: an error that
// names them, on every survivor.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "comm/communicator.h"
#include "comm/transport/shm/policy.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RankOptions;
using cohort::testing::RunRanks;
using cohort::testing::SharedCounter;
using ::testing::HasSubstr;

// Elements that go through the ring, and that are read from the sender.
constexpr size_t kSmall = 16;
constexpr size_t kLarge = 1 << 20;

void ExpectNames(const absl::Status& status, absl::StatusCode code, const std::string& text) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(text)) << status;
}

TEST(Failures, KilledPeerIsNamedToAllSurvivors) {
  for (const size_t count : {kSmall, kLarge}) {
    RankOptions options;
    options.victims = {2};
    RunRanks(
        4,
        [&](Communicator& comm) {
          std::vector<float> data(count, 1.0f);
          for (int round = 0;; ++round) {
            if (comm.rank() == 2 && round == 5) kill(getpid(), SIGKILL);
            const absl::Time start = absl::Now();
            const absl::Status status =
                comm.AllReduce(data.data(), data.data(), count, DataType::kF32).Wait();
            if (status.ok() && round < 5) continue;
            ExpectNames(status, absl::StatusCode::kUnavailable, "rank 2 was lost");
            EXPECT_LT(absl::Now() - start, absl::Seconds(2));
            break;
          }
          // And so is everything after.
          ExpectNames(comm.Barrier().Wait(), absl::StatusCode::kUnavailable, "rank 2 was lost");
        },
        options);
  }
}

TEST(Failures, PeerKilledBeforeItsFirstCallIsNamed) {
  RankOptions options;
  options.victims = {0};
  RunRanks(
      3,
      [](Communicator& comm) {
        if (comm.rank() == 0) kill(getpid(), SIGKILL);
        ExpectNames(comm.Barrier().Wait(), absl::StatusCode::kUnavailable, "rank 0 was lost");
      },
      options);
}

TEST(Failures, ReceiveFromKilledPeer) {
  RankOptions options;
  options.victims = {1};
  RunRanks(
      2,
      [](Communicator& comm) {
        float value = 0;
        if (comm.rank() == 1) {
          ASSERT_EQ(comm.Send(&value, 1, DataType::kF32, 0).Wait(), absl::OkStatus());
          kill(getpid(), SIGKILL);
        }
        EXPECT_EQ(comm.Recv(&value, 1, DataType::kF32, 1).Wait(), absl::OkStatus());
        ExpectNames(comm.Recv(&value, 1, DataType::kF32, 1).Wait(), absl::StatusCode::kUnavailable,
                    "rank 1 was lost");
        ExpectNames(comm.Send(&value, 1, DataType::kF32, 1).Wait(), absl::StatusCode::kUnavailable,
                    "rank 1 was lost");
      },
      options);
}

// Messages of a size that goes both ways (comm/transport/shm/body_way.h): some are whole at their receiver already, others
// are only announced when their sender dies. None of them may keep a later receive waiting.
TEST(Failures, WhatAKilledPeerHadAnnouncedIsNotWaitedFor) {
  constexpr int kMessages = 3 * static_cast<int>(policy::kShmTrialMessages);
  constexpr size_t kCount = (8 << 10) / sizeof(float);
  RankOptions options;
  options.victims = {1};
  RunRanks(
      2,
      [](Communicator& comm) {
        std::vector<float> data(kCount, 1.0f);
        if (comm.rank() == 1) {
          std::vector<Work> works;
          for (int i = 0; i < kMessages; ++i) {
            works.push_back(comm.Send(data.data(), kCount, DataType::kF32, 0, /*tag=*/i));
          }
          // Behind all of them in the ring.
          ASSERT_EQ(comm.Send(data.data(), 1, DataType::kF32, 0, /*tag=*/kMessages).Wait(), absl::OkStatus());
          kill(getpid(), SIGKILL);
        }
        ASSERT_EQ(comm.Recv(data.data(), 1, DataType::kF32, 1, /*tag=*/kMessages).Wait(), absl::OkStatus());
        ExpectNames(comm.Recv(data.data(), 1, DataType::kF32, 1, /*tag=*/kMessages + 1).Wait(),
                    absl::StatusCode::kUnavailable, "rank 1 was lost");
        const absl::Time start = absl::Now();
        int came = 0;
        for (int i = 0; i < kMessages; ++i) {
          const absl::Status status = comm.Recv(data.data(), kCount, DataType::kF32, 1, /*tag=*/i).Wait();
          if (!status.ok()) ExpectNames(status, absl::StatusCode::kUnavailable, "rank 1 was lost");
          came += status.ok() ? 1 : 0;
        }
        EXPECT_GE(came, static_cast<int>(policy::kShmTrialMessages));
        EXPECT_LT(absl::Now() - start, absl::Seconds(2));
      },
      options);
}

TEST(Failures, LateRankIsNamedByEveryoneElse) {
  SharedCounter gave_up, back;
  RunRanks(4,
           [&](Communicator& comm) {
             std::vector<float> data(kLarge, 1.0f);
             if (comm.rank() == 1) {
               EXPECT_TRUE(gave_up.WaitFor(3));
             }
             const absl::Status status =
                 comm.AllReduce(data.data(), data.data(), kLarge, DataType::kF32).Wait();
             ExpectNames(status, absl::StatusCode::kDeadlineExceeded, "late rank 1 has not called it");
             (comm.rank() == 1 ? back : gave_up).Add();
             // The group goes on once all are here again.
             EXPECT_TRUE(back.WaitFor(1));
             float one = 1;
             EXPECT_EQ(comm.AllReduce(&one, &one, 1, DataType::kF32).Wait(), absl::OkStatus());
             EXPECT_EQ(one, 4);
           },
           {.timeout = absl::Seconds(2)});
}

TEST(Failures, StoppedPeerCannotSpoilAResult) {
  // Rank 1 is stopped until the other one has given up: it learns of that, and nobody
  // succeeds with half a sum.
  SharedCounter gave_up;
  RunRanks(2,
           [&](Communicator& comm) {
             std::vector<float> data(kLarge, 1.0f);
             if (comm.rank() == 1) {
               if (fork() == 0) {
                 gave_up.WaitFor(1);
                 kill(getppid(), SIGCONT);
                 _exit(0);
               }
               raise(SIGSTOP);
             }
             const absl::Status status =
                 comm.AllReduce(data.data(), data.data(), kLarge, DataType::kF32).Wait();
             ExpectNames(status, absl::StatusCode::kDeadlineExceeded, "late rank 1");
             gave_up.Add();
           },
           {.timeout = absl::Milliseconds(300)});
}

TEST(Failures, WhoOnlyWaitsForTheLateIsNotBlamed) {
  // Rank 2 waits for rank 1 in an operation before, and so comes late to the barrier.
  SharedCounter gave_up;
  RunRanks(3,
           [&](Communicator& comm) {
             float value = 0;
             if (comm.rank() == 1) {
               EXPECT_TRUE(gave_up.WaitFor(2));
               return;
             }
             if (comm.rank() == 2) {
               absl::SleepFor(absl::Milliseconds(200));  // still in it when rank 0 gives up
               const absl::Status status = comm.Recv(&value, 1, DataType::kF32, 1).Wait();
               ExpectNames(status, absl::StatusCode::kDeadlineExceeded, "waiting for rank 1");
               gave_up.Add();
               return;
             }
             const absl::Status status = comm.Barrier().Wait();
             ExpectNames(status, absl::StatusCode::kDeadlineExceeded, "late rank 1 has not called it");
             gave_up.Add();
             EXPECT_TRUE(gave_up.WaitFor(2));
           },
           {.timeout = absl::Seconds(2)});
}

TEST(Failures, OnlyTheStoppedOfFourIsNamedByAll) {
  // Stopped at any point of a row of operations, so that survivors stand in different ones.
  for (int round = 0; round < 4; ++round) {
    SharedCounter gave_up;
    RunRanks(4,
             [&](Communicator& comm) {
               std::vector<float> data(round % 2 == 0 ? kSmall : kLarge, 1.0f);
               pid_t waker = 0;
               for (int i = 0;; ++i) {
                 if (comm.rank() == 1 && i == 3 + round) {
                   const pid_t self = getpid();
                   waker = fork();
                   if (waker == 0) {
                     absl::SleepFor(absl::Microseconds(300 * round));
                     kill(self, SIGSTOP);
                     gave_up.WaitFor(3);
                     kill(self, SIGCONT);
                     _exit(0);
                   }
                 }
                 const absl::Status status =
                     comm.AllReduce(data.data(), data.data(), data.size(), DataType::kF32).Wait();
                 if (status.ok()) continue;
                 if (comm.rank() == 1) break;
                 EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
                 const std::string said(status.message());
                 EXPECT_THAT(said, ::testing::AnyOf(HasSubstr("late rank 1 has not called it"),
                                                    HasSubstr("late rank 1, for which"),
                                                    HasSubstr("waiting for rank 1 "),
                                                    ::testing::EndsWith("waiting for rank 1")));
                 gave_up.Add();
                 break;
               }
               EXPECT_TRUE(gave_up.WaitFor(3));
             },
             {.timeout = absl::Milliseconds(400)});
  }
}

TEST(Failures, ARankThatStaysStoppedIsLost) {
  // Long before the deadline: its process is seen to be stopped, or on another host its silence.
  setenv("COHORT_PEER_SILENCE_MS", "300", 1);
  SharedCounter named;
  RunRanks(3, [&](Communicator& comm) {
    if (comm.rank() == 1) {
      if (fork() == 0) {
        named.WaitFor(2);
        kill(getppid(), SIGCONT);
        _exit(0);
      }
      raise(SIGSTOP);
      EXPECT_FALSE(comm.Barrier().Wait().ok());
      return;
    }
    ExpectNames(comm.Barrier().Wait(), absl::StatusCode::kUnavailable, "rank 1 was lost");
    named.Add();
  });
  unsetenv("COHORT_PEER_SILENCE_MS");
}

TEST(Failures, WaitHasADeadlineOfItsOwn) {
  SharedCounter gave_up;
  RunRanks(2, [&](Communicator& comm) {
    float one = 1;
    if (comm.rank() == 1) {
      EXPECT_TRUE(gave_up.WaitFor(1));
    }
    const Work work = comm.AllReduce(&one, &one, 1, DataType::kF32);
    if (comm.rank() == 0) {
      ExpectNames(work.Wait(absl::Now() + absl::Milliseconds(20)), absl::StatusCode::kDeadlineExceeded,
                  "late rank 1");
      gave_up.Add();
    }
    EXPECT_EQ(work.Wait(), absl::OkStatus());  // it was not cancelled
    EXPECT_EQ(one, 2);
  });
}

TEST(Failures, DifferentSizesAndOperationsAreErrorsEverywhere) {
  RunRanks(3, [](Communicator& comm) {
    std::vector<float> data(kLarge + 1, 1.0f);
    for (const size_t count : {kSmall, kLarge}) {
      const size_t own = comm.rank() == 1 ? count + 1 : count;
      const absl::Status status = comm.AllReduce(data.data(), data.data(), own, DataType::kF32).Wait();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("all-reduce of")) << status;
    }
    const Work work =
        comm.rank() == 2 ? comm.Barrier() : comm.AllReduce(data.data(), data.data(), 7, DataType::kF32);
    const absl::Status status = work.Wait();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("barrier")) << status;
    // Nothing of that is left behind.
    EXPECT_EQ(comm.Barrier().Wait(), absl::OkStatus());
  });
}

TEST(Failures, NothingWhereOthersBringSomething) {
  RunRanks(2, [](Communicator& comm) {
    std::vector<float> data(kSmall, 1.0f);
    const size_t own = comm.rank() == 0 ? 0 : kSmall;
    const absl::Status status = comm.AllReduce(data.data(), data.data(), own, DataType::kF32).Wait();
    if (comm.rank() == 1) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    }
    // Rank 0 has nothing to wait for.
    EXPECT_EQ(comm.Barrier().Wait(), absl::OkStatus());
  });
}

TEST(Failures, SendAndReceiveOfDifferentSizeFailOnBothSides) {
  RunRanks(2, [](Communicator& comm) {
    std::vector<float> data(kLarge, 1.0f);
    for (const size_t count : {size_t{1}, kSmall, kLarge}) {
      const Work work = comm.rank() == 0 ? comm.Send(data.data(), count, DataType::kF32, 1)
                                         : comm.Recv(data.data(), count - 1, DataType::kF32, 0);
      const absl::Status status = work.Wait();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    }
    EXPECT_EQ(comm.Barrier().Wait(), absl::OkStatus());
  });
}

TEST(Failures, WrongArgumentsAreRefusedAtOnce) {
  auto comm = Communicator::Single();
  float value = 0;
  const auto refused = [](const Work& work) {
    return work.Wait().code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused(comm->AllReduce(nullptr, &value, 1, DataType::kF32)));
  EXPECT_TRUE(refused(comm->ReduceScatter(&value, &value + 1, {1, 1}, DataType::kF32)));
  EXPECT_TRUE(refused(comm->AllGather(&value, &value, {}, DataType::kF32)));
  EXPECT_TRUE(refused(comm->Broadcast(&value, 1, DataType::kF32, 1)));
  EXPECT_TRUE(refused(comm->AllToAll(&value, &value, 1, DataType::kF32)));
  EXPECT_TRUE(refused(comm->AllToAll(&value, &value + 1, SIZE_MAX / 2, DataType::kF32)));
  EXPECT_TRUE(refused(comm->AllToAllV(&value, {1}, &value + 1, {2}, DataType::kF32)));
  EXPECT_TRUE(refused(comm->Send(&value, 1, DataType::kF32, 1)));
  EXPECT_TRUE(refused(comm->Recv(&value, 1, DataType::kF32, 0, -1)));
}

}  // namespace
}  // namespace cohort::comm
