// Keepers as processes: who starts them, what they hold when ranks die, and what becomes of them.
#include "runtime/elastic/keeper/keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/transport/shm/process.h"
#include "runtime/elastic/keeper/meet.h"
#include "runtime/elastic/keeper/wire.h"
#include "tests/runtime/elastic/keeper/test_keeper.h"
#include "tests/support/ranks.h"

namespace cohort::runtime::elastic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr size_t kBytes = 100'000;

void Fill(const Keeper::Created& segment, int seed) {
  std::memset(segment.memory.writable().data(), seed, segment.memory.bytes().size());
}

bool Holds(absl::Span<const std::byte> bytes, int seed) {
  return bytes.size() == kBytes &&
         std::all_of(bytes.begin(), bytes.end(), [&](std::byte b) { return b == std::byte(seed); });
}

bool Eventually(const std::function<bool()>& what) {
  for (const absl::Time end = absl::Now() + absl::Seconds(10); absl::Now() < end;
       absl::SleepFor(absl::Milliseconds(1))) {
    if (what()) return true;
  }
  return false;
}

// Also false where nobody has waited for it yet.
bool Runs(int pid) {
  const auto began = comm::shm::StartTime(pid);
  const auto process = comm::shm::Process::Open(pid, began.ok() ? *began : 0);
  return process.ok() && process->Alive();
}

TEST(Keeper, OneComesOfManyWhoStartIt) {
  TestJob job;
  testing::SharedCounter pid, others, here;
  testing::RunProcesses(8, [&](int, int size, const std::string&) {
    const auto keeper = job.Connect();
    ASSERT_NE(keeper, nullptr);
    pid.Add(keeper->pid());
    here.Add();
    ASSERT_TRUE(here.WaitFor(size));
    if (pid.Get() != size * keeper->pid()) others.Add();
    EXPECT_TRUE(keeper->Alive());
    EXPECT_NE(getsid(keeper->pid()), getsid(0));
  });
  EXPECT_EQ(others.Get(), 0);
}

TEST(Keeper, HoldsWhatTheDeadHaveLeft) {
  TestJob job;
  const auto keeper = job.Connect();
  ASSERT_NE(keeper, nullptr);
  testing::SharedCounter ready;
  testing::RunProcesses(
      3,
      [&](int rank, int, const std::string&) {
        const auto mine = job.Connect();
        ASSERT_NE(mine, nullptr);
        const auto segment = mine->Create({absl::StrCat("member ", rank), 7, rank}, "snapshot", kBytes);
        ASSERT_TRUE(segment.ok()) << segment.status();
        Fill(*segment, rank + 1);
        ready.Add();
        ASSERT_TRUE(ready.WaitFor(3));
        if (rank == 1) kill(getpid(), SIGKILL);
        // Who lives sees it: by itself, and marked as dead.
        ASSERT_TRUE(Eventually([&] {
          const auto list = mine->List();
          return list.ok() && list->size() == 3 &&
                 std::count_if(list->begin(), list->end(), [](const SegmentEntry& entry) {
                   return entry.owner.rank == 1 && !entry.owner_here;
                 }) == 1;
        }));
        ready.Add();
        ASSERT_TRUE(ready.WaitFor(5));
      },
      {.victims = {1}});
  const auto list = keeper->List();
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->size(), 3u);
  for (const SegmentEntry& entry : *list) {
    EXPECT_EQ(entry.owner.member, absl::StrCat("member ", entry.owner.rank));
    EXPECT_EQ(entry.owner.epoch, 7u);
    EXPECT_EQ(entry.kind, "snapshot");
    const auto memory = keeper->Map(entry.id);
    ASSERT_TRUE(memory.ok()) << memory.status();
    EXPECT_TRUE(Holds(memory->bytes(), entry.owner.rank + 1));
    EXPECT_EQ(mprotect(const_cast<std::byte*>(memory->bytes().data()), 1, PROT_READ | PROT_WRITE), -1)
        << "what others have written can be written";
  }
}

