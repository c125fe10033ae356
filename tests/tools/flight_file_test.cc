// Records that ranks leave when one of them is stopped, read back; and broken ones.
#include "tools/cohort/flight_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "comm/flight_diagnosis.h"
#include "tests/support/ranks.h"

namespace cohort::tools {
namespace {

using cohort::testing::RunRanks;
using cohort::testing::SharedCounter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FlightFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "cohort-flight-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
};

TEST_F(FlightFile, SurvivorsLeaveRecordsThatNameTheStoppedRank) {
  setenv("COHORT_FLIGHT_RECORDER", (folder_ / "records").c_str(), 1);
  SharedCounter gave_up;
  RunRanks(3,
           [&](comm::Communicator& world) {
             float value = 1;
             for (int i = 0; i < 5; ++i) {
               EXPECT_EQ(world.AllReduce(&value, &value, 1, DataType::kF32).Wait(), absl::OkStatus());
             }
             if (world.rank() == 1) {
               const pid_t self = getpid();
               if (fork() == 0) {
                 gave_up.WaitFor(2);
                 kill(self, SIGKILL);
                 _exit(0);
               }
               raise(SIGSTOP);
             }
             EXPECT_EQ(world.Barrier().Wait().code(), absl::StatusCode::kDeadlineExceeded);
             gave_up.Add();
           },
           {.timeout = absl::Milliseconds(400), .victims = {1}});
  unsetenv("COHORT_FLIGHT_RECORDER");

  std::vector<comm::FlightRecord> records;
  for (const int rank : {0, 2}) {
    auto record =
        ReadFlightRecord((folder_ / "records" / ("flight_rank" + std::to_string(rank) + ".json")).string());
    ASSERT_TRUE(record.ok()) << record.status();
    EXPECT_EQ(record->rank, rank);
    EXPECT_EQ(record->size, 3);
    ASSERT_EQ(record->operations.size(), 6);
    EXPECT_FALSE(record->operations[0].algorithm.empty());
    EXPECT_EQ(record->operations[5].operation, "barrier");
    EXPECT_EQ(record->operations[5].status, "DEADLINE_EXCEEDED");
    records.push_back(*std::move(record));
  }
  const comm::Diagnosis diagnosis = comm::Diagnose(records);
  EXPECT_THAT(diagnosis.late, ElementsAre(1)) << Describe(diagnosis);
  EXPECT_THAT(diagnosis.missing, ElementsAre(1));
  EXPECT_TRUE(diagnosis.disagreements.empty());
}

TEST_F(FlightFile, BrokenOnesAreErrorsThatNameTheFile) {
  auto single = comm::Communicator::Single();
  EXPECT_EQ(single->Barrier().Wait(), absl::OkStatus());
  const std::string good = single->FlightRecord();
  ASSERT_TRUE(ParseFlightRecord(good).ok()) << ParseFlightRecord(good).status();

  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  const std::pair<std::string, std::string> broken[] = {
      {"", "not JSON"},
      {good.substr(0, good.size() / 2), "cut off"},
      {"[]", "expected an object"},
      {"{}", "'cohort_flight_record' is missing"},
      {replaced("_record\":1", "_record\":2"), "version 2"},
      {replaced("\"rank\":0", "\"rank\":-1"), "'rank' must be a whole number"},
      {replaced("\"rank\":0", "\"rank\":4000000000"), "'rank' must be a whole number"},
      {replaced("\"members\":[0]", "\"members\":7"), "groups[0]: 'members' must be a list of ranks"},
      {replaced("\"operation\":\"barrier\"", "\"operation\":1"), "operations[0]: 'operation' must be a text"},
      {replaced("\"operations\":[", "\"operations\":[null,"), "operations[0]: expected an object"},
      {replaced("\"status\":\"OK\"", "\"x\":0"), "'status' is missing"},
  };
  for (const auto& [text, problem] : broken) {
    const std::string path = (folder_ / "broken.json").string();
    std::ofstream(path) << text;
    const auto record = ReadFlightRecord(path);
    ASSERT_FALSE(record.ok()) << text;
    EXPECT_THAT(std::string(record.status().message()), HasSubstr(problem));
    EXPECT_THAT(std::string(record.status().message()), HasSubstr("broken.json"));
  }
  // Every beginning of a record is refused, and none crashes.
  for (size_t length = 0; length + 2 < good.size(); ++length) {
    EXPECT_FALSE(ParseFlightRecord(good.substr(0, length)).ok()) << length;
  }
  EXPECT_THAT(std::string(ReadFlightRecord((folder_ / "none").string()).status().message()),
              HasSubstr("none"));
  EXPECT_FALSE(ReadFlightRecord(folder_.string()).ok());
}

}  // namespace
}  // namespace cohort::tools
