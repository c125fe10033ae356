// Edits of live groups by real processes: who is lost goes, who waits comes, and the results are right.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "comm/communicator.h"
#include "comm/membership/join_board.h"
#include "tests/comm/membership/works.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RankOptions;
using cohort::testing::RunProcesses;
using cohort::testing::RunRanks;
using cohort::testing::SharedCounter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Calls one collective after the other until one fails, and returns its status.
absl::Status UntilFailure(Communicator& comm, size_t count, int kind, int die_at = -1) {
  std::vector<float> a(count * comm.size(), 1.0f), b(count * comm.size());
  const std::vector<size_t> counts(comm.size(), count);
  for (int round = 0; round < 100000; ++round) {
    std::vector<Work> works;
    const auto start = [&](int which) {
      switch (which) {
        case 0:
          return comm.AllReduce(a.data(), b.data(), count * comm.size(), DataType::kF32);
        case 1:
          return comm.ReduceScatter(a.data(), b.data(), counts, DataType::kF32);
        case 2:
          return comm.AllGather(a.data(), b.data(), counts, DataType::kF32);
        case 3:
          return comm.Broadcast(b.data(), count, DataType::kF32, 0);
        case 4:
          return comm.AllToAll(a.data(), b.data(), count, DataType::kF32);
        default:
          return comm.Barrier();
      }
    };
    const Work work = start(kind % 6);
    if (round == die_at) kill(getpid(), SIGKILL);
    const absl::Status status = work.Wait();
    if (!status.ok()) return status;
  }
  return absl::InternalError("nothing failed");
}