TEST(Keeper, SegmentsHaveNamesAndGo) {
  TestJob job;
  const auto keeper = job.Connect();
  auto first = keeper->Create({"a", 1, 0}, "snapshot", kBytes);
  auto second = keeper->Create({"a", 1, 0}, "parity", 1);
  ASSERT_TRUE(first.ok() && second.ok());
  ASSERT_TRUE(keeper->Rename(first->handle, {"a", 2, 3}).ok());
  auto list = *keeper->List();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].owner.epoch, 2u);
  EXPECT_EQ(list[0].owner.rank, 3);
  EXPECT_EQ(list[0].pid, getpid());
  EXPECT_TRUE(list[0].owner_here);
  EXPECT_EQ(list[1].kind, "parity");
  const auto mapped = keeper->Map(list[0].id);
  Fill(*first, 5);
  EXPECT_TRUE(keeper->Drop(first->handle).ok());
  EXPECT_TRUE(Holds(mapped->bytes(), 5)) << "who has mapped it keeps it";
  EXPECT_TRUE(absl::IsNotFound(keeper->Map(list[0].id).status()));
  EXPECT_TRUE(absl::IsNotFound(keeper->Drop(first->handle)));
  EXPECT_TRUE(keeper->Release(list[1].id).ok());
  EXPECT_TRUE(keeper->Drop(second->handle).ok()) << "somebody else had released it";
  EXPECT_TRUE(keeper->List()->empty());
}

TEST(Keeper, ListsMoreThanOneMessageHolds) {
  TestJob job;
  const auto keeper = job.Connect();
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(keeper->Create({std::string(4000, 'x'), 1, i}, "k", 1).ok());
  }
  const auto list = keeper->List();
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 50u);
  for (int i = 0; i < 50; ++i) EXPECT_EQ((*list)[i].owner.rank, i);
}

TEST(Keeper, RefusesWhatTheHostWouldNotHold) {
  TestJob job;
  const auto keeper = job.Connect();
  const auto segment = keeper->Create({"greedy", 1, 0}, "snapshot", size_t{1} << 46);
  EXPECT_TRUE(absl::IsResourceExhausted(segment.status())) << segment.status();
  EXPECT_THAT(std::string(segment.status().message()), HasSubstr(absl::StrCat(size_t{1} << 46)));
  EXPECT_THAT(std::string(segment.status().message()), HasSubstr("greedy"));
  EXPECT_TRUE(keeper->List()->empty());
}

TEST(Keeper, GoesWhenTold) {
  TestJob job;
  const auto keeper = job.Connect(), other = job.Connect();
  const int pid = keeper->pid();
  ASSERT_TRUE(keeper->End().ok());
  EXPECT_TRUE(Eventually([&] { return !Runs(pid); }));
  EXPECT_FALSE(other->Alive());
  EXPECT_TRUE(absl::IsUnavailable(other->List().status()));
  EXPECT_TRUE(absl::IsNotFound(Keeper::Find(job.Options()).status()));
}

TEST(Keeper, GoesWhenNobodyIsThere) {
  TestJob job;
  KeeperOptions options = job.Options();
  options.idle_life = absl::Milliseconds(200);
  auto keeper = job.Connect(options);
  const int pid = keeper->pid();
  ASSERT_TRUE(keeper->Create({"a", 1, 0}, "snapshot", kBytes).ok());
  absl::SleepFor(absl::Milliseconds(400));
  EXPECT_TRUE(Runs(pid)) << "somebody is there";
  keeper.reset();
  EXPECT_TRUE(Eventually([&] { return !Runs(pid); }));
}

TEST(Keeper, OutlivesWhoStartedItAndItsSession) {
  TestJob job;
  testing::SharedCounter pid;
  testing::RunProcesses(1,
                        [&](int, int, const std::string&) {
                          setsid();
                          const auto keeper = job.Connect();
                          ASSERT_TRUE(keeper->Create({"a", 1, 0}, "snapshot", kBytes).ok());
                          pid.Add(keeper->pid());
                          kill(0, SIGKILL);  // the whole process group, as launchers do
                        },
                        {.victims = {0}});
  ASSERT_GT(pid.Get(), 0);
  EXPECT_TRUE(Runs(pid.Get()));
  EXPECT_EQ(job.Connect()->List()->size(), 1u);
}

