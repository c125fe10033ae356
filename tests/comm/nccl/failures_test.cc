// Devices whose peers die, are late or call something else, and a NCCL that hangs or fails: every Work ends, on every rank,
// with the status that host memory would have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "tests/comm/nccl/device_ranks.h"

namespace cohort::comm::nccl {
namespace {

using ::testing::HasSubstr;

void ExpectNames(const absl::Status& status, absl::StatusCode code, const std::string& text) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(text)) << status;
}

absl::Status Reduce(Rig& rig, std::vector<float>& data) {
  return rig.device->AllReduce(data.data(), data.data(), data.size(), DataType::kF32).Wait();
}

// In one host, and through the lanes of several.
TEST(DeviceFailures, AKilledPeerIsNamedAndTheOthersGoOn) {
  for (const auto& [hosts, way] :
       {std::pair{std::vector<int>{0, 0, 0, 0}, Way::kNccl}, {{0, 0, 1, 1}, Way::kHosts}}) {
    RunDeviceRanks(4, {.hosts = hosts, .way = way, .victims = {2}}, [](Rig& rig) {
      std::vector<float> data(1000, 1);
      for (int round = 0; round < 3; ++round) ASSERT_EQ(Reduce(rig, data), absl::OkStatus());
      EXPECT_EQ(data[0], 64);
      // All have called it when one dies.
      rig.fake->Set({.late_by = absl::Milliseconds(200)});
      const absl::Time began = absl::Now();
      const Work first = rig.device->AllReduce(data.data(), data.data(), data.size(), DataType::kF32);
      const Work second = rig.device->Barrier();
      absl::SleepFor(absl::Milliseconds(100));
      if (rig.rank() == 2) kill(getpid(), SIGKILL);
      ExpectNames(first.Wait(), absl::StatusCode::kUnavailable, "rank 2 was lost");
      ExpectNames(second.Wait(), absl::StatusCode::kUnavailable, "rank 2 was lost");
      EXPECT_LT(absl::Now() - began, absl::Seconds(5));
      ExpectNames(Reduce(rig, data), absl::StatusCode::kUnavailable, "rank 2 was lost");
      EXPECT_GT(rig.fake->aborted(), 0);

      rig.fake->Set({});
      const auto change = rig.device->Shrink();
      ASSERT_TRUE(change.ok()) << change.status();
      EXPECT_EQ(change->size, 3);
      EXPECT_EQ(rig.device->size(), 3);
      std::vector<float> again(1000, static_cast<float>(rig.rank() + 1));
      ASSERT_EQ(Reduce(rig, again), absl::OkStatus());
      EXPECT_THAT(again, ::testing::Each(6));
    });
  }
}

TEST(DeviceFailures, APeerThatDiesWhileNobodyCallsIsNamedByTheNextCall) {
  RunDeviceRanks(3, {.victims = {0}}, [](Rig& rig) {
    if (rig.rank() == 0) kill(getpid(), SIGKILL);
    absl::SleepFor(absl::Milliseconds(300));
    ExpectNames(rig.device->Barrier().Wait(), absl::StatusCode::kUnavailable, "rank 0 was lost");
  });
}

TEST(DeviceFailures, ALateRankIsNamedWithinTheDeadline) {
  RunDeviceRanks(3, {}, [](Rig& rig) {
    std::vector<float> data(10, 1);
    ASSERT_EQ(Reduce(rig, data), absl::OkStatus());
    rig.device->SetTimeout(absl::Milliseconds(500));
    if (rig.rank() == 1) absl::SleepFor(absl::Milliseconds(1500));
    const absl::Time began = absl::Now();
    ExpectNames(Reduce(rig, data), absl::StatusCode::kDeadlineExceeded, "late rank 1 has not called it");
    EXPECT_LT(absl::Now() - began, absl::Seconds(3));
    // Nobody is lost: an edit makes it whole.
    rig.device->SetTimeout(absl::Seconds(20));
    const auto change = rig.device->Shrink();
    ASSERT_TRUE(change.ok()) << change.status();
    EXPECT_EQ(change->size, 3);
    std::vector<float> again(10, 1);
    ASSERT_EQ(Reduce(rig, again), absl::OkStatus());
    EXPECT_EQ(again[9], 3);
  });
}

