// Checkpoints of ranks that hold pieces: whatever some hold and write, any others read, bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/hf_folder.h"
#include "runtime/checkpoint/state_plan.h"
#include "runtime/model/spread.h"
#include "tests/runtime/checkpoint/fake_trainable.h"
#include "tests/support/temp_folder.h"

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

struct Held {
  Piece piece;
  bool writes = true;
};
constexpr char kBuffer[] = "bias";

std::vector<Piece> AllTensors() {
  return {Piece::Whole("w", {6, 10}), Piece::Whole("v", {3, 4, 5}), Piece::Whole("norm", {7}),
          Piece::Whole("tiny", {1}), Piece::Whole("lone", {5, 3})};
}

// What a rank of so many holds.
using Holding = std::vector<Held> (*)(int rank, int ranks);

std::vector<Held> Everything(int rank, int) {
  std::vector<Held> held;
  for (const Piece& piece : AllTensors()) held.push_back({piece, rank == 0});
  held.push_back({Piece::Whole(kBuffer, {4}), rank == 0});
  return held;
}

std::vector<Held> OnTheLast(int rank, int ranks) {
  return rank == ranks - 1 ? Everything(0, 1) : std::vector<Held>();
}

// All tensors one after another, cut into equal flat ranges; some hold nothing of many, and the buffer is everywhere.
std::vector<Held> FlatShards(int rank, int ranks) {
  int64_t total = 0;
  for (const Piece& piece : AllTensors()) total += piece.size();
  const RowRange range = RowsOf(total, rank, ranks);
  std::vector<Held> held;
  int64_t at = 0;
  for (const Piece& piece : AllTensors()) {
    const int64_t from = std::clamp<int64_t>(range.begin - at, 0, piece.size());
    const int64_t to = std::clamp<int64_t>(range.end - at, from, piece.size());
    held.push_back({piece.Range(from, to)});
    at += piece.size();
  }
  held.push_back({Piece::Whole(kBuffer, {4}), rank == ranks - 1});
  return held;
}

// Boxes along the last and a middle dimension, flat ranges of boxes, copies, and a tensor that one rank has alone.
std::vector<Held> Mixed(int rank, int ranks) {
  std::vector<Held> held;
  const RowRange columns = RowsOf(10, rank, ranks), middle = RowsOf(4, rank, ranks);
  held.push_back({Piece::Box("norm", {7}, 0, 0, 7), rank == 1 % ranks});
  const Piece box = Piece::Box("w", {6, 10}, 1, columns.begin, columns.end);
  const int64_t cut = box.size() / 3 + 1;  // in two pieces, the second one first
  held.push_back({box.Range(cut, box.size())});
  held.push_back({box.Range(0, cut)});
  held.push_back({Piece::Box("v", {3, 4, 5}, 1, middle.begin, middle.end)});
  if (rank == ranks / 2) held.push_back({Piece::Whole("tiny", {1})});
  const Piece lone = Piece::Whole("lone", {5, 3});
  if (rank == 0) held.push_back({lone.Range(0, 4)});
  if (rank == ranks - 1) held.push_back({lone.Range(4, 15)});
  held.push_back({Piece::Whole(kBuffer, {4}), rank == 0});
  return held;
}

// Trains nothing; its pieces lie in two slices, with gaps that belong to nobody.
class PieceHolder final : public FakeRank {
 public:
  PieceHolder(std::shared_ptr<FakeWorld> world, int rank, std::vector<Held> held, DataType compute)
      : FakeRank(std::move(world), rank) {
    int64_t sizes[2] = {3, 0};
    for (const Held& one : held) {
      auto parameter = std::make_unique<Parameter>();
      const Piece& piece = one.piece;
      parameter->name = piece.name;
      parameter->full_shape = piece.full;
      parameter->shape = piece.box();
      parameter->split_dim = piece.dim;
      parameter->split_begin = piece.begin;
      StateEntry entry{piece, parameter.get(), -1, 0, one.writes};
      if (piece.name == kBuffer) {
        parameter->value = parameter->master = Tensor::Zeros(CpuDevice(), piece.box(), DataType::kF32);
      } else {
        entry.slice = static_cast<int>(state_.size() % 2);
        entry.offset = sizes[entry.slice];
        sizes[entry.slice] += piece.size() + 2;
      }
      parameters_.push_back(std::move(parameter));
      state_.push_back(std::move(entry));
    }
    for (int i = 0; i < 2; ++i) {
      OptimizerSlice slice;
      slice.master = Tensor::Zeros(CpuDevice(), {sizes[i]}, DataType::kF32);
      if (compute != DataType::kF32) slice.value = Tensor::Zeros(CpuDevice(), {sizes[i]}, compute);
      slices_.push_back(std::move(slice));
    }
    optimizer = OptimizerState::For(slices_);
  }

