// Opening CUDA devices, where there are some and where there are none; their memory, copies and limits, where there are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "runtime/device/cuda/open_cuda_device.h"
#include "runtime/device/host_reader.h"
#include "runtime/device/recording.h"
#include "runtime/ops/ops.h"
#include "runtime/tensor.h"
#include "tests/support/cuda_or_skip.h"

namespace cohort::runtime {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(CudaDeviceTest, WhereThereIsNoneItSaysWhatToDo) {
  const int count = CudaDeviceCount();
  for (const int missing : {-1, count, 1000}) {
    const auto opened = OpenCudaDevice(missing);
    ASSERT_EQ(opened.status().code(), absl::StatusCode::kUnavailable) << missing;
    const std::string words(opened.status().message());
    EXPECT_THAT(words, StartsWith("no CUDA device: "));
    EXPECT_THAT(words, ::testing::AnyOf(HasSubstr("install"), HasSubstr("nvidia-smi"),
                                        HasSubstr("CUDA_VISIBLE_DEVICES")))
        << words;
  }
}

TEST(CudaDeviceTest, ADeviceIsOpenedOnce) {
  COHORT_CUDA_OR_SKIP(device);
  EXPECT_EQ(*OpenCudaDevice(0), &device);
  EXPECT_EQ(device.name(), "cuda:0");
  EXPECT_EQ(device.kind(), DeviceKind::kCuda);
  EXPECT_FALSE(device.in_host_memory());
  EXPECT_TRUE(device.fast_bf16());
}

TEST(CudaDeviceTest, MemoryIsCountedAndComesBack) {
  COHORT_CUDA_OR_SKIP(device);
  const size_t before = device.allocated_bytes();
  device.ResetPeak();
  {
    const auto block = device.Allocate(1 << 20);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block.get()) % 256, 0u);
    EXPECT_EQ(device.allocated_bytes(), before + (1 << 20));
    EXPECT_NE(device.Allocate(0).get(), nullptr);
  }
  EXPECT_EQ(device.allocated_bytes(), before);
  EXPECT_GE(device.peak_bytes(), before + (1 << 20));
  EXPECT_GT(device.free_bytes(), 0);
  EXPECT_DEATH(device.Allocate(size_t{1} << 50), "1125899906842624 bytes on cuda:0");
}

// Larger and smaller than the pinned buffers, and not a multiple of them.
TEST(CudaDeviceTest, BytesComeBackAsTheyWent) {
  COHORT_CUDA_OR_SKIP(device);
  for (const int64_t size : {0, 1, 1000, 1 << 20, (5 << 20) + 3}) {
    std::vector<int32_t> values(static_cast<size_t>(size));
    std::iota(values.begin(), values.end(), 7);
    const Tensor there = Tensor::FromHost(device, {size}, absl::MakeConstSpan(values));
    std::fill(values.begin(), values.end(), -1);  // they are free when the call returns
    const Tensor here = OnHost(there);
    ASSERT_TRUE(here.device().in_host_memory());
    for (int64_t i = 0; i < size; ++i) ASSERT_EQ(here.data<int32_t>()[i], 7 + i) << size;
  }
}

TEST(CudaDeviceTest, ReadsBesideItsQueueHaveWhatWasEnqueuedBeforeTheMark) {
  COHORT_CUDA_OR_SKIP(device);
  constexpr int64_t kSize = 1 << 20;
  auto reader = MakeHostReader(device, kSize * sizeof(float));
  ASSERT_TRUE(reader.ok()) << reader.status();
  const Tensor x = Tensor::Zeros(device, {kSize}, DataType::kF32),
               y = Tensor::Zeros(device, {kSize}, DataType::kF32);
  for (int turn = 1; turn <= 10; ++turn) {
    device.ops().Fill(x, turn);
    (*reader)->Mark();
    for (int i = 0; i < 20; ++i) device.ops().Fill(y, i);
    (*reader)->Read(x.raw(), x.bytes(), [&](const void* host) {
      const auto* const values = static_cast<const float*>(host);
      for (int64_t i = 0; i < kSize; ++i) ASSERT_EQ(values[i], turn) << i;
    });
  }
}

// A product of the library's, one of our own, and memory that comes and goes.
TEST(CudaDeviceTest, RecordedWorkIsReplayed) {
  COHORT_CUDA_OR_SKIP(device);
  if (!device.records()) GTEST_SKIP() << "COHORT_CUDA_GRAPHS=0";
  for (const int64_t rows : {1, 40}) {
    const std::vector<double> ones(static_cast<size_t>(rows) * 64, 1);
    const Tensor x = Tensor::FromHost(device, {rows, 64}, DataType::kBF16, ones);
    const Tensor w = Tensor::FromHost(device, {64, 64}, DataType::kBF16, std::vector<double>(64 * 64, 0.5));
    device.Record([&] { device.ops().Fill(x, 1); });  // what the device keeps from the first time on is there
    const size_t before = device.allocated_bytes();
    Tensor y;
    {
      const std::unique_ptr<Recording> recording = device.Record([&] {
        const Tensor sums = Tensor::Empty(device, {rows, 64}, DataType::kF32);
        device.ops().MatMul(x, w, sums, {.transpose_b = true});
        y = sums.Clone();
        device.ops().Scale(y, 2);
      });
      ASSERT_NE(recording, nullptr);
      for (const double value : {1.0, 3.0}) {
        device.ops().Fill(x, value);
        const size_t allocated = device.allocated_bytes();
        recording->Replay();
        EXPECT_EQ(device.allocated_bytes(), allocated);
        for (const double sum : ToHost(y)) ASSERT_EQ(sum, 64 * value) << rows;
      }
    }
    y = Tensor();
    EXPECT_EQ(device.allocated_bytes(), before) << "its memory came back";
  }
}

}  // namespace
}  // namespace cohort::runtime
