// The ring of the last operations, and what records of several ranks say together.
#include "comm/flight_recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/time/clock.h"
#include "comm/flight_diagnosis.h"
#include "comm/late_ranks.h"
#include "comm/policy.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Signature kSum10 = {Operation::kAllReduce, DataType::kF32, ReduceOp::kSum, 0, 7, 10};

TEST(FlightRecorder, HoldsTheLastOperationsOfEachGroup) {
  FlightRecorder recorder;
  recorder.OnGroup(3, 2, {0, 1});
  const uint64_t total = policy::kFlightOperations + 10;
  uint64_t first = 0;
  for (uint32_t i = 0; i < total; ++i) {
    const uint64_t number = recorder.Begin({3, i, 0}, kSum10, "ring", -1, false, 100 + i);
    if (i == 0) first = number;
    if (i + 1 < total) recorder.End(number, absl::StatusCode::kOk, 200 + i);
  }
  recorder.End(first, absl::StatusCode::kInternal, 1);  // its place is another's now
  recorder.Note(total - 1, {1}, absl::DeadlineExceededError("late"));
  const FlightRecord record = recorder.Record();
  ASSERT_EQ(record.operations.size(), policy::kFlightOperations);
  EXPECT_EQ(record.operations.front().sequence, 10);
  EXPECT_EQ(record.operations.front().status, "OK");
  const FlightOperation& last = record.operations.back();
  EXPECT_EQ(last.sequence, total - 1);
  EXPECT_EQ(last.epoch, 2);
  EXPECT_EQ(last.ended, 0);
  EXPECT_EQ(last.status, "");
  EXPECT_EQ(last.algorithm, "ring");
  EXPECT_THAT(last.awaits, ElementsAre(1));
  ASSERT_EQ(record.groups.size(), 1);
  EXPECT_EQ(record.groups[0].begun, total);
}

TEST(FlightRecorder, TextIsBoundedWhateverHappens) {
  FlightRecorder recorder;
  std::vector<int> members(8);
  for (int i = 0; i < 1000; ++i) {
    recorder.OnGroup(i, i, members);
    const uint64_t number =
        recorder.Begin({static_cast<uint32_t>(i), 0, 0}, kSum10, "recursive_doubling", -1, false, i);
    recorder.Note(number, members, absl::InternalError(std::string(10000, '"')));
    recorder.End(number, absl::StatusCode::kInternal, i + 1);
  }
  EXPECT_LT(ToJson(recorder.Record()).size(), 512 << 10);
}

TEST(FlightRecorder, CommunicatorTellsWhatItDoes) {
  auto comm = Communicator::Single();
  float value = 1;
  EXPECT_EQ(comm->AllReduce(&value, &value, 1, DataType::kF32).Wait(), absl::OkStatus());
  const Work work = comm->Recv(&value, 1, DataType::kF32, 0, 5);
  const std::string text = comm->FlightRecord();
  EXPECT_THAT(text, HasSubstr("\"operation\":\"all-reduce\",\"count\":1,\"dtype\":\"f32\""));
  EXPECT_THAT(text, HasSubstr("\"status\":\"OK\""));
  EXPECT_THAT(text, HasSubstr("\"peer\":0,\"tag\":5,\"sends\":false"));
  EXPECT_THAT(text, HasSubstr("\"awaits\":[0]"));
  EXPECT_EQ(comm->Send(&value, 1, DataType::kF32, 0, 5).Wait(), absl::OkStatus());
  EXPECT_EQ(work.Wait(), absl::OkStatus());
}

TEST(FlightRecorder, NothingIsWrittenUnasked) {
  const auto before = std::filesystem::current_path();
  auto comm = Communicator::Single();
  comm->Abort(absl::AbortedError("enough"));
  EXPECT_EQ(comm->Barrier().Wait().code(), absl::StatusCode::kAborted);
  EXPECT_FALSE(std::filesystem::exists(before / "flight_rank0.json"));
  EXPECT_THAT(comm->FlightRecord(), HasSubstr("\"status\":\"ABORTED\",\"message\":\"enough\""));
}

// ---- Diagnosis ----