  // Bits that depend on the kind of state and the place in the whole tensor alone.
  void Fill(uint32_t salt) {
    Each([&](const std::string& key, int64_t i, void* at, size_t bytes) {
      const uint32_t bits = Bits(salt, key, i);
      std::memcpy(at, &bits, bytes);
    });
    optimizer.step = salt;
  }
  // "" where all bits are Fill's.
  std::string Difference(uint32_t salt) {
    std::string difference;
    Each([&](const std::string& key, int64_t i, void* at, size_t bytes) {
      const uint32_t bits = Bits(salt, key, i);
      if (std::memcmp(at, &bits, bytes) != 0) difference = key + " element " + std::to_string(i);
    });
    if (optimizer.step != salt) difference = "optimizer.step";
    return difference;
  }

  absl::Status StateRestored() override { return ++restored, absl::OkStatus(); }

  int restored = 0;

 private:
  // Finite numbers of either type: exponents in the middle.
  static uint32_t Bits(uint32_t salt, const std::string& key, int64_t i) {
    uint32_t hash = salt * 2654435761u;
    for (const char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    hash = (hash ^ static_cast<uint32_t>(i)) * 2246822519u;
    hash ^= hash >> 13;
    return (hash & 0x8fff8fffu) | 0x30003000u;
  }
  void Each(const std::function<void(const std::string&, int64_t, void*, size_t)>& visit) {
    for (const StateEntry& entry : state_) {
      const StateTensors tensors = TensorsOf(entry, *this, optimizer);
      const auto all = [&](const std::string& key, const Tensor& tensor) {
        const size_t bytes = SizeOf(tensor.dtype());
        ForEachRun(entry.piece, [&](const PieceRun& run) {
          for (int64_t i = 0; i < run.count; ++i) {
            visit(key, run.full + i, static_cast<char*>(tensor.raw()) + (run.offset + i) * bytes, bytes);
          }
        });
      };
      // Where compute and state type are one, values are masters.
      const bool same = !tensors.state.empty() && tensors.value.raw() == tensors.state[0].raw();
      all(entry.piece.name + (same ? "/master" : ""), tensors.value);
      for (size_t i = 0; i < tensors.state.size(); ++i) {
        all(entry.piece.name + "/" + kStateKinds[i], tensors.state[i]);
      }
    }
  }

  std::vector<std::unique_ptr<Parameter>> parameters_;
};

struct Arrangement {
  const char* name;
  int ranks;
  Holding holding;
};
constexpr Arrangement kArrangements[] = {
    {"one rank", 1, Everything},           {"copies on 2", 2, Everything}, {"flat on 3", 3, FlatShards},
    {"flat on 8", 8, FlatShards},          {"mixed on 5", 5, Mixed},       {"mixed on 2", 2, Mixed},
    {"all on the last of 3", 3, OnTheLast}};

class CheckpointPiecesTest : public ::testing::Test {
 protected:
  CheckpointPiecesTest() {
    options_.root = temp_.path() + "/checkpoints";
    options_.shard_bytes = 100;  // several files
  }
  void Save(const Arrangement& from, uint32_t step, DataType compute) {
    RunRanks(from.ranks, [&](std::shared_ptr<FakeWorld> world, int rank) {
      PieceHolder holder(world, rank, from.holding(rank, from.ranks), compute);
      holder.Fill(step);
      TrainerState state;
      state.step = step;
      const auto saved = SaveCheckpoint(holder, holder.optimizer, state, options_);
      EXPECT_TRUE(saved.ok()) << saved.status();
    });
  }
  void ExpectLoads(const Arrangement& to, uint32_t step, DataType compute) {
    RunRanks(to.ranks, [&](std::shared_ptr<FakeWorld> world, int rank) {
      PieceHolder holder(world, rank, to.holding(rank, to.ranks), compute);
      const auto state = LoadCheckpoint(holder, ModelConfig(), holder.optimizer, options_.root + "/latest");
      ASSERT_TRUE(state.ok()) << state.status();
      EXPECT_EQ(holder.Difference(step), "") << to.name << ", rank " << rank;
      EXPECT_EQ(holder.restored, 1);
    });
  }