TEST(Edits, SurvivorsOfEveryCollectiveGoOn) {
  for (int kind = 0; kind < 6; ++kind) {
    RankOptions options;
    options.victims = {1};
    RunRanks(
        4,
        [&](Communicator& comm) {
          const absl::Status status =
              UntilFailure(comm, kind % 2 == 0 ? kSmall : 50'000, kind, comm.rank() == 1 ? 7 : -1);
          EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
          EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 was lost")) << status;
          const int before = comm.rank();
          const auto change = comm.Shrink();
          ASSERT_TRUE(change.ok()) << change.status();
          EXPECT_EQ(change->epoch, 1u);
          EXPECT_EQ(comm.epoch(), 1u);
          EXPECT_EQ(comm.size(), 3);
          EXPECT_EQ(comm.topology().size(), 3);
          EXPECT_EQ(comm.rank(), before == 0 ? 0 : before - 1);
          EXPECT_THAT(change->lost, ElementsAre(1));
          EXPECT_THAT(change->previous_rank, ElementsAre(0, 2, 3));
          ExpectWorks(comm);
        },
        options);
  }
}

TEST(Edits, TwoOfEightAtOnce) {
  RankOptions options;
  options.victims = {0, 5};
  RunRanks(
      8,
      [](Communicator& comm) {
        const bool victim = comm.rank() == 0 || comm.rank() == 5;
        EXPECT_EQ(UntilFailure(comm, 1000, 0, victim ? 3 : -1).code(), absl::StatusCode::kUnavailable);
        if (victim) kill(getpid(), SIGKILL);  // it heard of the other one first
        while (comm.size() > 6) {             // the second may be lost after the first is taken out
          ASSERT_TRUE(comm.Shrink().ok());
          if (comm.size() > 6) {
            EXPECT_FALSE(UntilFailure(comm, 1000, 0).ok());
          }
        }
        EXPECT_EQ(comm.size(), 6);
        ExpectWorks(comm);
      },
      options);
}

TEST(Edits, MembersDieInTheMiddleOfAnEdit) {
  for (int delay = 0; delay < 6; ++delay) {
    RankOptions options;
    options.victims = {0, 2};
    RunRanks(
        5,
        [&](Communicator& comm) {
          const int before = comm.rank();
          EXPECT_FALSE(UntilFailure(comm, 100, 0, before == 2 ? 3 : -1).ok());
          if (before == 0) {  // the leader, at some point of it
            if (fork() == 0) {
              absl::SleepFor(absl::Microseconds(150 * delay));
              kill(getppid(), SIGKILL);
              _exit(0);
            }
          }
          for (;;) {
            const auto change = comm.Shrink();
            ASSERT_TRUE(change.ok()) << change.status();
            if (before == 0) (void)UntilFailure(comm, 100, 0);
            if (comm.size() == 3) break;
            EXPECT_FALSE(UntilFailure(comm, 100, 0).ok());
          }
          ExpectWorks(comm);
        },
        options);
  }
}

TEST(Edits, GrowByTwo) {
  RunProcesses(5, [](int rank, int, const std::string& folder) {
    auto board = FolderJoinBoard(folder + "/board");
    std::unique_ptr<Communicator> comm;
    if (rank >= 3) {
      auto joined = Communicator::Join(board, {.timeout = absl::Seconds(10)});
      ASSERT_TRUE(joined.ok()) << joined.status();
      comm = *std::move(joined);
      EXPECT_GE(comm->rank(), 3);
    } else {
      auto created =
          Communicator::Create(FileRendezvous(folder + "/meet", rank, 3), {.timeout = absl::Seconds(10)});
      ASSERT_TRUE(created.ok()) << created.status();
      comm = *std::move(created);
      ExpectWorks(*comm);
      const auto change = comm->Grow(board, {.at_least = 2});
      ASSERT_TRUE(change.ok()) << change.status();
      EXPECT_THAT(change->previous_rank, ElementsAre(0, 1, 2, -1, -1));
      EXPECT_EQ(comm->rank(), rank);
    }
    EXPECT_EQ(comm->size(), 5);
    EXPECT_EQ(comm->epoch(), 1u);
    ExpectWorks(*comm);
  });
}

TEST(Edits, GrowFromOne) {
  RunProcesses(2, [](int rank, int, const std::string& folder) {
    auto board = FolderJoinBoard(folder + "/board");
    auto comm = rank == 1 ? Communicator::Join(board, {.timeout = absl::Seconds(10)})
                          : Communicator::Create(FileRendezvous(folder + "/meet", 0, 1), {});
    ASSERT_TRUE(comm.ok()) << comm.status();
    if (rank == 0) {
      ASSERT_TRUE((*comm)->Grow(board, {.patience = absl::Seconds(10), .at_least = 1}).ok());
    }
    EXPECT_EQ((*comm)->size(), 2);
    ExpectWorks(**comm);
  });
}

TEST(Edits, ANewcomerTakesTheRankOfTheLost) {
  RankOptions options;
  options.victims = {1};
  RunProcesses(
      4,
      [](int rank, int, const std::string& folder) {
        auto board = FolderJoinBoard(folder + "/board");
        if (rank == 3) {
          auto joined = Communicator::Join(board, {.timeout = absl::Seconds(10)});
          ASSERT_TRUE(joined.ok()) << joined.status();
          EXPECT_EQ((*joined)->rank(), 1);
          ExpectWorks(**joined);
          return;
        }
        auto comm =
            Communicator::Create(FileRendezvous(folder + "/meet", rank, 3), {.timeout = absl::Seconds(10)});
        ASSERT_TRUE(comm.ok()) << comm.status();
        EXPECT_FALSE(UntilFailure(**comm, 1000, 0, rank == 1 ? 4 : -1).ok());
        const auto change = (*comm)->Grow(board, {.at_most = 1, .at_least = 1, .replace = true});
        ASSERT_TRUE(change.ok()) << change.status();
        EXPECT_THAT(change->previous_rank, ElementsAre(0, -1, 2));
        EXPECT_THAT(change->lost, ElementsAre(1));
        EXPECT_EQ((*comm)->rank(), rank);
        ExpectWorks(**comm);
      },
      options);
}

TEST(Edits, LeaveOfOnesOwnWill) {
  RunRanks(3, [](Communicator& comm) {
    const bool leaves = comm.rank() == 0;
    const auto change = comm.Shrink({.leave = leaves});
    ASSERT_TRUE(change.ok()) << change.status();
    EXPECT_THAT(change->left, ElementsAre(0));
    EXPECT_THAT(change->lost, ElementsAre());
    if (leaves) {
      EXPECT_EQ(change->rank, -1);
      EXPECT_EQ(comm.Barrier().Wait().code(), absl::StatusCode::kFailedPrecondition);
      return;
    }
    EXPECT_EQ(comm.size(), 2);
    ExpectWorks(comm);
  });
}

TEST(Edits, AStoppedMemberIsTakenOutAndLearnsIt) {
  SharedCounter edited;
  RunRanks(4,
           [&](Communicator& comm) {
             if (comm.rank() == 2) {
               if (fork() == 0) {
                 edited.WaitFor(3);
                 kill(getppid(), SIGCONT);
                 _exit(0);
               }
               raise(SIGSTOP);
               // What the others had sent before they gave up may do for this one, or it hears that it was late.
               (void)comm.Barrier().Wait();
               const auto change = comm.Shrink();
               EXPECT_EQ(change.status().code(), absl::StatusCode::kFailedPrecondition) << change.status();
               EXPECT_THAT(std::string(change.status().message()),
                           HasSubstr("not a member of the group any more"));
               EXPECT_EQ(ExclusionOf(change.status()), Exclusion::kRemoved);
               EXPECT_EQ(ExclusionOf(comm.Barrier().Wait()), Exclusion::kRemoved);
               return;
             }
             const absl::Status status = comm.Barrier().Wait();
             EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
             const auto change = comm.Shrink({.patience = absl::Milliseconds(200)});
             ASSERT_TRUE(change.ok()) << change.status();
             EXPECT_THAT(change->lost, ElementsAre(2));
             edited.Add();
             ExpectWorks(comm);
           },
           {.timeout = absl::Milliseconds(300)});
}

TEST(Edits, AMinorityDoesNotGoOn) {
  RankOptions options;
  options.victims = {0, 1};
  RunRanks(
      3,
      [](Communicator& comm) {
        EXPECT_FALSE(UntilFailure(comm, 10, 0, comm.rank() < 2 ? 3 : -1).ok());
        if (comm.rank() < 2) kill(getpid(), SIGKILL);  // it heard of the other's death before its own
        const auto change = comm.Shrink({.quorum = true});
        EXPECT_EQ(change.status().code(), absl::StatusCode::kFailedPrecondition) << change.status();
        EXPECT_THAT(std::string(change.status().message()), HasSubstr("no quorum"));
        EXPECT_EQ(ExclusionOf(change.status()), Exclusion::kNoQuorum);
      },
      options);
}

TEST(Edits, AbortEndsWhatIsInFlightEverywhere) {
  RunRanks(3, [](Communicator& comm) {
    float value = 1;
    std::vector<float> data(10, 1.0f);
    if (comm.rank() == 0) {
      absl::SleepFor(absl::Milliseconds(20));
      comm.Abort(absl::CancelledError("the user has changed his mind"));
    }
    const Work work = comm.rank() == 0 ? Work() : comm.Recv(&value, 1, DataType::kF32, 0, 3);
    const absl::Status status =
        comm.rank() == 0 ? comm.AllReduce(data.data(), data.data(), 10, DataType::kF32).Wait() : work.Wait();
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("changed his mind"));
    EXPECT_EQ(comm.Barrier().Wait().code(), absl::StatusCode::kCancelled);
    const auto change = comm.Shrink();
    ASSERT_TRUE(change.ok()) << change.status();
    EXPECT_EQ(comm.size(), 3);
    ExpectWorks(comm);
  });
}

