// Trainings over real processes, and every bit that comes out of them.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/optim/optimizer.h"
#include "tests/parallel/training_run.h"

namespace cohort::parallel {

struct BitRun {
  runtime::ModelConfig config;
  ParallelOptions options = {};
  int ranks = 1;
  MeshShape shape = {};
  int steps = 50;
  int threads = 1;
  // Called before the first step and after the last one.
  std::function<void(ParallelModel&, runtime::OptimizerState&, bool before)> around = nullptr;
};

struct Bits {
  std::vector<double> steps;       // of each step: loss, auxiliary loss, norm; at the end the held-out loss
  std::vector<double> parameters;  // masters, parameter by parameter as in the whole model
};

// Where every parameter's elements lie among all of the model's.
inline std::map<std::string, int64_t> PlacesOf(const runtime::ModelConfig& config, int64_t& size) {
  std::map<std::string, int64_t> places;
  size = 0;
  const auto alone = comm::Communicator::Single();
  const auto model = MakeModel({.config = config}, *alone);
  for (runtime::ParameterGroup& group : model->decoder().groups()) {
    for (const auto& parameter : group.parameters()) {
      places[parameter->name] = size;
      size += parameter->elements();
    }
  }
  return places;
}

// Of rank 0, and of the first rank that has a parameter's element, after every rank agreed with them on every
// bit.
inline Bits TrainForBits(const BitRun& run) {
  int64_t size = 0;
  const std::map<std::string, int64_t> places = PlacesOf(run.config, size);
  const size_t reports = static_cast<size_t>(run.steps) * 3 + 1, row = reports + static_cast<size_t>(size);
  SharedDoubles all(row * static_cast<size_t>(run.ranks));
  const double nobody = std::numeric_limits<double>::quiet_NaN();
  for (size_t i = 0; i < row * static_cast<size_t>(run.ranks); ++i) all[i] = nobody;
  testing::RunRanks(run.ranks, [&](comm::Communicator& world) {
    runtime::SetCpuThreads(run.threads);
    runtime::Device& device = runtime::CpuDevice();
    const auto mesh = MakeMesh(run.shape, world);
    ASSERT_TRUE(mesh.ok()) << mesh.status();
    std::shared_ptr<comm::Communicator> borrowed(&world, [](comm::Communicator*) {});
    auto made = ParallelModel::Create(run.config, device, run.options, *mesh, borrowed,
                                      std::make_unique<TestSource>(device, run.config.vocab_size));
    ASSERT_TRUE(made.ok()) << run.shape.DebugString() << ": " << made.status();
    ParallelModel& model = **made;
    model.Initialize(5);
    auto optimizer = runtime::OptimizerState::For(model.slices());
    if (run.around) run.around(model, optimizer, true);
    size_t next = row * static_cast<size_t>(world.rank());
    const size_t parameters = next + reports;
    for (int i = 0; i < run.steps; ++i) {
      const auto result = model.ComputeGradients(optimizer.step);
      ASSERT_TRUE(result.ok()) << result.status();
      const auto norm = model.GradientNorm();
      ASSERT_TRUE(norm.ok()) << norm.status();
      runtime::AdamWStep(model.slices(), {}, 0.004, runtime::ClipFactor(*norm, 1), optimizer);
      ASSERT_TRUE(model.AfterStep(*result).ok());
      all[next++] = result->sums.loss / static_cast<double>(result->sums.tokens);
      all[next++] = result->sums.aux_loss;
      all[next++] = *norm;
    }
    const auto evaluation = model.Evaluate(0);
    ASSERT_TRUE(evaluation.ok()) << evaluation.status();
    all[next++] = evaluation->loss;
    for (const runtime::StateEntry& entry : model.state()) {
      const runtime::Tensor whole =
          entry.slice < 0 ? entry.parameter->value : model.slices()[entry.slice].master;
      const std::vector<double> values = ToHost(whole.View({whole.size()}));
      ForEachRun(entry.piece, [&](const runtime::PieceRun& part) {
        const int64_t place = places.at(entry.piece.name) + part.full;
        for (int64_t e = 0; e < part.count; ++e) {
          all[parameters + static_cast<size_t>(place + e)] =
              values[static_cast<size_t>(entry.offset + part.offset + e)];
        }
      });
    }
    if (run.around) run.around(model, optimizer, false);
  });
  const std::vector<double> values = all.Take();
  Bits bits;
  for (size_t i = 0; i < row; ++i) {
    double first = nobody;
    for (size_t rank = 0; rank < static_cast<size_t>(run.ranks); ++rank) {
      const double value = values[rank * row + i];
      if (std::isnan(value)) continue;
      if (std::isnan(first)) first = value;
      EXPECT_EQ(value, first) << "rank " << rank << " has other bits, at " << i << " of " << row;
      if (value != first) return bits;
    }
    EXPECT_FALSE(std::isnan(first)) << "no rank has number " << i << " of " << row;
    (i < reports ? bits.steps : bits.parameters).push_back(first);
  }
  return bits;
}

inline void ExpectSameBits(const Bits& got, const Bits& want, const std::string& what) {
  ASSERT_EQ(got.steps.size(), want.steps.size()) << what;
  for (size_t i = 0; i < want.steps.size(); ++i) {
    ASSERT_EQ(got.steps[i], want.steps[i]) << what << ", number " << i % 3 << " of step " << i / 3;
  }
  ASSERT_EQ(got.parameters.size(), want.parameters.size()) << what;
  size_t different = 0;
  for (size_t i = 0; i < want.parameters.size(); ++i) different += got.parameters[i] != want.parameters[i];
  EXPECT_EQ(different, 0u) << what << ": parameters, of " << want.parameters.size();
}

}  // namespace cohort::parallel
