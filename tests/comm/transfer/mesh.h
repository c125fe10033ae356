// Engines of several processes that have all added each other, for tests.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/rendezvous.h"
#include "comm/transfer/transfer_engine.h"
#include "tests/support/ranks.h"

namespace cohort::comm::transfer {

// How two processes of one host reach each other.
struct Mode {
  const char* name;
  bool shared_memory;
  std::vector<std::string> rails;
  bool allocated = false;  // the regions that peers write to

  friend void PrintTo(const Mode& mode, std::ostream* out) { *out << mode.name; }
};

inline std::vector<Mode> Modes() {
  return {{"SharedMemory", true, {"lo"}},
          {"MappedMemory", true, {"lo"}, true},
          {"OneRail", false, {"lo"}},
          {"TwoRails", false, {"lo", "lo"}}};
}

// One process's engine, a region of `bytes` that peers write to, and one that it writes from.
struct Mesh {
  Mesh(const Mode& mode, int own_rank, int size, const std::string& folder, size_t bytes)
      : rank(own_rank), board(FileRendezvous(folder, own_rank, size)), source(bytes) {
    Options options;
    options.name = absl::StrCat("rank ", rank);
    options.rails = mode.rails;
    options.shared_memory = mode.shared_memory;
    options.timeout = absl::Seconds(20);
    options.min_shard_bytes = 4 << 10;
    auto created = TransferEngine::Create(options);
    if (!created.ok()) ADD_FAILURE() << created.status();
    engine = *std::move(created);
    if (mode.allocated) {
      const Allocation allocation = *engine->Allocate(bytes);
      own = allocation.region;
      target = {allocation.data, bytes};
    } else {
      memory.resize(bytes);
      target = absl::MakeSpan(memory);
      own = *engine->Register(target.data(), bytes);
    }
    from = *engine->Register(source.data(), bytes);
    Put("card", engine->Card());
    Put("region", absl::StrCat(own.number));
    for (int r = 0; r < size; ++r) {
      peers.push_back(r == rank ? PeerId{} : Add(r));
      Region region = own;  // of the same size everywhere
      if (r != rank) region.number = std::stoull(Get("region", r));
      regions.push_back(region);
    }
  }

  PeerId Add(int r) {
    auto peer = engine->AddPeer(Get("card", r), [this](PeerId, const absl::Status& why) {
      EXPECT_FALSE(why.ok());
      lost.fetch_add(1);
    });
    EXPECT_TRUE(peer.ok()) << peer.status();
    return *peer;
  }
  void Put(const std::string& key, const std::string& value) {
    ASSERT_TRUE(board->Put(absl::StrCat(key, rank), value).ok());
  }
  std::string Get(const std::string& key, int r) {
    return *board->Get(absl::StrCat(key, r), absl::Now() + absl::Seconds(20));
  }
  // Waits until all have come here; over the rendezvous, so that engines need not work. What this thread did to memory
  // comes before what the engine's thread does after others have come here too, and the other way round: because of
  // the other processes, which no thread sanitizer knows, and of the engine's lock, which it does.
  void Meet(const std::string& where) {
    engine->Count(0);
    Put(where, "here");
    for (size_t r = 0; r < regions.size(); ++r) Get(where, static_cast<int>(r));
    engine->Count(0);
  }
  // A write from and to the same offset.
  WriteRequest Request(int r, uint64_t offset, uint64_t bytes) const {
    return {.peer = peers[r],
            .from = from,
            .from_offset = offset,
            .to = regions[r],
            .to_offset = offset,
            .bytes = bytes};
  }

  int rank;
  std::shared_ptr<Rendezvous> board;
  std::vector<std::byte> memory, source;
  absl::Span<std::byte> target;  // is `memory`, or the engine's
  std::atomic<int> lost{0};
  std::unique_ptr<TransferEngine> engine;
  Region own, from;
  std::vector<PeerId> peers;
  std::vector<Region> regions;
};

inline void RunMesh(const Mode& mode, int size, size_t bytes, const std::function<void(Mesh&)>& body,
                    const cohort::testing::RankOptions& options = {}) {
  cohort::testing::RunProcesses(
      size,
      [&](int rank, int ranks, const std::string& folder) {
        Mesh mesh(mode, rank, ranks, folder, bytes);
        body(mesh);
      },
      options);
}

// The byte at `index` of what `rank` writes.
inline std::byte Pattern(int rank, size_t index) {
  return static_cast<std::byte>((index * 2654435761u >> 13) + 31 * static_cast<size_t>(rank) + 1);
}

}  // namespace cohort::comm::transfer