// Rank 1 waits for rank 2 in one part of the world, which waits for rank 3 in a part of that: nobody stays there.
TEST(Edits, AbortEndsTheParts) {
  RunRanks(4, [](Communicator& comm) {
    auto three = comm.Split(comm.rank() == 0 ? -1 : 0, 0);
    ASSERT_TRUE(three.ok()) << three.status();
    std::unique_ptr<Communicator> two;
    if (comm.rank() > 0) {
      auto split = (*three)->Split(comm.rank() == 1 ? -1 : 0, 0);
      ASSERT_TRUE(split.ok()) << split.status();
      two = *std::move(split);
    }
    // The others have their parts.
    char byte = 0;
    if (comm.rank() > 0) {
      ASSERT_TRUE(comm.Send(&byte, 1, DataType::kU8, 0).Wait().ok());
    }
    if (comm.rank() == 0) {
      for (int rank = 1; rank < 4; ++rank) ASSERT_TRUE(comm.Recv(&byte, 1, DataType::kU8, rank).Wait().ok());
      absl::SleepFor(absl::Milliseconds(20));  // so that most of them wait by then
      comm.Abort(absl::CancelledError("the user has changed his mind"));
    } else if (comm.rank() < 3) {
      const absl::Status status = (comm.rank() == 1 ? **three : *two).Barrier().Wait();
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    }
    const auto change = comm.Shrink();
    ASSERT_TRUE(change.ok()) << change.status();
    ExpectWorks(comm);
    if (comm.rank() > 0) {
      EXPECT_EQ((*three)->Barrier().Wait().code(), absl::StatusCode::kCancelled);
    }
    auto again = comm.Split(0, 0);
    ASSERT_TRUE(again.ok()) << again.status();
    ExpectWorks(**again);
  });
}

TEST(Edits, GroupsAreEditedToo) {
  RankOptions options;
  options.victims = {3};
  RunRanks(
      4,
      [](Communicator& comm) {
        auto group = comm.Split(comm.rank() == 0 ? -1 : 0, 0);
        ASSERT_TRUE(group.ok());
        if (*group == nullptr) return;  // world rank 0 has left: that is no loss to the group
        EXPECT_FALSE(UntilFailure(**group, 100, 0, comm.rank() == 3 ? 2 : -1).ok());
        const auto change = (*group)->Shrink();
        ASSERT_TRUE(change.ok()) << change.status();
        EXPECT_THAT(change->lost, ElementsAre(2));
        ExpectWorks(**group);
      },
      options);
}

TEST(Edits, NobodyWaitsForNewcomersInVain) {
  RunProcesses(1, [](int, int, const std::string& folder) {
    const absl::Time start = absl::Now();
    const auto joined =
        Communicator::Join(FolderJoinBoard(folder + "/board"), {.timeout = absl::Milliseconds(100)});
    EXPECT_EQ(joined.status().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_LT(absl::Now() - start, absl::Seconds(5));
    auto comm = Communicator::Create(FileRendezvous(folder + "/meet", 0, 1));
    ASSERT_TRUE(comm.ok());
    const auto change = (*comm)->Grow(FolderJoinBoard(folder + "/board"));
    ASSERT_TRUE(change.ok()) << change.status();
    EXPECT_EQ(change->size, 1);
  });
}

}  // namespace
}  // namespace cohort::comm