TEST(Keeper, RanksStartAnotherWhereItWasKilled) {
  TestJob job;
  const auto keeper = job.Connect(), other = job.Connect();
  const auto mine = keeper->Create({"mine", 1, 0}, "snapshot", kBytes);
  const auto theirs = other->Create({"theirs", 1, 1}, "snapshot", kBytes);
  Fill(*mine, 1);
  Fill(*theirs, 2);
  const int pid = keeper->pid();
  kill(pid, SIGKILL);
  ASSERT_TRUE(Eventually([&] { return !keeper->Alive() && !other->Alive(); }));
  EXPECT_TRUE(absl::IsUnavailable(keeper->List().status()));
  // Both at once.
  std::thread thread([&] { EXPECT_TRUE(other->Reconnect().ok()); });
  EXPECT_TRUE(keeper->Reconnect().ok());
  thread.join();
  EXPECT_EQ(keeper->pid(), other->pid());
  EXPECT_NE(keeper->pid(), pid);
  const auto list = keeper->List();
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 2u);
  for (const SegmentEntry& entry : *list) {
    EXPECT_TRUE(Holds(keeper->Map(entry.id)->bytes(), entry.owner.member == "mine" ? 1 : 2));
  }
  EXPECT_TRUE(keeper->Drop(mine->handle).ok());
}

TEST(Keeper, OneThatIsStoppedIsNotWaitedForLong) {
  TestJob job;
  KeeperOptions options = job.Options();
  options.answer_wait = absl::Milliseconds(100);
  const auto keeper = job.Connect(options);
  kill(keeper->pid(), SIGSTOP);
  const auto list = keeper->List();
  EXPECT_TRUE(absl::IsUnavailable(list.status())) << list.status();
  EXPECT_THAT(std::string(list.status().message()), HasSubstr("did not answer"));
  kill(keeper->pid(), SIGCONT);
  EXPECT_TRUE(keeper->Reconnect().ok());
  EXPECT_TRUE(keeper->List().ok());
}

TEST(Keeper, ACommandThatIsNoneIsAnError) {
  TestJob job;
  KeeperOptions options = job.Options();
  options.command = {"/nonexistent/keeper"};
  const auto none = Keeper::Connect(options);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("/nonexistent/keeper"));
  options.command = {"/bin/false"};
  EXPECT_FALSE(Keeper::Connect(options).ok());
  options.command = {"/bin/true"};  // ends well, and serves nobody
  options.start_wait = absl::Milliseconds(300);
  EXPECT_TRUE(absl::IsUnavailable(Keeper::Connect(options).status()));
}

TEST(Keeper, GarbageHarmsOnlyWhoSendsIt) {
  TestJob job;
  const auto keeper = job.Connect();
  const auto segment = keeper->Create({"a", 1, 0}, "snapshot", kBytes);
  const std::string good = keeper_wire::Writer()
                               .Number(keeper_wire::kMagic)
                               .Number(keeper_wire::Request::kRegister)
                               .Owner({"b", 1, 2})
                               .Text("snapshot")
                               .Number(uint64_t{kBytes})
                               .text();
  std::vector<std::string> messages = {"", "x", std::string(1000, '\xff'), good};
  for (size_t cut = 1; cut < good.size(); cut += 3) messages.push_back(good.substr(0, cut));
  for (const std::string& message : messages) {
    const auto socket = MeetKeeper(job.Options(), false, absl::Now() + absl::Seconds(5));
    ASSERT_TRUE(socket.ok());
    // With a file that is no memory, as well as without.
    (void)keeper_wire::Send(*socket, message, message.size() % 2 == 0 ? *socket : -1);
    char byte;
    (void)recv(*socket, &byte, 1, 0);
    close(*socket);
  }
  EXPECT_EQ(keeper->List()->size(), 1u);
  EXPECT_TRUE(keeper->Alive());
}

}  // namespace
}  // namespace cohort::runtime::elastic
