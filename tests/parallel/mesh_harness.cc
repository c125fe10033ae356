#include "tests/parallel/mesh_harness.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/ops/ops.h"
#include "tests/parallel/training_run.h"

namespace cohort::parallel {
namespace {

// In what a model computes, and how far from one rank, relatively, it may be.
struct Precision {
  const char* name;
  runtime::Device& (*device)();
  DataType compute;
  double tolerance;
};
constexpr Precision kSingle = {"f32", runtime::CpuDevice, DataType::kF32, 1e-5};
constexpr Precision kDouble = {"f64", runtime::ReferenceDevice, DataType::kF64, 1e-10};

// How far from double precision, relatively, one rank's own gradients in f32 may be. What a mesh differs by
// from one rank comes from roundings too, so the weights below are such that roundings change little.
constexpr double kMostRounding = 2e-6;

constexpr double kLearningRate = 0.02;   // of the one step
constexpr int kFavoured = 1, kIdle = 2;  // experts

// What a sample is depends on its index alone.
class PaddedSource final : public BatchSource {
 public:
  PaddedSource(runtime::Device& device, int64_t vocabulary) : device_(device), vocabulary_(vocabulary) {}
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
    samples.tokens = runtime::PackBatch(device_, sequences);
    int32_t* targets = samples.tokens.targets.data<int32_t>();
    for (int64_t i = begin; i < begin + count; ++i) {
      targets += kLengths[i % 7];
      std::fill(targets - kPadding[i % 7], targets, -1);
    }
    samples.bytes = count;
    return samples;
  }

