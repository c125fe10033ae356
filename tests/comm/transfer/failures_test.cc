// What goes wrong outside: peers that die, stop or leave, rails that break, writes that must be refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/comm/transfer/mesh.h"

namespace cohort::comm::transfer {
namespace {

// proc(5): the state follows the name in parentheses.
bool IsStopped(int pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t name_end = text.rfind(')');
  return name_end != std::string::npos && name_end + 2 < text.size() && text[name_end + 2] == 'T';
}

using cohort::testing::RankOptions;
using cohort::testing::SharedCounter;
using ::testing::HasSubstr;

class TransferFailures : public ::testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(Over, TransferFailures, ::testing::ValuesIn(Modes()),
                         [](const auto& info) { return std::string(info.param.name); });

void ExpectError(const absl::Status& status, absl::StatusCode code, const std::string& text) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(text)) << status;
}

TEST_P(TransferFailures, BadRangesAreRefusedByTheTargetAndWriteNothing) {
  RunMesh(GetParam(), 2, 200'000, [](Mesh& mesh) {
    std::fill(mesh.source.begin(), mesh.source.end(), std::byte{1});
    const int peer = 1 - mesh.rank;
    // Small ones and large ones go different ways.
    for (const uint64_t bytes : {16u, 100'000u}) {
      WriteRequest request = mesh.Request(peer, 0, bytes);
      request.immediate = 3;
      request.to_offset = 200'000 - bytes + 1;
      ExpectError(mesh.engine->Write(request).Wait(), absl::StatusCode::kOutOfRange,
                  absl::StrCat("peer 'rank ", peer, "' refused"));
      request.to_offset = UINT64_MAX - 4;
      ExpectError(mesh.engine->Write(request).Wait(), absl::StatusCode::kOutOfRange, "which has 200000");
      request.to_offset = 0;
      request.to.number = 99;
      ExpectError(mesh.engine->Write(request).Wait(), absl::StatusCode::kNotFound,
                  "region 99 is not registered");
      request.to = mesh.regions[peer];
      request.from_offset = 200'001 - bytes;
      ExpectError(mesh.engine->Write(request).Wait(), absl::StatusCode::kInvalidArgument, "source bytes");
      request.from.number = 77;
      ExpectError(mesh.engine->Write(request).Wait(), absl::StatusCode::kNotFound, "source region 77");
    }
    // One bad page, and the immediate of all is not counted.
    PagedWriteRequest pages;
    pages.peer = mesh.peers[peer];
    pages.from = mesh.from;
    pages.from_pages = {{0, 1}, 0, 64};
    pages.to = mesh.regions[peer];
    pages.to_pages = {{0, 4000}, 0, 64};
    pages.page_bytes = 64;
    pages.immediate = 3;
    ExpectError(mesh.engine->WritePaged(pages).Wait(), absl::StatusCode::kOutOfRange, "refused");
    // One page to fewer than come.
    pages.to_pages = {{0}, 0, 64};
    pages.immediate.reset();
    EXPECT_EQ(mesh.engine->WritePaged(pages).Wait().code(), absl::StatusCode::kInvalidArgument);
    mesh.Meet("tried");
    EXPECT_EQ(mesh.engine->Count(3), 0u);
    EXPECT_EQ(std::count(mesh.target.begin(), mesh.target.end(), std::byte{0}), 200'000);
    mesh.Meet("checked");
    // An unregistered region is refused from then on, and a good write still goes through.
    WriteRequest request = mesh.Request(peer, 0, 16);
    EXPECT_TRUE(mesh.engine->Write(request).Wait().ok());
    mesh.Meet("written");
    EXPECT_TRUE(mesh.engine->Unregister(mesh.own).ok());
    ExpectError(mesh.engine->Unregister(mesh.own), absl::StatusCode::kNotFound, "not registered");
    mesh.Meet("unregistered");
    ExpectError(mesh.engine->Write(request).Wait(), absl::StatusCode::kNotFound, "is not registered");
    mesh.Meet("end");
  });
}

TEST_P(TransferFailures, KilledPeerIsNamedInTheMiddle) {
  RankOptions options;
  options.victims = {1};
  RunMesh(
      GetParam(), 3, 4 << 20,
      [](Mesh& mesh) {
        if (mesh.rank == 1) {
          ASSERT_TRUE(mesh.engine->Expect({.immediate = 1, .count = 10}).Wait().ok());
          kill(getpid(), SIGKILL);
        }
        WriteRequest request = mesh.Request(1, 0, 4 << 20);
        request.immediate = 1;
        absl::Status status;
        for (int i = 0; i < 10'000 && status.ok(); ++i) status = mesh.engine->Write(request).Wait();
        ExpectError(status, absl::StatusCode::kUnavailable, "peer 'rank 1' was lost");
        // So is everything that needs it; survivors go on.
        ExpectError(mesh.engine->Write(request).Wait(), absl::StatusCode::kUnavailable, "rank 1");
        ExpectError(mesh.engine->Barrier({mesh.peers[1]}, 5).Wait(), absl::StatusCode::kUnavailable,
                    "rank 1");
        ExpectError(mesh.engine->Expect({.immediate = 9, .from = {mesh.peers[1]}}).Wait(),
                    absl::StatusCode::kUnavailable, "rank 1");
        for (const absl::Time until = absl::Now() + absl::Seconds(5); mesh.lost == 0 && absl::Now() < until;)
          absl::SleepFor(absl::Milliseconds(1));
        EXPECT_EQ(mesh.lost, 1);
        const int survivor = 2 - mesh.rank;
        const absl::Status others = mesh.engine->Barrier({mesh.peers[survivor]}, 6).Wait();
        EXPECT_TRUE(others.ok()) << others;
      },
      options);
}

TEST_P(TransferFailures, DeadlinesNameWhoIsLate) {
  RunMesh(GetParam(), 2, 64, [](Mesh& mesh) {
    const absl::Time start = absl::Now();
    const auto soon = [] { return absl::Now() + absl::Milliseconds(50); };
    ExpectError(mesh.engine->Expect({.immediate = 4, .count = 2, .deadline = soon()}).Wait(),
                absl::StatusCode::kDeadlineExceeded, "0 of 2");
    if (mesh.rank == 0) {
      ExpectError(mesh.engine->Barrier({mesh.peers[1]}, 1, soon()).Wait(),
                  absl::StatusCode::kDeadlineExceeded, "peer 'rank 1'");
    }
    // The wait's own deadline ends the wait, not the transfer.
    const Work expectation = mesh.engine->Expect({.immediate = 5, .count = 1});
    ExpectError(expectation.Wait(soon()), absl::StatusCode::kDeadlineExceeded, "goes on");
    EXPECT_FALSE(expectation.Done());
    EXPECT_LT(absl::Now() - start, absl::Seconds(5));
    mesh.Meet("late");
    WriteRequest request = mesh.Request(1 - mesh.rank, 0, 8);
    request.immediate = 5;
    EXPECT_TRUE(mesh.engine->Write(request).Wait().ok());
    EXPECT_TRUE(expectation.Wait().ok());
    mesh.Meet("end");
  });
}

TEST_P(TransferFailures, PeersLeaveAndComeBack) {
  RunMesh(GetParam(), 2, 64, [](Mesh& mesh) {
    WriteRequest request = mesh.Request(1 - mesh.rank, 0, 64);
    for (int round = 1; round <= 4; ++round) {
      std::fill(mesh.source.begin(), mesh.source.end(), static_cast<std::byte>(round));
      request.immediate = 1;
      const absl::Status status = mesh.engine->Write(request).Wait();
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_TRUE(mesh.engine->Expect({.immediate = 1}).Wait().ok());
      EXPECT_EQ(mesh.target[63], static_cast<std::byte>(round));
      mesh.Meet(absl::StrCat("round", round));
      // One removes the other, which hears of it and can add it again, in any order.
      if (mesh.rank == round % 2) {
        ASSERT_TRUE(mesh.engine->RemovePeer(request.peer).ok());
        ExpectError(mesh.engine->Write(request).Wait(), absl::StatusCode::kNotFound, "no peer");
      } else {
        absl::Status gone;
        while (gone.ok()) gone = mesh.engine->Write(request).Wait(absl::Now() + absl::Seconds(10));
        ExpectError(gone, absl::StatusCode::kUnavailable, "has left or removed");
        ASSERT_TRUE(mesh.engine->RemovePeer(request.peer).ok());
      }
      mesh.Meet(absl::StrCat("gone", round));
      while (mesh.engine->Count(1) > 0) (void)mesh.engine->Expect({.immediate = 1}).Wait();
      request.peer = mesh.Add(1 - mesh.rank);
      EXPECT_EQ(mesh.engine->AddPeer(mesh.Get("card", 1 - mesh.rank)).status().code(),
                absl::StatusCode::kAlreadyExists);
    }
    mesh.Meet("end");
  });
}

TEST_P(TransferFailures, StoppedTargetEndsByTheDeadlineAndSourceIsFree) {
  if (GetParam().allocated) GTEST_SKIP() << "such a write needs nothing of its target";
  if (!GetParam().shared_memory) setenv("COHORT_PEER_SILENCE_MS", "60000", 1);
  // More than the sockets of two rails hold: a write that is in them whole is counted when its target goes on.
  constexpr uint64_t kBytes = 48 << 20;
  SharedCounter pid, seen;
  RankOptions options;
  RunMesh(
      GetParam(), 2, kBytes,
      [&](Mesh& mesh) {
        if (mesh.rank == 1) {
          pid.Add(getpid());
          EXPECT_TRUE(seen.WaitFor(1));
          // What was given up is not counted afterwards.
          EXPECT_TRUE(mesh.engine->Barrier({mesh.peers[0]}, 3).Wait().ok());
          EXPECT_EQ(mesh.engine->Count(8), 0u);
          return;
        }
        ASSERT_TRUE(pid.WaitFor(1));
        while (*mesh.engine->LiveRails(mesh.peers[1]) == 0) absl::SleepFor(absl::Milliseconds(1));
        kill(pid.Get(), SIGSTOP);
        while (!IsStopped(pid.Get()))
          absl::SleepFor(absl::Milliseconds(1));  // it could take the write until then
        WriteRequest request = mesh.Request(1, 0, kBytes);
        request.immediate = 8;
        request.deadline = absl::Now() + absl::Milliseconds(200);
        const absl::Time start = absl::Now();
        ExpectError(mesh.engine->Write(request).Wait(), absl::StatusCode::kDeadlineExceeded, "peer 'rank 1'");
        EXPECT_LT(absl::Now() - start, absl::Seconds(3));
        EXPECT_TRUE(mesh.engine->Unregister(mesh.from).ok());
        kill(pid.Get(), SIGCONT);
        seen.Add();
        const absl::Status together = mesh.engine->Barrier({mesh.peers[1]}, 3).Wait();
        EXPECT_TRUE(together.ok()) << together;
      },
      options);
  unsetenv("COHORT_PEER_SILENCE_MS");
}

const Mode kMapped = {"", true, {"lo"}, true};

// A region goes while a peer writes to it without a pause; its slot is used again, and nothing late arrives there.
TEST(TransferMapped, WritesEndWithTheirRegion) {
  RunMesh(kMapped, 2, 4096, [](Mesh& mesh) {
    if (mesh.rank == 0) {
      std::fill(mesh.source.begin(), mesh.source.end(), std::byte{7});
      WriteRequest request = mesh.Request(1, 0, 4096);
      EXPECT_TRUE(mesh.engine->Write(request).Wait().ok());
      mesh.Put("writing", "without a pause");
      absl::Status status;
      for (uint64_t tries = 0; status.ok() && tries < 100'000'000; ++tries)
        status = mesh.engine->Write(request).Wait();
      ExpectError(status, absl::StatusCode::kNotFound, "is not registered");
      mesh.Meet("refused");
      const Region next = {std::stoull(mesh.Get("next", 1)), 4096};
      EXPECT_NE(next.number, request.to.number);
      request.to = next;
      mesh.Meet("looked");
      EXPECT_TRUE(mesh.engine->Write(request).Wait().ok());
      mesh.Meet("written");
    } else {
      mesh.Get("writing", 0);
      EXPECT_TRUE(mesh.engine->Unregister(mesh.own).ok());
      const auto next = mesh.engine->Allocate(4096);
      ASSERT_TRUE(next.ok()) << next.status();
      mesh.Put("next", absl::StrCat(next->region.number));
      mesh.Meet("refused");
      EXPECT_EQ(std::count(next->data, next->data + 4096, std::byte{0}), 4096);
      mesh.Meet("looked");
      mesh.Meet("written");
      EXPECT_EQ(std::count(next->data, next->data + 4096, std::byte{7}), 4096);
    }
    mesh.Meet("end");
  });
}

// Once RemovePeer has returned, the memory stays as it is, whatever the peer does; added anew, it writes again.
TEST(TransferMapped, ARemovedPeerWritesNothingMore) {
  constexpr size_t kBytes = 32 << 10;
  RunMesh(kMapped, 2, kBytes, [](Mesh& mesh) {
    WriteRequest request = mesh.Request(1 - mesh.rank, 0, kBytes);
    for (int round = 0; round < 5; ++round) {
      if (mesh.rank == 0) {
        absl::Status status;
        for (int i = 1; status.ok(); ++i) {
          std::fill(mesh.source.begin(), mesh.source.end(), static_cast<std::byte>(1 + i % 100));
          status = mesh.engine->Write(request).Wait();
          if (i == 1) mesh.Put(absl::StrCat("writing", round), "without a pause");
        }
        ExpectError(status, absl::StatusCode::kUnavailable, "has left or removed");
        ASSERT_TRUE(mesh.engine->RemovePeer(request.peer).ok());
      } else {
        mesh.Get(absl::StrCat("writing", round), 0);
        ASSERT_TRUE(mesh.engine->RemovePeer(request.peer).ok());
        EXPECT_EQ(std::count(mesh.target.begin(), mesh.target.end(), std::byte{0}), 0);
        const std::vector<std::byte> then(mesh.target.begin(), mesh.target.end());
        absl::SleepFor(absl::Milliseconds(20));
        EXPECT_TRUE(std::equal(then.begin(), then.end(), mesh.target.begin()));
        std::fill(mesh.target.begin(), mesh.target.end(), std::byte{0});
      }
      mesh.Meet(absl::StrCat("round", round));
      request.peer = mesh.Add(1 - mesh.rank);
    }
    // The last incarnation's writes were not begun on this side: it ends with the engines.
    mesh.Meet("end");
  });
}

// Small writes wait for nobody, and still the loss of their target is noticed.
TEST(TransferMapped, AKilledOwnerIsNoticed) {
  RankOptions options;
  options.victims = {1};
  RunMesh(
      kMapped, 2, 4096,
      [](Mesh& mesh) {
        if (mesh.rank == 1) {
          ASSERT_TRUE(mesh.engine->Expect({.immediate = 1}).Wait().ok());
          kill(getpid(), SIGKILL);
        }
        WriteRequest request = mesh.Request(1, 0, 4096);
        request.immediate = 1;
        absl::Status status = mesh.engine->Write(request).Wait();
        request.immediate.reset();
        const absl::Time until = absl::Now() + absl::Seconds(10);
        while (status.ok() && absl::Now() < until) status = mesh.engine->Write(request).Wait();
        ExpectError(status, absl::StatusCode::kUnavailable, "peer 'rank 1' was lost");
      },
      options);
}

TEST(TransferMapped, WhatCannotBeAllocatedSaysSo) {
  auto engine = TransferEngine::Create({.name = "alone", .rails = {"lo"}});
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ((*engine)->Allocate(0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*engine)->Allocate(UINT64_MAX).status().code(), absl::StatusCode::kInvalidArgument);
  const auto one = (*engine)->Allocate(1);
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(one->data) % 4096, 0u);
  EXPECT_TRUE((*engine)->Unregister(one->region).ok());
  EXPECT_EQ((*engine)->Unregister(one->region).code(), absl::StatusCode::kNotFound);
}

TEST(TransferWaits, NoTimeoutIsNoDeadline) {
  auto engine =
      TransferEngine::Create({.name = "alone", .rails = {"lo"}, .timeout = absl::InfiniteDuration()});
  ASSERT_TRUE(engine.ok()) << engine.status();
  const Work never = (*engine)->Expect({.immediate = 1});
  // The wait's deadline, not the transfer's.
  ExpectError(never.Wait(absl::Now() + absl::Milliseconds(100)), absl::StatusCode::kDeadlineExceeded,
              "goes on");
  EXPECT_FALSE(never.Done());
}

// What stands behind a Work is used again when nobody has it any more, and not before.
TEST(TransferWaits, WorksThatAreKeptStayWhatTheyWere) {
  auto engine = TransferEngine::Create({.name = "alone", .rails = {"lo"}});
  ASSERT_TRUE(engine.ok()) << engine.status();
  std::vector<Work> late;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 100; ++i) {
      const Work work = (*engine)->Expect({.immediate = 1, .deadline = absl::Now() + absl::Milliseconds(1)});
      if (i % 3 == 0) late.push_back(work);  // the others are dropped, some before they are over
    }
    ExpectError(late.back().Wait(), absl::StatusCode::kDeadlineExceeded, "0 of 1 expected");
    const Work pending = (*engine)->Expect({.immediate = 2});
    for (const Work& work : late)
      ExpectError(work.Wait(), absl::StatusCode::kDeadlineExceeded, "0 of 1 expected");
    EXPECT_FALSE(pending.Done());
  }
}

