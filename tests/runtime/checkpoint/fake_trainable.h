// Ranks that are threads and train nothing: what checkpoints see of a model, in any arrangement.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/check.h"
#include "runtime/checkpoint/checkpoint.h"

namespace cohort::runtime {

// Where the threads of one world meet.
class FakeWorld {
 public:
  explicit FakeWorld(int size) : size_(size), strings_(size) {}
  int size() const { return size_; }
  std::vector<std::string> Gather(int rank, const std::string& mine) {
    std::unique_lock lock(mutex_);
    strings_[rank] = mine;
    const int64_t round = round_;
    if (++arrived_ == size_) {
      arrived_ = 0;
      ++round_;
      result_ = strings_;
      all_here_.notify_all();
    } else {
      all_here_.wait(lock, [&] { return round_ != round; });
    }
    return result_;  // nobody can overwrite it before this rank's next call
  }

 private:
  const int size_;
  std::mutex mutex_;
  std::condition_variable all_here_;
  std::vector<std::string> strings_, result_;
  int arrived_ = 0;
  int64_t round_ = 0;
};

// A rank of it, whose slices and state a subclass lists.
class FakeRank : public Trainable {
 public:
  int rank() const override { return rank_; }
  int world() const override { return world_->size(); }
  const std::vector<OptimizerSlice>& slices() override { return slices_; }
  const std::vector<StateEntry>& state() override { return state_; }
  absl::Status Barrier() override { return GatherStrings("").status(); }
  absl::StatusOr<std::vector<std::string>> GatherStrings(const std::string& mine) override {
    return world_->Gather(rank_, mine);
  }
  absl::StatusOr<int64_t> AgreeMax(int64_t) override { return absl::UnimplementedError(""); }
  absl::StatusOr<StepResult> ComputeGradients(int64_t) override { return absl::UnimplementedError(""); }
  absl::StatusOr<double> GradientNorm() override { return absl::UnimplementedError(""); }
  absl::Status AfterStep(const StepResult&) override { return absl::UnimplementedError(""); }
  absl::StatusOr<Evaluation> Evaluate(int64_t) override { return absl::UnimplementedError(""); }

  OptimizerState optimizer;

 protected:
  FakeRank(std::shared_ptr<FakeWorld> world, int rank) : world_(std::move(world)), rank_(rank) {}

  std::vector<OptimizerSlice> slices_;
  std::vector<StateEntry> state_;

 private:
  const std::shared_ptr<FakeWorld> world_;
  const int rank_;
};

// A matrix, a norm, a balancing buffer, and 4 experts split over the first ranks: rank r of `split` has
// experts [4 r / split, 4 (r + 1) / split) of it; later ranks hold copies of them. `width` sets the sizes.
class FakeTrainable final : public FakeRank {
 public:
  static constexpr int kExperts = 4;

  FakeTrainable(std::shared_ptr<FakeWorld> world, int rank, int split, DataType compute, int64_t width = 3)
      : FakeRank(std::move(world), rank), group_("block") {
    group_.Add("w", {2, width}, Init::kNormal, 0.02, true);
    group_.Add("norm", {width}, Init::kOnes, 0, false);
    group_.AddBuffer("bias", {kExperts});
    const int place = rank % split;
    std::vector<std::string> names;
    for (int e = kExperts * place / split; e < kExperts * (place + 1) / split; ++e) {
      names.push_back("mlp.experts." + std::to_string(e) + ".w1");
    }
    group_.AddStack(names, {width, 2}, 0.02, Placement::kExpert);
    group_.Allocate(CpuDevice(), compute, /*trainable=*/true);
    for (ParameterBucket& bucket : group_.buckets()) {
      const bool same = bucket.value.raw() == bucket.master.raw();
      slices_.push_back({"bucket" + std::to_string(slices_.size()), bucket.master, bucket.grad,
                         same ? Tensor() : bucket.value, bucket.decay});
    }
    for (const auto& parameter : group_.parameters()) {
      StateEntry entry{parameter->piece(), parameter.get(), -1, 0, rank == 0};
      if (parameter->placement == Placement::kExpert) entry.writes = rank < split;
      int slice = 0;
      for (ParameterBucket& bucket : group_.buckets()) {
        int64_t offset = 0;
        for (Parameter* other : bucket.parameters) {
          if (other == parameter.get()) entry.slice = slice, entry.offset = offset;
          offset += other->value.size();
        }
        ++slice;
      }
      state_.push_back(entry);
    }
    optimizer = OptimizerState::For(slices_);
  }

  // Distinct values everywhere, a function of (salt, name, element). Master and value differ on purpose.
  void Fill(double salt) {
    Each([&](const StateEntry& entry, const std::string& kind, const Tensor& tensor) {
      for (int64_t i = 0; i < tensor.size(); ++i) Set(tensor, i, Expected(salt, entry.piece.name + kind, i));
    });
    optimizer.step = static_cast<int64_t>(salt);
  }
  // Whether everything is as Fill(salt) left it, anywhere; "" or what is not.
  std::string Difference(double salt) {
    std::string difference;
    Each([&](const StateEntry& entry, const std::string& kind, const Tensor& tensor) {
      const std::vector<double> values = ToHost(tensor);
      for (int64_t i = 0; i < tensor.size(); ++i) {
        Tensor rounded = Tensor::FromHost(CpuDevice(), {1}, tensor.dtype(),
                                          std::vector<double>{Expected(salt, entry.piece.name + kind, i)});
        if (values[i] != ToHost(rounded)[0]) difference = entry.piece.name + kind;
      }
    });
    if (optimizer.step != static_cast<int64_t>(salt)) difference = "optimizer.step";
    return difference;
  }

 private:
  static double Expected(double salt, const std::string& key, int64_t i) {
    return salt + static_cast<double>(std::hash<std::string>()(key) % 64) / 64 +
           static_cast<double>(i % 16) / 4;
  }
  // Without operations: a forked child has no threads for them.
  static void Set(const Tensor& tensor, int64_t i, double value) {
    if (tensor.dtype() == DataType::kBF16) {
      tensor.data<BFloat16>()[i] = BFloat16(static_cast<float>(value));
    } else {
      tensor.data<float>()[i] = static_cast<float>(value);
    }
  }
  void Each(const std::function<void(const StateEntry&, const std::string&, const Tensor&)>& visit) {
    for (const StateEntry& entry : state_) {
      const Tensor& value = entry.parameter->value;
      visit(entry, value.raw() == entry.parameter->master.raw() ? "/master" : "/value", value);
      if (entry.slice < 0) continue;
      const auto part = [&](const Tensor& flat) {
        return flat.Slice(entry.offset, entry.offset + value.size());
      };
      visit(entry, "/master", part(slices_[entry.slice].master));
      visit(entry, "/m", part(optimizer.m[entry.slice]));
      visit(entry, "/v", part(optimizer.v[entry.slice]));
    }
  }

  ParameterGroup group_;
};

// Runs `body` as each rank of a world of `ranks` threads.
inline void RunRanks(int ranks, const std::function<void(std::shared_ptr<FakeWorld>, int rank)>& body) {
  const auto world = std::make_shared<FakeWorld>(ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back([&, rank] { body(world, rank); });
  for (std::thread& thread : threads) thread.join();
}

inline ModelConfig FakeConfig() {
  ModelConfig config;
  config.num_experts = FakeTrainable::kExperts;
  return config;
}

}  // namespace cohort::runtime