  TempFolder temp_;
  CheckpointOptions options_;
};

TEST_F(CheckpointPiecesTest, WhatThreeHoldersWriteFiveOthersRead) {
  Save({"flat on 3", 3, FlatShards}, 7, DataType::kBF16);
  ExpectLoads({"mixed on 5", 5, Mixed}, 7, DataType::kBF16);
}

TEST_F(CheckpointPiecesTest, AnyPiecesAreReadIntoAnyOthersBitForBit) {
  uint32_t step = 1;
  for (const DataType compute : {DataType::kBF16, DataType::kF32}) {
    for (const Arrangement& from : kArrangements) {
      SCOPED_TRACE(from.name);
      Save(from, ++step, compute);
      for (const Arrangement& to : kArrangements) ExpectLoads(to, step, compute);
    }
  }
}

TEST_F(CheckpointPiecesTest, FilesHoldWholeTensorsUnderTheirNames) {
  Save({"mixed on 5", 5, Mixed}, 3, DataType::kBF16);
  const std::string folder = options_.root + "/step-00000003";
  const auto weights = HfFolder::Open(folder);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_THAT(weights->names(), ::testing::ElementsAre("bias", "lone", "norm", "tiny", "v", "w"));
  EXPECT_EQ(weights->Find("v")->shape, (Shape{3, 4, 5}));
  EXPECT_EQ(weights->Find("v")->dtype, DataType::kBF16);
  // The same bits as one rank alone writes.
  std::map<std::string, std::vector<double>> values;
  for (const std::string& name : weights->names()) values[name] = ToHost(*weights->Read(name));
  fs::remove_all(options_.root);
  Save({"one rank", 1, Everything}, 3, DataType::kBF16);
  const auto alone = HfFolder::Open(folder);
  ASSERT_TRUE(alone.ok()) << alone.status();
  for (const auto& [name, want] : values) EXPECT_EQ(ToHost(*alone->Read(name)), want) << name;
}

// Every rank is told the same, and nothing of the attempt is left.
void ExpectRefused(const CheckpointOptions& options, Holding holding, const std::string& message) {
  RunRanks(3, [&](std::shared_ptr<FakeWorld> world, int rank) {
    PieceHolder holder(world, rank, holding(rank, 3), DataType::kBF16);
    holder.Fill(1);
    TrainerState state;
    state.step = 1;
    const auto saved = SaveCheckpoint(holder, holder.optimizer, state, options);
    EXPECT_EQ(saved.status().code(), absl::StatusCode::kFailedPrecondition) << saved.status();
    EXPECT_THAT(std::string(saved.status().message()), HasSubstr(message));
  });
  EXPECT_TRUE(fs::is_empty(options.root));
}

TEST_F(CheckpointPiecesTest, PiecesThatDoNotFitTogetherAreRefused) {
  ExpectRefused(
      options_,
      [](int rank, int ranks) {
        auto held = FlatShards(rank, ranks);
        if (rank == 1) held[1].writes = false;
        return held;
      },
      "of tensor 'v' are in no piece (it is written by ranks 2)");
  ExpectRefused(
      options_,
      [](int rank, int ranks) {
        auto held = FlatShards(rank, ranks);
        held.back().writes = true;
        return held;
      },
      "elements [0,4) of tensor 'bias' are in two pieces");
  ExpectRefused(
      options_,
      [](int rank, int ranks) {
        auto held = FlatShards(rank, ranks);
        if (rank == 1) held[0].piece = Piece::Whole("w", {10, 6}).Range(47, 60);
        return held;
      },
      "tensor 'w' has one shape or type on rank 0 and another on rank 1");
}

TEST_F(CheckpointPiecesTest, AnotherModelIsRefusedOnEveryRank) {
  Save({"flat on 3", 3, FlatShards}, 7, DataType::kBF16);
  RunRanks(2, [&](std::shared_ptr<FakeWorld> world, int rank) {
    auto held = Mixed(rank, 2);
    held[0].piece = Piece::Whole("norm", {8});
    held.pop_back();  // nobody has the buffer
    PieceHolder holder(world, rank, held, DataType::kBF16);
    const auto state = LoadCheckpoint(holder, ModelConfig(), holder.optimizer, options_.root + "/latest");
    EXPECT_EQ(state.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(state.status().message()),
                HasSubstr("wrong shapes: norm is [7] instead of [8]; unexpected: bias"));
    EXPECT_EQ(holder.restored, 0);
  });
}

}  // namespace
}  // namespace cohort::runtime
