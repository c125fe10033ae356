// Tensors, devices and their memory.
#include "runtime/tensor.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <thread>
#include <vector>

#include "runtime/device/caching_allocator.h"
#include "runtime/device/device.h"

namespace cohort::runtime {
namespace {

TEST(TensorTest, ViewsShareMemory) {
  const Tensor x =
      Tensor::FromHost(CpuDevice(), {2, 3, 2}, std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  EXPECT_EQ(x.View({-1, 4}).shape(), (Shape{3, 4}));
  EXPECT_EQ(x.Row(1).shape(), (Shape{3, 2}));
  EXPECT_EQ(ToHost(x.Row(1).Slice(1, 3)), (std::vector<double>{8, 9, 10, 11}));
  x.View({12}).data<float>()[8] = -1;
  EXPECT_EQ(ToHost(x.Row(1).Row(1)), (std::vector<double>{-1, 9}));
  EXPECT_EQ(x.dim(-1), 2);
  EXPECT_EQ(x.DebugString(), "f32[2,3,2] on cpu");
  EXPECT_EQ(Tensor().DebugString(), "undefined tensor");
  EXPECT_FALSE(Tensor().defined());
}

TEST(TensorTest, EmptyTensorsWork) {
  const Tensor x = Tensor::Zeros(CpuDevice(), {0, 5}, DataType::kBF16);
  EXPECT_EQ(x.size(), 0);
  EXPECT_EQ(x.View({5, 0}).shape(), (Shape{5, 0}));
  EXPECT_EQ(x.Slice(0, 0).shape(), (Shape{0, 5}));
  EXPECT_TRUE(ToHost(x.To(ReferenceDevice(), DataType::kF64)).empty());
}

TEST(TensorTest, MovesBetweenDevicesAndTypes) {
  const std::vector<double> values = {1, -2.5, 0.1, 3e38};
  const Tensor exact = Tensor::FromHost(ReferenceDevice(), {4}, DataType::kF64, values);
  EXPECT_EQ(ToHost(exact), values);
  const Tensor bf16 = exact.To(CpuDevice(), DataType::kBF16);
  EXPECT_EQ(bf16.DebugString(), "bf16[4] on cpu");
  EXPECT_EQ(ToHost(bf16)[1], -2.5);
  EXPECT_EQ(ToHost(bf16)[2], 0.10009765625);
  const Tensor copy = bf16.Clone();
  EXPECT_NE(copy.raw(), bf16.raw());
  EXPECT_EQ(ToHost(copy), ToHost(bf16));
}

TEST(TensorTest, WrappedMemoryKeepsItsOwner) {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2});
  std::weak_ptr<std::vector<float>> watch = owner;
  Tensor row;
  {
    const Tensor x = Tensor::Wrap(CpuDevice(), owner, owner->data(), {2, 1}, DataType::kF32);
    row = x.Row(1);
  }
  owner.reset();
  EXPECT_EQ(ToHost(row), (std::vector<double>{2}));
  row = Tensor();
  EXPECT_TRUE(watch.expired());
}

TEST(TensorDeathTest, MisuseAborts) {
  const Tensor x = Tensor::Zeros(CpuDevice(), {2, 3}, DataType::kF32);
  EXPECT_DEATH(x.View({4, 2}), "f32\\[2,3\\] on cpu seen as \\[4,2\\]");
  EXPECT_DEATH(x.Slice(1, 3), "rows \\[1, 3\\)");
  EXPECT_DEATH(x.data<double>(), "read as f64");
  EXPECT_DEATH(x.dim(2), "dimension 2");
}

TEST(AllocatorTest, BlocksAreAlignedReusedAndCounted) {
  CachingAllocator memory;
  for (size_t bytes : {0, 1, 64, 65, 5000, 100000, 3 << 20, 9 << 20}) {
    SCOPED_TRACE(bytes);
    const size_t block = CachingAllocator::BlockSize(bytes);
    EXPECT_GE(block, bytes);
    EXPECT_LE(block, bytes + bytes / 8 + 4096);
    void* first = nullptr;
    {
      const std::shared_ptr<void> a = memory.Allocate(bytes);
      first = a.get();
      EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
      EXPECT_EQ(memory.allocated_bytes(), block);
    }
    EXPECT_EQ(memory.allocated_bytes(), 0u);
    EXPECT_EQ(memory.Allocate(bytes).get(), first) << "the freed block is used again";
  }
  EXPECT_EQ(memory.peak_bytes(), CachingAllocator::BlockSize(9 << 20));
  memory.ResetPeak();
  EXPECT_EQ(memory.peak_bytes(), 0u);
  EXPECT_GT(memory.cached_bytes(), 0u);
  memory.Trim();
  EXPECT_EQ(memory.cached_bytes(), 0u);
}

TEST(AllocatorTest, GivesUnusedMemoryBack) {
  CachingAllocator memory;
  // Sizes that never come back: what is kept stays bounded. The pages are never touched.
  for (size_t size = 100; size < 200; ++size) memory.Allocate(size << 20);
  EXPECT_LE(memory.cached_bytes(), size_t{3} << 29);
}

TEST(AllocatorTest, ThreadsShareIt) {
  CachingAllocator memory;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&memory, t] {
      for (int i = 0; i < 2000; ++i) {
        const std::shared_ptr<void> block = memory.Allocate(64 * (1 + i % 5));
        auto* number = static_cast<int*>(block.get());
        *number = t;
        EXPECT_EQ(*number, t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(memory.allocated_bytes(), 0u);
}

TEST(DeviceTest, SaysWhatItIs) {
  EXPECT_EQ(CpuDevice().kind(), DeviceKind::kCpu);
  EXPECT_EQ(ReferenceDevice().kind(), DeviceKind::kReference);
  EXPECT_EQ(CpuDevice().state_dtype(), DataType::kF32);
  EXPECT_EQ(ReferenceDevice().state_dtype(), DataType::kF64);
  EXPECT_GE(CpuThreads(), 1);
  const size_t before = CpuDevice().allocated_bytes();
  const Tensor x = Tensor::Zeros(CpuDevice(), {1000}, DataType::kF32);
  EXPECT_GE(CpuDevice().allocated_bytes(), before + 4000);
}

}  // namespace
}  // namespace cohort::runtime