  runtime::Device& device_;
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

// Weights that every gradient follows from to about 1e-6 in f32, or what meshes add could not be told from
// roundings. Weights drawn with one deviation for all are not: rounding the weights alone to f32 changed
// some gradients by up to 5e-6. Blocks that are large beside what they add to amplify, and tokens much alike
// leave differences of nearly equal numbers to the gradients of queries and keys. So words are four times as
// large, what is added to them a quarter.
//
// Routers send most tokens to one expert and none to another: every word has a large first coordinate, which
// norms and residuals keep positive, and these experts' rows of the router look at it, not so hard that the
// weights of the others vanish. Queries, keys and values do not look: to them all tokens would be the same.
//
// All weights are numbers of f32 (the factors are powers of two), so that every precision computes the same
// function.
void SetWeights(ParallelModel& model) {
  for (ModelPart& part : model.parts()) {
    const int64_t width = part.decoder->config().hidden_size;
    const bool sparse = part.decoder->config().num_experts > 0;
    const absl::Status status = part.parameters->SetWhole([&](runtime::ParameterGroup& group) {
      group.Initialize(5);
      for (const auto& parameter : group.parameters()) {
        const runtime::Tensor& value = parameter->value;
        runtime::Ops& ops = value.device().ops();
        if (value.dtype() != DataType::kF32) ops.Copy(value.To(value.device(), DataType::kF32), value);
        const runtime::Tensor flat = value.View({value.size()});
        const auto set = [&](int64_t i, double to) { ops.Fill(flat.Slice(i, i + 1), to); };
        const auto set_first_of_rows = [&](double to) {
          for (int64_t row = 0; row < parameter->shape[0]; ++row) set(row * width, to);
        };
        const auto is = [&](const char* end) { return absl::EndsWith(parameter->name, end); };
        if (is("embed_tokens.weight")) {
          ops.Scale(flat, 4);
          if (sparse) set_first_of_rows(4);
        } else if (is("o_proj.weight") || is("down_proj.weight")) {
          ops.Scale(flat, 0.25);
        } else if (is("q_proj.weight") || is("k_proj.weight") || is("v_proj.weight")) {
          if (sparse) set_first_of_rows(0);
        } else if (is(".mlp.gate.weight")) {
          set(kFavoured * width, 1.5), set(kIdle * width, -1.5);
        }
      }
      return absl::OkStatus();
    });
    ASSERT_TRUE(status.ok()) << status;
  }
}

void Descend(ParallelModel& model) {
  for (const runtime::OptimizerSlice& slice : model.slices()) {
    runtime::Ops& ops = slice.master.device().ops();
    ops.Accumulate(slice.grad, -kLearningRate, slice.master);
    if (slice.value.defined()) ops.Copy(slice.master, slice.value);
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
                                                       ParallelOptions options, const MeshShape& shape,
                                                       const Precision& precision,
                                                       comm::Communicator& world) {
  COHORT_ASSIGN_OR_RETURN(const Mesh mesh, MakeMesh(shape, world));
  runtime::Device& device = precision.device();
  options.compute = precision.compute;
  return ParallelModel::Create(config, device, options, mesh,
                               std::shared_ptr<comm::Communicator>(&world, [](comm::Communicator*) {}),
                               std::make_unique<PaddedSource>(device, config.vocab_size));
}

// What one rank makes of the whole batch at once.
struct OneRanksRun {
  Precision precision;
  double furthest = 0;  // that a parameter's gradient on a mesh was from this
  ParameterPlaces places;
  std::vector<double> gradients;
  StepNumbers numbers;

  std::vector<double> Gradient(const std::string& name) const {
    const ParameterPlace& place = places.at(name);
    const auto first = gradients.begin() + static_cast<std::ptrdiff_t>(place.begin);
    return {first, first + static_cast<std::ptrdiff_t>(place.count)};
  }
};

OneRanksRun Alone(const runtime::ModelConfig& config, const Precision& precision, comm::Communicator& world) {
  runtime::SetCpuThreads(1);
  OneRanksRun one = {.precision = precision, .furthest = 0, .places = {}, .gradients = {}, .numbers = {}};
  ParallelOptions options = OptionsOf({});
  options.micro_batch = 0;
  const auto model = ModelOf(config, options, {}, precision, world);
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

void ExpectSameNumbers(const StepNumbers& got, const StepNumbers& want, double tolerance,
                       const std::string& what) {
  EXPECT_NEAR(got.loss, want.loss, tolerance * want.loss) << what;
  EXPECT_NEAR(got.aux_loss, want.aux_loss, tolerance * want.aux_loss) << what;
  EXPECT_EQ(got.tokens, want.tokens) << what;
  EXPECT_NEAR(got.norm, want.norm, tolerance * want.norm) << what;
  EXPECT_NEAR(got.held_out, want.held_out, tolerance * want.held_out) << what;
  EXPECT_EQ(got.load, want.load) << what;
}

// The parameter's gradient from what every rank holds: all elements, NaN where it does not hold one.
std::vector<double> Joined(const std::vector<std::vector<double>>& held, const ParameterPlace& place,
                           const std::string& what) {
  std::vector<double> joined;
  for (size_t i = place.begin; i < place.begin + place.count; ++i) {
    const double* first = nullptr;
    for (const std::vector<double>& of_rank : held) {
      if (std::isnan(of_rank[i])) continue;
      if (first == nullptr) first = &of_rank[i];
      if (std::bit_cast<uint64_t>(*first) != std::bit_cast<uint64_t>(of_rank[i])) {
        ADD_FAILURE() << what << ": ranks have different bits of element " << i - place.begin;
        return {};
      }
    }
    if (first == nullptr) {
      ADD_FAILURE() << what << ": no rank holds element " << i - place.begin;
      return {};
    }
    joined.push_back(*first);
  }
  return joined;
}

// In the precision of `one`.
void ExpectSameGradients(const std::vector<std::vector<double>>& held, OneRanksRun& one,
                         const std::string& what) {
  for (const auto& [name, place] : one.places) {
    const std::string which = absl::StrCat(what, ", ", name);
    const std::vector<double> got = Joined(held, place, which), want = one.Gradient(name);
    if (got.size() != want.size()) continue;
    const double error = runtime::RelativeError(got, want);
    one.furthest = std::max(one.furthest, error);
    EXPECT_LT(error, one.precision.tolerance) << which;
  }
}

double FurthestApart(const OneRanksRun& a, const OneRanksRun& b) {
  double furthest = 0;
  for (const auto& [name, place] : a.places) {
    furthest = std::max(furthest, runtime::RelativeError(a.Gradient(name), b.Gradient(name)));
  }
  return furthest;
}

void ExpectIdleAndFavoured(const StepNumbers& one) {
  for (const std::vector<int64_t>& load : one.load) {
    EXPECT_EQ(load[kIdle], 0) << "no expert is idle";
    EXPECT_EQ(load[kFavoured], *std::max_element(load.begin(), load.end()));
  }
}

void ExpectRefused(const runtime::ModelConfig& config, const MeshSetting& setting,
                   const std::vector<std::string>& refusal, comm::Communicator& world) {
  const std::string what = setting.DebugString();
  const auto model = ModelOf(config, OptionsOf(setting), setting.shape, kSingle, world);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << what << model.status();
  for (const std::string& words : refusal) {
    EXPECT_THAT(model.status().message(), ::testing::HasSubstr(words)) << what;
  }
}

// In the precision of `one`. Collective; ends the ranks that fail to compute.
void ExpectComputed(const runtime::ModelConfig& config, const MeshSetting& setting, OneRanksRun& one,
                    comm::Communicator& world) {
  const std::string what = absl::StrCat(one.precision.name, ", ", setting.DebugString());
  const auto model = ModelOf(config, OptionsOf(setting), setting.shape, one.precision, world);
  ASSERT_TRUE(model.ok()) << what << ": " << model.status();
  const size_t size = one.gradients.size();
  const std::vector<size_t> counts(static_cast<size_t>(world.size()), size);
  std::vector<double> mine(size, std::numeric_limits<double>::quiet_NaN());
  const auto numbers = OneStep(**model, one.places, mine.data());
  ASSERT_TRUE(numbers.ok()) << what << ": " << numbers.status();
  ExpectSameNumbers(*numbers, one.numbers, one.precision.tolerance, what);
  std::vector<double> all(world.rank() == 0 ? size * counts.size() : 0);
  const absl::Status gathered =
      world.Gather(mine.data(), all.data(), counts, DataType::kF64, /*root=*/0).Wait();
  ASSERT_TRUE(gathered.ok()) << what << ": " << gathered;
  if (world.rank() != 0) return;
  std::vector<std::vector<double>> held;
  for (size_t r = 0; r < counts.size(); ++r) {
    held.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(r * size),
                      all.begin() + static_cast<std::ptrdiff_t>((r + 1) * size));
  }
  ExpectSameGradients(held, one, what);
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
  testing::RunRanks(
      ranks,
      [&](comm::Communicator& world) {
        OneRanksRun exact = Alone(config, kDouble, *single);
        OneRanksRun rounded = Alone(config, kSingle, *single);
        if (config.num_experts > 0) ExpectIdleAndFavoured(exact.numbers);
        ExpectSameNumbers(rounded.numbers, exact.numbers, kSingle.tolerance, "one rank, f32");
        for (const MeshSetting& setting : settings) {
          const std::vector<std::string> refusal = ExpectedRefusal(setting, config, ranks);
          if (!refusal.empty()) {
            ExpectRefused(config, setting, refusal, world);
            continue;
          }
          for (OneRanksRun* one : {&exact, &rounded}) {
            ExpectComputed(config, setting, *one, world);
            if (::testing::Test::HasFatalFailure()) return;
          }
        }
        if (world.rank() != 0) return;
        const double own = FurthestApart(rounded, exact);
        EXPECT_LT(own, kMostRounding) << "one rank's gradients in f32 are not those in f64";
        std::printf("furthest from one rank: %.1e in f32, %.1e in f64; one rank in f32 from f64: %.1e\n",
                    rounded.furthest, exact.furthest, own);
      },
      {.timeout = absl::Seconds(60), .limit = absl::Seconds(280)});
  return count;
}

}  // namespace cohort::parallel
