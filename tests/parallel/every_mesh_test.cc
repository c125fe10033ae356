// Every mesh of a few ranks computes the gradients of one rank: all ways in which pipeline, replicate, shard, context,
// tensor and expert axes divide the ranks, with sequences of different lengths, ignored targets and accumulation.
// Meshes that a model does not fit are refused with a reason.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/parallel/training_run.h"

namespace cohort::parallel {
namespace {

constexpr double kTolerance = 1e-5;  // relative to a parameter's largest gradient

// Where every parameter's elements lie among all of the model's.
std::map<std::string, int64_t> Places(const runtime::ModelConfig& config, int64_t& size) {
  std::map<std::string, int64_t> places;
  size = 0;
  const auto alone = comm::Communicator::Single();
  const auto model = MakeModel({.config = config}, *alone);
  for (runtime::ParameterGroup& group : model->decoder().groups()) {
    for (const auto& parameter : group.parameters()) {
      places[parameter->name] = size;
      int64_t elements = 1;
      for (const int64_t dim : parameter->full_shape) elements *= dim;
      size += elements;
    }
  }
  return places;
}

// The place in the whole parameter of element `i` of what is here of it.
int64_t InWhole(const runtime::Parameter& parameter, int64_t i) {
  const auto dim = static_cast<size_t>(parameter.split_dim);
  int64_t inner = 1;
  for (size_t d = dim + 1; d < parameter.shape.size(); ++d) inner *= parameter.shape[d];
  const int64_t run = parameter.shape[dim] * inner;
  return i / run * parameter.full_shape[dim] * inner + parameter.split_begin * inner + i % run;
}

std::vector<MeshShape> EveryShape(int ranks) {
  std::vector<MeshShape> shapes;
  for (int pipeline = 1; pipeline <= ranks; ++pipeline) {
    for (int shard = 1; pipeline * shard <= ranks; ++shard) {
      for (int context = 1; pipeline * shard * context <= ranks; ++context) {
        for (int tensor = 1; pipeline * shard * context * tensor <= ranks; ++tensor) {
          if (ranks % (pipeline * shard * context * tensor) != 0) continue;
          for (int expert = 1; expert * pipeline <= ranks; ++expert) {
            if (ranks / pipeline % expert == 0) shapes.push_back({pipeline, shard, context, tensor, expert});
          }
        }
      }
    }
  }
  return shapes;
}

struct Mathematics {
  std::vector<double> gradients;
  double loss = 0, aux_loss = 0, norm = 0, held_out = 0;
};

// Of each shape on `ranks` ranks; shapes that are refused get no gradients.
std::vector<Mathematics> Compute(const Training& run, const std::vector<MeshShape>& shapes) {
  int64_t size = 0;
  const std::map<std::string, int64_t> places = Places(run.config, size);
  std::vector<std::unique_ptr<SharedDoubles>> all;
  for (size_t i = 0; i < shapes.size(); ++i) {
    all.push_back(std::make_unique<SharedDoubles>(static_cast<size_t>(size) + 5));
  }
  testing::RunRanks(
      run.ranks,
      [&](comm::Communicator& world) {
        runtime::SetCpuThreads(1);
        runtime::Device& device = runtime::CpuDevice();
        for (size_t i = 0; i < shapes.size(); ++i) {
          const std::string what = shapes[i].DebugString();
          SharedDoubles& out = *all[i];
          const auto mesh = MakeMesh(shapes[i], world);
          ASSERT_TRUE(mesh.ok()) << mesh.status();
          std::shared_ptr<comm::Communicator> borrowed(&world, [](comm::Communicator*) {});
          auto made = ParallelModel::Create(run.config, device, run.options, *mesh, borrowed,
                                            std::make_unique<TestSource>(device, run.config.vocab_size));
          if (!made.ok()) {
            EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << what << made.status();
            EXPECT_FALSE(made.status().message().empty());
            continue;
          }
          ParallelModel& model = **made;
          model.Initialize(5);
          const auto result = model.ComputeGradients(0);
          ASSERT_TRUE(result.ok()) << what << ": " << result.status();
          const auto norm = model.GradientNorm();
          ASSERT_TRUE(norm.ok()) << what << ": " << norm.status();
          for (ModelPart& part : model.parts()) {
            for (const OwnedRun& owned : part.parameters->runs()) {
              const runtime::Tensor& grad = part.parameters->slices()[owned.slice].grad;
              const std::vector<double> values = ToHost(grad.Slice(owned.offset, owned.offset + owned.count));
              for (int64_t e = 0; e < owned.count; ++e) {
                const int64_t place =
                    places.at(owned.parameter->name) + InWhole(*owned.parameter, owned.first + e);
                out[static_cast<size_t>(place)] = values[static_cast<size_t>(e)];
              }
            }
          }
          const auto held_out = model.Evaluate(0);
          ASSERT_TRUE(held_out.ok()) << what << ": " << held_out.status();
          if (world.rank() == 0) {
            const auto at = static_cast<size_t>(size);
            out[at] = result->sums.loss / static_cast<double>(result->sums.tokens);
            out[at + 1] = result->sums.aux_loss;
            out[at + 2] = *norm;
            out[at + 3] = held_out->loss;
            out[at + 4] = 1;
          }
        }
      },
      {.timeout = absl::Seconds(120), .limit = absl::Seconds(280)});
  std::vector<Mathematics> results;
  for (size_t i = 0; i < shapes.size(); ++i) {
    std::vector<double> values = all[i]->Take();
    const auto at = static_cast<size_t>(size);
    if (values[at + 4] == 0) {
      results.push_back({});
      continue;
    }
    results.push_back({{}, values[at], values[at + 1], values[at + 2], values[at + 3]});
    values.resize(at);
    results.back().gradients = std::move(values);
  }
  return results;
}

struct Case {
  const char* name;
  const char* family;
  int ranks;
  size_t refused;  // shapes that this model does not fit
};

Training RunOf(const Case& c) {
  Training run = {.config = runtime::TinyConfig(c.family)};
  run.config.num_hidden_layers = 4;
  run.config.tie_word_embeddings = false;
  run.config.router.z_loss_coef = 0.001;
  run.options.global_batch = 7;
  return run;
}

class EveryMesh : public ::testing::TestWithParam<Case> {};

TEST_P(EveryMesh, ComputesTheGradientsOfOneRank) {
  const Case& c = GetParam();
  Training run = RunOf(c);
  int64_t size = 0;
  const std::map<std::string, int64_t> places = Places(run.config, size);
  const Mathematics one = Compute(run, {MeshShape()})[0];
  ASSERT_FALSE(one.gradients.empty());
  run.ranks = c.ranks;
  run.options.micro_batch = 1;
  const std::vector<MeshShape> shapes = EveryShape(c.ranks);
  const std::vector<Mathematics> all = Compute(run, shapes);
  size_t refused = 0;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const std::string what = shapes[i].DebugString();
    const Mathematics& got = all[i];
    if (got.gradients.empty()) {
      ++refused;
      continue;
    }
    EXPECT_NEAR(got.loss, one.loss, kTolerance * one.loss) << what;
    EXPECT_NEAR(got.aux_loss, one.aux_loss, kTolerance * one.aux_loss) << what;
    EXPECT_NEAR(got.norm, one.norm, kTolerance * one.norm) << what;
    EXPECT_NEAR(got.held_out, one.held_out, kTolerance * one.held_out) << what;
    for (auto place = places.begin(); place != places.end(); ++place) {
      int64_t end = size;
      for (const auto& other : places) {
        if (other.second > place->second) end = std::min(end, other.second);
      }
      const auto part = [&](const std::vector<double>& values) {
        return std::vector<double>(values.begin() + place->second, values.begin() + end);
      };
      EXPECT_LT(runtime::RelativeError(part(got.gradients), part(one.gradients)), kTolerance)
          << what << ", " << place->first;
    }
  }
  EXPECT_EQ(refused, c.refused) << "of " << shapes.size();
}

INSTANTIATE_TEST_SUITE_P(Models, EveryMesh,
                         ::testing::Values(Case{"dense_2", "llama", 2, 0}, Case{"dense_3", "llama", 3, 2},
                                           Case{"dense_4", "llama", 4, 3},
                                           Case{"experts_2", "qwen3_moe", 2, 0},
                                           Case{"experts_4", "qwen3_moe", 4, 3}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace cohort::parallel