TEST(DeviceFailures, ANcclThatHangsIsEndedAtTheDeadline) {
  for (const Way way : {Way::kNccl, Way::kHosts}) {
    RunDeviceRanks(4, {.hosts = {0, 0, 1, 1}, .way = way}, [](Rig& rig) {
      rig.device->SetTimeout(absl::Milliseconds(500));
      rig.fake->Set({.hangs = rig.rank() == 3});
      std::vector<float> data(10, 1);
      ExpectNames(Reduce(rig, data), absl::StatusCode::kDeadlineExceeded,
                  "all ranks have called it, but NCCL does not end it");
      // Nothing is left in the stream: what is enqueued now runs.
      const Event event = *rig.fake->CreateEvent();
      ASSERT_EQ(rig.fake->Record(event, rig.options.stream), absl::OkStatus());
      for (int i = 0; i < 1000 && !*rig.fake->Query(event); ++i) absl::SleepFor(absl::Milliseconds(1));
      EXPECT_TRUE(*rig.fake->Query(event));
    });
  }
}

TEST(DeviceFailures, AMessageNamesItsOtherEnd) {
  RunDeviceRanks(3, {}, [](Rig& rig) {
    float value = 0;
    rig.device->SetTimeout(absl::Milliseconds(400));
    if (rig.rank() == 2) {
      ExpectNames(rig.device->Recv(&value, 1, DataType::kF32, 1).Wait(), absl::StatusCode::kDeadlineExceeded,
                  "waiting for rank 1");
    } else {
      absl::SleepFor(absl::Seconds(1));
      ExpectNames(rig.device->Barrier().Wait(), absl::StatusCode::kDeadlineExceeded, "waiting for rank 1");
    }
  });
}

TEST(DeviceFailures, AnErrorOfNcclReachesAllRanksInItsWords) {
  RunDeviceRanks(3, {}, [](Rig& rig) {
    rig.fake->Set({.fails = rig.rank() == 1});
    std::vector<float> data(10, 1);
    const absl::Time began = absl::Now();
    const absl::Status status = Reduce(rig, data);
    ExpectNames(status, absl::StatusCode::kUnavailable, "remote process exited or there was a network error");
    ExpectNames(status, absl::StatusCode::kUnavailable, "on rank 1");
    EXPECT_LT(absl::Now() - began, absl::Seconds(5));
  });
}

TEST(DeviceFailures, ACallThatNcclRefusesEndsTheGroup) {
  RunDeviceRanks(3, {}, [](Rig& rig) {
    rig.fake->Set({.refuses_calls = rig.rank() == 2});
    std::vector<float> data(10, 1);
    ExpectNames(Reduce(rig, data), absl::StatusCode::kUnavailable, "unhandled cuda error");
    ExpectNames(Reduce(rig, data), absl::StatusCode::kUnavailable, "unhandled cuda error");
  });
}

