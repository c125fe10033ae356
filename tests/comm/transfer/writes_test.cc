// Writes of every kind between real processes, against plain loops.
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "tests/comm/transfer/mesh.h"

namespace cohort::comm::transfer {
namespace {

class Writes : public ::testing::TestWithParam<Mode> {};
INSTANTIATE_TEST_SUITE_P(Over, Writes, ::testing::ValuesIn(Modes()),
                         [](const auto& info) { return std::string(info.param.name); });

constexpr uint32_t kImmediate = 7;

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

// Everybody writes ranges of all sizes to everybody else; the receiver waits for their immediates only.
TEST_P(Writes, RandomRangesArriveBeforeTheyAreCounted) {
  constexpr int kRanks = 3;
  constexpr size_t kShare = 1 << 20;  // of the target, for each writer
  RunMesh(GetParam(), kRanks, kRanks * kShare, [](Mesh& mesh) {
    std::mt19937 random(mesh.rank);
    for (size_t i = 0; i < mesh.source.size(); ++i) mesh.source[i] = Pattern(mesh.rank, i);
    // The same cuts for all writers, so that readers know how many there are.
    std::vector<uint64_t> cuts = {0, 0, 1, 9, 4000, 70'000, 70'001, 300'000, kShare};
    std::vector<WriteRequest> requests;
    for (int to = 0; to < kRanks; ++to) {
      if (to == mesh.rank) continue;
      for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        requests.push_back(mesh.Request(to, mesh.rank * kShare + cuts[i], cuts[i + 1] - cuts[i]));
        requests.back().immediate = kImmediate;
      }
    }
    std::shuffle(requests.begin(), requests.end(), random);
    std::vector<Work> works;
    for (const WriteRequest& request : requests) works.push_back(mesh.engine->Write(request));
    const absl::Status counted =
        mesh.engine
            ->Expect({.immediate = kImmediate, .count = (kRanks - 1) * (cuts.size() - 1), .deadline = Soon()})
            .Wait();
    ASSERT_TRUE(counted.ok()) << counted;
    for (size_t i = 0; i < mesh.target.size(); ++i) {
      const int writer = static_cast<int>(i / kShare);
      const std::byte expected = writer == mesh.rank ? std::byte{0} : Pattern(writer, i);
      ASSERT_EQ(mesh.target[i], expected) << "byte " << i << " of rank " << mesh.rank;
    }
    for (const Work& work : works) ASSERT_TRUE(work.Wait().ok()) << work.Wait();
    EXPECT_EQ(mesh.engine->Count(kImmediate), 0u);
    mesh.Meet("end");
  });
}

TEST_P(Writes, PagesAndStridesAsPlainLoops) {
  constexpr size_t kBytes = 3 << 20;
  RunMesh(GetParam(), 2, kBytes, [](Mesh& mesh) {
    std::vector<std::byte> expected(kBytes), theirs(kBytes);
    for (size_t i = 0; i < kBytes; ++i) {
      mesh.source[i] = Pattern(mesh.rank, i);
      theirs[i] = Pattern(1 - mesh.rank, i);
    }
    std::vector<Work> works;
    uint64_t writes = 0;
    const auto peer = mesh.peers[1 - mesh.rank];
    const Region to = mesh.regions[1 - mesh.rank];
    // Pages, many and small, few and large; scattered over the first two thirds of the region.
    uint64_t area = 0;
    for (const uint64_t page : {16u, 4096u, 40'000u}) {
      const uint32_t count = static_cast<uint32_t>(600'000 / (page + 24));
      std::vector<uint32_t> from_pages(count), to_pages(count);
      std::iota(from_pages.begin(), from_pages.end(), 0);
      std::iota(to_pages.begin(), to_pages.end(), 0);
      std::mt19937 random(11);
      std::shuffle(from_pages.begin(), from_pages.end(), random);
      std::shuffle(to_pages.begin(), to_pages.end(), random);
      PagedWriteRequest request;
      request.peer = peer;
      request.from = mesh.from;
      request.from_pages = {from_pages, 3, page + 8};
      request.to = to;
      request.to_pages = {to_pages, area, page + 24};
      request.page_bytes = page;
      request.immediate = kImmediate;
      works.push_back(mesh.engine->WritePaged(request));
      ++writes;
      for (uint32_t i = 0; i < count; ++i) {
        for (uint64_t b = 0; b < page; ++b)
          expected[area + to_pages[i] * (page + 24) + b] = theirs[3 + from_pages[i] * (page + 8) + b];
      }
      area += 600'000;
    }
    for (const uint64_t block : {1u, 100u, 9000u}) {
      const uint64_t blocks = 300'000 / (block + 5);
      works.push_back(mesh.engine->WriteStrided({.peer = peer,
                                                 .from = mesh.from,
                                                 .from_offset = 1,
                                                 .from_stride = block + 2,
                                                 .to = to,
                                                 .to_offset = area,
                                                 .to_stride = block + 5,
                                                 .block_bytes = block,
                                                 .blocks = blocks,
                                                 .immediate = kImmediate}));
      ++writes;
      for (uint64_t i = 0; i < blocks; ++i) {
        for (uint64_t b = 0; b < block; ++b)
          expected[area + i * (block + 5) + b] = theirs[1 + i * (block + 2) + b];
      }
      area += 300'000;
    }
    const absl::Status counted =
        mesh.engine->Expect({.immediate = kImmediate, .count = writes, .deadline = Soon()}).Wait();
    ASSERT_TRUE(counted.ok()) << counted;
    for (size_t i = 0; i < kBytes; ++i) ASSERT_EQ(mesh.target[i], expected[i]) << "byte " << i;
    for (const Work& work : works) ASSERT_TRUE(work.Wait().ok()) << work.Wait();
    mesh.Meet("end");
  });
}

TEST_P(Writes, ScatterAndBarriers) {
  constexpr int kRanks = 4;
  constexpr int kRounds = 20;
  RunMesh(GetParam(), kRanks, 64 * kRanks, [](Mesh& mesh) {
    std::vector<PeerId> others;
    for (int r = 0; r < kRanks; ++r) {
      if (r != mesh.rank) others.push_back(mesh.peers[r]);
    }
    for (int round = 1; round <= kRounds; ++round) {
      std::fill(mesh.source.begin(), mesh.source.end(), static_cast<std::byte>(64 * mesh.rank + round));
      std::vector<WriteRequest> requests;
      for (int r = 0; r < kRanks; ++r) {
        if (r != mesh.rank) requests.push_back(mesh.Request(r, 64 * mesh.rank, 64));
      }
      ASSERT_TRUE(mesh.engine->Scatter(requests).Wait().ok());
      // All have written, and none begins the next round before all have looked.
      const absl::Status wrote = mesh.engine->Barrier(others, 1).Wait();
      ASSERT_TRUE(wrote.ok()) << wrote;
      for (int r = 0; r < kRanks; ++r) {
        if (r != mesh.rank) {
          ASSERT_EQ(mesh.target[64 * r + 63], static_cast<std::byte>(64 * r + round));
        }
      }
      ASSERT_TRUE(mesh.engine->Barrier(others, 2).Wait().ok());
    }
    mesh.Meet("end");
  });
}

// Writes that answer each other; each says that the one before it is over. The last has no answer, and is over all the same
// while its target calls nothing.
TEST_P(Writes, AnswersSayThatWhatTheyAnswerIsOver) {
  RunMesh(GetParam(), 2, 64, [](Mesh& mesh) {
    WriteRequest request = mesh.Request(1 - mesh.rank, 0, 8);
    request.immediate = kImmediate;
    for (int round = 0; round < 3; ++round) {
      Work last;
      for (int i = 0; i < 500; ++i) {
        if (mesh.rank == 0) last = mesh.engine->Write(request);
        const Work expected = mesh.engine->Expect({.immediate = kImmediate, .deadline = Soon()});
        while (round == 1 && !expected.Done()) sched_yield();  // the one way to wait, and the other
        const absl::Status came = expected.Wait();
        ASSERT_TRUE(came.ok()) << came;
        if (mesh.rank == 1) last = mesh.engine->Write(request);
      }
      const std::string over = absl::StrCat("over", round);
      if (mesh.rank == 1) {
        ASSERT_TRUE(last.Wait(Soon()).ok());
        mesh.Put(over, "yes");
      } else {
        mesh.Get(over, 1);
        ASSERT_TRUE(last.Done());
      }
    }
    mesh.Meet("end");
  });
}

TEST_P(Writes, ZeroBytesCarryTheirImmediate) {
  RunMesh(GetParam(), 2, 64, [](Mesh& mesh) {
    WriteRequest request = mesh.Request(1 - mesh.rank, 0, 0);
    request.immediate = 0xffffffff;
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(mesh.engine->Write(request).Wait().ok());
    ASSERT_TRUE(mesh.engine->Expect({.immediate = 0xffffffff, .count = 3, .deadline = Soon()}).Wait().ok());
    request.immediate.reset();
    EXPECT_TRUE(mesh.engine->Write(request).Wait().ok());
    EXPECT_TRUE(mesh.engine->Scatter({}).Wait().ok());
    mesh.Meet("end");
  });
}

}  // namespace
}  // namespace cohort::comm::transfer
