// Recorded work, and the memory that it keeps.
#include "runtime/device/recording.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/device/recording_memory.h"
#include "runtime/ops/ops.h"
#include "tests/runtime/device/far_device.h"
#include "tests/support/ranks.h"

namespace cohort::runtime {
namespace {

using Values = std::vector<double>;

TEST(RecordingMemoryTest, PlacesAreThoseOfTheRehearsal) {
  const auto memory = std::make_shared<RecordingMemory>();
  const auto ordinary = [](size_t bytes) {
    return std::shared_ptr<void>(::operator new(bytes), [](void* p) { ::operator delete(p); });
  };
  std::shared_ptr<void> kept;
  {
    const auto a = memory->Note(ordinary(100), 100);
    kept = memory->Note(ordinary(1000), 1000);
  }
  const auto again = memory->Note(ordinary(200), 200);  // where a was: both are 256 bytes
  EXPECT_EQ(memory->bytes(), 256 + 1024);
  const std::shared_ptr<void> block = ordinary(memory->bytes());
  memory->BeginRecording(block);
  kept.reset();  // of the rehearsal: no place of the recording
  char* const begin = static_cast<char*>(block.get());
  std::shared_ptr<void> last;
  {
    const auto a = memory->Allocate(100);
    EXPECT_EQ(a.get(), begin);
    last = memory->Allocate(1000);
    EXPECT_EQ(last.get(), begin + 256);
  }
  EXPECT_EQ(memory->Allocate(200).get(), begin);
  EXPECT_DEATH(memory->Allocate(2000), "more memory than its rehearsal");
  memory->End();
  const std::weak_ptr<void> alive = block;
  EXPECT_GT(alive.use_count(), 1);
  last.reset();
  EXPECT_EQ(alive.use_count(), 1);
}

void InAProcess(void (*body)()) {
  cohort::testing::RunProcesses(1, [&](int, int, const std::string&) { body(); });
}

TEST(RecordingTest, AReplayIsTheSameWorkOnWhatLiesThereThen) {
  InAProcess([] {
    Device& far = FarDevice();
    const Tensor x = Tensor::FromHost(far, {2}, std::vector<float>{1, 2});
    Tensor y;
    const std::unique_ptr<Recording> recording = far.Record([&] {
      const Tensor twice = x.Clone();
      far.ops().Scale(twice, 2);
      y = twice.Clone();
      far.ops().Add(y, x, y);
    });
    ASSERT_NE(recording, nullptr);
    const void* const place = y.raw();
    far.CopyFromHost(std::vector<float>{10, 20}.data(), x);
    recording->Replay();
    // Other memory comes and goes: none of it is the recording's.
    for (int i = 0; i < 20; ++i) Tensor::FromHost(far, {2}, std::vector<float>{-1, -1});
    EXPECT_EQ(ToHost(y), (Values{30, 60}));
    far.CopyFromHost(std::vector<float>{-1, 0}.data(), x);
    recording->Replay();
    EXPECT_EQ(ToHost(y), (Values{-3, 0}));
    EXPECT_EQ(y.raw(), place);
  });
}

TEST(RecordingTest, ARecordingMayGoWhileItsWorkWaits) {
  InAProcess([] {
    Device& far = FarDevice();
    const Tensor x = Tensor::FromHost(far, {2}, std::vector<float>{1, 2});
    std::unique_ptr<Recording> recording = far.Record([&] { far.ops().Add(x.Clone(), x, x); });
    recording->Replay();
    recording = nullptr;
    EXPECT_EQ(ToHost(x), (Values{4, 8})) << "once rehearsed, once replayed";
  });
}

TEST(RecordingTest, WorkThatWaitsOrCopiesFromTheHostDies) {
  const auto second_time = [](void (*what)()) {
    int calls = 0;
    FarDevice().Record([&] {
      const Tensor x = Tensor::Zeros(FarDevice(), {1}, DataType::kF32);
      if (++calls == 2) what();
    });
  };
  EXPECT_DEATH(second_time([] { FarDevice().Synchronize(); }),
               "a wait in the middle of work that is recorded");
  EXPECT_DEATH(second_time([] {
                 const float one = 1;
                 FarDevice().CopyFromHost(&one,
                                          Tensor::Wrap(FarDevice(), nullptr, nullptr, {1}, DataType::kF32));
               }),
               "a copy from the host in the middle of work that is recorded");
  EXPECT_DEATH(second_time([] { Tensor::Zeros(FarDevice(), {1000}, DataType::kF32); }),
               "more memory than its rehearsal");
  EXPECT_DEATH(second_time([] { FarDevice().Record([] {}); }), "far records already");
}

TEST(RecordingTest, WhereNothingIsRecordedTheWorkIsDoneOnce) {
  const Tensor x = Tensor::FromHost(CpuDevice(), {1}, std::vector<float>{1});
  EXPECT_FALSE(CpuDevice().records());
  EXPECT_EQ(CpuDevice().Record([&] { CpuDevice().ops().Scale(x, 3); }), nullptr);
  EXPECT_EQ(ToHost(x), Values{3});
}

}  // namespace
}  // namespace cohort::runtime