TEST(DeviceFailures, NcclThatStaysBusyIsEndedAtTheDeadline) {
  RunDeviceRanks(2, {}, [](Rig& rig) {
    rig.device->SetTimeout(absl::Milliseconds(500));
    rig.fake->Set({.pending_for = absl::Seconds(60), .hangs = true});
    std::vector<float> data(10, 1);
    const absl::Time began = absl::Now();
    EXPECT_EQ(Reduce(rig, data).code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_LT(absl::Now() - began, absl::Seconds(5));
  });
}

TEST(DeviceFailures, AnAbortThatHangsIsNotWaitedForLong) {
  RunDeviceRanks(2, {}, [](Rig& rig) {
    rig.device->SetTimeout(absl::Milliseconds(300));
    rig.fake->Set({.hangs = true, .abort_hangs = true});
    std::vector<float> data(10, 1);
    const absl::Time began = absl::Now();
    EXPECT_EQ(Reduce(rig, data).code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_LT(absl::Now() - began, 3 * policy::kAbortPatience);
    rig.device.reset();
    _exit(::testing::Test::HasFailure() ? 10 : 0);  // the abort is still in its thread
  });
}

TEST(DeviceFailures, AbortEndsWhatIsInFlightOnAllRanks) {
  for (const bool of_base : {false, true}) {
    RunDeviceRanks(3, {}, [&](Rig& rig) {
      rig.fake->Set({.hangs = true});
      std::vector<float> data(10, 1);
      const Work work = rig.device->AllReduce(data.data(), data.data(), 10, DataType::kF32);
      absl::SleepFor(absl::Milliseconds(100));
      if (rig.rank() == 0) {
        Communicator& whose = of_base ? *rig.base : *rig.device;
        whose.Abort(absl::AbortedError("enough"));
      }
      ExpectNames(work.Wait(), absl::StatusCode::kAborted, "enough");
    });
  }
}

TEST(DeviceFailures, RanksThatCallDifferentThingsHearIt) {
  RunDeviceRanks(3, {}, [](Rig& rig) {
    std::vector<float> data(12, 1);
    ASSERT_EQ(Reduce(rig, data), absl::OkStatus());
    rig.fake->Set({.hangs = true});  // as NCCL would, at best
    const absl::Time began = absl::Now();
    const absl::Status status =
        rig.rank() == 1 ? rig.device->AllReduce(data.data(), data.data(), 11, DataType::kF32).Wait()
                        : Reduce(rig, data);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("all-reduce of 11 f32"));
    EXPECT_LT(absl::Now() - began, absl::Seconds(5));
  });
}

TEST(DeviceFailures, WhoCannotBeginEndsItForAll) {
  for (const bool hangs : {false, true}) {
    RunDeviceRanks(3, {.timeout = absl::Seconds(2), .create = false}, [&](Rig& rig) {
      if (rig.rank() == 1) rig.fake->Set({.refuses_init = !hangs, .init_hangs = hangs});
      const auto device = DeviceCommunicator::Create(rig.base, rig.options, *rig.fake);
      ASSERT_FALSE(device.ok());
      if (hangs) {
        EXPECT_EQ(device.status().code(), absl::StatusCode::kDeadlineExceeded) << device.status();
      } else {
        ExpectNames(device.status(), absl::StatusCode::kUnavailable, "no such luck");
      }
      // The base is as it was.
      EXPECT_EQ(rig.base->Barrier().Wait(), absl::OkStatus());
    });
  }
}

TEST(DeviceFailures, APeerThatDiesWhileNcclBeginsIsNamed) {
  RunDeviceRanks(3, {.victims = {1}, .create = false}, [](Rig& rig) {
    rig.fake->Set({.init_hangs = true});
    if (rig.rank() == 1) {
      std::thread([] {
        absl::SleepFor(absl::Milliseconds(300));
        kill(getpid(), SIGKILL);
      }).detach();
    }
    const auto device = DeviceCommunicator::Create(rig.base, rig.options, *rig.fake);
    ExpectNames(device.status(), absl::StatusCode::kUnavailable, "rank 1 was lost");
  });
}

TEST(DeviceFailures, WhoHasClosedIsMissed) {
  RunDeviceRanks(2, {}, [](Rig& rig) {
    ASSERT_EQ(rig.device->Barrier().Wait(), absl::OkStatus());
    if (rig.rank() == 0) {
      const absl::Time began = absl::Now();
      rig.device.reset();
      EXPECT_LT(absl::Now() - began, absl::Seconds(2));
    }
    ASSERT_EQ(rig.base->Barrier().Wait(), absl::OkStatus());
    if (rig.rank() == 1) {
      absl::SleepFor(absl::Milliseconds(200));
      ExpectNames(rig.device->Barrier().Wait(), absl::StatusCode::kUnavailable, "has closed");
    }
    ASSERT_EQ(rig.base->Barrier().Wait(), absl::OkStatus());
  });
}

TEST(DeviceFailures, AFinalizeThatHangsIsAborted) {
  RunDeviceRanks(2, {}, [](Rig& rig) {
    ASSERT_EQ(rig.device->Barrier().Wait(), absl::OkStatus());
    rig.fake->Set({.finalize_hangs = true});
    rig.device.reset();
    EXPECT_EQ(rig.fake->aborted(), 1);
    EXPECT_EQ(rig.fake->left(), 1) << "what is left besides the stream";
  });
}

}  // namespace
}  // namespace cohort::comm::nccl
