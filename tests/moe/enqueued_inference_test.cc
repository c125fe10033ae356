// Inference of a layer whose experts are all here only enqueues: the host reads nothing, so that a device can record it.
// On the device whose addresses the host cannot read, where every copy and wait is counted.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/device/recording.h"
#include "tests/moe/layer_under_test.h"
#include "tests/runtime/device/far_device.h"
#include "tests/support/ranks.h"

namespace cohort::moe {
namespace {

using runtime::CpuDevice;
using runtime::FarDevice;
using runtime::Tensor;

constexpr int64_t kTokens = 5;

// Other tokens, and so other experts, for each `turn`.
Tensor Input(runtime::Device& device, int64_t width, uint64_t turn) {
  const Tensor x = Tensor::Empty(device, {kTokens, width}, DataType::kF32);
  device.ops().FillNormal(x, /*seed=*/turn, /*purpose=*/0, /*first_index=*/0, /*stddev=*/1);
  return x;
}

Tensor Output(LayerUnderTest& test, const Tensor& x) {
  auto y = test.layer->Forward({.x = x}, nullptr, nullptr);
  EXPECT_TRUE(y.ok()) << y.status();
  return y.ok() ? *y : Tensor();
}

class EnqueuedInference : public ::testing::TestWithParam<LayerCase> {};
INSTANTIATE_TEST_SUITE_P(Layers, EnqueuedInference, ::testing::ValuesIn(LayerCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(EnqueuedInference, TheHostReadsNothingAndTheBitsAreTheCpus) {
  cohort::testing::RunProcesses(1, [](int, int, const std::string&) {
    const runtime::ModelConfig config = ConfigOf(GetParam());
    LayerUnderTest here(config, CpuDevice(), DataType::kF32), far(config, FarDevice(), DataType::kF32);
    ASSERT_TRUE(far.layer->only_enqueues());
    const Tensor x = Input(FarDevice(), config.hidden_size, 1);

    const runtime::FarCalls before = runtime::FarDeviceCalls();
    const Tensor y = Output(far, x);
    const runtime::FarCalls after = runtime::FarDeviceCalls();
    EXPECT_EQ(after.copies_to_host, before.copies_to_host);
    EXPECT_EQ(after.copies_from_host, before.copies_from_host);
    EXPECT_EQ(after.waits, before.waits);
    EXPECT_EQ(ToHost(y), ToHost(Output(here, Input(CpuDevice(), config.hidden_size, 1))));

    // Recorded with the choices of one input, replayed with those of others.
    Tensor replayed;
    const auto recording = FarDevice().Record([&] { replayed = Output(far, x); });
    for (uint64_t turn = 2; turn < 6; ++turn) {
      FarDevice().ops().Copy(Input(FarDevice(), config.hidden_size, turn), x);
      recording->Replay();
      EXPECT_EQ(ToHost(replayed), ToHost(Output(here, Input(CpuDevice(), config.hidden_size, turn)))) << turn;
    }
  });
}

TEST(EnqueuedInferenceTest, WhereExpertsAreElsewhereTheHostIsAsked) {
  const LayerUnderTest test(ConfigOf(LayerCases().front()), CpuDevice(), DataType::kF32,
                            std::make_shared<ExpertGroup>(0, 2));
  EXPECT_FALSE(test.layer->only_enqueues());
}

}  // namespace
}  // namespace cohort::moe