// A rank of a group of three that has called `begun` barriers, the last of them for `awaits`.
FlightRecord Rank(int rank, uint32_t begun, std::vector<int> awaits) {
  FlightRecord record;
  record.rank = rank;
  record.size = 3;
  record.groups = {{0, 0, begun, {0, 1, 2}}};
  for (uint32_t i = 0; i < begun; ++i) {
    FlightOperation operation;
    operation.number = operation.sequence = i;
    operation.operation = "barrier";
    operation.began = 1000 * i + 1;
    if (i + 1 < begun || awaits.empty()) {
      operation.ended = operation.began + 1;
      operation.status = "OK";
    } else {
      operation.awaits = awaits;
    }
    record.operations.push_back(operation);
  }
  return record;
}

TEST(FlightDiagnosis, FollowsThoseWhoWaitToTheOneWhoDoesNot) {
  // 0 waits for 2 in operation 4, 2 waits for 1 in operation 3, and 1 left no record.
  const Diagnosis diagnosis = Diagnose({Rank(0, 5, {2}), Rank(2, 4, {1})});
  EXPECT_THAT(diagnosis.late, ElementsAre(1));
  EXPECT_THAT(diagnosis.missing, ElementsAre(1));
  ASSERT_EQ(diagnosis.stuck.size(), 2);
  EXPECT_THAT(diagnosis.stuck[0].not_called, ElementsAre(2));
  EXPECT_THAT(Describe(diagnosis), HasSubstr("late: rank 1, which left no record"));
}

TEST(FlightDiagnosis, WhoIsBusyElsewhereIsLate) {
  const Diagnosis diagnosis = Diagnose({Rank(0, 5, {1}), Rank(1, 4, {}), Rank(2, 5, {1})});
  EXPECT_THAT(diagnosis.late, ElementsAre(1));
  EXPECT_THAT(diagnosis.missing, IsEmpty());
  EXPECT_THAT(Describe(diagnosis), HasSubstr("not called by rank 1"));
}

TEST(FlightDiagnosis, DifferentCallsAreShown) {
  FlightRecord other = Rank(2, 5, {0});
  other.operations.back().operation = "all-reduce";
  other.operations.back().count = 12;
  other.operations.back().dtype = "f32";
  other.operations.back().reduce = "sum";
  const Diagnosis diagnosis = Diagnose({Rank(0, 5, {1}), Rank(1, 5, {2}), other});
  ASSERT_EQ(diagnosis.disagreements.size(), 1);
  const auto& calls = diagnosis.disagreements[0].calls;
  ASSERT_EQ(calls.size(), 2);
  EXPECT_THAT(calls[0].ranks, ElementsAre(0, 1));
  EXPECT_THAT(calls[1].ranks, ElementsAre(2));
  EXPECT_EQ(calls[1].what, "all-reduce of 12 f32 (sum)");
  EXPECT_THAT(diagnosis.late, IsEmpty());  // they wait in a circle
}

TEST(FlightDiagnosis, WhatWasGotOverIsForgotten) {
  FlightRecord record = Rank(0, 5, {});
  record.operations[2].status = "DEADLINE_EXCEEDED";
  const Diagnosis diagnosis = Diagnose({record, Rank(1, 5, {}), Rank(2, 5, {})});
  EXPECT_THAT(diagnosis.stuck, IsEmpty());
  EXPECT_THAT(Describe(diagnosis), HasSubstr("no operation is in flight"));
}

TEST(LateRanks, FollowWaits) {
  const auto waits = [](int rank) -> std::optional<std::vector<int>> {
    if (rank == 1) return std::vector<int>{2, 3};
    if (rank == 2) return std::vector<int>{1};
    return std::nullopt;
  };
  EXPECT_THAT(FollowWaits({1}, 0, waits), ElementsAre(3));
  EXPECT_THAT(FollowWaits({2, 5}, 0, waits), ElementsAre(3, 5));
  EXPECT_THAT(FollowWaits({1}, 3, waits), IsEmpty());  // all wait for rank 3, which asks
}

}  // namespace
}  // namespace cohort::comm