// The connected TCP sockets of this process.
std::set<int> Connections() {
  std::set<int> sockets;
  for (int fd = 0; fd < 1024; ++fd) {
    sockaddr_in peer = {};
    socklen_t length = sizeof(peer);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0 && peer.sin_family == AF_INET)
      sockets.insert(fd);
  }
  return sockets;
}

TEST(TransferRails, WritesGoOnOverTheOthersWhenOneBreaks) {
  constexpr size_t kBytes = 4 << 20;
  RunMesh({"", false, {"lo", "lo", "lo"}}, 2, kBytes, [](Mesh& mesh) {
    const PeerId peer = mesh.peers[1 - mesh.rank];
    while (*mesh.engine->LiveRails(peer) < 3) absl::SleepFor(absl::Milliseconds(1));
    mesh.Meet("connected");
    WriteRequest request = mesh.Request(1 - mesh.rank, 0, kBytes);
    request.immediate = 1;
    for (int round = 0; round < 12; ++round) {
      for (size_t i = 0; i < kBytes; ++i) mesh.source[i] = Pattern(mesh.rank + round, i);
      const Work write = mesh.engine->Write(request);
      // In the middle of a write, a connection of one process breaks: twice.
      if (mesh.rank == 0 && (round == 3 || round == 7)) {
        absl::SleepFor(absl::Microseconds(500));
        shutdown(*Connections().begin(), SHUT_RDWR);
        while (*mesh.engine->LiveRails(peer) != (round == 3 ? 2 : 1)) absl::SleepFor(absl::Milliseconds(1));
      }
      const absl::Status status = write.Wait();
      ASSERT_TRUE(status.ok()) << status << " in round " << round;
      ASSERT_TRUE(mesh.engine->Expect({.immediate = 1}).Wait().ok());
      for (size_t i = 0; i < kBytes; ++i) ASSERT_EQ(mesh.target[i], Pattern(1 - mesh.rank + round, i)) << i;
      // Once each, although shards were sent again.
      EXPECT_EQ(mesh.engine->Count(1), 0u);
      ASSERT_TRUE(mesh.engine->Barrier({peer}, 1).Wait().ok());
    }
    EXPECT_EQ(mesh.lost, 0);
    mesh.Meet("end");
  });
}

}  // namespace
}  // namespace cohort::comm::transfer
