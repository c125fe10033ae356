// Snapshots of real processes that are killed, seen from outside.
#include "runtime/elastic/snapshot/snapshotter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>
#include <string>
#include <vector>

#include "runtime/elastic/snapshot/segment.h"
#include "runtime/tensor.h"
#include "tests/runtime/device/far_device.h"
#include "tests/runtime/elastic/keeper/test_keeper.h"
#include "tests/runtime/elastic/snapshot/stepped_state.h"
#include "tests/support/ranks.h"

namespace cohort::runtime::elastic {
namespace {

using ::testing::HasSubstr;

TEST(Snapshotter, KeepsTwoGenerations) {
  TestJob job;
  const auto keeper = job.Connect();
  SteppedState state({700'000, 0, 1, 100});
  auto made = Snapshotter::Create(*keeper, {"me", 3, 1}, state.Pieces(), {.layout = "as ever", .every = 2});
  ASSERT_TRUE(made.ok()) << made.status();
  Snapshotter& snapshotter = **made;
  EXPECT_TRUE(snapshotter.Due(0));
  EXPECT_FALSE(snapshotter.Due(1));
  EXPECT_FALSE(snapshotter.newest());
  EXPECT_TRUE(snapshotter.Finish(absl::InfinitePast()).ok()) << "nothing was begun";
  for (int64_t step = 2; step <= 10; step += 2) {
    state.Set(step);
    ASSERT_TRUE(snapshotter.Begin(step).ok());
    EXPECT_TRUE(absl::IsFailedPrecondition(snapshotter.Begin(step + 1))) << "not finished";
    ASSERT_TRUE(snapshotter.Finish(absl::InfiniteFuture()).ok());
    if (step > 2) {
      EXPECT_TRUE(absl::IsFailedPrecondition(snapshotter.Begin(step + 1))) << "not complete";
    }
    state.Set(-1);
    EXPECT_EQ(snapshotter.newest(), step);
    const auto image = snapshotter.ImageOf(step);
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_EQ(image->bytes.size(), snapshotter.image_bytes());
    EXPECT_EQ(image->layout, "as ever");
    EXPECT_TRUE(state.IsIn(*image));
    snapshotter.Complete(step);
    EXPECT_EQ(snapshotter.complete(), step);
  }
  EXPECT_TRUE(snapshotter.ImageOf(8).ok());
  EXPECT_TRUE(absl::IsNotFound(snapshotter.ImageOf(6).status()));
  const SnapshotCosts costs = snapshotter.costs();
  EXPECT_EQ(costs.snapshots, 5);
  EXPECT_EQ(costs.bytes, 5u * 700'101 * 8);
  EXPECT_GT(costs.background_cpu + costs.caller_cpu, 0);

  const auto entries = keeper->List();
  ASSERT_EQ(entries->size(), 1u);
  EXPECT_EQ((*entries)[0].owner.epoch, 3u);
  EXPECT_EQ((*entries)[0].kind, kSnapshotKind);
  EXPECT_TRUE(Superseded(*entries, {3, 100}).empty());
  EXPECT_EQ(Superseded(*entries, {4, 0}), std::vector<uint64_t>{(*entries)[0].id});
  EXPECT_TRUE(snapshotter.Drop().ok());
  EXPECT_TRUE(keeper->List()->empty());
}

// Its queue has not run what was enqueued before Begin when that is called; the image has it all the same, and nothing of
// what comes after Finish. One piece is longer than a chunk, and one lies on the host.
TEST(Snapshotter, KeepsWhatLiesOnADevice) {
  testing::RunProcesses(1, [](int, int, const std::string&) {
    TestJob job;
    const auto keeper = job.Connect();
    Device& far = FarDevice();
    SteppedState expected({700'000, 3, 100});
    std::vector<StatePiece> pieces = expected.Pieces();
    std::vector<Tensor> tensors;
    for (size_t i = 0; i < 2; ++i) {
      const auto bytes = static_cast<int64_t>(pieces[i].bytes);
      tensors.push_back(Tensor::Empty(far, {bytes}, DataType::kU8));
    }
    std::vector<StatePiece> places = pieces;
    for (size_t i = 0; i < tensors.size(); ++i) {
      places[i].data = tensors[i].raw();
      places[i].on_device = true;
    }
    auto made = Snapshotter::Create(*keeper, {"me", 3, 1}, places, {.layout = "", .device = &far});
    ASSERT_TRUE(made.ok()) << made.status();
    Snapshotter& snapshotter = **made;
    const auto set = [&](int64_t step) {
      expected.Set(step);
      for (size_t i = 0; i < tensors.size(); ++i) far.CopyFromHost(pieces[i].data, tensors[i]);
    };
    for (int64_t step = 1; step <= 4; ++step) {
      set(step);
      ASSERT_TRUE(snapshotter.Begin(step).ok());
      ASSERT_TRUE(snapshotter.Finish(absl::InfiniteFuture()).ok());
      set(-1);
      far.Synchronize();
      const auto image = snapshotter.ImageOf(step);
      ASSERT_TRUE(image.ok()) << image.status();
      EXPECT_TRUE(expected.IsIn(*image)) << step;
      EXPECT_TRUE(VerifyImage(*image).ok());
      snapshotter.Complete(step);
    }
    EXPECT_EQ(FarDeviceCalls().copies_to_host, 0) << "through its queue, behind what it computes";
  });
}

TEST(Snapshotter, ADeadlineLeavesItGoingOn) {
  TestJob job;
  const auto keeper = job.Connect();
  SteppedState state({4'000'000});
  auto snapshotter = *Snapshotter::Create(*keeper, {"me", 1, 0}, state.Pieces());
  state.Set(1);
  ASSERT_TRUE(snapshotter->Begin(1).ok());
  const absl::Status late = snapshotter->Finish(absl::InfinitePast());
  EXPECT_TRUE(absl::IsDeadlineExceeded(late)) << late;
  EXPECT_THAT(std::string(late.message()), HasSubstr("step 1 of epoch 1"));
  EXPECT_TRUE(snapshotter->Finish(absl::Now() + absl::Seconds(20)).ok());
  EXPECT_TRUE(state.IsIn(*snapshotter->ImageOf(1)));
}

TEST(Snapshotter, GoesOnWithAnotherKeeper) {
  TestJob job;
  const auto keeper = job.Connect();
  SteppedState state({10'000});
  auto snapshotter = *Snapshotter::Create(*keeper, {"me", 1, 0}, state.Pieces());
  state.Set(1);
  ASSERT_TRUE(snapshotter->Begin(1).ok());
  kill(keeper->pid(), SIGKILL);
  ASSERT_TRUE(snapshotter->Finish(absl::Now() + absl::Seconds(20)).ok()) << "a keeper is not needed to write";
  snapshotter->Complete(1);
  ASSERT_TRUE(keeper->Reconnect().ok());
  const auto memory = keeper->Map(keeper->List()->at(0).id);
  ASSERT_TRUE(memory.ok());
  ASSERT_EQ(WholeImages(memory->bytes()).size(), 1u);
  EXPECT_TRUE(state.IsIn(WholeImages(memory->bytes())[0].image));
}

// A writer is killed at random moments, 200 times. Whatever a reader finds whole is what the state was after some step,
// to the byte, and no finished generation but the last two is missing.
TEST(Snapshotter, KilledWritersLeaveWholeGenerations) {
  TestJob job;
  const auto keeper = job.Connect();
  const SteppedState expected({200'000, 3, 150'001});
  std::mt19937 random(2024);
  int torn = 0, two = 0, live = 0;
  for (int round = 0; round < 200; ++round) {
    testing::SharedCounter finished;
    const pid_t child = fork();
    if (child == 0) {
      auto mine = Keeper::Connect(job.Options());
      if (!mine.ok()) _exit(1);
      SteppedState state({200'000, 3, 150'001});
      auto snapshotter = Snapshotter::Create(**mine, {absl::StrCat("round ", round), 1, 0}, state.Pieces());
      if (!snapshotter.ok()) _exit(1);
      for (int64_t step = 1;; ++step) {
        state.Set(step);
        if (!(*snapshotter)->Begin(step).ok() || !(*snapshotter)->Finish(absl::InfiniteFuture()).ok())
          _exit(1);
        finished.Add();
        (*snapshotter)->Complete(step);
      }
    }
    ASSERT_GT(child, 0);
    ASSERT_TRUE(finished.WaitFor(1));
    // Also while it writes: what was read is right where it is still whole afterwards.
    const auto entries = keeper->List();
    ASSERT_EQ(entries->size(), 1u);
    const auto memory = keeper->Map((*entries)[0].id);
    ASSERT_TRUE(memory.ok()) << memory.status();
    for (const StoredImage& stored : WholeImages(memory->bytes())) {
      const bool verified = VerifyImage(stored.image).ok();
      const bool equal = expected.IsIn(stored.image);
      if (!StillWhole(memory->bytes(), stored)) continue;
      ++live;
      EXPECT_TRUE(verified && equal);
    }
    absl::SleepFor(absl::Microseconds(std::uniform_int_distribution<int>(0, 4000)(random)));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it ended by itself, with " << WEXITSTATUS(status);

    const std::vector<StoredImage> images = WholeImages(memory->bytes());
    ASSERT_GE(images.size(), 1u) << "nothing is left of " << finished.Get() << " generations";
    EXPECT_GE(images[0].image.name.step, finished.Get());
    for (const StoredImage& stored : images) {
      EXPECT_TRUE(VerifyImage(stored.image).ok());
      EXPECT_TRUE(expected.IsIn(stored.image)) << ToString(stored.image.name);
    }
    if (images.size() == 2) {
      ++two;
      EXPECT_EQ(images[1].image.name.step, images[0].image.name.step - 1);
    } else if (finished.Get() > 1) {
      ++torn;
    }
    ASSERT_TRUE(keeper->Release((*entries)[0].id).ok());
  }
  // The moments were of all kinds.
  EXPECT_GT(torn, 10);
  EXPECT_GT(two, 10);
  RecordProperty("killed while writing", torn);
}

}  // namespace
}  // namespace cohort::runtime::elastic
