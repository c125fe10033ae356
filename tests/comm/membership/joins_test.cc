// Newcomers of other hosts join live groups over UCX. Hosts are names here: COHORT_HOST_ID.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "comm/communicator.h"
#include "comm/membership/compose.h"
#include "comm/membership/join_board.h"
#include "tests/comm/membership/works.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RankOptions;
using cohort::testing::RunProcesses;
using cohort::testing::SharedCounter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr CommunicatorOptions kOptions = {.timeout = absl::Seconds(20)};

// Processes 0 to founders-1 make a group; the others join it from the hosts given. Then all have the same group.
void GrowOverHosts(int founders, const std::vector<std::string>& hosts) {
  const int size = static_cast<int>(hosts.size());
  RunProcesses(size, [&](int process, int, const std::string& folder) {
    setenv("COHORT_HOST_ID", hosts[process].c_str(), 1);
    auto board = FolderJoinBoard(folder + "/board");
    auto comm = process < founders
                    ? Communicator::Create(FileRendezvous(folder + "/meet", process, founders), kOptions)
                    : Communicator::Join(board, kOptions);
    ASSERT_TRUE(comm.ok()) << comm.status();
    while (process < founders && (*comm)->size() < size) {
      const auto change = (*comm)->Grow(board, {.at_least = size - (*comm)->size()});
      ASSERT_TRUE(change.ok()) << change.status();
    }
    ASSERT_EQ((*comm)->size(), size);
    EXPECT_EQ((*comm)->members()[(*comm)->rank()], (*comm)->rank());
    ExpectWorks(**comm);
  });
}

TEST(Joins, FromAnotherHost) { GrowOverHosts(3, {"a", "a", "a", "b", "b"}); }

TEST(Joins, AGroupOfSeveralHosts) { GrowOverHosts(3, {"a", "b", "b", "a", "c"}); }

TEST(Joins, AProcessAlone) { GrowOverHosts(1, {"a", "b"}); }

TEST(Joins, TheRankOfTheLostIsTakenFromAnotherHost) {
  RankOptions options;
  options.victims = {1};
  SharedCounter met;
  RunProcesses(
      4,
      [&](int process, int, const std::string& folder) {
        setenv("COHORT_HOST_ID", process == 3 ? "b" : "a", 1);
        auto board = FolderJoinBoard(folder + "/board");
        auto comm = process == 3
                        ? Communicator::Join(board, kOptions)
                        : Communicator::Create(FileRendezvous(folder + "/meet", process, 3), kOptions);
        ASSERT_TRUE(comm.ok()) << comm.status();
        if (process < 3) {
          met.Add();
          ASSERT_TRUE(met.WaitFor(3));
          if (process == 1) kill(getpid(), SIGKILL);
          EXPECT_EQ((*comm)->Barrier().Wait().code(), absl::StatusCode::kUnavailable);
          const auto change = (*comm)->Grow(board, {.at_most = 1, .at_least = 1, .replace = true});
          ASSERT_TRUE(change.ok()) << change.status();
          EXPECT_THAT(change->previous_rank, ElementsAre(0, -1, 2));
        }
        EXPECT_THAT((*comm)->members(), ElementsAre(0, 3, 2));
        EXPECT_EQ((*comm)->topology().num_hosts(), 2);
        ExpectWorks(**comm);
      },
      options);
}

// ---- Who can be taken in: a pure function ----

MemberCard CardOf(const std::string& host, const std::string& shm, const std::string& ucx) {
  MemberCard card;
  card.host = card.location.host = host;
  card.shm = shm;
  card.ucx = ucx;
  return card;
}

Agreement::Vote VoteOf(const MemberCard& card, int next_member) {
  EditVote vote;
  vote.next_member = next_member;
  vote.card = card;
  return {Encode(vote), {}};
}

TEST(Joins, WhoIsRefusedHearsWhy) {
  RunProcesses(2, [](int process, int, const std::string& folder) {
    const auto board = FolderJoinBoard(folder + "/board");
    if (process == 1) {
      const auto joined = Communicator::Join(board, {.timeout = absl::Seconds(20)});
      EXPECT_EQ(ExclusionOf(joined.status()), Exclusion::kRefused) << joined.status();
      EXPECT_THAT(std::string(joined.status().message()), HasSubstr("it is over"));
      return;
    }
    for (const absl::Time until = absl::Now() + absl::Seconds(20); absl::Now() < until;) {
      const auto waiting = board->Waiting();
      ASSERT_TRUE(waiting.ok()) << waiting.status();
      if (!waiting->empty()) break;
      absl::SleepFor(absl::Milliseconds(5));
    }
    EXPECT_TRUE(RefuseNewcomers(*board, "it is over").ok());
  });
}

TEST(Joins, OnlyNewcomersThatAllReachAreTakenIn) {
  const MemberCard memory = CardOf("a", "shm", ""), both = CardOf("a", "shm", "ucx"),
                   far = CardOf("b", "shm", "ucx"), deaf = CardOf("b", "shm", "");
  EXPECT_EQ(PathBetween(memory, both), Path::kSharedMemory);
  EXPECT_EQ(PathBetween(both, far), Path::kUcx);
  EXPECT_EQ(PathBetween(memory, far), Path::kNone);
  const EditedGroup before{0, {0, 1}};
  const std::vector<std::pair<std::string, MemberCard>> newcomers = {
      {"far", far}, {"near", memory}, {"deaf", deaf}};
  // One member has no UCX yet, as it has not seen who waits: the far one waits for the next edit.
  const EditDecision first =
      ComposeDecision(before, {{0, VoteOf(memory, 2)}, {1, VoteOf(both, 2)}}, newcomers, {});
  EXPECT_THAT(first.members, ElementsAre(0, 1, 2));
  ASSERT_EQ(first.newcomers.size(), 1u);
  EXPECT_EQ(first.newcomers[0].name, "near");
  // Newcomers must reach each other too: the near one has no UCX.
  const EditDecision second =
      ComposeDecision(before, {{0, VoteOf(both, 2)}, {1, VoteOf(both, 2)}}, newcomers, {});
  ASSERT_EQ(second.newcomers.size(), 1u);
  EXPECT_EQ(second.newcomers[0].name, "far");
}

}  // namespace
}  // namespace cohort::comm
