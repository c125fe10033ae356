#include "tests/parallel/mesh_harness.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "comm/check.h"
#include "tests/parallel/training_run.h"

namespace cohort::parallel {
namespace {

constexpr double kTolerance = 1e-5;      // relative to the norm of a parameter's gradient
constexpr double kLearningRate = 0.02;   // of the one step
constexpr int kFavoured = 1, kIdle = 2;  // experts

// What a sample is depends on its index alone.
class PaddedSource final : public BatchSource {
 public:
  explicit PaddedSource(int64_t vocabulary) : vocabulary_(vocabulary) {}
  absl::StatusOr<Samples> Training(int64_t step, int64_t begin, int64_t count) override {
    return Make(100 + step * 1000, begin, count);
  }
  int64_t held_out() const override { return 5; }
  absl::StatusOr<Samples> HeldOut(int64_t begin, int64_t count) override { return Make(0, begin, count); }

 private:
  Samples Make(int64_t first, int64_t begin, int64_t count) {
    constexpr int kLengths[] = {11, 3, 17, 1, 8, 6, 13};
    constexpr int kPadding[] = {0, 0, 6, 0, 8, 2, 0};  // last targets that are ignored; of the fifth all
    std::vector<std::vector<int32_t>> sequences;
    for (int64_t i = begin; i < begin + count; ++i) {
      const auto seed = static_cast<uint32_t>(first + i);
      sequences.push_back(runtime::RandomSequences({kLengths[i % 7]}, vocabulary_, seed)[0]);
    }
    Samples samples;
    samples.tokens = runtime::PackBatch(runtime::CpuDevice(), sequences);
    int32_t* targets = samples.tokens.targets.data<int32_t>();
    for (int64_t i = begin; i < begin + count; ++i) {
      targets += kLengths[i % 7];
      std::fill(targets - kPadding[i % 7], targets, -1);
    }
    samples.bytes = count;
    return samples;
  }
  const int64_t vocabulary_;
};

// Where a parameter's elements lie among all of the model's.
struct ParameterPlace {
  size_t begin, count;
};
using ParameterPlaces = std::map<std::string, ParameterPlace>;

size_t SizeOfAll(const ParameterPlaces& places) {
  size_t size = 0;
  for (const auto& [name, place] : places) size += place.count;
  return size;
}

// The place in the whole parameter of element `i` of what is here of it.
int64_t InWholeParameter(const runtime::Parameter& parameter, int64_t i) {
  const auto dim = static_cast<size_t>(parameter.split_dim);
  int64_t inner = 1;
  for (size_t d = dim + 1; d < parameter.shape.size(); ++d) inner *= parameter.shape[d];
  const int64_t run = parameter.shape[dim] * inner;
  return i / run * parameter.full_shape[dim] * inner + parameter.split_begin * inner + i % run;
}

// Weights drawn as usual, but routers that send most tokens to one expert and none to another: every word has
// a large first coordinate, which norms and residuals keep positive, and these experts' rows of the router
// look at it.
void SetWeights(ParallelModel& model) {
  for (ModelPart& part : model.parts()) {
    const absl::Status status = part.parameters->SetWhole([&](runtime::ParameterGroup& group) {
      group.Initialize(5);
      const int64_t width = part.decoder->config().hidden_size;
      for (const auto& parameter : group.parameters()) {
        float* values = parameter->value.data<float>();
        if (part.decoder->config().num_experts > 0 && parameter->name == "model.embed_tokens.weight") {
          for (int64_t word = 0; word < parameter->shape[0]; ++word) values[word * width] = 4;
        } else if (absl::EndsWith(parameter->name, ".mlp.gate.weight")) {
          values[kFavoured * width] = 3, values[kIdle * width] = -3;
        }
      }
      return absl::OkStatus();
    });
    ASSERT_TRUE(status.ok()) << status;
  }
}

void Descend(ParallelModel& model) {
  for (const runtime::OptimizerSlice& slice : model.slices()) {
    float* master = slice.master.data<float>();
    const float* grad = slice.grad.data<float>();
    for (int64_t i = 0; i < slice.master.size(); ++i)
      master[i] -= static_cast<float>(kLearningRate) * grad[i];
    if (slice.value.defined()) slice.value.device().ops().Copy(slice.master, slice.value);
  }
}

// Numbers that all ranks get.
struct StepNumbers {
  double loss = 0, aux_loss = 0, tokens = 0, norm = 0, held_out = 0;
  std::vector<std::vector<int64_t>> load;
};

// One training step of a model with its weights set. held[i]: gradient of element i, where it is held here.
absl::StatusOr<StepNumbers> OneStep(ParallelModel& model, const ParameterPlaces& places, double* held) {
  SetWeights(model);
  COHORT_ASSIGN_OR_RETURN(const runtime::StepResult result, model.ComputeGradients(0));
  StepNumbers numbers = {.loss = result.sums.loss / static_cast<double>(result.sums.tokens),
                         .aux_loss = result.sums.aux_loss,
                         .tokens = static_cast<double>(result.sums.tokens),
                         .load = result.sums.expert_load};
  COHORT_ASSIGN_OR_RETURN(numbers.norm, model.GradientNorm());
  for (ModelPart& part : model.parts()) {
    for (const OwnedRun& owned : part.parameters->runs()) {
      const runtime::Tensor& grad = part.parameters->slices()[owned.slice].grad;
      const std::vector<double> values = ToHost(grad.Slice(owned.offset, owned.offset + owned.count));
      const size_t begin = places.at(owned.parameter->name).begin;
      for (int64_t e = 0; e < owned.count; ++e) {
        held[begin + static_cast<size_t>(InWholeParameter(*owned.parameter, owned.first + e))] =
            values[static_cast<size_t>(e)];
      }
    }
  }
  Descend(model);
  COHORT_RETURN_IF_ERROR(model.AfterStep(result));
  COHORT_ASSIGN_OR_RETURN(const runtime::Trainable::Evaluation held_out, model.Evaluate(0));
  numbers.held_out = held_out.loss;
  return numbers;
}

absl::StatusOr<std::unique_ptr<ParallelModel>> ModelOf(const runtime::ModelConfig& config,
                                                       const ParallelOptions& options, const MeshShape& shape,
                                                       comm::Communicator& world) {
  COHORT_ASSIGN_OR_RETURN(const Mesh mesh, MakeMesh(shape, world));
  return ParallelModel::Create(config, runtime::CpuDevice(), options, mesh,
                               std::shared_ptr<comm::Communicator>(&world, [](comm::Communicator*) {}),
                               std::make_unique<PaddedSource>(config.vocab_size));
}

// What one rank makes of the whole batch at once.
struct OneRank {
  ParameterPlaces places;
  std::vector<double> gradients;
  StepNumbers numbers;
};

OneRank Alone(const runtime::ModelConfig& config, comm::Communicator& world) {
  runtime::SetCpuThreads(1);
  OneRank one;
  ParallelOptions options = OptionsOf({});
  options.micro_batch = 0;
  const auto model = ModelOf(config, options, {}, world);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return one;
  for (const runtime::Parameter* parameter : runtime::AllParameters((*model)->decoder())) {
    if (parameter->buffer) continue;
    one.places[parameter->name] = {SizeOfAll(one.places), static_cast<size_t>(parameter->elements())};
  }
  one.gradients.resize(SizeOfAll(one.places));
  const auto numbers = OneStep(**model, one.places, one.gradients.data());
  EXPECT_TRUE(numbers.ok()) << numbers.status();
  if (numbers.ok()) one.numbers = *numbers;
  return one;
}

void ExpectSameNumbers(const StepNumbers& got, const StepNumbers& want, const std::string& what) {
  EXPECT_NEAR(got.loss, want.loss, kTolerance * want.loss) << what;
  EXPECT_NEAR(got.aux_loss, want.aux_loss, kTolerance * want.aux_loss) << what;
  EXPECT_EQ(got.tokens, want.tokens) << what;
  EXPECT_NEAR(got.norm, want.norm, kTolerance * want.norm) << what;
  EXPECT_NEAR(got.held_out, want.held_out, kTolerance * want.held_out) << what;
  EXPECT_EQ(got.load, want.load) << what;
}

// held: of each rank, all elements; NaN where it does not hold one.
void ExpectSameGradients(const std::vector<std::vector<double>>& held, const OneRank& one,
                         const std::string& what) {
  for (const auto& [name, place] : one.places) {
    std::vector<double> got, want;
    for (size_t i = place.begin; i < place.begin + place.count; ++i) {
      const double* first = nullptr;
      for (const std::vector<double>& of_rank : held) {
        if (std::isnan(of_rank[i])) continue;
        if (first == nullptr) first = &of_rank[i];
        ASSERT_EQ(std::memcmp(first, &of_rank[i], sizeof(double)), 0)
            << what << ": ranks have different bits of element " << i - place.begin << " of " << name;
      }
      ASSERT_NE(first, nullptr) << what << ": no rank holds element " << i - place.begin << " of " << name;
      got.push_back(*first);
      want.push_back(one.gradients[i]);
    }
    EXPECT_LT(runtime::RelativeError(got, want), kTolerance) << what << ", " << name;
  }
}

void ExpectIdleAndFavoured(const StepNumbers& one) {
  for (const std::vector<int64_t>& load : one.load) {
    EXPECT_EQ(load[kIdle], 0) << "no expert is idle";
    EXPECT_EQ(load[kFavoured], *std::max_element(load.begin(), load.end()));
  }
}

}  // namespace

MeshCount ExpectTheMathematicsOfOneRank(const std::string& model_name, int ranks,
                                        const std::vector<MeshSetting>& settings) {
  const runtime::ModelConfig config = HarnessConfig(model_name, ranks);
  const auto single = comm::Communicator::Single();
  MeshCount count;
  for (const MeshSetting& setting : settings) {
    ++(ExpectedRefusal(setting, config, ranks).empty() ? count.computed : count.refused);
  }
  testing::RunRanks(ranks,
                    [&](comm::Communicator& world) {
                      const OneRank one = Alone(config, *single);
                      if (config.num_experts > 0) ExpectIdleAndFavoured(one.numbers);
                      const size_t size = one.gradients.size();
                      const std::vector<size_t> counts(static_cast<size_t>(ranks), size);
                      for (const MeshSetting& setting : settings) {
                        const std::string what = setting.DebugString();
                        const std::vector<std::string> refusal = ExpectedRefusal(setting, config, ranks);
                        const auto model = ModelOf(config, OptionsOf(setting), setting.shape, world);
                        if (!refusal.empty()) {
                          EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument)
                              << what << model.status();
                          for (const std::string& words : refusal) {
                            EXPECT_THAT(model.status().message(), ::testing::HasSubstr(words)) << what;
                          }
                          continue;
                        }
                        EXPECT_TRUE(model.ok()) << what << ": " << model.status();
                        if (!model.ok()) continue;
                        std::vector<double> mine(size, std::numeric_limits<double>::quiet_NaN());
                        const auto numbers = OneStep(**model, one.places, mine.data());
                        ASSERT_TRUE(numbers.ok()) << what << ": " << numbers.status();
                        ExpectSameNumbers(*numbers, one.numbers, what);
                        std::vector<double> all(world.rank() == 0 ? size * counts.size() : 0);
                        const absl::Status gathered =
                            world.Gather(mine.data(), all.data(), counts, DataType::kF64, /*root=*/0).Wait();
                        ASSERT_TRUE(gathered.ok()) << what << ": " << gathered;
                        if (world.rank() != 0) continue;
                        std::vector<std::vector<double>> held;
                        for (size_t r = 0; r < counts.size(); ++r) {
                          held.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(r * size),
                                            all.begin() + static_cast<std::ptrdiff_t>((r + 1) * size));
                        }
                        ExpectSameGradients(held, one, what);
                      }
                    },
                    {.timeout = absl::Seconds(60), .limit = absl::Seconds(280)});
  return count;
}

}  // namespace cohort::parallel
